"""How real are the phantoms? A small network learns effusions from phantoms and is tried on people.

    python benchmarks/phantom_realism.py DATA [--phantoms 3000] [--epochs 12] [--split val]

DATA is a folder with `labels.csv` (columns filename, labels, split, quality_flag) and `images/`,
such as a part of ChestX-ray14. Trained on phantoms alone, effusion against other findings; tried on
the same question there (films without a finding are left out: they differ in more than fluid).
Prints the area under the ROC curve with n and DeLong's interval, whatever it is.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.data.phantom import FINDINGS, render, sample_phantoms
from ldm.images import fit_square, load, to_channels
from ldm.metrics.classify import auc

SIZE = 128
EFFUSION = "pleural effusion"


def draw_phantoms(count: int, first_seed: int) -> tuple[Tensor, Tensor]:
    """Images [B, 1, H, W] and labels [B]: half with an effusion, half with another finding."""
    others = [name for name in FINDINGS if name != EFFUSION]
    images, labels = [], []
    for i in range(count):
        rng = np.random.default_rng([first_seed, i])
        names = [str(rng.choice(others))] if i % 2 or rng.random() < 0.5 else []
        if i % 2 == 0:
            names.append(EFFUSION)
        images.append(render(sample_phantoms([first_seed + i], findings=names), SIZE).images)
        labels.append(float(i % 2 == 0))
    return torch.cat(images), torch.tensor(labels)


def read_films(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """The same question on real films: images [B, 1, H, W] and labels [B]."""
    table = folder / "labels.csv"
    if not table.is_file():
        sys.exit(f"no labels.csv in {folder}: give the folder of the real films as the argument")
    images, labels = [], []
    with table.open() as file:
        for row in csv.DictReader(file):
            if row["split"] != split or row["quality_flag"] or row["labels"] == "No Finding":
                continue
            film = fit_square(load(folder / "images" / row["filename"]), SIZE)
            images.append(to_channels(film, 1))
            labels.append(float("Effusion" in row["labels"].split("|")))
    return torch.stack(images), torch.tensor(labels)


def network() -> nn.Sequential:
    """1.1 M parameters: five halvings, normalised per image so that its contrast hardly matters."""
    widths, layers = (1, 24, 48, 96, 160, 192), []
    for i, (a, b) in enumerate(pairwise(widths)):
        kernel = 5 if i == 0 else 3
        layers += [nn.Conv2d(a, b, kernel, 2, kernel // 2), nn.GroupNorm(8, b), nn.SiLU()]
        if i >= 2:
            layers += [nn.Conv2d(b, b, 3, 1, 1), nn.GroupNorm(8, b), nn.SiLU()]
    layers += [nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * 192, 1)]
    return nn.Sequential(*layers)


def vary(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shifts, zooms, turns a little, changes contrast, blurs and adds noise; never mirrors."""
    B = len(images)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(B, generator=generator)

    turn, zoom = draw(-0.08, 0.08), draw(0.85, 1.15)
    first = torch.stack([zoom * turn.cos(), -turn.sin(), draw(-0.12, 0.12)], 1)
    second = torch.stack([turn.sin(), zoom * turn.cos(), draw(-0.12, 0.12)], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    grey = (images.clamp(-1, 1) + 1) / 2
    grey = grey.clamp(1e-4, 1) ** rearrange(draw(0.6, 1.7), "B -> B 1 1 1")
    soft = F.avg_pool2d(grey, 3, 1, 1)
    grey = grey + rearrange(draw(-0.5, 1.0), "B -> B 1 1 1") * (soft - grey)
    noise = torch.randn(grey.shape, generator=generator)
    return standardise(grey + rearrange(draw(0, 0.04), "B -> B 1 1 1") * noise)


def standardise(images: Tensor) -> Tensor:
    """Zero mean and unit variance per image."""
    return (images - images.mean((2, 3), keepdim=True)) / (images.std((2, 3), keepdim=True) + 1e-3)


def train(images: Tensor, labels: Tensor, epochs: int, generator: torch.Generator) -> nn.Sequential:
    """The network after `epochs` passes of AdamW over varied images, 32 at a time."""
    torch.manual_seed(0)
    net = network()
    steps = epochs * (len(images) // 32)
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps)
    for _ in range(steps):
        pick = torch.randint(len(images), (32,), generator=generator)
        score = net(vary(images[pick], generator))[:, 0]
        loss = F.binary_cross_entropy_with_logits(score, labels[pick] * 0.9 + 0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net.eval()


@torch.no_grad()
def score(net: nn.Sequential, images: Tensor) -> np.ndarray:
    """[B] the logit of an effusion."""
    return torch.cat([net(standardise((part + 1) / 2))[:, 0] for part in images.split(64)]).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--phantoms", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--split", default="val")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    films, film_labels = read_films(options.data, options.split)
    generator = torch.Generator().manual_seed(options.seed)
    start = time.perf_counter()
    images, labels = draw_phantoms(options.phantoms, 1_000_000 * (options.seed + 1))
    unseen, unseen_labels = draw_phantoms(400, 900_000_000)
    net = train(images, labels, options.epochs, generator)
    report: dict[str, object] = dict(vars(options), data=options.data.name)
    tried = {
        "unseen phantoms": (unseen, unseen_labels),
        f"real films, {options.split}": (films, film_labels),
    }
    for name, (x, y) in tried.items():
        truth = y.numpy()
        found = auc(score(net, x), truth)
        report[name] = {
            "auc": round(found.value, 4),
            "interval_95": [round(found.low, 4), round(found.high, 4)],
            "with_effusion": int(truth.sum()),
            "without": int((1 - truth).sum()),
        }
    report["seconds"] = round(time.perf_counter() - start, 1)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
