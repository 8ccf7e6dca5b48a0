"""Retrieval of reports by text encoders, CheXpert@k, beside the paper's.

Chambon et al., arXiv:2210.04133, sections 2.4 and 3.3.
"""

import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata
from tqdm import tqdm

from ldm.data.labelled_reports import Labelled
from ldm.data.mesh_terms import CLASSES
from ldm.metrics.retrieval import Score, chexpert_at_k, shared_words
from ldm.report import chambon, page
from ldm.report.named_encoders import NamedEncoder, open_encoder
from ldm.report.page import Table

log = logging.getLogger(__name__)

WORDS = "words"


class Choice(NamedTuple):
    """label: in tables;  name: see ldm.report.named_encoders;  how: of its vectors, None: all"""

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

    @property
    def name(self) -> str:
        return f"{self.label}@{self.how}"

    @property
    def width(self) -> int | None:
        return None if self.vectors is None else self.vectors.shape[1]

    def values(self) -> dict[str, Any]:
        """Shares of 1, not percent, but for the paper's."""
        return {
            "encoder": self.label,
            "vector": self.how,
            "width": self.width,
            "cut": self.cut,
            "macro": self.score.macro,
            "mean": self.score.mean,
            "classes": {CLASSES[c]: share for c, share in self.score.classes.items()},
            "paper_percent": self.paper,
        }


def open_all(choices: Sequence[Choice], seed: int) -> list[NamedEncoder | None]:
    """The encoder of each choice, None for words; those of one name are opened once.

    Raises ValueError for a name or a vector that does not exist, and for a row named twice.
    """
    by_name: dict[str, NamedEncoder | None] = {WORDS: None}
    rows: set[str] = set()
    bar = tqdm(choices, "opening text encoders", delay=2, disable=None, leave=False)
    for label, name, how in bar:
        if name not in by_name:
            by_name[name] = open_encoder(name, seed)
        hows = hows_of(by_name[name])
        if how not in (None, *hows):
            raise ValueError(f"text encoder {name} has no {how}; choose {' or '.join(hows)}")
        names = {f"{label}@{one}" for one in hows if how in (None, one)}
        if twice := sorted(names & rows):
            raise ValueError(f"{twice[0]} is named twice; label one of them LABEL=ENCODER")
        rows |= names
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
    """A row for each kind of vector that was chosen.

    cosine: divide vectors by their lengths, which the paper does not: then no figure of it compares
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

    A trained tower of CLIP's kind is compared with the paper's, a BERT with the one of its label.
    """
    if "eot" in encoder.hows:  # of CLIP's kind
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
    found = kendalltau(*zip(*pairs, strict=True)) if len(pairs) >= 3 else None
    if found is None or math.isnan(found.statistic):
        return None
    return {"tau": float(found.statistic), "p": float(found.pvalue), "n": len(pairs)}


def macro_table(rows: Sequence[Row], k: int) -> Table:
    cells = []
    for row in rows:
        macro, mean = row.score.macro.show(".1f", 100), percent(100 * row.score.mean.value)
        counts = ("" if row.width is None else str(row.width), str(row.cut))
        cells.append((row.label, row.how, macro, mean, *counts, percent(row.paper)))
    score = rows[0].score
    caption = page.passage("encoder_averages", n=score.macro.n, chance=score.macro_chance)
    header = ("encoder", "vector", f"CheXpert@{k}, %", "over reports, %", "width", "cut")
    return Table(caption, (*header, "paper, %"), cells)


def class_table(rows: Sequence[Row]) -> Table:
    """rows: one of each encoder"""
    first = rows[0].score
    lines = [
        (CLASSES[c], first.chance[c], [row.score.classes[c] for row in rows]) for c in first.classes
    ]
    lines.append(("macro", first.macro_chance, [row.score.macro for row in rows]))
    cells = [
        (name, str(each[0].n), percent(100 * chance), *(one.show(".1f", 100) for one in each))
        for name, chance, each in lines
    ]
    caption = page.passage("encoder_classes")
    return Table(caption, ("class", "n", "chance", *(row.name for row in rows)), cells)


def order_table(rows: Sequence[Row]) -> Table | str:
    """The rows that compare with the paper's, best first; a sentence if they are not two."""
    compared = [row for row in rows if row.paper is not None]
    if len(compared) < 2:
        return "No two rows compare with the paper's."
    compared.sort(key=lambda row: -row.score.macro.value)
    theirs = rankdata([-(row.paper or 0) for row in compared], method="min")
    ours = rankdata([-row.score.macro.value for row in compared], method="min")
    cells = [
        (row.name, percent(100 * row.score.macro.value), str(a), percent(row.paper), str(b))
        for row, a, b in zip(compared, ours, theirs, strict=True)
    ]
    caption = page.passage("encoder_order", agreed=agreement(rows))
    return Table(caption, ("encoder", "here, %", "place", "paper, %", "place"), cells)


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
