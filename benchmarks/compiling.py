"""The U-Net compiled, beside the same as it is; and how long the first call of a process takes.

That call is made by processes of their own: one with nothing on the disk, then one that finds what
the first has left.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.measure import Row, Setting, contest, gflop, random_part, timed
from benchmarks.unet import forward, inputs
from ldm.config import ModelConfig, from_dict
from ldm.fast import compilation
from ldm.weights.loading import build

ROOT = Path(__file__).parents[1]


@torch.inference_mode()
def rows(name: str, setting: Setting, batch: int, side: int) -> list[Row]:
    """One for each way to compile, `other` being the network as it is."""
    config, given = setting.config, inputs(setting.config, batch, side)
    seconds = {way: first_calls(config, batch, side, way) for way in compilation.MODES[1:]}
    plain, found = random_part("unet", config), []
    for way, more in seconds.items():
        ours = build("unet", config, plain.state_dict())
        compilation.use(ours, way)
        found += contest(
            {f"{name}_{way}": (lambda ours=ours: ours(*given), "other: not compiled")},
            lambda: plain(*given),
            setting.rounds,
            gflop("unet", config, forward, *given),
            more=more,
        )
    return found


def first_calls(config: ModelConfig, batch: int, side: int, way: str) -> dict[str, float]:
    """Seconds of the first call, all compilation in it, without and with results on the disk."""
    how = {"config": dataclasses.asdict(config), "batch": batch, "side": side, "way": way}
    command = [sys.executable, "-m", "benchmarks.compiling", json.dumps(how)]
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for state in ("cold", "warm"):
            env = os.environ | {compilation.CACHE: folder}
            done = subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE)
            seconds[f"first_call_s_{state}"] = json.loads(done.stdout)
    return seconds


@torch.inference_mode()
def main(text: str) -> float:
    """What `first_calls` starts."""
    how = json.loads(text)
    config = from_dict(ModelConfig, how["config"])
    unet, given = random_part("unet", config), inputs(config, how["batch"], how["side"])

    def first() -> None:
        compilation.use(unet, how["way"])
        unet(*given)

    return timed(first)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
