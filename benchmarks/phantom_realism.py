"""How real are the phantoms? A small network learns effusions from phantoms and is tried on people.

    python benchmarks/phantom_realism.py DATA [--phantoms 3000] [--epochs 12] [--model weights]

DATA is a CSV as for `data.path`, such as a part of ChestX-ray14. Trained on phantoms alone,
effusion against other findings; tried on the same question there (films without a finding are left
out: they differ in more than fluid).
Prints the area under the ROC curve with n and DeLong's interval, whatever it is.

With --model it also judges what a model draws: images of a prompt with an effusion against images
of prompts with other findings, in the phantom's style and in that of real films; seeds are fixed,
nothing is selected.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ldm
from ldm.data import DataConfig
from ldm.data.augmentation import augment_strongly
from ldm.data.file_dataset import Files
from ldm.data.phantom import FINDINGS, render, sample_phantoms
from ldm.data.phantom.captions import readable
from ldm.metrics.classification import auc
from ldm.pictures.image_files import fit_square, to_channels
from ldm.pipeline import Sampling

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


def read_films(table: Path, split: str) -> tuple[Tensor, Tensor]:
    """The same question on real films: images [B, 1, H, W] and labels [B]."""
    films = Files(DataConfig(path=str(table), split=split, size=SIZE), channels=1)
    findings = [films.findings(i) for i in range(len(films))]
    some = torch.tensor([i for i, row in enumerate(findings) if any(row.values())])
    return films.images(some), torch.tensor([float(findings[i][EFFUSION]) for i in some])


def draw_prompts(model: str, style: str, count: int) -> tuple[Tensor, Tensor]:
    """What a model draws: `count` images with an effusion, as many with other findings."""
    pipe = ldm.load(model)
    size, others = pipe.config.image_size, [name for name in FINDINGS if name != EFFUSION]
    sampling = Sampling(guidance=pipe.config.guidance, height=size, width=size)
    images = []
    for words in ([EFFUSION] * count, [others[i % len(others)] for i in range(count)]):
        prompts = [f"{style}lung xray with {readable(word)}" for word in words]
        for some in torch.arange(count).split(16):
            drawn = pipe.draw([prompts[i] for i in some], some.tolist(), sampling)
            images.append(torch.stack([fit_square(to_channels(image, 1), SIZE) for image in drawn]))
    return torch.cat(images), torch.cat([torch.ones(count), torch.zeros(count)])


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
        score = net(standardise(augment_strongly(images[pick], generator)))[:, 0]
        loss = F.binary_cross_entropy_with_logits(score, labels[pick] * 0.9 + 0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net.eval()


@torch.no_grad()
def score(net: nn.Sequential, images: Tensor) -> np.ndarray:
    """[B] the logit of an effusion."""
    return torch.cat([net(standardise(part))[:, 0] for part in images.split(64)]).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--phantoms", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--split", default="val")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="also judge what these weights draw")
    parser.add_argument("--drawn", type=int, default=100, help="images of each kind")
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
    if options.model:
        for style in ("phantom ", ""):
            tried[f"drawn: {style}lung xray"] = draw_prompts(options.model, style, options.drawn)
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
