"""Masked tokens guessed by counting: what a network of text must beat."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence

Row = Sequence[int]  # the token ids of a text
Context = Callable[[Row, int], Hashable]
Guess = Callable[[Row, int], int]  # of the token at a place of a row, which is hidden there

# what a guess by counting looks at, from the closest context to the widest
CONTEXTS: dict[str, tuple[Context, ...]] = {
    "most frequent token": (),
    "most frequent at its place": (lambda row, place: place,),
    "most frequent between its neighbours": (
        lambda row, place: (row[place - 1], row[place + 1]),
        lambda row, place: row[place - 1],
        lambda row, place: row[place + 1],
    ),
}


def by_counting(rows: Sequence[Row], contexts: Sequence[Context]) -> Guess:
    """A guess that is the most frequent token of `rows` in the first context that they know.

    Where they know none, as of neighbours that are hidden themselves, it is the most frequent of
    all. A row's first and last token, [CLS] and [SEP], are neighbours only.
    """
    tables = [_table(rows, context) for context in (*contexts, _anywhere)]

    def guess(row: Row, place: int) -> int:
        found = (table.get(context(row, place)) for context, table in tables)
        return next(token for token in found if token is not None)

    return guess


def _anywhere(row: Row, place: int) -> None:
    return None


def _table(rows: Sequence[Row], context: Context) -> tuple[Context, dict[Hashable, int]]:
    """The context, and in each state of it the most frequent token."""
    counts: defaultdict[Hashable, Counter[int]] = defaultdict(Counter)
    for row in rows:
        for place in range(1, len(row) - 1):
            counts[context(row, place)][row[place]] += 1
    return context, {state: most_frequent(found) for state, found in counts.items()}


def most_frequent(counts: Mapping[int, int]) -> int:
    """Of equally frequent ones the smallest."""
    return min(counts, key=lambda token: (-counts[token], token))
