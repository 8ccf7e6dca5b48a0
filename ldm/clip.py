"""CLIP's text tower around open_clip, fed and read as Stable Diffusion does."""

import functools
import logging
import re
from collections.abc import Sequence
from itertools import accumulate
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
            act_layer=nn.GELU if cfg.openclip else QuickGELU,
        )
        self.config = cfg
        self.token_embedding = tower.token_embedding
        self.positional_embedding = tower.positional_embedding
        self.transformer = tower.transformer
        self.ln_final = tower.ln_final
        # new words (textual inversion) and their vectors [k, D]; no part of the tower's weights
        self.words: dict[str, Tensor] = {}

    def tokenize(self, prompts: Sequence[str], log_dropped: bool = True) -> Tensor:
        """int64 [B, 77]: start, words, end-of-text to the end. Logs the words that did not fit.

        log_dropped: False for captions in training, which may be patients' and belong in no log
        """
        bpe, length = tokenizer(), self.config.context_length
        pad = 0 if self.config.openclip else bpe.eot_token_id
        tokens = torch.full((len(prompts), length), pad, dtype=torch.int64)
        for row, prompt in zip(tokens, prompts, strict=True):
            words = self._encode(prompt)
            if log_dropped and len(words) > length - 2:
                dropped = self._dropped(prompt, length - 2)
                log.warning("prompt over %d tokens, these words are ignored: %s", length, dropped)
            ids = [bpe.sot_token_id, *words[: length - 2], bpe.eot_token_id]
            row[: len(ids)] = torch.tensor(ids)
        return tokens

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: int64 [B, S];  returns [B, S, D]"""
        length = tokens.shape[1]
        x = self._embed(tokens) + self.positional_embedding[:length]
        future = torch.full((length, length), float("-inf"), dtype=x.dtype, device=x.device)
        return self.ln_final(self.transformer(x, attn_mask=future.triu(1)))

    def _dropped(self, prompt: str, room: int) -> str:
        """The words that do not fit whole into `room` tokens."""
        words = prompt.split()
        ends = accumulate(len(self._encode(word)) for word in words)
        return " ".join(word for word, end in zip(words, ends, strict=True) if end > room)

    def _ids(self) -> dict[int, str]:
        """{token id: new word}; a word of k vectors has k ids, all beyond the vocabulary."""
        each = [word for word, vectors in self.words.items() for _ in range(len(vectors))]
        return {self.config.vocab_size + i: word for i, word in enumerate(each)}

    def _encode(self, prompt: str) -> list[int]:
        if not self.words:
            return tokenizer().encode(prompt)
        ids = self._ids()
        longest_first = sorted(self.words, key=len, reverse=True)
        whole = [re.sub(r"^(?=\w)|(?<=\w)$", r"\\b", re.escape(word)) for word in longest_first]
        pieces = re.split(f"({'|'.join(whole)})", prompt, flags=re.IGNORECASE)  # in any capitals
        own = [[i for i, w in ids.items() if w.lower() == piece.lower()] for piece in pieces]
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
