"""One pass of the U-Net, as a guided step of one image takes it: batch 2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.measure import SWITCHES, Row, Setting, contest, gflop, random_part, twin
from ldm.config import ModelConfig
from ldm.fast import winograd
from ldm.weights.loading import build


def inputs(config: ModelConfig, batch: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """x_t [B, C, h, w], t [B] and context [B, S, D]"""
    drawn = torch.Generator().manual_seed(0)
    x = torch.randn(batch, config.unet.in_channels, side, side, generator=drawn)
    context = torch.randn(
        batch, config.text.context_length, config.unet.context_dim, generator=drawn
    )
    return x, torch.full((batch,), 500), context


def forward(network: nn.Module, *given: Tensor) -> Tensor:
    return network(*given)


@torch.no_grad()
def rows(name: str, setting: Setting, batch: int, side: int) -> list[Row]:
    config = setting.config
    plain = random_part("unet", config)
    fast = build("unet", config, plain.state_dict())
    winograd.use(fast)
    given, other = inputs(config, batch, side), twin("unet", config, plain)
    return contest(
        {
            name: (lambda: fast(*given), SWITCHES[True]),
            f"{name}_plain": (lambda: plain(*given), SWITCHES[False]),
        },
        None if other is None else lambda: other(*given, return_dict=False)[0],
        setting.rounds,
        gflop("unet", config, forward, *given),
    )
