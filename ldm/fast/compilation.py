"""The U-Net compiled by torch.compile: fewer and larger kernels, and no Python between them.

Compiled is a graph for one set of shapes, at its first call: minutes for a large network. Another
batch or size of picture is compiled anew; other steps, prompts, seeds and weights are not. What was
compiled is kept on the disk, so the next process with as many threads only loads it.
"""

from __future__ import annotations

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

WAYS = ("no", "whole", "regions")
CACHE = "TORCHINDUCTOR_CACHE_DIR"  # PyTorch's own variable
SHAPES = 8  # that each region may be compiled for, which is PyTorch's limit for a whole network


class Compiled:
    """A module's forward as one graph, in the place of its `forward`."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        # a graph in pieces, or one of any shape, would be slower without a word
        self.graph = torch.compile(module.forward, fullgraph=True, dynamic=False)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Takes and returns what the module does."""
        winograd.refresh(self.module)
        with explained():
            return self.graph(*inputs)


def use(unet: UNet, way: str) -> None:
    """Run the network by one of WAYS from now on: as it is, as one graph, or as one for each block.

    Blocks of equal shapes share a graph, so `regions` are compiled sooner.
    Names of weights stay what they are. Raises ConfigError, in one line, where nothing can be
    compiled; so does the first call, should it be about the network.
    """
    if way not in WAYS:
        raise ConfigError(f"unknown way to compile {way!r}; known: {', '.join(WAYS)}")
    regions = blocks(unet)
    for module in (unet, *regions):
        module.__dict__.pop("forward", None)
    if way == "no":
        return
    keep_on_disk()
    with explained():  # a missing compiler is told at once
        torch.compile(torch.neg)(torch.zeros(1, device=unet.conv_in.weight.device))
    # PyTorch counts the graphs of all blocks together, as they are one piece of code
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, SHAPES * len(regions))
    if unet.conv_in.weight.device.type == "cpu":
        # or PyTorch would lay out anew the weights of every convolution at every call: 24 % slower
        unet.to(memory_format=torch.channels_last)
    for module in regions if way == "regions" else [unet]:
        module.forward = Compiled(module)


def blocks(unet: UNet) -> list[nn.Module]:
    """What is compiled as a region each."""
    return [m for m in unet.modules() if isinstance(m, ResBlock | SpatialTransformer)]


def keep_on_disk() -> None:
    """Where PyTorch keeps what it compiled, if the user has not said: not /tmp, as it would."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    # what is empty would be the folder that one is in
    folder = os.environ[CACHE] = os.environ.get(CACHE) or str(Path(home) / "ldm" / "compiled")
    try:
        cli.check_folder(folder)
    except ValueError as error:
        raise ConfigError(f"{error} with {CACHE}") from error


@contextmanager
def explained() -> Iterator[None]:
    """Raises ConfigError, in one line, for what goes wrong inside while compiling."""
    # it takes a second to import, and PyTorch itself does so only at the first compilation
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
            f"cannot compile here: {what}; that wants a C++ compiler that works (g++, or what CXX "
            "names) and on a GPU Triton, or leave out --compile (train.compile)"
        ) from error
