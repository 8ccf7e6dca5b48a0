"""CLIP's text tower around open_clip, fed and read as Stable Diffusion does."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.config import TextConfig

log = logging.getLogger(__name__)


@functools.lru_cache(maxsize=1)
def tokenizer() -> Any:
    """open_clip's byte-pair tokenizer; imported here because open_clip takes seconds."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


class TextEncoder(nn.Module):
    """Prompts -> one vector per token, after the final layer norm (CLIP, arXiv:2103.00020).

    Three things differ from open_clip's own use, and each changes every picture:
    quick-GELU (plain `ViT-L-14` has the same keys and loads silently), padding with end-of-text
    (open_clip pads with 0, and the U-Net attends to the pads), and all tokens, not the pooled one.
    """

    def __init__(self, cfg: TextConfig) -> None:
        super().__init__()
        from open_clip.transformer import QuickGELU, TextTransformer

        tower = TextTransformer(
            context_length=cfg.context_length,
            vocab_size=cfg.vocab_size,
            width=cfg.width,
            heads=cfg.heads,
            layers=cfg.layers,
            output_dim=None,
            act_layer=QuickGELU,
        )
        self.config = cfg
        self.token_embedding = tower.token_embedding
        self.positional_embedding = tower.positional_embedding
        self.transformer = tower.transformer
        self.ln_final = tower.ln_final
        # new words (textual inversion) and their vectors [k, D]; no part of the tower's weights
        self.words: dict[str, Tensor] = {}

    def tokenize(self, prompts: Sequence[str], tell: bool = True) -> Tensor:
        """int64 [B, 77]: start, words, end-of-text to the end. Logs the words that did not fit.

        tell: False for captions in training, which may be patients' and belong in no log
        """
        bpe, length = tokenizer(), self.config.context_length
        tokens = torch.full((len(prompts), length), bpe.eot_token_id, dtype=torch.int64)
        for row, prompt in zip(tokens, prompts, strict=True):
            words = self._encode(prompt)
            if tell and (dropped := dropped_words(words, length - 2, self._ids())):
                log.warning("prompt over %d tokens, these words are ignored: %s", length, dropped)
            ids = [bpe.sot_token_id, *words[: length - 2]]
            row[: len(ids)] = torch.tensor(ids)
        return tokens

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: int64 [B, S];  returns [B, S, D]"""
        length = tokens.shape[1]
        x = self._embed(tokens) + self.positional_embedding[:length]
        future = torch.full((length, length), float("-inf"), dtype=x.dtype, device=x.device)
        return self.ln_final(self.transformer(x, attn_mask=future.triu(1)))

    def _ids(self) -> dict[int, str]:
        """{token id: new word}; a word of k vectors has k ids, all beyond the vocabulary."""
        each = [word for word, vectors in self.words.items() for _ in range(len(vectors))]
        return {self.config.vocab_size + i: word for i, word in enumerate(each)}

    def _encode(self, prompt: str) -> list[int]:
        if not self.words:
            return tokenizer().encode(prompt)
        ids = self._ids()
        longest_first = sorted(self.words, key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, longest_first))})", prompt)
        own = [[i for i, word in ids.items() if word == piece] for piece in pieces]
        return [
            i for a, piece in zip(own, pieces, strict=True) for i in a or tokenizer().encode(piece)
        ]

    def _embed(self, tokens: Tensor) -> Tensor:
        """[B, S] -> [B, S, D], the vectors before their positions are added."""
        if not self.words:
            return self.token_embedding(tokens)
        weight = self.token_embedding.weight
        new = torch.cat([vectors.to(weight) for vectors in self.words.values()])
        beyond = tokens - len(weight)
        known = self.token_embedding(tokens.clamp(max=len(weight) - 1))
        return torch.where(beyond[..., None] >= 0, F.embedding(beyond.clamp(min=0), new), known)


def dropped_words(ids: Sequence[int], room: int, new: Mapping[int, str] | None = None) -> str:
    """The words of a tokenized prompt that do not fit whole into `room` tokens; "" if all fit.

    new: {token id: word} beyond the tokenizer's vocabulary
    """
    if len(ids) <= room:
        return ""
    bpe, start, new = tokenizer(), room, new or {}

    def ends(place: int) -> bool:
        if (token := ids[place]) in new:
            return new.get(ids[place + 1]) != new[token]
        return bpe.decoder[token].endswith("</w>")

    while start > 0 and not ends(start - 1):
        start -= 1  # a word cut in the middle is a word lost
    groups = [(word, list(group)) for word, group in groupby(ids[start:], new.get)]
    return " ".join(word or bpe.decode(group).strip() for word, group in groups)
