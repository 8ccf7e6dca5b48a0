"""How much of a radiograph survives the autoencoder? PSNR of phantoms, and of your own films.

    python benchmarks/vae_psnr.py [--model weights] [--data labels.csv --split val] [--n 200]

Posterior means are decoded and clamped to [-1, 1]. Beside the model stands what its linear
shortcut was before any training: the lowest waves of the cosine transform of each block.
Prints means over images with n and a 95 % interval (1.96 standard errors).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from ldm.config import DataConfig
from ldm.data.datasets import Dataset, Files, Phantoms
from ldm.models.vae import VAE
from ldm.pipeline import build
from ldm.weights import load_parts

FIRST_SEED = 10**6  # far from the phantoms of any training


@torch.inference_mode()
def psnr(vae: VAE, images: Tensor) -> Tensor:
    """10 log10(peak^2 / mean squared error) of each image, in dB: [B]; the peak is 2."""
    error = vae.decode(vae.encode(images).mean).clamp(-1, 1) - images
    return 10 * torch.log10(4 / error.square().mean(dim=(1, 2, 3)))


def measure(vae: VAE, dataset: Dataset, count: int) -> dict[str, float]:
    values = torch.cat([psnr(vae, dataset.images(part)) for part in torch.arange(count).split(32)])
    half = 1.96 * values.std().item() / count**0.5
    mean = values.mean().item()
    return {"dB": round(mean, 2), "from": round(mean - half, 2), "to": round(mean + half, 2)}


def main() -> None:
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
    models = {"model": build("vae", config, parts["vae"])}
    if config.vae.shortcut:
        models["cosine transform alone"] = VAE(config.vae).eval()
    report: dict[str, object] = {"model": options.model, "split": options.split}
    for name, dataset in datasets.items():
        count = min(options.n, len(dataset))
        found = {label: measure(vae, dataset, count) for label, vae in models.items()}
        report[name] = {"n": count, **found}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
