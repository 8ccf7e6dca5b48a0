"""How many hidden tokens of held-out captions does a BERT guess, and counting alone?

    python benchmarks/bert.py [runs/scratch_bert] [--data captions.csv] [--seed 0]

The BERT was trained by configs/scratch_bert.yaml on the same CSV, phantoms or both: then no text
that is asked here was learned from. 15 % of a text's tokens, one at least, are hidden behind
[MASK]. Beside it stands what is most frequent in the texts that are not held out: overall, at the
token's place, and between its neighbours (beside one of them, where both together are new).
Prints shares of the hidden tokens guessed, with 95 % intervals over texts; n is the number of
texts (of rows, where a text is longer than the context). The last line says how much the network
knows by heart: the same of texts it learned from.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence

import torch

from ldm import rng
from ldm.data import DataConfig
from ldm.data.caption_corpus import open_texts
from ldm.metrics.classification import share_of_groups
from ldm.metrics.estimate import Estimate
from ldm.text.bert import Bert
from ldm.text.bert_files import load_bert
from ldm.text.pooling import pad
from ldm.text.wordpiece import SPECIAL, WordPiece
from ldm.training.methods.bert_pretraining import MASK, Row, encode_rows, hide

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


def measure(
    bert: Bert, wordpiece: WordPiece, data: DataConfig, seed: int = 0
) -> dict[str, Estimate]:
    """{who guesses: the share guessed} of the texts held out of `data`."""
    texts, context = open_texts(data), bert.config.context_length
    rows = encode_rows(wordpiece, texts.held_out, context)
    learned = encode_rows(wordpiece, texts.train, context)
    asked = guess(bert, rows, seed)
    shares = {
        name: share(rows, asked, by_counting(learned, where)) for name, where in CONTEXTS.items()
    }
    shares["this BERT"] = share(rows, asked)
    some = learned[:: max(1, len(learned) // len(rows))]  # about as many, of all lengths
    shares["this BERT, of texts it learned from"] = share(some, guess(bert, some, seed))
    return shares


def share(
    rows: list[list[int]],
    asked: list[tuple[list[int], dict[int, int]]],
    instead: Guess | None = None,
) -> Estimate:
    """Of the hidden tokens that were guessed: by the network, or `instead` of it."""
    hits = []
    for row, (shown, guesses) in zip(rows, asked, strict=True):
        answers = {place: instead(shown, place) for place in guesses} if instead else guesses
        hits.append(sum(row[place] == token for place, token in answers.items()))
    return share_of_groups(hits, [len(guesses) for _, guesses in asked])


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


@torch.inference_mode()
def guess(bert: Bert, rows: Sequence[Row], seed: int = 0) -> list[tuple[Row, dict[int, int]]]:
    """For each row, how it was shown, and {place of a hidden token: the guess}.

    All that is hidden is shown as [MASK], none as a random token or as it was.
    rows: as `encode_rows` gives them for a BERT whose vocabulary begins with the special tokens
    """
    found = []
    for start in range(0, len(rows), 32):
        part = rows[start : start + 32]
        ids, mask = pad(part, SPECIAL.index("[PAD]"))
        _, hidden = hide(ids, bert.config.vocab_size, rng.generator(seed, "hide", start))
        shown = ids.masked_fill(hidden, MASK)
        best = iter(bert.guess(bert(shown, mask)[hidden]).argmax(dim=-1).tolist())
        for row, line, places in zip(part, shown.tolist(), hidden, strict=True):
            guesses = {place: next(best) for place in places.nonzero()[:, 0].tolist()}
            found.append((line[: len(row)], guesses))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="weights/bert", help="a run folder")
    parser.add_argument("--data", help="a CSV with a column `caption`, as data.path")
    parser.add_argument("--seed", type=int, default=0, help="of which tokens are hidden")
    options = parser.parse_args()
    bert, wordpiece = load_bert(options.model)
    sources = {"phantom captions": DataConfig()}
    if options.data:
        sources[options.data] = DataConfig(path=options.data)
    for source, data in sources.items():
        print(source)
        for name, estimate in measure(bert, wordpiece, data, options.seed).items():
            print(f"  {name:<38}{estimate}")


if __name__ == "__main__":
    main()
