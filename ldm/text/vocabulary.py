"""Learns the vocabulary of a WordPiece tokenizer from texts, by byte-pair merges."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from ldm.text.wordpiece import LONGEST_WORD, SPECIAL, words

Pair = tuple[str, str]


def learn(texts: Iterable[str], size: int, lower: bool = True) -> list[str]:
    """At most `size` tokens in the order of their ids: special, characters, then merges.

    Byte-pair encoding (arXiv:1508.07909, section 3.2): all words begin as characters, and the most
    frequent pair of neighbours becomes a piece, until there are enough; of equally frequent pairs
    the first in the alphabet, so the same texts give the same tokens. A pair seen once is left.
    WordPiece's own rule divides a pair's count by those of its halves; the plain count makes
    frequent words whole sooner, and these are what a small network can learn.

    Every character has a form within words (##), so no word of these texts is unknown, except those
    of over 100 characters, which WordPiece never cuts.
    Raises ValueError if the characters alone are more than `size`, or there are none.
    """
    counts = Counter(w for text in texts for w in words(text, lower) if len(w) <= LONGEST_WORD)
    characters = sorted({character for word in counts for character in word})
    vocab = [*SPECIAL, *characters, *(f"##{character}" for character in characters)]
    if not characters or len(vocab) > size:
        raise ValueError(
            f"a vocabulary of {size} tokens cannot be learned from texts of {len(characters)} "
            f"different characters, which need {len(vocab)}; choose a larger one, or check the "
            "encoding of the texts"
        )
    # a dict keeps the order, and a piece once: "ab" + "c" and "a" + "bc" are the same
    tokens = dict.fromkeys(vocab)
    merges = Merges(counts)
    while len(tokens) < size and (piece := merges.next()):
        tokens[piece] = None
    return list(tokens)


class Merges:
    """Words as pieces, and how often each pair of neighbours occurs in them."""

    def __init__(self, counts: Counter[str]) -> None:
        self.counts = counts
        self.pieces = {word: [word[0], *(f"##{c}" for c in word[1:])] for word in counts}
        self.pairs: Counter[Pair] = Counter()
        self.places: defaultdict[Pair, set[str]] = defaultdict(set)  # words that (had) the pair
        self.queue: list[tuple[int, Pair]] = []  # (-count, pair); outdated if the count has changed
        self._count(counts, 1)

    def next(self) -> str | None:
        """Merge the most frequent pair everywhere; returns its piece, None if none occurs twice."""
        while self.queue:
            count, pair = heapq.heappop(self.queue)
            if -count == self.pairs[pair] >= 2:
                break
        else:
            return None
        found = self.places.pop(pair)
        self._count(found, -1)
        piece = pair[0] + pair[1].removeprefix("##")
        for word in found:
            self.pieces[word] = merge(self.pieces[word], pair, piece)
        self._count(found, 1)
        return piece

    def _count(self, found: Iterable[str], sign: int) -> None:
        """Add (sign 1) or subtract (-1) the pairs of these words."""
        changed = set()
        for word in found:
            for pair in pairwise(self.pieces[word]):
                self.pairs[pair] += sign * self.counts[word]
                self.places[pair].add(word)
                changed.add(pair)
        for pair in changed:
            heapq.heappush(self.queue, (-self.pairs[pair], pair))


def merge(pieces: Sequence[str], pair: Pair, piece: str) -> list[str]:
    """The pieces with each `pair`, from the left, replaced by `piece`."""
    merged: list[str] = []
    for following in pieces:
        if merged and (merged[-1], following) == pair:
            merged[-1] = piece
        else:
            merged.append(following)
    return merged
