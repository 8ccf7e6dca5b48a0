"""How many hidden tokens are guessed, and how many would be without any network."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from ldm.metrics.classify import Estimate

Row = Sequence[int]  # the token ids of a text
Guess = Callable[[Row, int], int]  # of the token at a place of a row

# what a guess by counting may look at, besides how frequent the token is
CONTEXTS: dict[str, Callable[[Row, int], Hashable]] = {
    "most frequent token": lambda row, place: None,
    "most frequent at its place": lambda row, place: place,
    "most frequent between its neighbours": lambda row, place: (row[place - 1], row[place + 1]),
}


def by_counting(rows: Iterable[Row], context: Callable[[Row, int], Hashable]) -> Guess:
    """A guess that is the most frequent token of `rows` in the same context.

    In a context that never occurred it is the most frequent of all. A row's first and last token,
    [CLS] and [SEP], are context only. Neighbours are told even where they are hidden themselves.
    """
    counts: defaultdict[Hashable, Counter[int]] = defaultdict(Counter)
    overall: Counter[int] = Counter()
    for row in rows:
        for place in range(1, len(row) - 1):
            counts[context(row, place)][row[place]] += 1
            overall[row[place]] += 1
    best = {where: most_frequent(found) for where, found in counts.items()}
    fallback = most_frequent(overall)
    return lambda row, place: best.get(context(row, place), fallback)


def most_frequent(counts: Mapping[int, int]) -> int:
    """Of equally frequent ones the smallest."""
    return min(counts, key=lambda token: (-counts[token], token))


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
            f"a share wants two groups or more, with 0 <= hits <= counts in each and a case in one "
            f"at least, got {n} groups with {total:.0f} cases"
        )
    p = float(hits.sum() / total)
    variance = n / (n - 1) * ((hits - p * counts) ** 2).sum() / total**2
    half = float(norm.isf((1 - confidence) / 2) * variance**0.5)
    return Estimate(p, max(0.0, p - half), min(1.0, p + half), n)
