"""Text encoders by name, and the ways to make one vector of a text (arXiv:2210.04133, section 2.4).

words                   no encoder: the share of words in common
built-in, PATH          CLIP's text tower of a model in any layout that ldm.weights reads
random, random:PATH     the same tower, or BERT, with random weights: a control
open_clip:MODEL/TAG     a tower that open_clip fetches, as open_clip:ViT-B-32/openai
bert, FOLDER            a BERT: config.json, vocab.txt and weights
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from ldm.clip import TextEncoder, tokenizer
from ldm.config import TextConfig
from ldm.text import pooling
from ldm.text.bert import Bert
from ldm.text.bert_files import load_bert
from ldm.text.wordpiece import WordPiece
from ldm.training.methods.model_parts import random_weights
from ldm.weights import loading
from ldm.weights.loading import build

WEIGHTS = Path(__file__).parents[2] / "weights"
PLACES = {"built-in": WEIGHTS, "bert": WEIGHTS / "bert"}
KNOWN = "words, built-in, random, bert, open_clip:MODEL/TAG, or the path of a BERT or a model"


class Embedded(NamedTuple):
    """vectors: {how: [n, D]}, none normalised;  cut: of how many texts the end did not fit"""

    vectors: dict[str, NDArray[np.float32]]
    cut: int


class NamedEncoder:
    """hows: what `embed` can make of a text;  limit: tokens of a text, both ends included"""

    hows: tuple[str, ...]
    limit: int

    def tokens(self, text: str) -> list[int]:
        """All of them, with the marks at both ends."""
        raise NotImplementedError

    def hidden(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """The last hidden states [B, S, D], and a mask [B, S] that is True for tokens."""
        raise NotImplementedError

    def pool(self, hidden: Tensor, mask: Tensor, how: str) -> Tensor:
        """[B, S, D] -> [B, D]"""
        raise NotImplementedError

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], hows: Sequence[str], name: str = "") -> Embedded:
        """The vectors of the texts; name: beside the progress bar."""
        rows = [self.tokens(text) for text in texts]
        short = [pooling.shorten(row, self.limit) for row in rows]
        vectors: dict[str, list[Tensor]] = {how: [] for how in hows}
        starts = range(0, len(texts), 32)
        for start in tqdm(starts, f"reading with {name}", delay=2, disable=None, leave=False):
            hidden, mask = self.hidden(short[start : start + 32])
            for how in hows:
                vectors[how].append(self.pool(hidden, mask, how))
        cut = sum(len(row) > self.limit for row in rows)
        return Embedded({how: torch.cat(some).numpy() for how, some in vectors.items()}, cut)


class Clip(NamedEncoder):
    """CLIP's text tower (arXiv:2103.00020); each token has seen those before it, so "start" none.

    "eot": the state of end-of-text, what Hugging Face calls pooler output; "mean" over the tokens,
    both ends among them; "start": the state of the first token, the paper's "CLS".
    """

    hows = ("eot", "mean", "start")

    def __init__(self, tower: TextEncoder) -> None:
        self.tower, self.bpe = tower, tokenizer()
        self.limit = tower.config.context_length

    def tokens(self, text: str) -> list[int]:
        return [self.bpe.sot_token_id, *self.bpe.encode(text), self.bpe.eot_token_id]

    def hidden(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        ids, mask = pooling.pad(rows, self.bpe.eot_token_id)
        return self.tower(ids), mask

    def pool(self, hidden: Tensor, mask: Tensor, how: str) -> Tensor:
        if how == "eot":
            return hidden[torch.arange(len(hidden)), mask.sum(1) - 1]
        return pooling.mean(hidden, mask) if how == "mean" else hidden[:, 0]


class BertEncoder(NamedEncoder):
    """A BERT; what its file has no head for is not among the hows. See ldm.text.pooling.pool."""

    def __init__(self, bert: Bert, wordpiece: WordPiece) -> None:
        self.bert, self.wordpiece = bert, wordpiece
        self.limit = self.bert.config.context_length
        heads = {"pooler": self.bert.pooler, "projection": self.bert.projection}
        self.hows = ("cls", "mean", *(how for how, head in heads.items() if head is not None))

    def tokens(self, text: str) -> list[int]:
        return self.wordpiece.encode(text)

    def hidden(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        ids, mask = pooling.pad(rows, self.wordpiece.pad)
        return self.bert(ids, mask), mask

    def pool(self, hidden: Tensor, mask: Tensor, how: str) -> Tensor:
        return pooling.pool(self.bert, hidden, mask, how)  # type: ignore[arg-type]  # of hows


def open_encoder(name: str, seed: int = 0) -> NamedEncoder:
    """The encoder of a name that this module's docstring lists, but for `words`.

    seed: of random weights
    Raises ValueError, in one line, for a name or a file that is none.
    """
    kind, _, rest = name.partition(":")
    if kind == "open_clip":
        return Clip(_open_clip(rest))
    path = _place((rest or "built-in") if kind == "random" else name)
    if _is_bert(path):
        bert, wordpiece = load_bert(path)
        if kind == "random":
            with random_weights(seed, "bert"):
                bert = Bert(bert.config).eval()
        return BertEncoder(bert, wordpiece)
    config, states = loading.load_parts(path)
    if "text" not in states:
        raise ValueError(f"{path} has no text tower; name a file that has one")
    if kind == "random":
        with random_weights(seed, "text"):
            return Clip(TextEncoder(config.text).eval())
    return Clip(build("text", config, states["text"]))  # type: ignore[arg-type]  # by name


def _place(name: str) -> Path:
    if name in PLACES:
        return PLACES[name]
    if not name or not Path(name).exists():
        raise ValueError(f"unknown text encoder {name!r}; choose {KNOWN}")
    return Path(name)


def _is_bert(path: Path) -> bool:
    """Whether it is to be opened as one; of a folder that is nothing, a BERT's message says why."""
    names = {file.name for file in path.iterdir()} if path.is_dir() else {"model.safetensors"}
    return bool(names & {"config.json", "vocab.txt"} or not names & {"model.safetensors", "unet"})


def _open_clip(name: str) -> TextEncoder:
    """MODEL/TAG with open_clip's weights and activation; fetched unless they are here already."""
    import open_clip

    model_name, _, tag = name.rpartition("/")
    if (model_name, tag) not in open_clip.list_pretrained():
        raise ValueError(
            f"open_clip has no {name!r}; name a model and its weights, as "
            "open_clip:ViT-B-32/openai (open_clip.list_pretrained() lists them)"
        )
    sizes = open_clip.get_model_config(model_name)["text_cfg"]
    ours = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
    other = sizes.keys() - ours.keys()
    config = TextConfig(**{key: sizes.get(key, default) for key, default in ours.items()})
    if other or config.vocab_size != ours["vocab_size"]:
        raise ValueError(f"open_clip's {model_name} has no text tower of CLIP's kind; take another")
    logging.disable()  # it tells of every retry
    try:
        model = open_clip.create_model(model_name, pretrained=tag)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"open_clip cannot fetch the weights of {name}; try again with a network, "
            "or where they were fetched before"
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    return with_parts(config, getattr(model, "text", model))


def with_parts(config: TextConfig, tower: nn.Module) -> TextEncoder:
    """Our tower of open_clip's own parts, whose activation may be another than quick-GELU."""
    encoder = TextEncoder(config)
    for part in ("token_embedding", "positional_embedding", "transformer", "ln_final"):
        setattr(encoder, part, getattr(tower, part))
    return encoder.eval()
