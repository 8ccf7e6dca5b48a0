"""Blocks that U-Net and VAE share, and the U-Net's embedding of time."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def group_norm(width: int, groups: int, eps: float) -> nn.GroupNorm:
    """GroupNorm (arXiv:1803.08494); SD v1.4's eps is 1e-5 in the U-Net's res blocks, else 1e-6."""
    if width % groups:
        raise ValueError(f"{width} channels do not split into {groups} groups; change `groups`")
    return nn.GroupNorm(groups, width, eps=eps)


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + time))); x by a 1x1 convolution if widths differ."""

    def __init__(
        self, width_in: int, width: int, groups: int, eps: float, time_dim: int | None = None
    ) -> None:
        super().__init__()
        self.norm1 = group_norm(width_in, groups, eps)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        if time_dim is not None:
            self.time = nn.Linear(time_dim, width)
        self.norm2 = group_norm(width, groups, eps)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        if width_in != width:
            self.skip = nn.Conv2d(width_in, width, 1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """x: [B, C, h, w];  time: [B, time_dim], absent in the VAE;  returns [B, width, h, w]"""
        y = self.conv1(F.silu(self.norm1(x)))
        if time is not None:
            y = y + self.time(F.silu(time))[:, :, None, None]
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (self.skip(x) if hasattr(self, "skip") else x)


class Upsample(nn.Conv2d):
    """Each pixel becomes 2 x 2 equal ones, then a 3 x 3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, h, w];  returns [B, C, 2h, 2w]"""
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def timestep_embedding(t: Tensor, width: int) -> Tensor:
    """[cos(t f_i) | sin(t f_i)], f_i = 10000^(-i / (width / 2))   (arXiv:1706.03762, section 3.5)

    t: [B];  returns [B, width]. SD v1.4 puts the cosines first; the paper interleaves, sine first.
    """
    half = width // 2
    exponent = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t.float()[:, None] * exponent.exp()
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
