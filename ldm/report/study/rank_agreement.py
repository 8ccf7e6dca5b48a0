"""Agreement of two studies on the order of the same rows."""

import math
from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

from scipy.stats import kendalltau

from ldm.metrics.estimate import Estimate


class RankAgreement(NamedTuple):
    """One column of a table, beside the paper's.

    tau, p: Kendall's tau-b of our order and the paper's, None if all are equal on one side
    n: rows that both have;  apart: pairs of them whose intervals here do not overlap and whose
    figures differ in the paper;  alike: those of these pairs that stand as in the paper
    """

    tau: float | None
    p: float | None
    n: int
    apart: int
    alike: int

    @property
    def words(self) -> str:
        """The verdict; few pairs can contradict the paper, but cannot confirm it."""
        if self.alike < self.apart:
            return "not the same order"
        return "same order" if 4 * self.apart >= self.n * (self.n - 1) > 0 else "not told"

    @property
    def shown(self) -> str:
        """tau and p"""
        if self.tau is None or self.p is None:
            return "undefined"
        return f"{self.tau:.2f} (p {'< 0.01' if self.p < 0.01 else f'= {self.p:.2f}'})"

    def __str__(self) -> str:
        if not self.n:
            return "no two rows compare"
        return (
            f"{self.words}: Kendall's tau {self.shown}, n = {self.n} rows; of {self.apart} pairs "
            f"that our intervals tell apart, {self.alike} stand as in the paper"
        )


def compare(
    ours: Mapping[str, Estimate | None], paper: Mapping[str, float | None]
) -> RankAgreement:
    """Of the rows that both have a figure for."""
    pairs = [
        (mine, theirs)
        for name, mine in ours.items()
        if mine is not None and (theirs := paper.get(name)) is not None
    ]
    apart = alike = 0
    for (a, paper_a), (b, paper_b) in combinations(pairs, 2):
        if paper_a != paper_b and (a.low > b.high or b.low > a.high):
            apart += 1
            alike += (a.value > b.value) == (paper_a > paper_b)
    tau = p = None
    if len(pairs) > 1:
        found = kendalltau([mine.value for mine, _ in pairs], [theirs for _, theirs in pairs])
        if not math.isnan(found.statistic):
            tau, p = float(found.statistic), float(found.pvalue)
    return RankAgreement(tau, p, len(pairs), apart, alike)
