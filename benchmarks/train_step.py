"""A training step of the U-Net without its optimizer: forward and backward, batch 1.

The most memory of one step is asked of processes of their own, with and without checkpointing, and
with gradients that are let go as they come, as train.update_in_backward does after each update.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measure import SWITCHES, Row, Setting, contest, gflop, random_part, twin
from benchmarks.unet import inputs
from ldm.config import ModelConfig, from_dict
from ldm.fast import unfolded_convolution
from ldm.weights.loading import build

ROOT = Path(__file__).parents[1]


def step(
    network: nn.Module, *given: Tensor, predict: Callable[..., Tensor] | None = None
) -> Tensor:
    """The gradient of the first convolution, which is the last to come; the others are let go."""
    (predict or network)(*given).square().mean().backward()
    gradient = network.conv_in.weight.grad
    network.zero_grad()
    return gradient


def let_go(network: nn.Module) -> None:
    """Keep no gradient but that of the first convolution (LOMO, arXiv:2306.09782)."""
    for parameter in network.parameters():
        if parameter is not network.conv_in.weight:
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))


def their_step(network: nn.Module, *given: Tensor) -> Tensor:
    return step(network, *given, predict=lambda *x: network(*x, return_dict=False)[0])


def rows(name: str, setting: Setting, side: int) -> list[Row]:
    config = setting.config
    peaks = {
        f"peak_gb_{whose}{'_checkpointing' * saving}": peak(config, side, whose, saving)
        for whose in ("ours", "other")
        for saving in (False, True)
    }
    at_once = peak(config, side, "ours", checkpointing=True, in_backward=True)
    peaks["peak_gb_ours_checkpointing_in_backward"] = at_once
    ours = random_part("unet", config)
    other, given = twin("unet", config, ours), inputs(config, 1, side)
    ours.to(memory_format=torch.channels_last)  # as train.py has it
    fast = build("unet", config, ours.state_dict()).requires_grad_()
    unfolded_convolution.use(fast)
    return contest(
        {
            name: (lambda: step(fast, *given), "small maps unfolded"),
            f"{name}_plain": (lambda: step(ours, *given), SWITCHES[False]),
        },
        None if other is None else lambda: their_step(other, *given),
        setting.rounds,
        gflop("unet", config, step, *given),
        more=peaks,
    )


def peak(
    config: ModelConfig, side: int, whose: str, checkpointing: bool, in_backward: bool = False
) -> float | None:
    """The most GB that a process with weights, gradients and one step held; None: not known.

    in_backward: ours without gradients but one
    """
    how = {"side": side, "whose": whose, "checkpointing": checkpointing, "in_backward": in_backward}
    text = json.dumps({"config": dataclasses.asdict(config), **how})
    command = [sys.executable, "-m", "benchmarks.train_step", text]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def main(text: str) -> float | None:
    """What `peak` starts."""
    how = json.loads(text)
    config, checkpointing = from_dict(ModelConfig, how["config"]), how["checkpointing"]
    ours = random_part("unet", config)
    given, status = inputs(config, 1, how["side"]), Path("/proc/self/status")
    if how["whose"] == "ours":
        ours.to(memory_format=torch.channels_last)
        ours.set_checkpointing(checkpointing)
        if how["in_backward"]:
            let_go(ours)
        step(ours, *given)
    else:
        other = twin("unet", config, ours)
        if other is None:
            return None
        if checkpointing:
            other.enable_gradient_checkpointing()
        their_step(other, *given)
    # not getrusage's, which begins with what the process that started this one held
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text() if status.exists() else "")
    return int(found[1]) * 1024 / 1e9 if found else None


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
