"""The learned vocabulary: its merges, that it cuts every text it was learned from, its limits."""

from collections import Counter
from itertools import pairwise

import pytest

from ldm.text.vocabulary import learn, merge
from ldm.text.wordpiece import SPECIAL, WordPiece, words

TEXTS = [
    "Pleural effusion on the left; pleural thickening, 4 ± 3 cm.",
    "No effusion. Infusion of contrast (arrow), Röntgen 1896",
    "effusion, infusion, transfusion: aaaaaaa banana",
]


def slow(texts: list[str], size: int) -> list[str]:
    """The same by counting everything anew for every merge."""
    counts = Counter(word for text in texts for word in words(text))
    characters = sorted({c for word in counts for c in word})
    tokens = [*SPECIAL, *characters, *("##" + c for c in characters)]
    pieces = {word: [word[0], *("##" + c for c in word[1:])] for word in counts}
    while len(tokens) < size:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in counts.items():
            for pair in pairwise(pieces[word]):
                pairs[pair] += count
        if not pairs or max(pairs.values()) < 2:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        piece = best[0] + best[1][2:]
        pieces = {word: merge(cut, best, piece) for word, cut in pieces.items()}
        tokens += [] if piece in tokens else [piece]
    return tokens


def test_the_paper_s_example() -> None:
    """The words of arXiv:1508.07909, algorithm 1, give es, est, then low, as there.

    Of l o and o w, equally frequent, ours takes the other first; and a word has no end sign.
    """
    texts = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3
    letters = set("".join(texts))
    learned = learn(texts, 1000)[len(SPECIAL) + 2 * len(letters) :]
    assert learned[:4] == ["##es", "##est", "##ow", "low"]


@pytest.mark.parametrize("size", [70, 80, 500])
def test_the_quick_merges_are_the_slow_ones(size: int) -> None:
    """Counts kept up to date give the tokens that counting anew gives, in the same order."""
    assert learn(TEXTS, size) == slow(TEXTS, size)


@pytest.mark.parametrize("size", [70, 80, 500])
def test_no_word_of_the_texts_is_unknown(size: int) -> None:
    """Whatever the size, WordPiece cuts every text that was learned from, and loses no letter."""
    vocab = learn(TEXTS, size)
    tokenizer = WordPiece(vocab)
    assert len(vocab) == len(set(vocab)) <= size
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert tokenizer.unknown not in ids
        assert "".join(vocab[i].removeprefix("##") for i in ids[1:-1]) == "".join(words(text))


def test_frequent_words_become_one_token_and_order_is_no_matter() -> None:
    """A word seen often is whole; texts in another order give the same vocabulary."""
    vocab = learn(TEXTS, 500)
    assert {"effusion", "pleural", "infusion"} <= set(vocab)
    assert "transfusion" not in vocab  # seen once
    assert learn(reversed(TEXTS), 500) == vocab


def test_too_small_a_size_or_no_text_is_refused() -> None:
    """Without room for every character some words would be unknown: an error tells the need."""
    with pytest.raises(ValueError, match=r"40 tokens cannot .* which need \d+"):
        learn(TEXTS, 40)
    with pytest.raises(ValueError, match="0 different characters"):
        learn(["  "], 40)
