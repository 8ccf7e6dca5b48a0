"""Proportions, medians, AUC, F1, precision and recall with their intervals."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import binom, norm, rankdata

from ldm.metrics.estimate import Estimate

Array = NDArray[np.float64]


def wilson(hits: float, n: int, confidence: float = 0.95, effect: float = 1.0) -> Estimate:
    """A proportion with Wilson's interval (J. Am. Stat. Assoc. 22, 1927), no continuity correction.

    Exactly 0 at the lower end for no hits, exactly 1 at the upper for all.
    hits: whole, but for one that is only expected
    effect: how many cases tell as much as one that stands alone (see `wilson_of_groups`)
    """
    if not 0 <= hits <= n or n == 0:
        raise ValueError(f"a proportion needs 0 <= hits <= n and n > 0, got {hits} of {n}")
    z, p, m = norm.isf((1 - confidence) / 2), hits / n, n / effect
    centre = (p + z**2 / (2 * m)) / (1 + z**2 / m)
    half = z / (1 + z**2 / m) * np.sqrt(p * (1 - p) / m + z**2 / (4 * m**2))
    low = 0.0 if hits == 0 else float(centre - half)
    high = 1.0 if hits == n else float(centre + half)
    return Estimate(p, low, high, n)


def wilson_of_groups(hits: ArrayLike) -> Estimate:
    """A proportion of cases in groups of one size, as of several readers of each image.

    hits: [R, n], R cases in each of n groups;  Estimate.n is R n
    Wilson's interval of n R / d cases, d being the design effect: the variance of the groups' means
    to that of independent cases, 1 or more (Rao and Scott, Biometrics 48, 1992). Where all cases
    are alike no spread can be seen: then a group tells as much as one case.
    """
    values = np.atleast_2d(np.asarray(hits)).astype(bool)
    readers, n = values.shape
    p = float(values.mean())
    if 0 < p < 1 and n > 1:
        spread = float(values.mean(axis=0).var(ddof=1)) / n
        effect = max(1.0, spread / (p * (1 - p) / (readers * n - 1)))
    else:
        effect = float(readers)
    return wilson(int(values.sum()), values.size, effect=effect)


def share_of_groups(hits: ArrayLike, counts: ArrayLike, confidence: float = 0.95) -> Estimate:
    """sum(hits) / sum(counts), with an interval that takes the groups, not the cases, as drawn.

    hits, counts: [n] of each group, say a text with its hidden tokens, which resemble each other.
    Variance of a ratio, linearised: n / (n - 1) sum (hits - p counts)^2 / (sum counts)^2 (Cochran,
    Sampling Techniques, 1977, chapter 6). Cut to [0, 1]; n is that of groups.
    """
    hits, counts = np.asarray(hits, np.float64), np.asarray(counts, np.float64)
    n, total = len(hits), counts.sum()
    if hits.shape != counts.shape or n < 2 or total == 0 or ((hits < 0) | (hits > counts)).any():
        raise ValueError(
            "a share needs two groups or more, with 0 <= hits <= counts in each and one case at "
            f"least, got {n} groups with {total:.0f} cases"
        )
    p = float(hits.sum() / total)
    variance = n / (n - 1) * ((hits - p * counts) ** 2).sum() / total**2
    half = float(norm.isf((1 - confidence) / 2) * variance**0.5)
    return Estimate(p, max(0.0, p - half), min(1.0, p + half), n)


def median(values: ArrayLike) -> Estimate:
    """The median of [n] with its 95 % interval between two of the values, by the sign test.

    Fewer than six values have no such interval; then its ends are the least and the most.
    """
    each = np.sort(np.asarray(values, np.float64))
    n = len(each)
    if n == 0:
        raise ValueError("a median needs at least one value")
    rank = max(0, int(binom.ppf(0.025, n, 0.5)) - 1)
    return Estimate(float(np.median(each)), float(each[rank]), float(each[n - 1 - rank]), n)


def decisions(scores: ArrayLike, labels: ArrayLike, threshold: float = 0.0) -> dict[str, Estimate]:
    """Accuracy, F1, precision and recall of calling scores above the threshold positive.

    Proportions with Wilson's intervals. F1 = 2 J / (1 + J), and J = TP / (TP + FP + FN) is one.
    Precision is 0 of 0 cases where nothing is called positive, as tables commonly have it.
    """
    scores, labels = _checked(scores, labels)
    called = scores > threshold
    hits, n = int((called & labels).sum()), len(labels)
    either, positives = int((called | labels).sum()), int(called.sum())
    f1 = [2 * j / (1 + j) for j in wilson(hits, either)[:3]]
    return {
        "accuracy": wilson(int((called == labels).sum()), n),
        "F1": Estimate(f1[0], f1[1], f1[2], either),
        "precision": wilson(hits, positives) if positives else Estimate(0.0, 0.0, 1.0, 0),
        "recall": wilson(hits, int(labels.sum())),
    }


def auc(scores: ArrayLike, labels: ArrayLike, confidence: float = 0.95) -> Estimate:
    """P(score of a positive > of a negative) + P(tie) / 2, with DeLong's interval, cut to [0, 1].

    DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988, by mid-ranks (Sun and Xu 2014). The
    interval has no width where the classes are apart, and n is that of both classes. Scores that
    are all alike give 0.5, of which nothing is known: 0 to 1.
    """
    value, *placements = _placements(scores, labels)
    n = sum(map(len, placements))
    if 0 < value < 1 and _alike(*placements):
        return Estimate(value, 0.0, 1.0, n)
    half = float(norm.isf((1 - confidence) / 2) * np.sqrt(sum(map(_variance, placements))))
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), n)


def auc_of_readers(scores: ArrayLike, labels: ArrayLike) -> Estimate:
    """The mean of the readers' AUCs with its 95 % interval over the images.

    scores: [R, n];  labels: [n]. The readers are taken as they are; n is that of the images.
    DeLong's error on the scale of log(AUC / (1 - AUC)), which holds for few images and high AUCs
    where the plain one does not; where the classes are apart, the lower end is Wilson's for as many
    cases as the smaller class has; where no spread can be seen otherwise, it is 0 to 1.
    """
    found = [_placements(each, labels) for each in np.atleast_2d(np.asarray(scores, np.float64))]
    values, *placements = zip(*found, strict=True)
    means = [np.mean(each, axis=0) for each in placements]
    value, sizes = float(np.mean(values)), [len(each) for each in means]
    n, smaller = sum(sizes), min(sizes)
    if value in (0, 1):
        return Estimate(value, *wilson(int(value) * smaller, smaller)[1:3], n)
    if _alike(*means):
        return Estimate(value, 0.0, 1.0, n)
    half = norm.isf(0.025) * np.sqrt(sum(map(_variance, means))) / (value * (1 - value))
    low, high = expit(logit(value) + half * np.array([-1, 1]))
    return Estimate(value, float(low), float(high), n)


def auc_difference(
    a: ArrayLike, b: ArrayLike, labels: ArrayLike, confidence: float = 0.95
) -> Estimate:
    """AUC of scores a minus that of scores b on the same cases, with DeLong's paired interval."""
    one, two = _placements(a, labels), _placements(b, labels)
    # the variance of a difference of means is that of the mean of the differences
    error = np.sqrt(_variance(one[1] - two[1]) + _variance(one[2] - two[2]))
    half, value = float(norm.isf((1 - confidence) / 2) * error), one[0] - two[0]
    return Estimate(value, value - half, value + half, len(one[1]) + len(one[2]))


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    values, x = np.asarray(labels), np.asarray(scores, np.float64)
    if not np.isin(values, (0, 1)).all():  # NaN, which many label tables hold, would become True
        raise ValueError("each label must be 0 or 1; leave out the cases that nobody labelled")
    if x.shape != values.shape or x.ndim != 1 or not np.isfinite(x).all():
        raise ValueError(
            f"an AUC needs one finite score for each label, got {x.shape} and {values.shape}"
        )
    classes = values.astype(bool)
    if min(classes.sum(), (~classes).sum()) < 2:
        raise ValueError(
            f"an AUC needs two cases of each class, got {classes.sum()} and {(~classes).sum()}"
        )
    return x, classes


def _placements(scores: ArrayLike, labels: ArrayLike) -> tuple[float, Array, Array]:
    """The AUC; for each positive the share of negatives below it, and the other way round."""
    scores, labels = _checked(scores, labels)
    positives, negatives = scores[labels], scores[~labels]
    m, n = len(positives), len(negatives)
    ranks = rankdata(np.concatenate([positives, negatives]))
    of_positives = (ranks[:m] - rankdata(positives)) / n
    of_negatives = 1 - (ranks[m:] - rankdata(negatives)) / m
    return float(of_positives.mean()), of_positives, of_negatives


def _alike(*placements: Array) -> bool:
    """No spread among positives nor negatives. A variance may be a rounding error, this is not."""
    return all(np.ptp(values) == 0 for values in placements)


def _variance(values: Array) -> float:
    """Of the mean of the values."""
    return float(values.var(ddof=1) / len(values))
