"""Guessing by counting, and the interval of a share whose cases come in groups."""

import numpy as np
import pytest

from ldm.metrics.classification import wilson
from ldm.metrics.masked_words import CONTEXTS, by_counting, share_of_groups

ROWS = [
    [2, 5, 6, 7, 3],
    [2, 5, 8, 7, 3],
    [2, 9, 6, 7, 3],
    [2, 5, 8, 7, 3],
    [2, 9, 9, 9, 9, 9, 9, 3],
]


@pytest.mark.parametrize(
    ("way", "row", "place", "expected"),
    [
        ("most frequent token", [2, 4, 6, 7, 3], 1, 9),  # seven times; 2 and 3 do not count
        ("most frequent at its place", [2, 4, 6, 7, 3], 1, 5),
        ("most frequent at its place", [2, 5, 6, 4, 3], 3, 7),
        ("most frequent between its neighbours", [2, 5, 4, 7, 3], 2, 8),  # twice, 6 once
        ("most frequent between its neighbours", [2, 6, 4, 3], 2, 7),  # 6 7 3
        ("most frequent between its neighbours", [2, 4, 4, 7, 3], 2, 6),  # 6 7 or 8 7: the smaller
        ("most frequent between its neighbours", [2, 5, 4, 4, 3], 2, 8),  # 5 8 twice
        ("most frequent between its neighbours", [2, 4, 4, 4, 3], 2, 9),  # both hidden
    ],
)
def test_counts_decide(way: str, row: list[int], place: int, expected: int) -> None:
    """Each way gives the token that a count by hand finds; 4 is a hidden token."""
    assert by_counting(ROWS, CONTEXTS[way])(row, place) == expected


def test_an_unseen_context_gives_the_most_frequent_token() -> None:
    """At a place and between neighbours that no text has, the guess is that of all texts."""
    for contexts in CONTEXTS.values():
        assert by_counting(ROWS, contexts)([2, *[1] * 20, 3], 15) == 9


def test_cases_that_agree_within_a_group_widen_the_interval() -> None:
    """One case per group: the normal interval of a proportion; ten equal ones: as wide, not less.

    Ten independent cases per group are as narrow as 10 n cases.
    """
    rng = np.random.default_rng(0)
    once = rng.random(400) < 0.3
    single = share_of_groups(once, np.ones(400))
    p = once.mean()
    assert single.high - single.value == pytest.approx(1.96 * np.sqrt(p * (1 - p) / 399), rel=1e-4)
    assert share_of_groups(10 * once, np.full(400, 10)) == pytest.approx(single)
    hits = rng.binomial(10, 0.3, 400)
    many, alone = share_of_groups(hits, np.full(400, 10)), wilson(int(hits.sum()), 4000)
    assert many.high - many.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_large_groups_weigh_more() -> None:
    """The share is that of all cases, not the mean of the groups' shares."""
    assert share_of_groups([1, 0], [1, 9]).value == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("hits", "counts"), [([1], [2]), ([0, 0], [0, 0]), ([2, 0], [1, 1]), ([1, 1, 1], [2, 2])]
)
def test_impossible_counts_are_refused(hits: list[int], counts: list[int]) -> None:
    """One group, no case, or more hits than cases are no share."""
    with pytest.raises(ValueError, match="a share needs two groups"):
        share_of_groups(hits, counts)
