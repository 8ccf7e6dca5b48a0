"""How near are a model's pictures to unseen real ones, group by group: chests, knees, brains ...

    python benchmarks/by_group.py runs/unet_256 configs/unet_256.yaml [--n 40] [--out runs/by_group]

The config names the sources; what it holds out was never trained on. Of each group that has --n
held-out images, as many are drawn with their captions, default settings, image indices 0 to n - 1
of seed 0, nothing selected; training images of as many numbers stand beside. Figures, for drawn and
for training images against the held-out ones:

distance   Frechet, in the first 30 principal components at 64 px of the training images
named      share given the right group by a logistic regression on 120 such components
detail     amplitude above a mean of 5 x 5 pixels, over that of held-out images
grey       mean and contrast (standard deviation), in grey levels of 255

Contact sheets of each group are written to --out: drawn ones, and real ones that are for looking
at, not for publishing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from drawn import Artist, Simple
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ldm.config import from_dict
from ldm.data import DataConfig, row_captions
from ldm.data.image_sets import Row
from ldm.data.sources import source_rows
from ldm.drawing.drawing_settings import SYNTHETIC
from ldm.metrics.classification import wilson
from ldm.metrics.estimate import Estimate, as_json, mean
from ldm.metrics.fid import frechet, jackknife
from ldm.pictures import image_files
from ldm.system import cli
from ldm.system.cli import read_yaml

FEW = 30  # components for distances between groups of 40


def group(row: Row) -> str:
    """ "x-ray of the knee", "x-ray of the chest of a child" """
    region, kind = row.get("region") or "chest", row.get("modality") or "x-ray"
    child = row_captions.WORDS["children"] in row.get("collection", "")
    return f"{kind} of the {region}{' of a child' if child else ''}"


def squares(rows: Sequence[Row], config: DataConfig) -> Tensor:
    """[n, 1, size, size], as the model was trained on them"""
    found = []
    for row in rows:
        image = image_files.to_channels(image_files.load(row["path"]), 1)
        if config.fit == "pad":
            found.append(image_files.fit_padded(image, config.size)[0])
        else:
            found.append(image_files.fit_square(image, config.size))
    return torch.stack(found)


def detail(pictures: Tensor) -> np.ndarray:
    """[n] the standard deviation of what lies above a mean of 5 x 5 pixels"""
    above = pictures - F.avg_pool2d(pictures, 5, 1, 2, count_include_pad=False)
    return above.std(dim=(1, 2, 3)).numpy()


def row_of(some: Tensor, held: Tensor, simple: Simple, named: np.ndarray) -> dict[str, Estimate]:
    """The figures of drawn or training images of a group."""
    grey = 127.5 * (some + 1)
    return {
        "distance": jackknife(frechet, simple(some)[:, :FEW], simple(held)[:, :FEW]),
        "named": wilson(int(named.sum()), len(named)),
        "detail": mean(detail(some) / detail(held).mean()),
        "mean": mean(grey.mean(dim=(1, 2, 3)).numpy()),
        "contrast": mean(grey.std(dim=(1, 2, 3)).numpy()),
    }


def main() -> int:
    parser = cli.Parser("by_group", "Distances of a model's pictures to real ones, by group.")
    parser.add_argument("model")
    parser.add_argument("config", help="the YAML file whose data.sources it was trained on")
    parser.add_argument("--n", type=cli.whole(2), default=40)
    parser.add_argument("--out", type=Path, default=Path("runs/by_group"))
    options: argparse.Namespace = parser.parse_args()
    config = from_dict(DataConfig, read_yaml(options.config)["data"], "data")
    rows: dict[str, defaultdict[str, list[Row]]]
    rows = {"train": defaultdict(list), "held out": defaultdict(list)}
    generator = np.random.default_rng(0)
    for source in config.sources:
        if not source.path.startswith("phantoms:"):
            for part, found in zip(rows, source_rows(source, config)[:2], strict=True):
                for row in generator.permutation(np.array(found, dtype=object)):
                    rows[part][group(row)].append(row)
    names = sorted(g for g, some in rows["held out"].items() if len(some) >= options.n)
    train = {g: squares(rows["train"][g][: 4 * options.n], config) for g in names}
    held = {g: squares(rows["held out"][g][: options.n], config) for g in names}
    simple = Simple(torch.cat(list(train.values())))
    reader = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    labels = [g for g in names for _ in train[g]]
    reader.fit(simple(torch.cat(list(train.values()))), labels)
    artist, report = Artist(options.model, options.out), {}
    for g in names:
        texts = [
            row_captions.caption(row, {}, wording)
            for wording, row in enumerate(rows["held out"][g][: options.n])
        ]
        drawn = artist.draw(texts)
        sets = {"drawn": drawn, "training": train[g][: options.n]}
        right = {k: np.asarray(reader.predict(simple(some))) == g for k, some in sets.items()}
        report[g] = {k: row_of(some, held[g], simple, right[k]) for k, some in sets.items()}
        unseen = np.asarray(reader.predict(simple(held[g]))) == g
        report[g]["held out"] = row_of(held[g], held[g], simple, unseen)
        name = g.replace(" ", "_")
        sheet = image_files.grid(drawn[:16], 8)
        image_files.save(sheet, options.out / f"{name}.png", {"synthetic": SYNTHETIC})
        real = image_files.grid(held[g][:16], 8)
        image_files.save(real, options.out / f"real_{name}.png", {"content": "real images"})
        for kind, figures in report[g].items():
            print(f"{g:32} {kind:9}", *(f"{k} {e.show('.3g')}" for k, e in figures.items()))
    path = options.out / "by_group.json"
    path.write_text(json.dumps(as_json(report), indent=1) + "\n", encoding="utf-8")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "by_group"))
