"""How much memory a part of Stable Diffusion v1.4 takes at its full size, without a GPU.

    python benchmarks/memory.py decode [--pixels 1024]      # plain, and in tiles
    python benchmarks/memory.py encode [--pixels 1024]

Random weights. Each measurement is a process of its own: the most memory that the system gave it
(VmHWM) while it worked, above what it had just before, weights and inputs included. The number
repeats to a few percent, as it depends on how the allocator fills its gaps.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from ldm.config import ModelConfig
from ldm.models import tiled
from ldm.models.vae import VAE

Result = tuple[int, Tensor]  # bytes, and what came out


def status(field: str) -> int:
    """A number of bytes from /proc/self/status."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise SystemExit(f"this system does not tell {field}; it takes Linux")
    return int(found[1]) * 1024


def peak(work: Callable[[], Tensor]) -> Result:
    """The most bytes above those there already while `work` runs, and its result."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before = status("VmRSS")
    result = work()
    return status("VmHWM") - before, result


def alone(measure: Callable[..., Result], *arguments: object) -> Result:
    """measure(*arguments) in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(measure, *arguments).result()


@torch.inference_mode()
def autoencoder(what: str, pixels: int, in_tiles: bool) -> Result:
    """Encode or decode one image of pixels x pixels."""
    torch.manual_seed(0)
    config = ModelConfig().vae
    vae = VAE(config).eval()
    if in_tiles:
        tiled.use(vae)
    side = pixels // config.factor
    z = torch.randn(1, config.latent_channels, side, side)
    image = torch.randn(1, config.image_channels, pixels, pixels).clamp(-1, 1)
    vae.decode(z[:, :, :8, :8])  # nothing is done for the first time below
    return peak(lambda: vae.decode(z) if what == "decode" else vae.encode(image).mean)


def compare(what: str, pixels: int) -> dict[str, object]:
    """The plain way and the tiled one: memory, and how far apart the results are."""
    (plain, expected), (less, found) = (
        alone(autoencoder, what, pixels, in_tiles) for in_tiles in (False, True)
    )
    return {
        "what": what,
        "pixels": pixels,
        "plain GB": round(plain / 1e9, 2),
        "tiled GB": round(less / 1e9, 2),
        "ratio": round(less / plain, 3),
        "largest difference / standard deviation": float(
            (found - expected).abs().max() / expected.std()
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["decode", "encode"])
    parser.add_argument("--pixels", type=int, default=1024)
    options = parser.parse_args()
    print(json.dumps(compare(options.what, options.pixels)))


if __name__ == "__main__":
    main()
