"""The decoder: a latent becomes an image."""

from __future__ import annotations

import torch

from benchmarks.measure import SWITCHES, Row, Setting, contest, gflop, random_part, twin
from ldm.fast import winograd
from ldm.vae import VAE
from ldm.weights.loading import build


@torch.no_grad()
def rows(name: str, setting: Setting, side: int) -> list[Row]:
    """side: of the latent"""
    config = setting.config
    plain = random_part("vae", config)
    fast = build("vae", config, plain.state_dict())
    winograd.use(fast)
    other = twin("vae", config, plain)
    z = torch.randn(
        1, config.vae.latent_channels, side, side, generator=torch.Generator().manual_seed(0)
    )
    return contest(
        {
            name: (lambda: fast.decode(z), f"decoder, {SWITCHES[True]}"),
            f"{name}_plain": (lambda: plain.decode(z), f"decoder, {SWITCHES[False]}"),
        },
        None if other is None else lambda: other.decode(z, return_dict=False)[0],
        setting.rounds,
        gflop("vae", config, VAE.decode, z),
    )
