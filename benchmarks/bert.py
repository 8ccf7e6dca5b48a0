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
from collections.abc import Sequence

import torch

from ldm import rng
from ldm.data.data_config import DataConfig
from ldm.data.text_corpus import open_texts
from ldm.metrics.estimate import Estimate
from ldm.metrics.masked_words import CONTEXTS, Guess, by_counting, share_of_groups
from ldm.text.bert import Bert
from ldm.text.bert_files import load_bert
from ldm.text.pooling import pad
from ldm.text.wordpiece import SPECIAL, WordPiece
from ldm.training.methods.bert_pretraining import MASK, Row, encode_rows, hide


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
