"""The tables of adapted models: Tables 4 and 5, and copies, which the paper did not count."""

from __future__ import annotations

from ldm.metrics.estimate import Estimate
from ldm.report import chambon
from ldm.report.page import Table
from ldm.report.study.adapted_rows import METHODS
from ldm.report.study.paper_tables import (
    NONE,
    Beside,
    Steps,
    estimate,
    percent,
    show,
    table,
    theirs,
)
from ldm.report.study.rank_agreement import compare

NAMES = [method.name for method in METHODS]
LABELS = {method.name: f"{method.group}: {method.label}" for method in METHODS}
PROMPTS = {"plain": "lung xray", "fluid": "... pleural effusion", "style": "in the style of"}
KINDS = ("AUC", "accuracy", "F1", "precision", "recall")  # as chambon.VERDICTS has them
AGAINST = "AUC, other findings"


def distance(done: Steps, name: str, kind: str) -> Estimate | None:
    return estimate(done[name].values["distances"].get(kind))


def verdict(done: Steps, name: str, kind: str) -> Estimate | None:
    return estimate(done[name].values["verdict"].get(kind))


def distances(done: Steps) -> Beside:
    """Table 4."""
    rows = []
    for method in METHODS:
        cells = [LABELS[method.name]]
        for place, kind in enumerate(PROMPTS):
            drawn = kind in done[method.name].values["distances"]
            cells.append(show(distance(done, method.name, kind)) if drawn else NONE)
            cells.append(theirs(chambon.FID[method.name][place]))
        rows.append([*cells, show(distance(done, method.name, "both"))])
    floor = [show(distance(done, "reference", kind)) for kind in ("plain", "fluid", "both")]
    rows.append(["as many other real ones", floor[0], "", floor[1], "", "", "", floor[2]])
    header = ["model"]
    for prompt in PROMPTS.values():
        header += [prompt, "paper"]
    title = (
        "Table 4: Fréchet distance of what is drawn to real images of its kind, ours (95 %; n), "
        "and the paper's FID, which has another scale; the last column is of both prompts."
    )
    orders = {
        f"Table 4: {prompt}": compare(
            {name: distance(done, name, kind) for name in NAMES},
            {name: chambon.FID[name][place] for name in NAMES},
        )
        for place, (kind, prompt) in enumerate(PROMPTS.items())
    }
    steps = [*NAMES, "reference"]
    return Beside([table(title, steps, [*header, "both"], rows)], orders)


def verdicts(done: Steps) -> Beside:
    """Table 5, in two parts."""
    result = Beside([], {})
    for part, kinds in (("", KINDS[:2]), (", continued", KINDS[2:])):
        header = ["model"]
        for kind in kinds:
            header += [kind, "paper"]
        rows = []
        for method in METHODS:
            paper = chambon.VERDICTS.get(method.name, (None,) * len(KINDS))
            cells = [LABELS[method.name]]
            for kind in kinds:
                cells += [show(verdict(done, method.name, kind)), theirs(paper[KINDS.index(kind)])]
            rows.append(cells + ([] if part else [show(verdict(done, method.name, AGAINST))]))
        real = ["real images"]
        for kind in kinds:
            real += [show(verdict(done, "reference", kind)), NONE]
        rows.append(real + ([] if part else [NONE]))
        title = f"Table 5{part}: a classifier on images drawn with and without an effusion."
        header += [] if part else [AGAINST]
        result.tables.append(table(title, [*NAMES, "reference"], header, rows))
    for place, kind in enumerate(KINDS):
        ours = {name: verdict(done, name, kind) for name in NAMES}
        known = {name: row[place] for name, row in chambon.VERDICTS.items()}
        result.orders[f"Table 5: {kind}"] = compare(ours, known)
    return result


def copies(done: Steps) -> Table:
    """Of those that learned from images."""
    rows = []
    for name, spaces in done["copies"].values.items():
        cells = [LABELS[name]]
        for what in ("copies", "planted found"):
            cells += [percent(Estimate(**space[what])) for space in spaces.values()]
        rows.append(cells)
    places = ("pixels", "latents", "features")
    header = ["model", *(f"copies, {place}" for place in places)]
    header += [f"planted found, {place}" for place in places]
    title = (
        "Not in the paper: copies, % (95 %; n): images nearer to one that was trained on, or to a "
        "little changed version, than 1 % of unseen images are; planted: training images "
        "themselves, through the autoencoder, that are found."
    )
    return table(title, ["copies"], header, rows)
