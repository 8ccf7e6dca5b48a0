"""Attention over positions and over text, as Stable Diffusion arranges it."""

from collections.abc import Callable

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.blocks import group_norm


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)), how much each query takes of each key.

    q: [B, N, L, d];  k: [B, N, S, d]: N heads, L queries, S keys;  returns [B, N, L, S]
    """
    return ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(dim=-1)


def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as it is written in the paper (arXiv:1706.03762, eq. 1)."""
    return attention_weights(q, k) @ v


# q [B, N, L, d], k and v [B, N, S, d] -> [B, N, L, d], but for rounding equal; ldm/fast adds one
IMPLEMENTATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "sdpa": F.scaled_dot_product_attention,  # PyTorch's own, on every device
    "reference": reference,
}


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V over N heads (LDM, arXiv:2112.10752, section 3.3).

    Self-attention when `context` is None, cross-attention over the text otherwise.
    implementation: a key of IMPLEMENTATIONS
    """

    implementation = "sdpa"

    def __init__(self, width: int, heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        source = width if context_dim is None else context_dim
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(source, width, bias=False)
        self.v = nn.Linear(source, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x: [B, L, C];  context: [B, S, D];  returns [B, L, C]"""
        source = x if context is None else context
        q, k, v = (
            rearrange(y, "B L (N d) -> B N L d", N=self.heads)
            for y in (self.q(x), self.k(source), self.v(source))
        )
        y = IMPLEMENTATIONS[self.implementation](q, k, v)  # [B, N, L, d]
        return self.out(rearrange(y, "B N L d -> B L (N d)"))


class FeedForward(nn.Module):
    """GEGLU (arXiv:2002.05202, eq. 6): value * GELU(gate), then back to the width.

    SD v1.4 uses the exact GELU, and the first half of `in_proj` is the value, the second the gate.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(width, 8 * width)
        self.out_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, L, C];  returns [B, L, C]"""
        value, gate = self.in_proj(x).chunk(2, dim=-1)
        return self.out_proj(value * F.gelu(gate))


class TransformerBlock(nn.Module):
    """Self-attention, attention over the text, feed-forward: normalised before, added after."""

    def __init__(self, width: int, heads: int, context_dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.self_attn = Attention(width, heads)
        self.cross_attn = Attention(width, heads, context_dim)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x: [B, L, C];  context: [B, S, D];  returns [B, L, C]"""
        x = x + self.self_attn(self.norm1(x))
        x = x + self.cross_attn(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Pixels as tokens go through a transformer block that sees the text, and come back."""

    def __init__(self, width: int, heads: int, context_dim: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(width, groups, eps=1e-6)  # 1e-5 in the U-Net's res blocks
        self.proj_in = nn.Conv2d(width, width, 1)
        self.blocks = nn.ModuleList([TransformerBlock(width, heads, context_dim)])
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x: [B, C, h, w];  context: [B, S, D];  returns [B, C, h, w]"""
        h, w = x.shape[-2:]
        y = rearrange(self.proj_in(self.norm(x)), "B C h w -> B (h w) C")
        for block in self.blocks:
            y = block(y, context)
        return x + self.proj_out(rearrange(y, "B (h w) C -> B C h w", h=h, w=w))


class PixelAttention(nn.Module):
    """One-head self-attention over all pixels, in the middle of the VAE."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(width, groups, eps=1e-6)
        self.q, self.k, self.v, self.out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, h, w];  returns [B, C, h, w]"""
        h, w = x.shape[-2:]
        y = self.norm(x)
        # contiguous: else PyTorch would hold all L x L weights, 1 GB for an image of 1024 px
        q, k, v = (
            rearrange(f(y), "B C h w -> B 1 (h w) C").contiguous() for f in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q, k, v)  # [B, 1, L, C]
        return x + self.out(rearrange(y, "B 1 (h w) C -> B C h w", h=h, w=w))
