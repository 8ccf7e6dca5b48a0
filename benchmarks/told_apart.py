"""Does a text tower tell captions apart that differ by one word: by a negation, or by the side?

    python benchmarks/told_apart.py runs/text_256 [--phantoms 300] [--out runs/told_apart.json]

The tower and the image network of its training (train.method=text, in checkpoint.pt) compare
images that were held out, and phantoms of unseen seeds, with two captions each: "lung xray with
pleural effusion" and "lung xray without pleural effusion"; "x-ray of the left knee" and of the
right one. An image is right if its own caption is the more similar one.

with, without   share right of the images that have the finding (or show the left side), and not
auc             of the difference of both similarities, which no threshold decides; chance is 0.5
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from by_group import squares
from drawn import EFFUSION, FINDINGS, UNSEEN
from torch import Tensor

from ldm.clip import tokenizer
from ldm.data import DataConfig
from ldm.data.image_sets import FileSet, PhantomSet, named_phantoms
from ldm.data.phantom.captions import readable
from ldm.data.phantom.findings import Phantom
from ldm.data.sources import source_rows
from ldm.metrics.classification import auc, wilson
from ldm.metrics.estimate import as_json
from ldm.pictures import image_files
from ldm.system import cli
from ldm.training.methods.pretraining import TrainText
from ldm.training.training_run import load_checkpoint, load_run

SIDES = ("left", "right")
LIMBS = "hand+knee+ankle+shoulder+elbow"
FIRST = UNSEEN + 10_000_000  # seed of the phantoms
LEAST = 10  # images on either side of a question
Case = tuple[Tensor, str, str, bool]  # image, two captions, is the first one right?


@torch.inference_mode()
def differences(method: TrainText, images: Tensor, first: list[str], other: list[str]) -> Tensor:
    """[n] similarity to the first caption minus that to the other one"""
    text, found = method.module["text"], []
    small = F.interpolate(images, method.options.pixels, mode="bilinear", antialias=True)
    seen = F.normalize(method.module["image"](small), dim=1)
    for captions in (first, other):
        tokens = text.tokenize(captions)
        ends = (tokens == tokenizer().eot_token_id).int().argmax(dim=1)
        states = torch.cat([text(part) for part in tokens.split(64)])
        found.append((F.normalize(states[torch.arange(len(tokens)), ends], dim=1) * seen).sum(1))
    return found[0] - found[1]


def finding_cases(
    images: Tensor, known: Sequence[Mapping[str, bool]], kind: str
) -> Iterator[tuple[str, list[Case]]]:
    """(question, cases) for each finding that is known of an image"""
    for name in FINDINGS:
        cases = [
            (image, f"{kind} with {name}", f"{kind} without {name}", shown[name] is True)
            for image, shown in zip(images, known, strict=True)
            if name in shown
        ]
        yield f"{kind}: {name}", cases


def questions(config: DataConfig, count: int) -> Iterator[tuple[str, list[Case]]]:
    for source in config.sources:
        if source.path.startswith("phantoms:"):
            continue
        if not (rows := source_rows(source, config)[1]):
            continue
        images = squares(rows, config)
        if "region" in rows[0]:
            yield (
                "limb: fracture",
                [
                    (
                        image,
                        f"x-ray of the {place} with a fracture",
                        f"x-ray of the {place} without fracture",
                        "fracture" in labels,
                    )
                    for image, row in zip(images, rows, strict=True)
                    if {"fracture", "no fracture"} & (labels := set(row["labels"].split("|")))
                    and (place := row["region"])
                ],
            )
        elif "labels" in rows[0]:
            films = FileSet(rows, Path(source.path), "")
            known = [films.findings(i) for i in range(len(rows))]
            yield from finding_cases(images, known, "lung xray")
    chests = named_phantoms(f"phantoms:{count}:{FIRST}")
    images, several = rendered(chests, config.size)
    known = [several.findings(i) for i in range(count)]
    yield from finding_cases(images, known, "phantom lung xray")
    sides = [[f.side for f in chest.findings if readable(f.name) == EFFUSION] for chest in chests]
    texts = [f"phantom lung xray with a {side} {EFFUSION}" for side in SIDES]
    yield "phantom lung xray: side of an effusion", side_cases(images, sides, [texts] * count)
    limbs = named_phantoms(f"phantoms:{count}:{FIRST}:region={LIMBS},modality=xray")
    images, _ = rendered(limbs, config.size)
    texts = [[f"phantom x-ray of the {s} {limb.region}" for s in SIDES] for limb in limbs]
    yield "phantom limb: side", side_cases(images, [[limb.side] for limb in limbs], texts)


def rendered(chosen: list[Phantom], size: int) -> tuple[Tensor, PhantomSet]:
    several = PhantomSet(chosen, size)
    images = [image_files.fit_square(several.load(i), size) for i in range(len(chosen))]
    return torch.stack(images), several


def side_cases(images: Tensor, sides: list[list[str]], texts: list[list[str]]) -> list[Case]:
    """Of the images that show one side."""
    return [
        (image, *both, side[0] == "left")
        for image, side, both in zip(images, sides, texts, strict=True)
        if side in (["left"], ["right"])
    ]


def main() -> int:
    parser = cli.Parser("told_apart", "Captions that differ by one word, told apart.")
    parser.add_argument("run", type=Path, help="the folder of a training with train.method=text")
    parser.add_argument("--phantoms", type=cli.whole(2), default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/told_apart.json"))
    options = parser.parse_args()
    run = load_run(options.run / "config.yaml")
    method, state = TrainText(run), load_checkpoint(options.run)
    method.module.load_state_dict(state["module"])
    method.module.eval()
    report = {}
    for question, cases in questions(run.data, options.phantoms):
        truth = np.array([case[3] for case in cases], dtype=bool)
        if min(truth.sum(), (~truth).sum()) < LEAST:
            print(f"{question}: fewer than {LEAST} images of either kind")
            continue
        images, first, other, _ = zip(*cases, strict=True)
        found = differences(method, torch.stack(images), list(first), list(other)).numpy()
        report[question] = figures = {
            "with": wilson(int((found[truth] > 0).sum()), int(truth.sum())),
            "without": wilson(int((found[~truth] < 0).sum()), int((~truth).sum())),
            "auc": auc(found, truth),
        }
        print(f"{question:40}", *(f"{k} {e.show('.3g')}" for k, e in figures.items()))
    options.out.write_text(json.dumps(as_json(report), indent=1) + "\n", encoding="utf-8")
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "told_apart"))
