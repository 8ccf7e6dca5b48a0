"""Does the built-in U-Net train faster with channels last? Forward and backward, in turns.

    python benchmarks/channels_last.py [--rounds 10] [--batch 32]

Both layouts take their turn in every round; prints the median of the ratios and their range.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from ldm.config import ModelConfig
from ldm.system.cli import load_config
from ldm.unet import UNet


def seconds(unet: UNet, batch: tuple[torch.Tensor, ...]) -> float:
    """Of one forward and backward pass."""
    began = time.perf_counter()
    unet(*batch).square().mean().backward()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--config", default="configs/small.yaml")
    options = parser.parse_args()
    config = load_config(ModelConfig, options.config)
    side = config.image_size // config.vae.factor
    batch = (
        torch.randn(options.batch, config.unet.in_channels, side, side),
        torch.randint(config.schedule.steps, (options.batch,)),
        torch.randn(options.batch, config.text.context_length, config.text.width),
    )
    plain, last = UNet(config.unet), UNet(config.unet).to(memory_format=torch.channels_last)
    seconds(plain, batch), seconds(last, batch)  # warm-up
    ratios = [seconds(plain, batch) / seconds(last, batch) for _ in range(options.rounds)]
    report = {
        "times_faster": round(statistics.median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "rounds": options.rounds,
        "batch": options.batch,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
