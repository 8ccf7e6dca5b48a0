"""Which text encoder keeps clinical meaning: rows of CheXpert@k, beside the paper's.

Chambon et al., arXiv:2210.04133, sections 2.4 and 3.3.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata
from tqdm import tqdm

from ldm.data.mesh_terms import CLASSES
from ldm.data.radiology_reports import Labelled
from ldm.metrics.estimate import Estimate
from ldm.metrics.retrieval import Score, chexpert_at_k, shared_words
from ldm.report import chambon
from ldm.report.named_encoders import Clip, NamedEncoder, open_encoder
from ldm.report.page import Table

log = logging.getLogger(__name__)

WORDS = "words"


class Choice(NamedTuple):
    """label: how tables call it;  name: see ldm.report.named_encoders;  how: None: all"""

    label: str
    name: str
    how: str | None


class Row(NamedTuple):
    """vectors: [n, D], None for words;  cut: texts whose end did not fit;  paper: its percent"""

    label: str
    how: str
    score: Score
    vectors: NDArray[np.float32] | None
    cut: int
    paper: float | None


def open_all(choices: Sequence[Choice], seed: int) -> list[NamedEncoder | None]:
    """The encoder of each choice, None for words; ValueError for what cannot be, before any work.

    One that several choices name is opened once.
    """
    by_name: dict[str, NamedEncoder | None] = {WORDS: None}
    named: set[tuple[str, str]] = set()
    bar = tqdm(choices, "opening text encoders", delay=2, disable=None, leave=False)
    for label, name, how in bar:
        if name not in by_name:
            by_name[name] = open_encoder(name, seed)
        hows = hows_of(by_name[name])
        if how not in (None, *hows):
            raise ValueError(f"text encoder {name} has no {how}; choose {' or '.join(hows)}")
        for one in hows if how is None else [how]:
            if (label, one) in named:
                raise ValueError(f"{label}@{one} is named twice; label one of them LABEL=ENCODER")
            named.add((label, one))
    return [by_name[choice.name] for choice in choices]


def hows_of(encoder: NamedEncoder | None) -> tuple[str, ...]:
    return ("IoU",) if encoder is None else encoder.hows


def measure(
    choice: Choice,
    encoder: NamedEncoder | None,
    reports: Labelled,
    k: int,
    seed: int,
    cosine: bool = False,
) -> list[Row]:
    """One row for each way of the choice to make a vector of a text.

    cosine: divide vectors by their lengths, which the paper does not: it then gets no figure
    """
    as_paper = k == 10 and not cosine
    hows = hows_of(encoder) if choice.how is None else (choice.how,)
    if encoder is None:
        score = chexpert_at_k(shared_words(reports.texts), reports.labels, k, seed=seed)
        return [Row(choice.label, hows[0], score, None, 0, chambon.WORDS if as_paper else None)]
    vectors, cut = encoder.embed(reports.texts, hows, choice.label)
    if cut:
        log.warning(
            "%d of %d impressions are longer than the %d tokens of %s: their ends are cut off",
            *(cut, len(reports.texts), encoder.limit, choice.label),
        )
    rows = []
    for how, e in vectors.items():
        if not np.isfinite(e).all():
            raise ValueError(
                f"{choice.label}@{how} gives numbers that are not finite; its weights are broken"
            )
        lengths = np.linalg.norm(e, axis=1, keepdims=True) if cosine else 1
        score = chexpert_at_k(e / lengths, reports.labels, k, seed=seed)
        paper = paper_figure(choice, encoder, how) if as_paper else None
        rows.append(Row(choice.label, how, score, e, cut, paper))
    return rows


def paper_figure(choice: Choice, encoder: NamedEncoder, how: str) -> float | None:
    """Macro CheXpert@10 in percent of the row of table 2 that compares, if one does.

    Any trained tower of CLIP's kind stands beside the paper's, a BERT beside that of its label.
    """
    if isinstance(encoder, Clip):
        return None if choice.name.partition(":")[0] == "random" else chambon.CLIP[how]
    return chambon.bert(choice.label, how)


def best(rows: Sequence[Row]) -> dict[str, Row]:
    """{label: its row with the highest macro average}, as table 3 shows them."""
    found: dict[str, Row] = {}
    for row in rows:
        if row.label not in found or row.score.macro.value > found[row.label].score.macro.value:
            found[row.label] = row
    return found


def agreement(rows: Sequence[Row]) -> dict[str, float] | None:
    """Kendall's tau-b of our order of the rows and the paper's, its p-value, and n of rows.

    None for fewer than three rows that compare, or if all are equal on one side.
    """
    pairs = [(row.score.macro.value, row.paper) for row in rows if row.paper is not None]
    if len(pairs) < 3:
        return None
    found = kendalltau(*zip(*pairs, strict=True))
    if math.isnan(found.statistic):
        return None
    return {"tau": float(found.statistic), "p": float(found.pvalue), "n": len(pairs)}


# --- how they are shown ---


def macro_table(rows: Sequence[Row], k: int) -> Table:
    header = (f"CheXpert@{k}, %", "95 % interval", "over reports, %", "width", "cut", "paper, %")
    cells = []
    for row in rows:
        macro, width = row.score.macro, "" if row.vectors is None else str(row.vectors.shape[1])
        interval, paper = f"{100 * macro.low:.1f} to {100 * macro.high:.1f}", _percent(row.paper)
        mean = f"{100 * row.score.mean.value:.1f}"
        cells.append(
            (
                row.label,
                row.how,
                f"{100 * macro.value:.1f}",
                interval,
                mean,
                width,
                str(row.cut),
                paper,
            )
        )
    n = rows[0].score.macro.n
    caption = (
        f"Macro average over the classes and mean over the reports; n = {n} for every row, "
        f"chance {100 * rows[0].score.macro_chance:.1f} %."
    )
    return Table(caption, ("encoder", "vector", *header), cells)


def class_table(rows: Sequence[Row]) -> Table:
    """rows: one of each encoder"""
    first = rows[0].score
    cells = [
        (
            CLASSES[c],
            str(first.classes[c].n),
            f"{100 * first.chance[c]:.1f}",
            *(_cell(row.score.classes[c]) for row in rows),
        )
        for c in first.classes
    ]
    macro = ("macro", str(first.macro.n), f"{100 * first.macro_chance:.1f}")
    cells.append((*macro, *(_cell(row.score.macro) for row in rows)))
    caption = (
        "By class, each encoder by the vector with its best macro average, chosen on these very "
        "reports; % (95 % interval)."
    )
    names = [f"{row.label}@{row.how}" for row in rows]
    return Table(caption, ("class", "n", "chance", *names), cells)


def order_table(rows: Sequence[Row]) -> Table | str:
    """The rows that compare with the paper's, best first; a sentence if they are not two."""
    compared = [row for row in rows if row.paper is not None]
    if len(compared) < 2:
        return "No two rows compare with the paper's."
    compared.sort(key=lambda row: -row.score.macro.value)
    theirs = rankdata([-(row.paper or 0) for row in compared], method="min")
    ours = rankdata([-row.score.macro.value for row in compared], method="min")
    cells = [
        (
            f"{row.label}@{row.how}",
            f"{100 * row.score.macro.value:.1f}",
            str(a),
            _percent(row.paper),
            str(b),
        )
        for row, a, b in zip(compared, ours, theirs, strict=True)
    ]
    tau = agreement(rows)
    caption = "The order beside the paper's, whose reports are others: compare places, not digits."
    if tau:
        caption += f" Kendall's tau {tau['tau']:.2f} (n = {tau['n']} rows, p = {tau['p']:.2f})."
    return Table(caption, ("encoder", "here, %", "place", "paper, %", "place"), cells)


def as_json(row: Row) -> dict[str, Any]:
    """Shares of 1, not percent, but for the paper's."""
    score = row.score
    return {
        "encoder": row.label,
        "vector": row.how,
        "width": None if row.vectors is None else row.vectors.shape[1],
        "cut": row.cut,
        "macro": score.macro._asdict(),
        "mean": score.mean._asdict(),
        "classes": {CLASSES[c]: there._asdict() for c, there in score.classes.items()},
        "paper_percent": row.paper,
    }


def _cell(estimate: Estimate) -> str:
    value, low, high = (100 * part for part in estimate[:3])
    return f"{value:.1f} ({low:.0f} to {high:.0f})"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
