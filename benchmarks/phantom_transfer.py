"""Does a network that learned region and modality from phantoms alone name them on real images?

    python benchmarks/phantom_transfer.py --data FOLDER [--count 300] [--size 64] [--out F]

FOLDER holds `body` and `nih_cxr`, each with a labels.csv. A small convolutional network is trained
on phantoms and named real images, then the other way round. Prints balanced accuracy with its
bootstrap interval (95 %, 1,000 times, within classes), chance, and the table of confusions.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ldm.data.image_sets import open_set
from ldm.pictures import image_files

# class -> settings of phantoms, and (region, modality) of the real images
CLASSES = {
    "chest x-ray": ("region=chest,view=frontal", ("chest", "x-ray")),
    "shoulder x-ray": ("region=shoulder,view=frontal+oblique", ("shoulder", "x-ray")),
    "arm x-ray": ("region=arm,view=frontal+oblique", ("arm", "x-ray")),
    "elbow x-ray": ("region=elbow", ("elbow", "x-ray")),
    "forearm x-ray": ("region=forearm", ("forearm", "x-ray")),
    "hand x-ray": ("region=hand+wrist", ("hand", "x-ray")),
    "pelvis x-ray": ("region=pelvis,view=frontal", ("pelvis", "x-ray")),
    "thigh x-ray": ("region=thigh,view=frontal+oblique", ("thigh", "x-ray")),
    "knee x-ray": ("region=knee,view=frontal", ("knee", "x-ray")),
    "leg x-ray": ("region=leg", ("leg", "x-ray")),
    "ankle x-ray": ("region=ankle+foot", ("ankle", "x-ray")),
    "head MR": ("region=head,modality=mr", ("head", "MRI")),
    "chest CT": ("region=chest,modality=ct,window=soft tissue", ("chest", "CT")),
    "abdomen CT": ("region=abdomen,modality=ct", ("abdomen", "CT")),
    "fetal head ultrasound": (
        "region=fetal head,modality=ultrasound",
        ("fetal head", "ultrasound"),
    ),
}


def phantoms(count: int, first: int, size: int) -> tuple[Tensor, Tensor]:
    """[n, 1, size, size] in [-1, 1] and the class [n] of each."""
    images, labels = [], []
    for number, (where, _) in enumerate(tqdm(CLASSES.values(), desc="phantoms")):
        asked = open_set(f"phantoms:{count}:{first}:{where}", size)
        images += [asked.load(i) for i in range(count)]
        labels += [number] * count
    return torch.stack(images), torch.tensor(labels)


def real_files(data: Path, region: str, modality: str, count: int, seed: int) -> list[str]:
    """At most `count` files of a region and modality, drawn by chance."""
    found = []
    for folder in ("body", "nih_cxr"):
        with (data / folder / "labels.csv").open() as file:
            for row in csv.DictReader(file):
                kind = row.get("region") or "chest", row.get("modality") or "x-ray"
                if kind == (region, modality) and row.get("quality_flag") in (None, "", "0"):
                    found.append(str(data / folder / "images" / row["filename"]))
    return [found[i] for i in np.random.default_rng(seed).permutation(len(found))[:count]]


def real(data: Path, count: int, size: int) -> tuple[Tensor, Tensor]:
    """As `phantoms`, of the real images: at most `count` a class, padded to squares."""
    images, labels = [], []
    for number, (_, kind) in enumerate(CLASSES.values()):
        for file in real_files(data, *kind, count, 0):
            grey = image_files.to_channels(image_files.load(file), 1)
            images.append(image_files.fit_padded(grey, size)[0])
            labels.append(number)
    return torch.stack(images), torch.tensor(labels)


def network() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((1, 32), (32, 64), (64, 96), (96, 128)):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.Conv2d(after, after, 3, 1, 1), nn.BatchNorm2d(after), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(128, len(CLASSES))]
    return nn.Sequential(*layers, *head)


def changed(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each turned, moved, zoomed, mirrored or not, with another contrast."""
    n = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    angle, zoom = uniform(-0.5, 0.5), uniform(0.75, 1.35)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    c, s = angle.cos() * zoom, angle.sin() * zoom
    rows = [c * mirror, -s, uniform(-0.2, 0.2), s * mirror, c, uniform(-0.2, 0.2)]
    turn = torch.stack(rows, 1).view(n, 2, 3)
    grid = F.affine_grid(turn, list(images.shape), align_corners=False)
    moved = F.grid_sample((images + 1) / 2, grid, align_corners=False)
    gamma, gain = uniform(0.6, 1.7)[:, None, None, None], uniform(0.6, 1.2)[:, None, None, None]
    noise = 0.03 * torch.randn(moved.shape, generator=generator)
    return (gain * moved.clamp(0, 1) ** gamma + noise).clamp(0, 1) * 2 - 1


def train(images: Tensor, labels: Tensor, epochs: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    generator, model = torch.Generator().manual_seed(seed), network()
    steps = epochs * len(images) // 64
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in tqdm(range(steps), desc="training"):
        pick = torch.randint(len(images), (64,), generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            named = model(changed(images[pick], generator))
        loss = F.cross_entropy(named.float(), labels[pick])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def confusion(model: nn.Module, images: Tensor, labels: Tensor) -> np.ndarray:
    """[true, named] counts."""
    named = torch.cat([model(part).argmax(1) for part in images.split(128)])
    table = np.zeros((len(CLASSES), len(CLASSES)), int)
    np.add.at(table, (labels.numpy(), named.numpy()), 1)
    return table


def balanced_accuracy(table: np.ndarray, seed: int = 0) -> dict[str, float]:
    """The mean over classes of the share named rightly, with its bootstrap interval."""
    rng = np.random.default_rng(seed)
    counts = table.sum(1)
    shares = table.diagonal() / counts
    again = rng.binomial(counts, shares, (1000, len(counts))) / counts
    low, high = np.quantile(again.mean(1), [0.025, 0.975])
    return {"value": float(shares.mean()), "low": float(low), "high": float(high)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=300, help="images a class, at most")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    report: dict[str, object] = {"classes": list(CLASSES), "chance": 1 / len(CLASSES)}
    made = phantoms(options.count, 0, options.size)
    found = real(options.data, options.count, options.size)
    for name, learned, asked in (
        ("phantoms to real", made, found),
        ("real to phantoms", found, made),
    ):
        table = confusion(train(*learned, options.epochs, 0), *asked)
        report[name] = {
            "learned_from": len(learned[0]),
            "n": int(table.sum()),
            "balanced_accuracy": balanced_accuracy(table),
            "right": {k: f"{table[i, i]} of {table[i].sum()}" for i, k in enumerate(CLASSES)},
            "confusion": table.tolist(),
        }
        print(name, json.dumps(report[name]))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
