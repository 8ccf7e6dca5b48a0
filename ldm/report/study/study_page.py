"""The page of a study: what the paper found, what was found here, and what that is worth."""

import json
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

from ldm import __version__
from ldm.metrics.estimate import Estimate, as_json
from ldm.report import Report, page
from ldm.report.page import Block, Heading, Table
from ldm.report.study import paper_figures, paper_tables
from ldm.report.study.paper_tables import LABELS, NAMES, Comparison, Steps, distance, verdict
from ldm.report.study.rank_agreement import RankAgreement
from ldm.report.study.study_settings import Study

TITLE = "Adapting latent diffusion to chest radiographs: the study of arXiv:2210.04133, repeated"
RECONSTRUCTIONS = {"reconstruction": "", "reconstruction_films": ", films"}
TUNED = ("unet", "unet_prior")  # on an effusion
TIMES = ("seconds", "cpu")  # of the record of a step


def report(study: Study, done: Steps) -> Report:
    """The page in every form; in tables.md and tables.json nothing depends on the machine."""
    found = comparisons(done)
    orders, sections = orders_of(found), blocks(study, done, found)
    values = {"orders": {name: {**o._asdict(), "words": o.words} for name, o in orders.items()}}
    everything = values | {name: step.values for name, step in done.items()}
    whole = [*sections, Heading("How it was made"), *machine_blocks(study, done)]
    files = page.files("study", TITLE, whole, machine(done))
    files["machine.json"] = files.pop("study.json")
    only_tables = [block for block in sections if isinstance(block, Table | Heading)]
    files["tables.md"] = page.markdown(TITLE, only_tables).encode()
    files["tables.json"] = (json.dumps(as_json(everything), indent=1) + "\n").encode()
    return Report(page.text(TITLE, results(study, done, orders)), values, files)


def comparisons(done: Steps) -> dict[str, Comparison]:
    """{section of the paper, or step: its tables}, of all that have columns in the paper, too."""
    reread = {name: paper_tables.findings(done, name) for name in RECONSTRUCTIONS if name in done}
    return reread | {
        "encoders": paper_tables.encoders(done),
        "classes": paper_tables.classes(done),
        "distances": paper_tables.distances(done),
        "verdicts": paper_tables.verdicts(done),
    }


def orders_of(found: Mapping[str, Comparison]) -> dict[str, RankAgreement]:
    return {
        f"{column}{RECONSTRUCTIONS.get(name, '')}": order
        for name, each in found.items()
        for column, order in each.orders.items()
    }


def blocks(study: Study, done: Steps, found: Mapping[str, Comparison]) -> list[Block]:
    """All that does not depend on the machine: study_page.md with its tables and pictures."""
    tuned, phantoms = best_tuned(done), study.data is None
    named: dict[str, Sequence[Block]] = {
        **{name: each.tables for name, each in found.items()},
        "results": results(study, done, orders_of(found)),
        "reconstructions": reconstructions(done, found),
        "embeddings": embeddings(done),
        "drawn": [
            paper_figures.original_and_tuned(done, tuned),
            paper_figures.every_method(done, phantoms),
        ],
        "copies": [
            paper_tables.copies(done),
            paper_figures.trained_and_drawn(done, tuned, phantoms),
        ],
    }
    text = render(
        "study_page.md",
        study=study,
        sentences={name: sentences(each) for name, each in found.items()},
        texts=done["text_encoders"].values,
        real=done["reference"].values["n"],
        against=paper_tables.AGAINST,
        width=done["reference"].array("features_plain").shape[1],
    )
    return list(lay_out(text, named))


def render(name: str, **values: object) -> str:
    """The text of a template beside this file."""
    loader = PackageLoader("ldm.report.study", "")
    pages = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True)
    return pages.get_template(name).render(values)


def lay_out(text: str, named: Mapping[str, Sequence[Block]]) -> Iterator[Block]:
    """Paragraphs, headings, and for [[name]] the named blocks; blank lines part them."""
    for part in re.split(r"\n\s*\n", text.strip()):
        words = " ".join(part.split())
        if words.startswith("[["):
            yield from named[words.strip("[]")]
        else:
            yield Heading(words[3:]) if words.startswith("## ") else words


def sentences(found: Comparison, only: str = "") -> str:
    """A sentence for each column;  only: those whose name contains it"""
    orders = {name: order for name, order in found.orders.items() if only in name}
    return " ".join(f"{name}: {order}." for name, order in orders.items())


def reconstructions(done: Steps, found: Mapping[str, Comparison]) -> list[Block]:
    section: list[Block] = []
    captions = {
        "distributions": "Figure 3: distributions of the figures of each pair.",
        "triples": "Figure 3: originals, reconstructions (synthetic) and what was added or lost: "
        "the worst, the median and the best pair.",
    }
    for name in RECONSTRUCTIONS:
        if name in done:
            section += [paper_tables.quality(done, name), auc_changes(done, name)]
            # accuracy and F1 depend on a threshold
            section += [sentences(found[name], only="AUC"), *found[name].tables]
            section += [
                paper_figures.picture_of(done, name, f"{stem}.png", caption)
                for stem, caption in captions.items()
            ]
    return section


def auc_changes(done: Steps, name: str) -> str:
    """In how many findings the AUC changed, by the paired intervals."""
    found = paper_tables.classifier(done[name].values)["findings"]
    changes = {key: one["difference"]["sample"] for key, one in found.items()}
    down = [key for key, one in changes.items() if one.high < 0]
    up = [key for key, one in changes.items() if one.low > 0]
    n = done[name].values["n"]
    return page.passage("auc_changes", n=n, findings=len(found), down=down, up=up)


def embeddings(done: Steps) -> list[Block]:
    """Figures 6 to 8, and one for each further encoder."""
    files = sorted(done["text_encoders"].record["files"])
    section: list[Block] = []
    for number, name in enumerate((name for name in files if name.startswith("tsne_")), start=6):
        which = name.removeprefix("tsne_").removesuffix(".png").partition("_")[2]
        place = f"Figure {number}" if number <= 8 else "Beyond the paper's figures"
        caption = f"{place}: t-SNE of the impressions by {which}; near is alike."
        section.append(paper_figures.picture_of(done, "text_encoders", name, caption))
    return section


def best_tuned(done: Steps) -> str:
    """The tuned U-Net with the least distance; with too few images, the paper's."""
    near: dict[str, Estimate] = {n: one for n in TUNED if (one := distance(done, n, "both"))}
    return min(near, key=lambda name: near[name].value) if near else "unet"


def results(study: Study, done: Steps, orders: Mapping[str, RankAgreement]) -> list[Block]:
    """The findings in short: the best model, and how many columns have the paper's order."""
    found: list[Block] = [headline(done), count_orders(orders), order_table(orders)]
    return [page.passage("quick", study=study), *found] if study.quick else found


def headline(done: Steps) -> str:
    """The model with the least distance and the one with the highest accuracy: are they one?"""
    near = {name: one for name in NAMES if (one := distance(done, name, "both"))}
    right = {name: one for name in NAMES if (one := verdict(done, name, "accuracy"))}
    if not near or not right:
        return page.passage("headline", best=None)
    nearest = min(near, key=lambda name: near[name].value)
    best = max(right, key=lambda name: right[name].value)
    close = [n for n, x in near.items() if n != nearest and x.low <= near[nearest].high]
    as_right = [n for n, x in right.items() if n != best and x.high >= right[best].low]
    overlaps = {"distance": quoted(close), "accuracy": quoted(as_right)}
    models = {"nearest": model(done, nearest), "best": model(done, best)}
    return page.passage("headline", **models, overlaps=overlaps)


def quoted(names: Sequence[str]) -> list[str]:
    return [f'"{LABELS[name]}"' for name in names]


def model(done: Steps, name: str) -> str:
    """The name of a model with its figures."""
    figures = {"distance": distance(done, name, "both")}
    figures |= {
        kind: verdict(done, name, kind) for kind in ("accuracy", "AUC", paper_tables.AGAINST)
    }
    listed = ", ".join(f"{kind} {paper_tables.show(one)}" for kind, one in figures.items())
    return f'"{LABELS[name]}" ({listed})'


def count_orders(orders: Mapping[str, RankAgreement]) -> str:
    """A sentence on how many columns have the paper's order."""
    words = [one.words for one in orders.values()]
    same, other = (words.count(kind) for kind in ("same order", "not the same order"))
    return page.passage("orders", words=words, same=same, other=other)


def order_table(orders: Mapping[str, RankAgreement]) -> Table:
    apart = "pairs told apart, as in the paper"
    return Table(
        "Is the order of the rows the paper's?",
        ("column", "here and there", "Kendall's tau", "rows", apart),
        [
            (name, one.words, one.shown, str(one.n), f"{one.alike} of {one.apart}")
            for name, one in orders.items()
        ],
    )


def machine_blocks(study: Study, done: Steps) -> list[Block]:
    records = {name: step.record for name, step in done.items()}
    records["all"] = {kind: sum(each[kind] for each in records.values()) for kind in TIMES}
    rows = [(name, *(f"{each[kind]:.0f}" for kind in TIMES)) for name, each in records.items()]
    return [
        page.passage("how_it_was_made", study=study, where=machine(done)),
        Table(
            "Seconds of each step on this machine, of its last start if it was interrupted.",
            ("step", "seconds", "of all its cores' work"),
            rows,
        ),
    ]


def machine(done: Steps) -> dict[str, object]:
    """Facts that may differ between two runs of one study."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    records = {"seconds": "seconds", "processor's seconds": "cpu", "keys": "key"}
    return {
        "machine": f"{processor()}, {platform.system()}, {cores} cores, "
        f"{torch.get_num_threads()} threads",
        "versions": f"ldm {__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
        **{
            shown: {name: step.record[key] for name, step in done.items()}
            for shown, key in records.items()
        },
    }


def processor() -> str:
    """Its name where Linux tells it, or its kind."""
    cpus = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", cpus.read_text()) if cpus.exists() else []
    return names[0] if names else platform.machine()
