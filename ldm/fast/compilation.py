"""The U-Net compiled by torch.compile: fewer and larger kernels, and no Python between them.

A graph is compiled for one set of shapes at its first call: minutes for a large network. Another
batch or picture size is compiled again; other steps, prompts, seeds and weights are not. Results
are kept on the disk, so the next process with as many threads only loads them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ldm.attention import SpatialTransformer
from ldm.blocks import ResBlock
from ldm.config import ConfigError
from ldm.fast import winograd
from ldm.system import cli
from ldm.unet import UNet

MODES = ("no", "whole", "regions")
CACHE = "TORCHINDUCTOR_CACHE_DIR"  # PyTorch's own variable
SHAPES = 8  # most shapes a region is compiled for: PyTorch's limit for a whole network


class Compiled:
    """A module's forward as one graph; replaces its `forward`."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        # a graph in pieces, or one of any shape, would be slower without a warning
        self.graph = torch.compile(module.forward, fullgraph=True, dynamic=False)

    def __call__(self, *inputs: Tensor) -> Tensor:
        winograd.refresh(self.module)
        with explained():
            return self.graph(*inputs)


def use(unet: UNet, mode: str) -> None:
    """Run the network in one of MODES from now on: plain, as one graph, or as one for each block.

    Blocks of equal shapes share a graph, so `regions` compile sooner. Names of weights do not
    change. Raises ConfigError, in one line, where nothing can be compiled; the first call raises it
    if the network cannot be.
    """
    if mode not in MODES:
        raise ConfigError(f"unknown mode of compilation {mode!r}; known: {', '.join(MODES)}")
    regions = blocks(unet)
    for module in (unet, *regions):
        module.__dict__.pop("forward", None)
    if mode == "no":
        return
    keep_on_disk()
    with explained():  # report a missing compiler at once
        torch.compile(torch.neg)(torch.zeros(1, device=unet.conv_in.weight.device))
    # PyTorch counts the graphs of all blocks together, as they share their code
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, SHAPES * len(regions))
    if unet.conv_in.weight.device.type == "cpu":
        # else PyTorch changes the layout of all convolution weights at every call: 24 % slower
        unet.to(memory_format=torch.channels_last)
    for module in regions if mode == "regions" else [unet]:
        module.forward = Compiled(module)


def blocks(unet: UNet) -> list[nn.Module]:
    """The regions: each is compiled by itself."""
    return [m for m in unet.modules() if isinstance(m, ResBlock | SpatialTransformer)]


def keep_on_disk() -> None:
    """Keep PyTorch's results in the user's cache, unless CACHE names a folder; never in /tmp."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    # an empty name would be the current folder
    folder = os.environ[CACHE] = os.environ.get(CACHE) or str(Path(home) / "ldm" / "compiled")
    try:
        cli.check_folder(folder)
    except ValueError as error:
        raise ConfigError(f"{error} with {CACHE}") from error


@contextmanager
def explained() -> Iterator[None]:
    """Raises ConfigError, in one line, for an error of the compiler inside the `with`."""
    # imported here: it takes a second, and PyTorch itself waits for the first compilation
    from torch._dynamo import exc
    from torch._inductor import exc as inductor

    failures = (
        exc.TorchDynamoException,
        exc.FailOnRecompileLimitHit,
        inductor.InvalidCxxCompiler,
        inductor.CppCompileError,
    )
    try:
        yield
    except failures as error:
        what = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"cannot compile here: {what}; compilation needs a working C++ compiler (g++, or the "
            "one named by CXX) and on a GPU Triton; otherwise leave out --compile (train.compile)"
        ) from error
