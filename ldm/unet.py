"""The noise predictor: a U-Net that looks at the time and at the text (LDM, arXiv:2112.10752)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ldm.attention import IMPLEMENTATIONS, Attention, SpatialTransformer
from ldm.blocks import ResBlock, Upsample, group_norm, timestep_embedding
from ldm.config import UNetConfig


class UNetLevel(nn.Module):
    """The blocks of one resolution: each res block, and a spatial transformer after the first few.

    `resample` leads to the next resolution; the last level has none.
    """

    def __init__(
        self,
        widths: Sequence[tuple[int, int]],
        transformers: int,
        cfg: UNetConfig,
        resample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.res = nn.ModuleList(
            ResBlock(a, b, cfg.groups, eps=1e-5, time_dim=4 * cfg.channels[0]) for a, b in widths
        )
        self.attn = nn.ModuleList(
            SpatialTransformer(b, cfg.heads_of(b), cfg.context_dim, cfg.groups)
            for _, b in widths[:transformers]
        )
        self.resample = resample
        self.checkpointing = False

    def _run(self, layer: nn.Module, *inputs: Tensor) -> Tensor:
        """The layer's output; with checkpointing computed again, as nothing is random."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)
        return layer(*inputs)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        context: Tensor,
        keep: list[Tensor] | None = None,
        take: list[Tensor] | None = None,
    ) -> Tensor:
        """x: [B, C, h, w];  time: [B, 4 C0];  context: [B, S, D];  returns [B, C', h', w']

        keep: every output is appended to it;  take: each res block gets the last one kept
        """
        for i, res in enumerate(self.res):
            if take is not None:
                x = torch.cat([x, take.pop()], dim=1)
            x = self._run(res, x, time)
            if i < len(self.attn):
                x = self._run(self.attn[i], x, context)
            if keep is not None:
                keep.append(x)
        if self.resample is not None:
            x = self.resample(x)
            if keep is not None:
                keep.append(x)
        return x


class UNet(nn.Module):
    """Predicts eps (or v) from x_t, t and the text (DDPM, arXiv:2006.11239, section 3.2).

    Going down, every output is kept; going up, each block takes back the last one kept.
    """

    def __init__(self, cfg: UNetConfig) -> None:
        super().__init__()
        first, last = cfg.channels[0], len(cfg.channels) - 1
        self.patch = cfg.patch
        self.time_embed = nn.Sequential(
            nn.Linear(first, 4 * first), nn.SiLU(), nn.Linear(4 * first, 4 * first)
        )
        self.conv_in = nn.Conv2d((cfg.in_channels + cfg.beside) * cfg.patch**2, first, 3, padding=1)

        width, kept_widths, down = first, [first], []
        for i, channels in enumerate(cfg.channels):
            widths = [(width if j == 0 else channels, channels) for j in range(cfg.res_blocks)]
            half = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if i < last else None
            down.append(UNetLevel(widths, cfg.res_blocks * cfg.attention[i], cfg, half))
            kept_widths += [channels] * (cfg.res_blocks + (i < last))
            width = channels
        self.down = nn.ModuleList(down)

        self.mid = UNetLevel([(width, width)] * 2, 1, cfg)

        up = []
        for i, channels in reversed(list(enumerate(cfg.channels))):
            widths = []
            for _ in range(cfg.res_blocks + 1):
                widths.append((width + kept_widths.pop(), channels))
                width = channels
            double = Upsample(channels) if i > 0 else None
            up.append(UNetLevel(widths, len(widths) * cfg.attention[i], cfg, double))
        self.up = nn.ModuleList(up)

        self.norm_out = group_norm(first, cfg.groups, eps=1e-5)
        self.conv_out = nn.Conv2d(first, cfg.out_channels * cfg.patch**2, 3, padding=1)

    def set_checkpointing(self, on: bool) -> None:
        """Keep of each block only its input for the backward pass (arXiv:1604.06174)."""
        for module in self.modules():
            if isinstance(module, UNetLevel):
                module.checkpointing = on

    def set_attention(self, name: str) -> None:
        """Attend by one of attention.IMPLEMENTATIONS; raises ValueError for an unknown one."""
        if name not in IMPLEMENTATIONS:
            raise ValueError(f"unknown attention {name!r}; known: {', '.join(IMPLEMENTATIONS)}")
        for module in self.modules():
            if isinstance(module, Attention):
                module.implementation = name

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """x: [B, C, h, w];  t: [B] integers;  context: [B, S, D];  returns [B, C, h, w]"""
        time = self.time_embed(timestep_embedding(t, self.conv_in.out_channels).to(x.dtype))
        x = self.conv_in(F.pixel_unshuffle(x, self.patch))
        skips = [x]
        for level in self.down:
            x = level(x, time, context, keep=skips)
        x = self.mid(x, time, context)
        for level in self.up:
            x = level(x, time, context, take=skips)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), self.patch)
