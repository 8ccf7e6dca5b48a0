"""The switches of a model for speed and memory; pictures are equal but for rounding."""

import torch

from ldm.config import ConfigError
from ldm.fast import compilation, tiled_vae
from ldm.fast import winograd as kernels
from ldm.pipeline import LatentDiffusion
from ldm.system.devices import available
from ldm.unet import UNet

ATTENTION = ("sdpa", "reference", "fused")


def choose(
    pipe: LatentDiffusion,
    attention: str = "sdpa",
    winograd: bool = False,
    in_tiles: bool = False,
    compile: str = "no",
) -> None:
    """Set a model's switches, each off by default.

    attention: of the U-Net, see `set_attention`
    winograd: convolve in U-Net and VAE by Winograd's algorithm
    in_tiles: encode and decode in tiles, which is no faster but takes a third of the memory
    compile: the U-Net, in one of compilation.MODES

    Raises ValueError, in one line, for a switch that the model's device or dtype does not allow.
    """
    if winograd and (pipe.device.type != "cpu" or pipe.dtype != torch.float32):
        raise ConfigError(
            f"Winograd's convolutions need a CPU and float32, not {pipe.device.type} and "
            f"{str(pipe.dtype).removeprefix('torch.')}; leave out --winograd there"
        )
    set_attention(pipe.unet, attention)
    if winograd:
        check_room(pipe)
        for module in (pipe.unet, pipe.vae):
            kernels.use(module)
    if in_tiles:
        tiled_vae.use(pipe.vae)
    compilation.use(pipe.unet, compile)


def set_attention(unet: UNet, name: str) -> None:
    """Attend by sdpa, reference or fused; raises ValueError, in one line, where it cannot run."""
    if name not in ATTENTION:
        raise ValueError(f"unknown attention {name!r}; known: {', '.join(ATTENTION)}")
    if name == "fused":
        try:
            from ldm.fast import fused_attention  # imports Triton; registers the implementation
        except ModuleNotFoundError as error:
            raise ValueError(
                "fused attention needs triton, which PyTorch for CUDA installs on Linux; "
                "use sdpa, or install triton"
            ) from error
        fused_attention.check_device(unet.conv_in.weight.device)
    unet.set_attention(name)


def check_room(pipe: LatentDiffusion) -> None:
    """Raises ValueError, in one line, if Winograd's weights do not fit beside the plain ones."""
    networks = (pipe.unet, pipe.vae, pipe.text)
    weights = sum(p.nbytes for network in networks for p in network.parameters())
    more, room = sum(map(kernels.more_bytes, (pipe.unet, pipe.vae))), available(pipe.device)
    if weights + more > room:
        raise ConfigError(
            f"Winograd's convolutions need {more / 1e9:.3g} GB beside the {weights / 1e9:.3g} GB "
            f"of weights, but only {room / 1e9:.3g} GB are free in all; leave out --winograd"
        )
