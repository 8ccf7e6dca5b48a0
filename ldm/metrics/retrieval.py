"""CheXpert@k: do embeddings rank reports of one label together? (arXiv:2210.04133, section 2.4)"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from ldm.metrics.estimate import Estimate
from ldm.rng import generator

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
# the similarities [rows, n] of some of n reports to all of them
Similarities = Callable[[slice], Array]
ROWS = 500  # of the similarities at a time, which bounds memory


class Score(NamedTuple):
    """shares: [n] of each report;  classes, chance: by label;  macro: mean over the classes.

    chance is what a random ranking gives, (n_c - 1) / (n - 1) for a class of n_c reports.
    """

    shares: Array
    classes: dict[int, Estimate]
    macro: Estimate
    mean: Estimate
    chance: dict[int, float]
    macro_chance: float


def chexpert_at_k(
    of: ArrayLike | Similarities, labels: ArrayLike, k: int = 10, draws: int = 1000, seed: int = 0
) -> Score:
    """CheXpert@k of each report, of each class, and their means, with 95 % intervals.

    CheXpert@k_i = sum(labels[argsort(similarities[i])[-k:]] == labels[i]) / k   (section 2.4)

    of: embeddings [n, d], compared by their dot products as in the paper, or other similarities:
    `shared_words(texts)`, or a function of rows;  labels: [n] integers, one for each report.

    The report itself is left out by its index, since a dot product may be larger with others. Of
    equal similarities the lower index comes first. The divisor is always k, so a class of k or
    fewer reports cannot reach 1, and one of a single report has 0. Absent classes do not count.

    Intervals: percentiles of means over reports drawn anew within each class, as queries; the
    reports among which neighbours are sought stay as they are. So they say how sure the figure is
    for this collection and are too narrow for another one (over shuffled labels 80 to 90 %, not
    95 %, hold chance), as they are for a handful of reports; equal shares have no width.
    """
    labels = checked(labels, k)
    found = shares(of, labels, k)
    n, members = len(labels), {int(c): found[labels == c] for c in np.unique(labels)}
    again = {c: _redrawn_means(there, draws, seed, c) for c, there in members.items()}
    chance = {c: (len(there) - 1) / (n - 1) for c, there in members.items()}
    classes = {c: _estimate(there.mean(), again[c], len(there)) for c, there in members.items()}
    macro = np.mean([estimate.value for estimate in classes.values()])
    pooled = np.sum([again[c] * (len(there) / n) for c, there in members.items()], axis=0)
    return Score(
        found,
        classes,
        _estimate(macro, np.mean(list(again.values()), axis=0), n),
        _estimate(found.mean(), pooled, n),
        chance,
        float(np.mean(list(chance.values()))),
    )


def shares(of: ArrayLike | Similarities, labels: ArrayLike, k: int) -> Array:
    """[n]: of the k other reports most similar to each, the share with its label."""
    labels = checked(labels, k)
    n = len(labels)
    similarities = of if callable(of) else dot_products(of)
    hits = np.empty(n, np.int64)
    for start in range(0, n, ROWS):
        rows = slice(start, min(start + ROWS, n))
        similar = np.array(similarities(rows), np.float64)  # a copy, to be written into
        if similar.shape != (rows.stop - start, n):
            raise ValueError(f"{n} labels need as many reports, got {similar.shape[-1]}")
        queries = np.arange(start, rows.stop)
        similar[queries - start, queries] = -np.inf
        nearest = np.argsort(-similar, axis=1, kind="stable")[:, :k]
        hits[rows] = (labels[nearest] == labels[rows, None]).sum(axis=1)
    return hits / k


def dot_products(embeddings: ArrayLike) -> Similarities:
    """embeddings: [n, d], not normalised: the paper's similarities are E E^T."""
    e = np.asarray(embeddings, np.float64)
    if e.ndim != 2:
        raise ValueError(f"embeddings must have the shape [n, d], got {list(e.shape)}")
    if bad := int((~np.isfinite(e)).any(axis=1).sum()):
        raise ValueError(f"embeddings of {bad} of {len(e)} reports are not finite")
    # equal rows are multiplied once: in one product they may be rounded apart, which unties them
    distinct, which = np.unique(e, axis=0, return_inverse=True)
    return lambda rows: (e[rows] @ distinct.T)[:, which.reshape(-1)]


def shared_words(texts: Sequence[str]) -> Similarities:
    """|A & B| / |A | B| of the sets of words, the paper's baseline; 0 where there is no word.

    Words are runs of letters and digits, lower-cased.
    """
    words = [set(re.findall(r"\w+", text.lower())) for text in texts]
    number = {word: i for i, word in enumerate(sorted(set().union(*words)))}
    at = [(i, number[word]) for i, there in enumerate(words) for word in there]
    i, j = np.array(at, np.int64).reshape(-1, 2).T
    has = sparse.csr_matrix((np.ones(len(at)), (i, j)), shape=(len(texts), max(len(number), 1)))
    sizes = np.array([len(there) for there in words], np.float64)

    def similarities(rows: slice) -> Array:
        both = (has[rows] @ has.T).toarray()
        either = sizes[rows, None] + sizes - both
        return both / np.maximum(either, 1)

    return similarities


def _redrawn_means(values: Array, draws: int, seed: int, label: int) -> Array:
    """[draws] means of as many values, drawn with replacement"""
    drawn = generator(seed, "CheXpert@k", label)
    which = torch.randint(len(values), (draws, len(values)), generator=drawn)
    return values[which.numpy()].mean(axis=1)


def _estimate(value: np.floating, again: Array, n: int) -> Estimate:
    low, high = np.quantile(again, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high), n)


def checked(labels: ArrayLike, k: int) -> Labels:
    """The labels [n]; ValueError, before any work, if no CheXpert@k can be had of them."""
    values = np.asarray(labels)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"labels must be integers [n], got {values.dtype} {list(values.shape)}")
    if len(np.unique(values)) < 2:
        raise ValueError("two or more classes are needed: with one, every neighbour is right")
    if not 1 <= k <= len(values) - 1:
        raise ValueError(f"k must be 1 to {len(values) - 1}, the number of other reports, got {k}")
    return values.astype(np.int64)
