"""Faster and smaller ways to the same pictures, chosen once for a model; equal but for rounding."""

from __future__ import annotations

import torch

from ldm import compiled
from ldm.config import ConfigError
from ldm.devices import available
from ldm.kernels import winograd as kernels
from ldm.models import tiled
from ldm.pipeline import LatentDiffusion


def choose(
    pipe: LatentDiffusion,
    attention: str = "sdpa",
    winograd: bool = False,
    in_tiles: bool = False,
    compile: str = "no",
) -> None:
    """Attend in the U-Net by one of attention.WAYS; convolve in U-Net and VAE by Winograd's way;
    encode and decode in tiles, which is no faster but takes a third of the memory; compile the
    U-Net by one of compiled.WAYS.

    Raises ValueError, in one line, for what is not to be had on the model's device or in its dtype.
    """
    if winograd and (pipe.device.type != "cpu" or pipe.dtype != torch.float32):
        raise ConfigError(
            f"Winograd's convolutions want a CPU and float32, not {pipe.device.type} and "
            f"{str(pipe.dtype).removeprefix('torch.')}; leave out --winograd there"
        )
    pipe.unet.set_attention(attention)
    if winograd:
        check_room(pipe)
        for module in (pipe.unet, pipe.vae):
            kernels.use(module)
    if in_tiles:
        tiled.use(pipe.vae)
    compiled.use(pipe.unet, compile)


def check_room(pipe: LatentDiffusion) -> None:
    """Raise ValueError, in one line, if Winograd's weights do not fit beside the plain ones."""
    networks = (pipe.unet, pipe.vae, pipe.text)
    weights = sum(p.nbytes for network in networks for p in network.parameters())
    more, room = sum(map(kernels.more_bytes, (pipe.unet, pipe.vae))), available(pipe.device)
    if weights + more > room:
        raise ConfigError(
            f"Winograd's convolutions want {more / 1e9:.3g} GB beside the {weights / 1e9:.3g} GB "
            f"of weights, and {room / 1e9:.3g} GB are to be had in all; leave out --winograd"
        )
