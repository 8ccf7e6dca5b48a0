"""Text encoders by name, and the ways to make one vector of a text (arXiv:2210.04133, section 2.4).

words                   no encoder: the share of words in common
built-in, PATH          CLIP's text tower of a model in any layout that ldm.weights reads
random, random:PATH     the same tower, or BERT, with random weights: a control
open_clip:MODEL/TAG     a tower that open_clip fetches, as open_clip:ViT-B-32/openai
bert, FOLDER            a BERT: config.json, vocab.txt and weights
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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

WEIGHTS = Path(__file__).parents[2] / "weights"
PLACES = {"built-in": WEIGHTS, "bert": WEIGHTS / "bert"}
KNOWN = "words, built-in, random, bert, open_clip:MODEL/TAG, or the path of a BERT or a model"


class Embedded(NamedTuple):
    """vectors: {how: [n, D]}, none normalised;  cut: number of texts whose end did not fit"""

    vectors: dict[str, NDArray[np.float32]]
    cut: int


@dataclass(frozen=True)
class NamedEncoder:
    """hows: the vectors that `embed` can make;  limit: tokens of a text, both ends included

    tokens: all tokens of a text, with the marks at both ends;  pad: the token after the end
    hidden: ids and mask [B, S], True for tokens -> the last hidden states [B, S, D]
    pool: those states, mask and one of `hows` -> [B, D]
    """

    hows: tuple[str, ...]
    limit: int
    tokens: Callable[[str], list[int]]
    pad: int
    hidden: Callable[[Tensor, Tensor], Tensor]
    pool: Callable[[Tensor, Tensor, str], Tensor]

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], hows: Sequence[str], name: str = "") -> Embedded:
        """The vectors of the texts; name: beside the progress bar."""
        rows = [self.tokens(text) for text in texts]
        short = [pooling.shorten(row, self.limit) for row in rows]
        vectors: dict[str, list[Tensor]] = {how: [] for how in hows}
        starts = range(0, len(texts), 32)
        for start in tqdm(starts, f"reading with {name}", delay=2, disable=None, leave=False):
            ids, mask = pooling.pad(short[start : start + 32], self.pad)
            hidden = self.hidden(ids, mask)
            for how in hows:
                vectors[how].append(self.pool(hidden, mask, how))
        cut = sum(len(row) > self.limit for row in rows)
        return Embedded({how: torch.cat(parts).numpy() for how, parts in vectors.items()}, cut)


def clip_encoder(tower: TextEncoder) -> NamedEncoder:
    """CLIP's text tower (arXiv:2103.00020), whose attention is causal.

    "eot": the state of end-of-text, Hugging Face's pooler output; "mean" over the tokens, both ends
    among them; "start": the state of the first token, the paper's "CLS", which depends on no text.
    """
    bpe = tokenizer()

    def tokens(text: str) -> list[int]:
        return [bpe.sot_token_id, *bpe.encode(text), bpe.eot_token_id]

    def pool(hidden: Tensor, mask: Tensor, how: str) -> Tensor:
        if how == "eot":
            return hidden[torch.arange(len(hidden)), mask.sum(1) - 1]
        return pooling.mean(hidden, mask) if how == "mean" else hidden[:, 0]

    hows, limit = ("eot", "mean", "start"), tower.config.context_length
    return NamedEncoder(hows, limit, tokens, bpe.eot_token_id, lambda ids, _: tower(ids), pool)


def bert_encoder(bert: Bert, wordpiece: WordPiece) -> NamedEncoder:
    """A BERT; hows: those of ldm.text.pooling.pool for which its file has a head."""
    heads = {"pooler": bert.pooler, "projection": bert.projection}
    hows = ("cls", "mean", *(how for how, head in heads.items() if head is not None))
    pool = partial(pooling.pool, bert)
    return NamedEncoder(
        hows, bert.config.context_length, wordpiece.encode, wordpiece.pad, bert, pool
    )


def open_encoder(name: str, seed: int = 0) -> NamedEncoder:
    """The encoder of a name in this module's docstring; `words` is not one.

    seed: of random weights
    Raises ValueError, in one line, for an unknown name and for a file without an encoder.
    """
    kind, _, rest = name.partition(":")
    if kind == "open_clip":
        return clip_encoder(_open_clip(rest))
    path = _path_of((rest or "built-in") if kind == "random" else name)
    if _is_bert(path):
        bert, wordpiece = load_bert(path)
        if kind == "random":
            with random_weights(seed, "bert"):
                bert = Bert(bert.config).eval()
        return bert_encoder(bert, wordpiece)
    config, states = loading.load_parts(path)
    if "text" not in states:
        raise ValueError(f"{path} has no text tower; name a file that has one")
    if kind == "random":
        with random_weights(seed, "text"):
            return clip_encoder(TextEncoder(config.text).eval())
    return clip_encoder(loading.build("text", config, states["text"]))  # type: ignore[arg-type]  # by name


def _path_of(name: str) -> Path:
    if name not in PLACES and not (name and Path(name).exists()):
        raise ValueError(f"unknown text encoder {name!r}; choose {KNOWN}")
    return PLACES.get(name, Path(name))


def _is_bert(path: Path) -> bool:
    """Whether to open it as one; so is a folder of neither kind: its error says what is missing."""
    names = {file.name for file in path.iterdir()} if path.is_dir() else {"model.safetensors"}
    return bool(names & {"config.json", "vocab.txt"} or not names & {"model.safetensors", "unet"})


def _open_clip(name: str) -> TextEncoder:
    """MODEL/TAG with open_clip's weights and activation; fetched unless in open_clip's cache."""
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
    logging.disable()  # it logs every retry
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
    """A TextEncoder with open_clip's own parts, whose activation may not be quick-GELU."""
    encoder = TextEncoder(config)
    for part in ("token_embedding", "positional_embedding", "transformer", "ln_final"):
        setattr(encoder, part, getattr(tower, part))
    return encoder.eval()
