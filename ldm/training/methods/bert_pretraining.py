"""Training a BERT from scratch: it guesses hidden tokens of texts."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.config import from_dict, to_dict
from ldm.data import caption_corpus
from ldm.data.datasets import Batch, check_shares, shares
from ldm.system import devices
from ldm.system.atomic import digest
from ldm.text.bert import Bert, BertConfig
from ldm.text.bert_files import save_bert
from ldm.text.pooling import pad
from ldm.text.vocabulary import learn
from ldm.text.wordpiece import SPECIAL, WordPiece
from ldm.training.methods.model_parts import random_weights
from ldm.training.trainer import Method
from ldm.training.training_run import RunConfig

log = logging.getLogger(__name__)

HIDDEN, MASKED, RANDOM = 0.15, 0.8, 0.1  # BERT, section 3.1: of all tokens; of those hidden
MASK = SPECIAL.index("[MASK]")  # its id, as the special tokens come first in a learned vocabulary
NEAR = 8  # a batch is drawn from this many times as many rows of similar length

Row = list[int]


@dataclass(frozen=True)
class BertOptions:
    """`network`: its sizes; the vocabulary is `vocab_size` tokens at most, or all that occur twice.

    The network gets the masked-LM head and no other, as nothing would train the others.
    """

    network: BertConfig = field(default_factory=BertConfig)
    dtype: Literal["float32", "float16"] = "float32"  # of the file


class TrainBert(Method):
    """Masked language modelling (BERT, arXiv:1810.04805, section 3.1), without next sentences.

    The vocabulary is learned, too, from the texts that are not held out.
    """

    def __init__(self, run: RunConfig) -> None:
        options = from_dict(BertOptions, run.method, "method")
        heads: dict[str, Any] = {"masked_lm": True, "pooler": False, "projection": None}
        network = replace(options.network, **heads)
        sources = caption_corpus.open_shares(run.data)
        check_shares(sources, run.train.batch_size)
        vocab = learn([t for source, _ in sources for t in source.train], network.vocab_size)
        self.wordpiece = WordPiece(vocab)
        self.options = replace(options, network=replace(network, vocab_size=len(vocab)))
        self.keys = [source.key for source, _ in sources]
        self.rows: list[tuple[list[Row], float]] = []
        for source, share in sources:
            rows = encode_rows(self.wordpiece, source.train, network.context_length)
            self.rows.append((rows, share))
            log.info(
                "%d texts in %d rows of at most %d tokens; %d more texts are held out",
                *(len(source.train), len(rows), network.context_length, len(source.held_out)),
            )
        with random_weights(run.train.seed, "bert"):
            self.module = Bert(self.options.network)
        self.module.to(devices.choose(run.train.device or None))

    def settings(self) -> dict[str, Any]:
        vocab = digest(list(self.wordpiece.ids))
        return {"method": to_dict(self.options), "data": self.keys, "vocabulary": vocab}

    def draw_batch(self, size: int, generator: torch.Generator) -> Batch:
        """Token ids int64 [B, S] in the place of images; any row is as likely as any other.

        The rows are of similar length, so that little is padding: they come from a stretch, begun
        anywhere, of the rows sorted by length and closed to a ring.
        """
        batch: list[Row] = []
        names: list[str] = []
        for rows, count in shares(self.rows, size):
            start = torch.randint(len(rows), (1,), generator=generator)
            steps = torch.randint(min(NEAR * count, len(rows)), (count,), generator=generator)
            picks = ((start + steps) % len(rows)).tolist()
            batch += [rows[i] for i in picks]
            names += [f"row {i} of {len(rows)}" for i in picks]
        return Batch(pad(batch, self.wordpiece.pad)[0], [], names)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the hidden tokens, in nats, and how many are guessed."""
        ids, bert = batch.images, self.module
        shown, hidden = hide(ids.cpu(), bert.config.vocab_size, generator)
        shown, hidden = shown.to(ids.device), hidden.to(ids.device)
        states = bert(shown, ids != self.wordpiece.pad)
        logits = bert.guess(states[hidden])  # [hidden tokens, V]
        accuracy = (logits.argmax(dim=-1) == ids[hidden]).float().mean()
        return F.cross_entropy(logits, ids[hidden]), {"accuracy": accuracy.item()}

    def summary(self) -> str:
        return f"{self.wordpiece.size} tokens; benchmarks/bert.py measures it on held-out texts"

    def save(self, path: Path) -> None:
        """config.json, tokenizer and weights, as Hugging Face lays them out."""
        dtype = torch.float16 if self.options.dtype == "float16" else torch.float32
        if not all(p.to(dtype).isfinite().all() for p in self.module.parameters()):
            raise FloatingPointError("a weight is too large for float16: begin again with float32")
        save_bert(path.parent, self.module, self.wordpiece, dtype)


def encode_rows(wordpiece: WordPiece, found: Iterable[str], context: int) -> list[Row]:
    """Token ids of the texts, sorted by length; nothing is cut off.

    A text of more than `context` tokens becomes several rows, each with [CLS] and [SEP]; a row
    without any token to guess, of unknown words say, is left out.
    """
    rows = []
    for text in found:
        ids = wordpiece.encode(text)[1:-1]
        for start in range(0, len(ids), context - 2):
            part = ids[start : start + context - 2]
            if any(i >= len(SPECIAL) for i in part):
                rows.append([wordpiece.start, *part, wordpiece.end])
    return sorted(rows, key=len)


def hide(ids: Tensor, vocab_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ids with some hidden, and which are to be guessed: int64 and bool [B, S].

    15 % of each row's tokens, rounded, one at least, none of them special; of these 80 % become
    [MASK], 10 % a random token, 10 % stay (BERT, arXiv:1810.04805, section 3.1, appendix A.1).
    """
    ordinary = ids >= len(SPECIAL)
    wanted = (HIDDEN * ordinary.sum(dim=1, keepdim=True)).round().clamp(min=1)
    dice = torch.rand(ids.shape, generator=generator).masked_fill(~ordinary, 2)
    hidden = (dice.argsort(dim=1).argsort(dim=1) < wanted) & ordinary  # the smallest of a row
    fate = torch.rand(ids.shape, generator=generator)
    others = torch.randint(len(SPECIAL), vocab_size, ids.shape, generator=generator)
    shown = ids.masked_fill(hidden & (fate < MASKED), MASK)
    return torch.where(hidden & (fate >= 1 - RANDOM), others, shown), hidden
