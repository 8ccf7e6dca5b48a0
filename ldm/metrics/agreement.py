"""Do readers agree, with each other and with the truth? Cohen's and Fleiss' kappa, d'."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

Weights = Literal["unweighted", "linear", "quadratic"]


def cohen(table: ArrayLike, weights: Weights = "unweighted") -> float:
    """kappa = 1 - sum(w O) / sum(w E)    (Cohen, Psychological Bulletin 70, 1968)

    table: [K, K] counts, rows one rater's category and columns the other's; w is 1 off the
    diagonal, |i - j| or (i - j)^2. NaN where chance alone would agree always, 0 / 0.
    """
    counts = _counts(table)
    if counts.shape[0] != counts.shape[1]:
        raise ValueError(f"two raters want a square table of counts, got {list(counts.shape)}")
    observed = counts / counts.sum()
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0))
    apart = np.abs(np.subtract.outer(np.arange(len(counts)), np.arange(len(counts))))
    w = {"unweighted": apart > 0, "linear": apart, "quadratic": apart**2}[weights]
    by_chance = float((w * expected).sum())
    return 1 - float((w * observed).sum()) / by_chance if by_chance else float("nan")


def fleiss(table: ArrayLike) -> float:
    """kappa = (P - P_e) / (1 - P_e)    (Fleiss, Psychological Bulletin 76, 1971, eq. 7)

    table: [n, K], how many of the raters put each subject into each category, as many raters for
    each. With two raters it is Scott's pi, not Cohen's kappa. NaN for one category alone.
    """
    counts = _counts(table)
    raters = counts.sum(axis=1)
    if raters.min() != raters.max() or raters[0] < 2:
        raise ValueError("every subject wants the same number of raters, two or more")
    pairs = (counts * (counts - 1)).sum(axis=1) / (raters * (raters - 1))
    by_chance = float(np.square(counts.sum(axis=0) / counts.sum()).sum())
    return (float(pairs.mean()) - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan")


class Detection(NamedTuple):
    """d_prime: how well signal is told from noise;  criterion: above 0 is a reluctant yes"""

    d_prime: float
    criterion: float


def detection(
    hits: int, misses: int, false_alarms: int, rejections: int, loglinear: bool = True
) -> Detection:
    """d' = z(H) - z(F),  c = -(z(H) + z(F)) / 2

    loglinear: half a case more in each cell, always (Hautus 1995), so that a rate of 0 or 1 leaves
        d' finite; without it such a d' is infinite or NaN
    """
    if min(hits, misses, false_alarms, rejections) < 0 or not (
        hits + misses and false_alarms + rejections
    ):
        raise ValueError("d' wants counts of 0 or more, and a case of signal and of noise")
    more = 0.5 if loglinear else 0.0
    z = [
        float(norm.ppf((yes + more) / (yes + no + 2 * more)))
        for yes, no in ((hits, misses), (false_alarms, rejections))
    ]
    return Detection(z[0] - z[1], -(z[0] + z[1]) / 2)


def _counts(table: ArrayLike) -> NDArray[np.float64]:
    counts = np.asarray(table, np.float64)
    if counts.ndim != 2 or not np.isfinite(counts).all() or (counts < 0).any() or not counts.sum():
        raise ValueError(f"wants a table of counts, got {list(counts.shape)}")
    return counts
