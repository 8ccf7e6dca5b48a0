"""Winograd's convolutions beside PyTorch's, layer by layer, at the shapes of U-Net and decoder."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import Row, Setting, contest
from benchmarks.unet import forward, inputs
from ldm.config import ModelConfig
from ldm.fast import winograd
from ldm.vae import VAE
from ldm.weights.loading import PARTS

Shape = tuple[int, int, int, int, int]  # B, C, outputs, h, w


def shapes(config: ModelConfig, panel: int) -> Counter[Shape]:
    """How often each convolution that fits occurs in a guided step, and in the decoder."""
    found: Counter[Shape] = Counter()

    def see(layer: nn.Module, given: tuple[Tensor], output: Tensor) -> None:
        if isinstance(layer, nn.Conv2d) and winograd.fits(layer, panel):
            found[(*given[0].shape[:2], *output.shape[1:])] += 1

    x, t, context = (
        part.to("meta") for part in inputs(config, 2, config.image_size // config.vae.factor)
    )
    runs: dict[str, Callable[[nn.Module], Tensor]] = {
        "unet": lambda network: forward(network, x, t, context),
        "vae": lambda network: VAE.decode(network, x[:1]),
    }
    for part, run in runs.items():
        with torch.device("meta"):
            network = PARTS[part](config)
        for layer in network.modules():
            layer.register_forward_hook(see)
        run(network)
    return found


def error(found: Tensor, exact: Tensor) -> float:
    """Relative L2 to float64."""
    return float((found - exact).norm() / exact.norm())


@torch.no_grad()
def rows(name: str, setting: Setting) -> Iterator[Row]:
    panel = winograd.build()
    for (B, C, N, h, w), times in shapes(setting.config, panel).items():
        drawn = torch.Generator().manual_seed(0)
        x = torch.randn(B, C, h, w, generator=drawn)
        weight = torch.randn(N, C, 3, 3, generator=drawn) / (9 * C) ** 0.5
        bias = torch.randn(N, generator=drawn)
        last = x.to(memory_format=torch.channels_last)  # as the layers before hand it over
        other = partial(F.conv2d, x, weight, bias, padding=1)
        ours = {}
        for m in (4, 2):
            run = partial(torch.ops.ldm.winograd, last, winograd.pack(weight, m, panel), bias)
            ours[f"{name}_f{m}_b{B}_{C}_{N}_{h}x{w}"] = (run, f"{times} in the networks")
        exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
        errors = {key: error(run(), exact) for key, (run, _) in ours.items()}
        of_other = error(other(), exact)
        del exact
        work = 2 * 9 * B * C * N * h * w / 1e9
        for row in contest(ours, other, setting.rounds, work):
            more = {"gflops": work / median(row.ours), "gflops_other": work / median(row.other)}
            more |= {"error": errors[row.name], "error_other": of_other}
            rates = "{gflops:.0f} GFLOP/s, PyTorch {gflops_other:.0f}".format(**more)
            apart = "error {error:.1e}, PyTorch {error_other:.1e}".format(**more)
            note = f"{row.note}; {rates}; {apart}"
            yield dataclasses.replace(row, more=more, note=note)
