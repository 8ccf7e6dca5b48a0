"""BERT (arXiv:1810.04805): token ids -> one vector per token, each of which has seen all others."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.config import ConfigError, check_numbers


@dataclass(frozen=True)
class BertConfig:
    """A BERT that reads reports; the defaults are BERT-base's (110 M parameters)."""

    vocab_size: int = 30522
    context_length: int = 512
    segments: int = 2
    width: int = 768
    layers: int = 12
    heads: int = 12
    feedforward: int = 3072
    eps: float = 1e-12  # of the layer norms
    pooler: bool = True  # a layer that makes one vector of [CLS]; many files come without
    masked_lm: bool = False  # the head that guesses masked words
    projection: int | None = None  # width of CXR-BERT's head for comparison with images

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.width % self.heads:
            raise ConfigError(f"a width of {self.width} does not split into {self.heads} heads")


class SelfAttention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V over N heads (arXiv:1706.03762, eq. 1), without keys of padding.

    Unlike the U-Net's, its queries, keys and values have biases.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: [B, S, D];  mask: bool [B, S], False for padding;  returns [B, S, D]"""
        q, k, v = (
            rearrange(f(x), "B S (N d) -> B N S d", N=self.heads) for f in (self.q, self.k, self.v)
        )
        keys = rearrange(mask, "B S -> B 1 1 S")  # for every head and query
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=keys)  # [B, N, S, d]
        return self.out(rearrange(y, "B N S d -> B S (N d)"))


class Block(nn.Module):
    """Attention, then feed-forward; each is added and normalised after (arXiv:1706.03762, 3.1)."""

    def __init__(self, cfg: BertConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(cfg.width, cfg.heads)
        self.norm1 = nn.LayerNorm(cfg.width, eps=cfg.eps)
        self.ff_in = nn.Linear(cfg.width, cfg.feedforward)
        self.ff_out = nn.Linear(cfg.feedforward, cfg.width)
        self.norm2 = nn.LayerNorm(cfg.width, eps=cfg.eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: [B, S, D];  mask: bool [B, S];  returns [B, S, D]"""
        x = self.norm1(x + self.attention(x, mask))
        # the exact GELU: its tanh form is 3e-4 off after twelve blocks
        return self.norm2(x + self.ff_out(F.gelu(self.ff_in(x))))


class MaskedLM(nn.Module):
    """The score of every token of the vocabulary at every place, from the token embedding."""

    def __init__(self, cfg: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(cfg.width, cfg.width)
        self.norm = nn.LayerNorm(cfg.width, eps=cfg.eps)
        self.bias = nn.Parameter(torch.zeros(cfg.vocab_size))

    def forward(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """hidden: [..., D];  tokens: [V, D], the embedding;  returns logits [..., V]"""
        return F.linear(self.norm(F.gelu(self.dense(hidden))), tokens, self.bias)


class Projection(nn.Module):
    """CXR-BERT's map from [CLS] to the space it shares with images (arXiv:2204.09817)."""

    def __init__(self, width: int, projected: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, projected)
        self.norm = nn.LayerNorm(projected, eps=1e-12)  # as published, whatever the encoder's
        self.out = nn.Linear(projected, projected)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, D];  returns [B, P], not normalised"""
        return self.out(self.norm(F.gelu(self.dense(x))))


class Bert(nn.Module):
    """BERT's encoder with the heads its config names. Has no dropout.

    Everywhere D is the width, S the number of tokens, V the vocabulary.
    """

    def __init__(self, cfg: BertConfig) -> None:
        super().__init__()
        self.config = cfg
        self.token_embedding = nn.Embedding(cfg.vocab_size, cfg.width)
        self.position_embedding = nn.Embedding(cfg.context_length, cfg.width)
        self.segment_embedding = nn.Embedding(cfg.segments, cfg.width)
        self.norm = nn.LayerNorm(cfg.width, eps=cfg.eps)
        self.blocks = nn.ModuleList([Block(cfg) for _ in range(cfg.layers)])
        self.pooler = nn.Linear(cfg.width, cfg.width) if cfg.pooler else None
        self.masked_lm = MaskedLM(cfg) if cfg.masked_lm else None
        self.projection = Projection(cfg.width, cfg.projection) if cfg.projection else None
        self.apply(_initialise)

    def forward(self, ids: Tensor, mask: Tensor, segments: Tensor | None = None) -> Tensor:
        """The last hidden states [B, S, D]; those of padding mean nothing.

        ids: int64 [B, S], S at most 512
        mask: bool [B, S], True for tokens, False for padding; at least one True in a row
        segments: int64 [B, S], 0 for the first sentence, 1 for the second; None: all 0
        """
        length = ids.shape[1]
        if mask.shape != ids.shape or mask.dtype != torch.bool:
            raise ValueError(
                f"the mask must be bool {list(ids.shape)} like the ids, got {mask.dtype} "
                f"{list(mask.shape)}; True is a token, False is padding"
            )
        if length > self.config.context_length:
            raise ValueError(
                f"{length} tokens, but this BERT has {self.config.context_length} positions; "
                "cut the text"
            )
        x = self.token_embedding(ids) + self.position_embedding.weight[:length]
        x = x + self.segment_embedding(torch.zeros_like(ids) if segments is None else segments)
        x = self.norm(x)
        for block in self.blocks:
            x = block(x, mask)
        return x

    def pooled(self, hidden: Tensor) -> Tensor:
        """tanh(W h_[CLS] + b): [B, S, D] -> [B, D]; ValueError without a pooler."""
        if self.pooler is None:
            raise ValueError("this BERT was published without a pooler; use cls or mean")
        return self.pooler(hidden[:, 0]).tanh()

    def projected(self, hidden: Tensor) -> Tensor:
        """CXR-BERT's joint space: [B, S, D] -> [B, P]; ValueError without this head."""
        if self.projection is None:
            raise ValueError("this BERT has no projection head (CXR-BERT has); use cls or mean")
        return self.projection(hidden[:, 0])

    def guess(self, hidden: Tensor) -> Tensor:
        """Logits of the token at each place: [..., D] -> [..., V]; ValueError without this head."""
        if self.masked_lm is None:
            raise ValueError("this BERT has no masked-LM head; set masked_lm in its config")
        return self.masked_lm(hidden, self.token_embedding.weight)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)  # as in BERT's published code
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
