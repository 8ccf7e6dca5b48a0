"""Answers as arrays: first readings without catch trials, second readings, and attention."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldm.metrics.agreement import Weights, cohen_interval, fleiss_interval
from ldm.metrics.classification import median, wilson
from ldm.metrics.estimate import Estimate
from ldm.report.readers.answers import SAID, Key, Reader
from ldm.report.readers.trials import CATCH, SYNTHETIC

POOLED = "all readers"


class Readings(NamedTuple):
    """Answers of R readers to the n images that all of them saw.

    sets: [n] Trial.set, or the truth;  synthetic: [n]
    said: [R, n] index into the categories;  ratings: [R, n], see Answer.rating
    """

    ids: list[str]
    sets: NDArray[np.str_]
    synthetic: NDArray[np.bool_]
    said: NDArray[np.int64]
    ratings: NDArray[np.int64]


def gather(key: Key, readers: Sequence[Reader]) -> Readings:
    """First readings alone: what came again and what was a catch is left out."""
    first = [t for t in key.trials if t.truth != CATCH and t.repeats is None]
    both = [t for t in first if all(t.id in reader.answers for reader in readers)]
    answers = [[reader.answers[t.id] for t in both] for reader in readers]
    said = [[code(key.mode, a.said) for a in each] for each in answers]
    ratings = [[0 if key.mode == "pairs" else a.rating for a in each] for each in answers]
    truth = np.array([t.truth == SYNTHETIC for t in both], bool)
    ids, sets = [t.id for t in both], np.array([t.set or t.truth for t in both], str)
    return Readings(ids, sets, truth, np.array(said, int), np.array(ratings, int))


def groups(readers: Sequence[Reader]) -> dict[str, Sequence[Reader]]:
    """{name: its readers}: each alone, and POOLED, all of them, if there are several."""
    each: dict[str, Sequence[Reader]] = {reader.name: [reader] for reader in readers}
    return each | ({POOLED: readers} if len(readers) > 1 else {})


def code(mode: str, said: str | int) -> int:
    """The place of an answer on its scale, from 0."""
    return int(said) - 1 if mode == "pairs" else SAID.index(str(said))


def categories(mode: str) -> int:
    return 5 if mode == "pairs" else len(SAID)


def table(a: ArrayLike, b: ArrayLike, count: int) -> NDArray[np.int64]:
    """[K, K] how often a said the row's category and b the column's."""
    found = np.zeros((count, count), int)
    np.add.at(found, (np.asarray(a, int), np.asarray(b, int)), 1)
    return found


def agreement(
    key: Key, readers: Sequence[Reader], weights: Weights = "unweighted"
) -> dict[str, Estimate]:
    """Cohen's kappa of each two readers, and Fleiss' of three or more (which has no weights)."""
    found, count = {}, categories(key.mode)
    for pair in combinations(readers, 2):
        seen = gather(key, pair)
        if seen.ids:
            names = " and ".join(reader.name for reader in pair)
            a, b = seen.said
            found[names] = cohen_interval(table(a, b, count), weights)
    if len(readers) > 2 and weights == "unweighted":
        said = gather(key, readers).said
        if said.size:
            counts = np.stack([(said == k).sum(axis=0) for k in range(count)], axis=1)
            found[f"all {len(readers)} (Fleiss)"] = fleiss_interval(counts)
    return found


class Attentiveness(NamedTuple):
    """The care of one reader's answers; None where nothing was shown for it.

    same: repeats with the same answer;  opposite: ids of those called both real and fake
    caught: catch trials called fake, or a copy that scored 1 or 2
    """

    same: Estimate | None
    kappa: Estimate | None
    opposite: list[str]
    caught: Estimate | None
    seconds: Estimate
    answered: int


def attention(key: Key, reader: Reader) -> Attentiveness:
    given = reader.answers
    again = [t for t in key.trials if t.repeats in given and t.id in given]
    said = [[code(key.mode, given[str(i)].said) for i in (t.repeats, t.id)] for t in again]
    same = kappa = caught = None
    if said:
        first, second = zip(*said, strict=True)
        weights: Weights = "quadratic" if key.mode == "pairs" else "unweighted"
        same = wilson(sum(a == b for a, b in said), len(said))
        kappa = cohen_interval(table(first, second, categories(key.mode)), weights)
    most = categories(key.mode) - 1
    opposite = [t.id for t, (a, b) in zip(again, said, strict=True) if abs(a - b) == most]
    catches = [given[t.id].said for t in key.trials if t.truth == CATCH and t.id in given]
    if catches:
        caught = wilson(sum(said in ("fake", 1, 2) for said in catches), len(catches))
    times = [given[t.id].seconds for t in key.trials if t.truth != CATCH and t.id in given]
    if not times:
        raise ValueError(f"reader {reader.name} answered nothing yet; leave that file out")
    return Attentiveness(same, kappa, opposite, caught, median(times), len(given))
