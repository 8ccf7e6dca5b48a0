"""Distances between two sets of images by their features: Fréchet, KID, CMMD, precision, recall.

Features are [n, d] arrays of any extractor; everything is computed in float64, because covariances
in float32 lose three digits of a Fréchet distance. No matrix square root is needed.
"""

import copy
import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from scipy.spatial.distance import cdist
from scipy.stats import t

from ldm.metrics.estimate import Estimate

Array = NDArray[np.float64]
ROWS = 1000  # of a distance matrix at a time, which bounds memory


def checked(values: ArrayLike, least: int = 2) -> Array:
    """[n, d] in float64. Raises ValueError if they are not, are too few, or are not finite."""
    x = np.asarray(values, np.float64)
    if x.ndim != 2 or len(x) < least:
        raise ValueError(f"features must be [n, d] with n >= {least}, got {list(x.shape)}")
    if bad := int((~np.isfinite(x)).any(axis=1).sum()):
        raise ValueError(f"features of {bad} of {len(x)} images are not finite")
    return x


def frechet(x: ArrayLike, y: ArrayLike) -> float:
    """|mu_x - mu_y|^2 + tr S_x + tr S_y - 2 tr sqrt(S_x S_y)   (FID, arXiv:1706.08500, eq. 6)

    S has divisor n - 1. With centred features X, Y, tr sqrt(S_x S_y) is the nuclear norm of X Y^T
    over sqrt((n - 1)(m - 1)): singular values instead of roots of rounding errors, and for n < d
    a small matrix.
    """
    x, y = checked(x), checked(y)
    means = np.square(x.mean(axis=0) - y.mean(axis=0)).sum()
    a, b = ((z - z.mean(axis=0)) / np.sqrt(len(z) - 1) for z in (x, y))
    # a^T a is the covariance, and so is r^T r for the triangle r of a QR decomposition
    p, q = (np.asarray(np.linalg.qr(z, "r")) if len(z) > z.shape[1] else z for z in (a, b))
    overlap = np.linalg.svd(p @ q.T, compute_uv=False).sum()
    return float(means + np.square(a).sum() + np.square(b).sum() - 2 * overlap)


def jackknife(
    distance: Callable[[Array, Array], float], x: ArrayLike, y: ArrayLike, groups: int = 10
) -> Estimate:
    """The distance of x to y; its 95 % interval leaves out a tenth of both, in turn.

    Drawing with replacement would do for means, but repeated images shrink covariances, which
    biases a Fréchet distance. n is that of x.
    """
    return next(iter(jackknife_each(lambda a, b: {"": distance(a, b)}, x, y, groups).values()))


def jackknife_each(
    distances: Callable[[Array, Array], Mapping[str, float]],
    x: ArrayLike,
    y: ArrayLike,
    groups: int = 10,
) -> dict[str, Estimate]:
    """`jackknife` of several distances that are computed together."""
    x, y = checked(x, groups), checked(y, groups)
    without = [
        distances(*(np.delete(z, np.s_[i::groups], axis=0) for z in (x, y))) for i in range(groups)
    ]
    return {
        name: jackknife_interval(value, [others[name] for others in without], len(x))
        for name, value in distances(x, y).items()
    }


def jackknife_interval(value: float, without: Sequence[float], n: int) -> Estimate:
    """value with the 95 % interval that its values without each of the groups give it.

    G groups give the error G - 1 degrees of freedom, hence Student's t, 2.26 for ten, in the place
    of 1.96 (Tukey 1958; Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11).
    The interval is around the value, biased as it may be by n: a Fréchet distance of n images is
    larger than that of infinitely many, which the interval need not hold.
    """
    half = float(t.ppf(0.975, len(without) - 1) * np.sqrt((len(without) - 1) * np.var(without)))
    return Estimate(value, value - half, value + half, n)


class Moments:
    """Mean and covariance of features that come in batches; memory does not grow with n."""

    def __init__(self, width: int) -> None:
        self.count, self.mean = 0, np.zeros(width)
        self.scatter = np.zeros((width, width))  # sum of (x - mean)(x - mean)^T

    def update(self, batch: ArrayLike) -> None:
        """Take in a batch [B, d]."""
        x = checked(batch, least=1)
        mean = x.mean(axis=0)
        self._merge(len(x), mean, x - mean)

    def __add__(self, other: "Moments") -> "Moments":
        both = copy.deepcopy(self)
        both._merge(other.count, other.mean, np.zeros((0, len(self.mean))))
        both.scatter += other.scatter
        return both

    def _merge(self, count: int, mean: Array, apart: Array) -> None:
        """Take in `count` more, given as rows [B, d] about their mean.

        Chan, Golub and LeVeque 1979: no sum of squares that cancels. How far the two means are
        apart is one more row: a matrix times its own transpose is half the work of another.
        """
        if not count:
            return
        n, shift = self.count + count, mean - self.mean
        rows = np.vstack([apart, shift * np.sqrt(self.count * count / n)])
        self.scatter += rows.T @ rows
        self.mean = self.mean + shift * (count / n)
        self.count = n

    def covariance(self) -> Array:
        return self.scatter / (self.count - 1)


def frechet_of_moments(x: Moments, y: Moments) -> float:
    """`frechet` from means and covariances: tr sqrt(S_x S_y) adds up the roots of its eigenvalues.

    Raises ValueError for fewer images than features, where the covariance is singular and the
    distance says little; `frechet` gives it all the same.
    """
    for moments in (x, y):
        if moments.count <= len(moments.mean):
            raise ValueError(
                f"{moments.count} images are too few for {len(moments.mean)} features; "
                "a covariance needs more images than features"
            )
    a, b = x.covariance(), y.covariance()
    try:  # of S_x S_y, by way of the Cholesky factor of S_y
        values = eigh(a, b, type=2, eigvals_only=True, driver="gv")
    except np.linalg.LinAlgError:  # S_y is singular, as features that never vary make it
        of_a, vectors = np.linalg.eigh(a)
        root = (vectors * np.sqrt(of_a.clip(min=0))) @ vectors.T
        values = np.linalg.eigvalsh(root @ b @ root)
    overlap = np.sqrt(values.clip(min=0)).sum()
    means = np.square(x.mean - y.mean).sum()
    return float(means + np.trace(a) + np.trace(b) - 2 * overlap)


class Tenths:
    """The moments of ten disjoint groups of images, image i in group i mod 10.

    For a jackknife, and for the distance between halves, with memory that does not grow with n.
    """

    def __init__(self, width: int) -> None:
        self.groups, self.count = [Moments(width) for _ in range(10)], 0

    def update(self, batch: ArrayLike) -> None:
        """Take in a batch [B, d]."""
        x = checked(batch, least=1)
        which = (self.count + np.arange(len(x))) % 10
        for i in set(which.tolist()):
            self.groups[i].update(x[which == i])
        self.count += len(x)

    def __add__(self, other: "Tenths") -> "Tenths":
        """Group by group."""
        both = Tenths(len(self.groups[0].mean))
        both.groups = [a + b for a, b in zip(self.groups, other.groups, strict=True)]
        both.count = self.count + other.count
        return both

    def of(self, groups: Iterable[int]) -> Moments:
        """The moments of these groups together."""
        return functools.reduce(operator.add, (self.groups[i] for i in groups))


def frechet_of_tenths(x: Tenths, y: Tenths) -> Estimate:
    """`frechet_of_moments` with its jackknife interval, as `jackknife` has it."""

    def without(i: int | None) -> float:
        kept = [j for j in range(10) if j != i]
        return frechet_of_moments(x.of(kept), y.of(kept))

    return jackknife_interval(without(None), [without(i) for i in range(10)], x.count)


def kid(x: ArrayLike, y: ArrayLike) -> float:
    """Unbiased squared MMD with the kernel (a b / d + 1)^3   (KID, arXiv:1801.01401)

    The whole sets, no subsets; may be slightly negative.
    """
    x, y = checked(x), checked(y)

    def total(a: Array, b: Array) -> float:
        parts = (a[start : start + ROWS] @ b.T for start in range(0, len(a), ROWS))
        return sum(float(((part / a.shape[1] + 1) ** 3).sum()) for part in parts)

    def others(a: Array) -> float:
        itself = ((np.square(a).sum(axis=1) / a.shape[1] + 1) ** 3).sum()
        return (total(a, a) - float(itself)) / (len(a) * (len(a) - 1))

    return others(x) + others(y) - 2 * total(x, y) / (len(x) * len(y))


def cmmd(x: ArrayLike, y: ArrayLike, sigma: float = 10.0) -> float:
    """1000 times the biased squared MMD with the kernel exp(-|a - b|^2 / (2 sigma^2))

    CMMD (arXiv:2401.09603), on L2-normalised CLIP embeddings.
    """
    x, y = checked(x), checked(y)

    def mean(a: Array, b: Array) -> float:
        sums = [np.exp(d / (-2 * sigma**2)).sum() for _, d in _distances(a, b, "sqeuclidean")]
        return sum(sums) / (len(a) * len(b))

    return float(1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y)))


class Coverage(NamedTuple):
    """precision, density: how real the generated ones are; recall, coverage: how varied."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(real: ArrayLike, fake: ArrayLike, k: int = 3) -> Coverage:
    """Balls around each image, out to its k-th nearest other one of its own set.

    Precision: share of generated images in any real image's ball; recall: the other way round
    (arXiv:1904.06991, eq. 1 and 2). Density: balls of real images around a generated one, over k;
    coverage: share of real balls that hold a generated image (arXiv:2002.09797).
    """
    x, y = checked(real, k + 1), checked(fake, k + 1)
    radius_x, radius_y = kth_neighbour(x, k), kth_neighbour(y, k)
    in_real = np.zeros(len(y), bool)
    recalled, covered, pairs = 0, 0, 0
    for rows, distance in _distances(x, y):
        around_x = radius_x[rows, None]
        in_real |= (distance <= around_x).any(axis=0)
        recalled += int((distance <= radius_y).any(axis=1).sum())
        covered += int((distance < around_x).any(axis=1).sum())
        pairs += int((distance < around_x).sum())
    density = pairs / (k * len(y))
    return Coverage(float(in_real.mean()), recalled / len(x), density, covered / len(x))


def vendi(features: ArrayLike) -> float:
    """How many different images there are: exp(entropy of the eigenvalues of K / n), K the cosines

    Vendi score (arXiv:2210.02410, definition 3.1): 1 if all are alike, n if all are orthogonal.
    """
    x = checked(features)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True).clip(min=1e-12)
    share = np.square(np.linalg.svd(unit, compute_uv=False)) / len(unit)
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def kth_neighbour(x: Array, k: int) -> Array:
    """Distance of each row to the k-th nearest other row: [n]"""
    parts = []
    for rows, distance in _distances(x, x):
        itself = np.arange(len(distance))  # is no neighbour
        distance[itself, itself + rows.start] = np.inf
        parts.append(np.partition(distance, k - 1, axis=1)[:, k - 1])
    return np.concatenate(parts)


def _distances(x: Array, y: Array, metric: str = "euclidean") -> Iterator[tuple[slice, Array]]:
    """Rows of the distance matrix of x and y, ROWS at a time: which they are, and [rows, m]."""
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        yield rows, cdist(x[rows], y, metric)
