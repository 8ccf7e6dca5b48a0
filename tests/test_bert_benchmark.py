"""Masked tokens are guessed by counts that a hand count confirms."""

import pytest

from benchmarks.bert import CONTEXTS, by_counting

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
