"""evaluate.py text-encoders: CheXpert@k of text encoders, and their embeddings on a plane."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ldm.report import Report
from ldm.system import cli

if TYPE_CHECKING:
    from ldm.data.radiology_reports import Labelled
    from ldm.report.encoder_retrieval import Choice, Row
    from ldm.report.page import Picture

ABOUT = "Which text encoder keeps clinical meaning? CheXpert@k and t-SNE (arXiv:2210.04133)."
TITLE = "Which text encoder keeps clinical meaning?"
VECTORS = ("IoU", "eot", "mean", "start", "cls", "pooler", "projection")
DEFAULT = ("words", "built-in", "random", "bert")
LABELS = (
    "A report counts under its one CheXpert class: of Open-I's MeSH terms a negated one is passed "
    "over, an uncertain one counts as positive, and a class of which another one present is an "
    "instance (an opacity that is pneumonia) is dropped; a CSV's labels are taken as they stand. "
    "Reports of several classes even so, or of none, are left out, and so are those without an "
    "impression."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = "impressions (or whole reports) with labels; without it, Open-I of torchxrayvision"
    add("--reports", metavar="CSV", help=what)
    what = (
        "[LABEL=]ENCODER[@VECTOR]: words, built-in, random[:ENCODER], bert, open_clip:MODEL/TAG, a "
        "BERT's folder or a model's path; VECTOR is eot, mean or start of CLIP, cls, mean, pooler "
        f"or projection of a BERT, all without it ({' '.join(DEFAULT)})"
    )
    add("--encoders", nargs="+", type=cli.line, default=DEFAULT, metavar="ENCODER", help=what)
    add("--k", type=cli.whole(1), default=10, metavar="N", help="neighbours to look at (10)")
    what = "compare by cosines, so that the lengths of vectors do not count (dot products)"
    add("--cosine", action="store_true", help=what)
    what = "reports of each class at most (50)"
    add("--per-class", type=cli.whole(1), default=50, metavar="N", help=what)
    what = "which reports, resamples and random weights (0)"
    add("--seed", type=cli.whole(), default=0, metavar="N", help=what)


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any file is written, for reports or encoders that will not do."""
    from ldm.data import radiology_reports
    from ldm.metrics.retrieval import checked
    from ldm.report import encoder_retrieval, page

    if options.reports:
        everything = radiology_reports.single_label(radiology_reports.read_csv(options.reports))
    else:
        everything = radiology_reports.openi()
    chosen = radiology_reports.balanced(
        radiology_reports.checked(everything), options.per_class, options.seed
    )
    checked(chosen.labels, options.k)
    choices = [choice(text) for text in options.encoders]
    rows: list[Row] = []
    for one, encoder in zip(
        choices, encoder_retrieval.open_all(choices, options.seed), strict=True
    ):
        rows += encoder_retrieval.measure(
            one, encoder, chosen, options.k, options.seed, options.cosine
        )
    pictures = draw(list(encoder_retrieval.best(rows).values()), chosen, options.seed)
    sentences = [*about(options, chosen, rows), LABELS, left_out(chosen)]
    tables = [
        encoder_retrieval.macro_table(rows, options.k),
        encoder_retrieval.order_table(rows),
        encoder_retrieval.class_table(list(encoder_retrieval.best(rows).values())),
    ]
    values = {
        "reports": Path(options.reports).name if options.reports else "Open-I",
        "n": len(chosen.ids),
        "k": options.k,
        "similarity": "cosine" if options.cosine else "dot product",
        "per_class": options.per_class,
        "seed": options.seed,
        "left_out": chosen.left_out,
        "chance": rows[0].score.macro_chance,
        "rows": [row.values() for row in rows],
        "agreement": encoder_retrieval.agreement(rows),
    }
    blocks = [*sentences, *tables, *pictures]
    files = page.files("text_encoders", TITLE, blocks, values)
    return Report(page.text(TITLE, [*sentences[:1], *tables]), values, files)


def choice(text: str) -> Choice:
    """[LABEL=]ENCODER[@VECTOR]; without a label a path goes by its last name."""
    from ldm.report.encoder_retrieval import Choice

    label, equals, rest = text.partition("=")
    if not equals:
        label, rest = "", text
    name, _, how = rest.rpartition("@")
    if how not in VECTORS:
        name, how = rest, ""
    return Choice(label or (name if ":" in name else Path(name).name), name, how or None)


def about(options: argparse.Namespace, chosen: Labelled, rows: Sequence[Row]) -> list[str]:
    """What was measured, and on what."""
    chance = 100 * rows[0].score.macro_chance
    similarity = "cosines" if options.cosine else "dot products, as in the paper"
    return [
        f"CheXpert@{options.k} is the share, of the {options.k} reports most like a report, that "
        f"have its class (arXiv:2210.04133, section 2.4): n = {len(chosen.ids)} impressions, at "
        f"most {options.per_class} of a class, drawn with seed {options.seed}. A random order "
        f"gives {chance:.1f} % on average over the classes.",
        "Intervals of 95 % are percentiles over 1,000 resamples of the queries within each class. "
        "They are for this collection of reports, too narrow for another. Vectors are compared by "
        f"{similarity}; words by the share that two impressions have in common. "
        "Random weights are a control. The column cut counts the impressions too long for an "
        "encoder, whose end it did not see.",
    ]


def left_out(chosen: Labelled) -> str:
    counts = ", ".join(f"{reason} {count}" for reason, count in chosen.left_out.items())
    return f"Reports left out: {counts}."


def draw(rows: Sequence[Row], chosen: Labelled, seed: int) -> list[Picture]:
    """A picture of each encoder's best vectors, and one of all beside each other.

    None of words, which are no vectors, nor of vectors that are all the same.
    """
    from tqdm import tqdm

    from ldm.data.mesh_terms import CLASSES
    from ldm.report.measurement_plots import TsnePanel, scatter, tsne
    from ldm.report.page import Picture

    panels = []
    for row in tqdm(rows, "drawing", delay=2, disable=None, leave=False):
        if row.vectors is not None and (points := tsne(row.vectors, seed)) is not None:
            panels.append(TsnePanel(f"{row.label}@{row.how}", points))
    pictures = []
    for i, panel in enumerate(panels, start=1):
        name = f"tsne_{i}_{re.sub(r'[^A-Za-z0-9]+', '_', panel.title)}.png"
        caption = f"t-SNE of {panel.title}, n = {len(chosen.ids)}, seed {seed}: near is alike."
        pictures.append(Picture(name, scatter([panel], chosen.labels, CLASSES), caption))
    if len(panels) > 1:
        caption = f"The same beside each other: {', '.join(panel.title for panel in panels)}."
        pictures.append(Picture("tsne.png", scatter(panels, chosen.labels, CLASSES), caption))
    return pictures
