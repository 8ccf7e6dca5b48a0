"""Agreement of readers with each other (Cohen's and Fleiss' kappa) and with the truth (d')."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from ldm.metrics.estimate import Estimate

Weights = Literal["unweighted", "linear", "quadratic"]
IMAGINED = 2.0  # images read by chance that an interval of a kappa adds to those that were read
Z = 1.959963984540054  # of 95 %


def cohen(table: ArrayLike, weights: Weights = "unweighted") -> float:
    """kappa = 1 - sum(w O) / sum(w E)    (Cohen, Psychological Bulletin 70, 1968)

    table: [K, K] counts, rows one rater's category and columns the other's; w is 1 off the
    diagonal, |i - j| or (i - j)^2. NaN where chance alone would agree always, 0 / 0.
    """
    counts = _square(table)
    observed = counts / counts.sum()
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0))
    w = _apart(len(counts), weights)
    by_chance = float((w * expected).sum())
    return 1 - float((w * observed).sum()) / by_chance if by_chance else float("nan")


def cohen_interval(table: ArrayLike, weights: Weights = "unweighted") -> Estimate:
    """Cohen's kappa with its 95 % interval, cut to [-1, 1]; n is the number of images.

    The large-sample error of Fleiss, Cohen and Everitt (Psychological Bulletin 72, 1969), of the
    table with IMAGINED more images spread evenly over its cells, in the way of Agresti and Coull:
    without them all agreeing would leave no width, and few images too little.
    """
    counts = _square(table)
    p = counts + IMAGINED / counts.size
    p /= p.sum()
    w = _apart(len(p), weights)
    v = 1 - w / w.max()  # 1 where both agree
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    agree, chance = float((v * p).sum()), float(rows @ v @ columns)
    means = np.add.outer(v @ columns, rows @ v)
    spread = (p * np.square(v * (1 - chance) - means * (1 - agree))).sum()
    spread -= np.square(agree * chance - 2 * chance + agree)
    error = np.sqrt(max(0.0, spread) / counts.sum()) / (1 - chance) ** 2
    middle = (agree - chance) / (1 - chance)
    return _around(cohen(counts, weights), middle, error, int(counts.sum()))


def fleiss(table: ArrayLike) -> float:
    """kappa = (P - P_e) / (1 - P_e)    (Fleiss, Psychological Bulletin 76, 1971, eq. 7)

    table: [n, K], how many of the raters put each subject into each category, as many raters for
    each. With two raters it is Scott's pi, not Cohen's kappa. NaN for one category alone.
    """
    counts = _counts(table)
    raters = counts.sum(axis=1)
    if raters.min() != raters.max() or raters[0] < 2:
        raise ValueError("every subject needs the same number of raters, two or more")
    pairs = (counts * (counts - 1)).sum(axis=1) / (raters * (raters - 1))
    by_chance = float(np.square(counts.sum(axis=0) / counts.sum()).sum())
    return (float(pairs.mean()) - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan")


def fleiss_interval(table: ArrayLike) -> Estimate:
    """Fleiss' kappa with its 95 % interval, cut to [-1, 1]; n is the number of images.

    The raters are taken as they are, the images as drawn at random: the error is the root of the
    mean square influence of an image (the delta method), with IMAGINED more images whose pairs of
    raters agree as often as even guessing has it, as in `cohen_interval`.
    """
    counts = _counts(table)
    n, categories = counts.shape
    raters = counts[0].sum()
    kappa = fleiss(counts)  # raises for other numbers of raters
    agree = (counts * (counts - 1)).sum(axis=1) / (raters * (raters - 1))
    agree = np.append(agree, [1.0] * categories + [0.0])
    shares = np.vstack([counts / raters, np.eye(categories), np.full(categories, 1 / categories)])
    one = IMAGINED / categories**2  # of each category alone
    weights = np.append(np.ones(n), [one] * categories + [IMAGINED * (1 - 1 / categories)])
    middle, error = fleiss_moments(agree, shares, weights / weights.sum())
    return _around(kappa, middle, error / np.sqrt(n), n)


def fleiss_moments(
    agree: NDArray[np.float64], shares: NDArray[np.float64], p: NDArray[np.float64]
) -> tuple[float, float]:
    """Fleiss' kappa, and the deviation of one image's influence on it, over kinds of images.

    agree: [n] share of the pairs of raters that agree;  shares: [n, K] of the raters for each
    category;  p: [n] how frequent that kind of image is, of sum 1
    """
    mean, habit = float(p @ agree), p @ shares
    chance = float(habit @ habit)
    influence = (agree - mean) * (1 - chance) - 2 * (1 - mean) * (shares @ habit - chance)
    deviation = float(np.sqrt(p @ influence**2)) / (1 - chance) ** 2
    return (mean - chance) / (1 - chance), deviation


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
        raise ValueError("d' needs counts of 0 or more, with a case of signal and one of noise")
    more = 0.5 if loglinear else 0.0
    z = [
        float(norm.ppf((yes + more) / (yes + no + 2 * more)))
        for yes, no in ((hits, misses), (false_alarms, rejections))
    ]
    return Detection(z[0] - z[1], -(z[0] + z[1]) / 2)


def detect(called: ArrayLike, signal: ArrayLike) -> tuple[Estimate, Estimate]:
    """d' and criterion with their 95 % intervals, log-linear; the mean of the readers if several.

    called: [R, n] or [n], is it called a signal?  signal: [n], is it one?
    One reader has the error of Gourevitch and Galanter (Psychometrika 32, 1967), H (1 - H) / n
    over the squared density at z(H), and the same of F. That of a mean adds how readers go
    together over the images; the readers are taken as they are, not as drawn from all readers.
    """
    readers = np.atleast_2d(np.asarray(called)).astype(bool)
    truth = np.asarray(signal).astype(bool)
    found = []
    for one in readers:
        yes, no = one[truth], one[~truth]
        found.append(detection(yes.sum(), (~yes).sum(), no.sum(), (~no).sum()))
    error = np.sqrt(_z_variance(readers[:, truth]) + _z_variance(readers[:, ~truth]))
    d_prime, criterion = np.mean(found, axis=0)
    n, half = len(truth), Z * error
    return (
        Estimate(float(d_prime), float(d_prime - half), float(d_prime + half), n),
        Estimate(float(criterion), float(criterion - half / 2), float(criterion + half / 2), n),
    )


def _z_variance(called: NDArray[np.bool_]) -> float:
    """Of the mean of the readers' z(rate);  called: [R, n]"""
    n = called.shape[1]
    rates = (called.sum(axis=1) + 0.5) / (n + 1)
    apart = called - called.mean(axis=1, keepdims=True)
    together = apart @ apart.T / n
    np.fill_diagonal(together, rates * (1 - rates))
    slopes = 1 / norm.pdf(norm.ppf(rates)) / len(called)  # of the mean, by each rate
    return max(0.0, float(slopes @ together @ slopes)) / n


def _around(value: float, middle: float, error: float, n: int) -> Estimate:
    """A kappa and the interval about `middle`, which holds it."""
    ends = [max(-1.0, middle - Z * error), min(1.0, middle + Z * error)]
    holds = [end for end in (*ends, value) if np.isfinite(end)]
    return Estimate(value, float(min(holds)), float(max(holds)), n)


def _apart(categories: int, weights: Weights) -> NDArray[np.float64]:
    """[K, K]: how far from agreement each cell is."""
    steps = np.abs(np.subtract.outer(np.arange(categories), np.arange(categories)))
    apart = {"unweighted": steps > 0, "linear": steps, "quadratic": steps**2}[weights]
    return apart.astype(np.float64)


def _square(table: ArrayLike) -> NDArray[np.float64]:
    counts = _counts(table)
    if counts.shape[0] != counts.shape[1]:
        raise ValueError(f"two raters need a square table of counts, got {list(counts.shape)}")
    return counts


def _counts(table: ArrayLike) -> NDArray[np.float64]:
    counts = np.asarray(table, np.float64)
    if counts.ndim != 2 or not np.isfinite(counts).all() or (counts < 0).any() or not counts.sum():
        raise ValueError(f"kappa needs a table of counts, got {list(counts.shape)}")
    return counts
