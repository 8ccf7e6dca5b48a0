"""How much memory a part of Stable Diffusion v1.4 takes at its full size, without a GPU.

    python benchmarks/memory.py decode [--pixels 1024]      # plain, and in tiles
    python benchmarks/memory.py encode [--pixels 1024]
    python benchmarks/memory.py step [--pixels 512]         # of the U-Net, by each attention, and
                                                            # guidance's halves one by one
    python benchmarks/memory.py train [--pixels 256]        # forward and backward, batch 1

Random weights. Each measurement is a process of its own: the most memory that the system gave it
(VmHWM) while it worked, above what it had just before, weights and inputs included. The number
repeats to a few percent, as it depends on how the allocator fills its gaps.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from ldm import lora
from ldm.config import ModelConfig
from ldm.fast import tiled_vae
from ldm.unet import UNet
from ldm.vae import VAE

T = TypeVar("T")
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


def alone(measure: Callable[..., T], *arguments: object) -> T:
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
        tiled_vae.use(vae)
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
        "plain GB": gigabytes(plain),
        "tiled GB": gigabytes(less),
        "ratio": round(less / plain, 3),
        "largest difference / standard deviation": apart(found, expected),
    }


@torch.inference_mode()
def step(pixels: int, way: str, dtype: torch.dtype = torch.float32, at_once: int = 2) -> Result:
    """One step of the U-Net for one guided image: a batch of two, or two of one."""
    unet, inputs = network(2, pixels)
    unet.eval().to(dtype).set_attention(way)
    inputs = [x.to(dtype) if x.is_floating_point() else x for x in inputs]
    unet(*(x[..., :8, :8] if x.ndim == 4 else x for x in inputs))
    batches = list(zip(*(x.split(at_once) for x in inputs), strict=True))
    return peak(lambda: torch.cat([unet(*batch) for batch in batches]))


def attentions(pixels: int) -> dict[str, object]:
    """PyTorch's attention, which holds no weights, and the reference, which holds them all."""
    (sdpa, found), (reference, expected) = (
        alone(step, pixels, way) for way in ("sdpa", "reference")
    )
    return {
        "sdpa GB": gigabytes(sdpa),
        "reference GB": gigabytes(reference),
        "largest difference / standard deviation": apart(found, expected),
        "one half at a time": halves(pixels),
    }


def halves(pixels: int) -> dict[str, object]:
    """GB with both halves of the guidance in one batch, and one after the other, by dtype."""
    dtypes = (torch.float32, torch.bfloat16)
    return {
        str(dtype): [
            gigabytes(alone(step, pixels, "sdpa", dtype, at_once)[0]) for at_once in (2, 1)
        ]
        for dtype in dtypes
    }


WAYS_TO_TRAIN = {
    "all weights": (),
    "checkpointing": ("checkpointing",),
    "checkpointing, gradients let go": ("checkpointing", "let go"),
    "checkpointing, gradients let go, bfloat16": ("checkpointing", "let go", "bfloat16"),
    "checkpointing, bfloat16": ("checkpointing", "bfloat16"),
    "LoRA": ("LoRA",),
    "LoRA, checkpointing": ("LoRA", "checkpointing"),
}


def backward(pixels: int, options: Sequence[str]) -> tuple[int, int]:
    """Bytes of the weights, and above them, of one forward and backward pass for one image.

    No optimizer. let go: a gradient is dropped as soon as it is there, as an optimizer without
    memory that steps during the backward pass would (LOMO, arXiv:2306.09782)
    """
    unet, inputs = network(1, pixels)
    if "bfloat16" in options:
        unet, inputs = (
            unet.bfloat16(),
            [x.bfloat16() if x.is_floating_point() else x for x in inputs],
        )
    if "LoRA" in options:
        lora.inject(unet, rank=4, alpha=4.0)
    unet.set_checkpointing("checkpointing" in options)
    if "let go" in options:
        for parameter in unet.parameters():
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    weights = sum(p.nbytes for p in unet.parameters())

    def run() -> Tensor:
        loss = unet(*inputs).float().square().mean()
        loss.backward()
        return loss.detach()

    return weights, peak(run)[0]


def training(pixels: int) -> dict[str, object]:
    """{way to train: GB of the weights, above them, together}"""
    table = {}
    for name, options in WAYS_TO_TRAIN.items():
        weights, above = alone(backward, pixels, options)
        table[name] = [gigabytes(x) for x in (weights, above, weights + above)]
        print(name, table[name], file=sys.stderr)
    return {"weights, above, together in GB": table}


def network(batch: int, pixels: int) -> tuple[UNet, list[Tensor]]:
    """A U-Net, and latents, timesteps and a text for it."""
    torch.manual_seed(0)
    config = ModelConfig()
    side = pixels // config.vae.factor
    x = torch.randn(batch, config.unet.in_channels, side, side)
    context = torch.randn(batch, 77, config.unet.context_dim)
    return UNet(config.unet), [x, torch.full((batch,), 500), context]


def gigabytes(size: int) -> float:
    return round(size / 1e9, 2)


def apart(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.std())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["decode", "encode", "step", "train"])
    parser.add_argument("--pixels", type=int)
    options = parser.parse_args()
    what = options.what
    pixels = options.pixels or {"step": 512, "train": 256}.get(what, 1024)
    measured = {"step": attentions, "train": training}
    found = measured[what](pixels) if what in measured else compare(what, pixels)
    print(json.dumps({"what": what, "pixels": pixels} | found))


if __name__ == "__main__":
    main()
