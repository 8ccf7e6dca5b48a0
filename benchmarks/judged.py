"""How well does a judge name what it never saw: findings, region, modality, view, sex and age?

    python benchmarks/judged.py runs/judge_body configs/judge_body.yaml [--phantoms 400]

The config names the sources; what it holds out was never trained on. Each finding and attribute has
an AUC, with interval, over the held-out real images that say whether it is there, and over phantoms
of unseen seeds; beneath 0.7 it is "not measurable", so no figure should rest on it. Of region,
modality and view, the share of images whose highest score is the right one, by class, follows.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ldm.config import from_dict
from ldm.data import DataConfig, attributes
from ldm.data.image_sets import FileSet, ImageSet, open_set
from ldm.data.sources import source_rows
from ldm.judging.judge import Judge, load_judge
from ldm.metrics.classification import auc, wilson
from ldm.metrics.estimate import as_json
from ldm.pictures import image_files
from ldm.system import cli
from ldm.system.cli import read_yaml

LEAST, FEW = 0.7, 10  # of an AUC; images of either kind
ATTRIBUTES = ("region", "modality", "view")


def scored(judge: Judge, images: ImageSet, fit: str) -> tuple[np.ndarray, list[dict[str, str]]]:
    """Logits [n, K], and the attributes of each image."""
    rows, told = [], []
    for i in tqdm(range(len(images)), images.name, leave=False):
        image = image_files.to_channels(images.load(i), 1)
        if fit == "pad":
            image = image_files.fit_padded(image, judge.config.size)[0]
        else:
            image = image_files.fit_square(image, judge.config.size)
        rows.append(judge(image[None])[0])
        told.append(dict(images.attributes(i)))
    return torch.stack(rows).numpy(), told


def table(
    judge: Judge, logits: np.ndarray, truth: Sequence[Mapping[str, bool]], shown: str
) -> dict[str, object]:
    found: dict[str, object] = {}
    for k, name in enumerate(judge.config.findings):
        labels = [(i, row[name]) for i, row in enumerate(truth) if name in row]
        there = sum(is_there for _, is_there in labels)
        if min(there, len(labels) - there) < FEW:
            print(f"{shown:12} {name:20} not measured: {there} of {len(labels)} show it")
            continue
        value = auc(logits[[i for i, _ in labels], k], [is_there for _, is_there in labels])
        verdict = "" if value.value >= LEAST else "  not measurable"
        found[name] = value
        print(f"{shown:12} {name:20} {value.show('.3f')}, n = {there} of {value.n}{verdict}")
    return found


def named(judge: Judge, logits: np.ndarray, told: Sequence[dict[str, str]], shown: str) -> dict:
    found = {}
    for attribute in ATTRIBUTES:
        columns = {
            name.partition("=")[2]: k
            for k, name in enumerate(judge.config.findings)
            if name.startswith(f"{attribute}=")
        }
        if not columns:  # a judge of findings alone
            continue
        known = [i for i, row in enumerate(told) if row.get(attribute) in columns]
        guesses = np.array(list(columns))[logits[np.ix_(known, list(columns.values()))].argmax(1)]
        right: Counter[str] = Counter()
        counts = Counter(told[i][attribute] for i in known)
        right.update(g for i, g in zip(known, guesses, strict=True) if told[i][attribute] == g)
        for word, n in counts.items():
            found[f"{attribute}: {word}"] = wilson(right[word], n)
            print(
                f"{shown:12} {attribute}: {word:14} {wilson(right[word], n).show('.3f')}, n = {n}"
            )
        every = wilson(sum(right.values()), len(known))
        mean = np.mean([right[word] / n for word, n in counts.items()]) if counts else math.nan
        found[attribute] = every
        print(f"{shown:12} {attribute}: all {every.show('.3f')}, balanced {mean:.3f}")
    return found


def main() -> int:
    parser = cli.Parser("judged", "What a judge tells apart among images that it never saw.")
    parser.add_argument("judge")
    parser.add_argument("config", help="the YAML file whose data.sources it was trained on")
    parser.add_argument("--phantoms", type=cli.whole(2), default=400)
    parser.add_argument("--own", type=Path, help="also write the AUCs on real images, for weights/")
    parser.add_argument("--out", type=Path, default=Path("runs/judged.json"))
    options: argparse.Namespace = parser.parse_args()
    config = from_dict(DataConfig, read_yaml(options.config)["data"], "data")
    judge, sets = load_judge(options.judge), {"real": list[ImageSet](), "phantoms": []}
    for source in config.sources:
        if source.path.startswith("phantoms:"):
            where = ":".join(source.path.split(":")[3:])
            unseen = f"phantoms:{options.phantoms}:900000000" + (f":{where}" if where else "")
            sets["phantoms"].append(open_set(unseen, judge.config.size))
        else:
            _, held, count = source_rows(source, config)
            sets["real"].append(FileSet(held, Path(source.path), str(count), source.path))
    report: dict[str, dict] = {}
    with torch.inference_mode():
        for shown, some in sets.items():
            if not some:
                continue
            parts = [scored(judge, images, config.fit) for images in some]
            logits = np.concatenate([part for part, _ in parts])
            told = [row for _, rows in parts for row in rows]
            findings = [images.findings(i) for images in some for i in range(len(images))]
            names = judge.config.findings
            truth = [
                {**f, **attributes.told(row, names)} for f, row in zip(findings, told, strict=True)
            ]
            report[shown] = {
                **table(judge, logits, truth, shown),
                **named(judge, logits, told, shown),
            }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(as_json(report), indent=1) + "\n", encoding="utf-8")
    print(options.out)
    if options.own:
        own = {
            name: report["real"][name] for name in judge.config.findings if name in report["real"]
        }
        options.own.write_text(json.dumps(as_json(own), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "judged"))
