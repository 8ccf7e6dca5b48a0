"""evaluate.py text-encoders: CheXpert@k of text encoders, and their embeddings on a plane."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ldm.data import labelled_reports
from ldm.data.labelled_reports import Labelled
from ldm.data.mesh_terms import CLASSES
from ldm.metrics import retrieval
from ldm.report import Report, page, plots, report_retrieval
from ldm.report.options import own
from ldm.report.page import Picture
from ldm.report.plots import TsnePanel
from ldm.report.report_retrieval import Choice, Row

TITLE = "Which text encoder keeps clinical meaning?"
VECTORS = ("IoU", "eot", "mean", "start", "cls", "pooler", "projection")


def run(options: argparse.Namespace) -> Report:
    return measure(**own(options))


def measure(
    reports: str | None,
    encoders: Sequence[str],
    *,
    k: int = 10,
    cosine: bool = False,
    per_class: int,
    seed: int = 0,
) -> Report:
    """Raises ValueError, before any file is written, for reports or encoders that cannot be used.

    Each argument is the option of its name, see ldm.report.options.
    """
    everything = (
        labelled_reports.single_label(labelled_reports.read_csv(reports))
        if reports
        else labelled_reports.openi()
    )
    chosen = labelled_reports.balanced(labelled_reports.checked(everything), per_class, seed)
    retrieval.checked(chosen.labels, k)
    choices = [choice(text) for text in encoders]
    opened = report_retrieval.open_all(choices, seed)
    rows: list[Row] = []
    for one, encoder in zip(choices, opened, strict=True):
        rows += report_retrieval.measure(one, encoder, chosen, k, seed, cosine)
    best = list(report_retrieval.best(rows).values())
    values = {
        "reports": Path(reports).name if reports else "Open-I",
        "n": len(chosen.ids),
        "k": k,
        "similarity": "cosine" if cosine else "dot product",
        "per_class": per_class,
        "seed": seed,
        "left_out": chosen.left_out,
        "chance": rows[0].score.macro_chance,
        "rows": [row.values() for row in rows],
        "agreement": report_retrieval.agreement(rows),
    }
    sentences = page.paragraphs("text_encoders", **values)
    tables = [
        report_retrieval.macro_table(rows, k),
        report_retrieval.order_table(rows),
        report_retrieval.class_table(best),
    ]
    blocks = [*sentences, *tables, *draw(best, chosen, seed)]
    summary = [sentences[0], *tables]
    return page.report("text_encoders", TITLE, blocks, values, summary=summary)


def choice(text: str) -> Choice:
    """[LABEL=]ENCODER[@VECTOR]; without a label a path is called by its last part."""
    label, equals, rest = text.partition("=")
    if not equals:
        label, rest = "", text
    name, _, how = rest.rpartition("@")
    if how not in VECTORS:
        name, how = rest, ""
    return Choice(label or (name if ":" in name else Path(name).name), name, how or None)


def draw(rows: Sequence[Row], chosen: Labelled, seed: int) -> list[Picture]:
    """A picture of each encoder's best vectors, and one of all beside each other.

    Words, which are no vectors, and vectors that are all equal have none.
    """
    bar = tqdm(rows, "drawing", delay=2, disable=None, leave=False)
    found = {row.name: plots.tsne(row.vectors, seed) for row in bar if row.vectors is not None}
    panels = [TsnePanel(name, points) for name, points in found.items() if points is not None]
    pictures = []
    for i, panel in enumerate(panels, start=1):
        name = f"tsne_{i}_{re.sub(r'[^A-Za-z0-9]+', '_', panel.title)}.png"
        caption = f"t-SNE of {panel.title}, n = {len(chosen.ids)}, seed {seed}: near is alike."
        png = plots.scatter([panel], chosen.labels, CLASSES)
        pictures.append(Picture(name, png, caption))
    if len(panels) > 1:
        caption = f"The same beside each other: {', '.join(panel.title for panel in panels)}."
        png = plots.scatter(panels, chosen.labels, CLASSES)
        pictures.append(Picture("tsne.png", png, caption))
    return pictures
