"""How much of a radiograph survives the autoencoder? PSNR and SSIM of phantoms, and of films.

    python benchmarks/reconstruction.py [--model weights] [--data labels.csv --split val] [--n 200]

Posterior means are decoded and clamped to [-1, 1]. Beside the model stands what its linear
shortcut was before any training, the lowest waves of the cosine transform of each block, and the
best that as many of the lowest waves of the whole image can do.
Prints means over images with n and a 95 % interval (1.96 standard errors).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.fft import dctn, idctn
from torch import Tensor

from ldm.data import DataConfig
from ldm.data.datasets import Dataset, Phantoms
from ldm.data.file_dataset import Files
from ldm.metrics.image_quality import psnr, ssim
from ldm.system import cli
from ldm.vae import VAE
from ldm.weights.loading import build, load_parts

FIRST_SEED = 10**6  # far from the phantoms of any training


@torch.inference_mode()
def copies(vae: VAE, images: Tensor) -> Tensor:
    return vae.decode(vae.encode(images).mean).clamp(-1, 1)


def lowest_waves(images: Tensor, numbers: int) -> Tensor:
    """Each image [B, C, H, W] from the `numbers` lowest waves of its cosine transform."""
    waves = dctn(images.numpy(), axes=(-2, -1), norm="ortho")
    down, across = np.mgrid[: waves.shape[-2], : waves.shape[-1]]
    order = np.argsort((down**2 + across**2).ravel(), kind="stable")
    keep = np.zeros(down.size, bool)
    keep[order[: numbers // waves.shape[-3]]] = True
    kept = idctn(waves * keep.reshape(down.shape), axes=(-2, -1), norm="ortho")
    return torch.from_numpy(kept).clamp(-1, 1)


def measure(
    copy: Callable[[Tensor], Tensor], dataset: Dataset, count: int
) -> dict[str, list[float]]:
    """{figure: [mean, low, high]} over the first `count` images."""
    found: dict[str, list[float]] = {"PSNR": [], "SSIM": []}
    for part in torch.arange(count).split(32):
        images = dataset.images(part)
        for a, b in zip(images[:, 0].numpy(), copy(images)[:, 0].numpy(), strict=True):
            found["PSNR"].append(psnr(a, b, span=2))
            found["SSIM"].append(ssim((a + 1) / 2, (b + 1) / 2, span=1))  # wants black to be 0
    report = {}
    for name, values in found.items():
        mean, half = np.mean(values), 1.96 * np.std(values, ddof=1) / count**0.5
        report[name] = [round(float(x), 4) for x in (mean, mean - half, mean + half)]
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="weights")
    parser.add_argument("--data", help="a CSV or a folder, as data.path")
    parser.add_argument("--split", default="val")
    parser.add_argument("--n", type=int, default=200, help="images at most")
    parser.add_argument("--cache", type=Path, default="cache")
    options = parser.parse_args()
    config, parts = load_parts(options.model)
    size, channels = config.image_size, config.vae.image_channels
    common = {"size": size, "cache": str(options.cache), "split": options.split}
    datasets: dict[str, Dataset] = {
        "phantoms": Phantoms(
            DataConfig(phantoms=options.n, phantom_seed=FIRST_SEED, **common), channels
        )
    }
    if options.data:
        datasets["films"] = Files(DataConfig(path=options.data, **common), channels)
    numbers = config.vae.latent_channels * (size // config.vae.factor) ** 2
    models = {
        "model": partial(copies, build("vae", config, parts["vae"])),
        "cosine transform of the whole image": partial(lowest_waves, numbers=numbers),
    }
    if config.vae.shortcut:
        models["cosine transform alone"] = partial(copies, VAE(config.vae).eval())
    report: dict[str, object] = {"model": options.model, "split": options.split}
    for name, dataset in datasets.items():
        count = min(options.n, len(dataset))
        found = {label: measure(copy, dataset, count) for label, copy in models.items()}
        report[name] = {"n": count, **found}
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "reconstruction.py"))
