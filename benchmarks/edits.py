"""What editing keeps and what it changes: inversion, counterfactuals and seams, on phantoms.

    python benchmarks/edits.py [--model weights] [--n 20] [--picture docs/edits.png]

Phantoms with an effusion, whose fluid is known, as is the same chest without it. Inversion: PSNR
between what comes back with the same words and what the autoencoder alone makes of the phantom.
Counterfactual: the same noise with "no findings"; what should change lies in the fluid's mask.
Seam: steps between neighbouring pixels across the edge of a random rectangle that was repainted,
against those of the rest of the picture, of which 5 % are called large.
Prints means over phantoms with n and a 95 % interval (1.96 standard errors; shares: Wilson's).
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from drawn import EFFUSION, UNSEEN, scores

import ldm
from ldm.data import phantom
from ldm.drawing import compositing, image_editing, outpainting
from ldm.drawing.compositing import Floats, Levels
from ldm.drawing.latent_editing import PictureBatch
from ldm.judging.judge import load_judge
from ldm.metrics.classification import wilson
from ldm.metrics.estimate import mean
from ldm.metrics.image_quality import edge_steps, psnr
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.report.plots import as_png, new
from ldm.system import cli

FIRST = UNSEEN + 5000  # the defaults were chosen with phantoms before this one
FLUID, NONE = f"phantom lung xray with {EFFUSION}", "phantom lung xray, no findings"
VISIBLE = 10  # grey levels of 255 that count as a change
SYNTHETIC = "All of these are synthetic: phantoms, and what a model made of them."


class Phantoms:
    """n phantoms with an effusion: Levels each, the fluid's masks [H, W], and without the fluid."""

    def __init__(self, count: int) -> None:
        seeds = range(FIRST, FIRST + count)
        sick = phantom.render(phantom.sample_phantoms(seeds, [EFFUSION]))
        well = phantom.render(phantom.sample_phantoms(seeds, []))
        self.sick = [image_files.to_integers(image) for image in sick.images]
        self.well = [image_files.to_integers(image) for image in well.images]
        self.fluid = [mask.numpy() for mask in sick.masks[EFFUSION]]


def inversion(pipe: LatentDiffusion, given: Phantoms, sampling: Sampling) -> dict[str, object]:
    """Figures of what comes back, and of the counterfactuals of two ways of editing."""
    own, back, plain, inverted, noised = [], [], [], [], []
    for i, picture in enumerate(given.sick):
        same, other = (PictureBatch(pipe, [words], [i], sampling) for words in (FLUID, NONE))
        own += image_editing.image_to_image(same, picture, 1e-6)
        back += image_editing.counterfactual(same, picture, [FLUID])
        plain += image_editing.counterfactual(same, picture, [FLUID], rounds=1)
        inverted += image_editing.counterfactual(other, picture, [FLUID])
        noised += image_editing.image_to_image(other, picture, 0.6)
    return {
        "PSNR, dB": {
            "to the autoencoder's own": likeness(back, own),
            "the same, plain DDIM inversion": likeness(plain, own),
            "to the phantom": likeness(back, given.sick),
            "the autoencoder's own to the phantom": likeness(own, given.sick),
        },
        "fluid called by the judge": {
            name: str(judged(pictures))
            for name, pictures in {
                "phantom": given.sick,
                "same words": back,
                "no findings, by inversion": inverted,
                "no findings, image to image 0.6": noised,
                "phantom without fluid": given.well,
            }.items()
        },
        "counterfactual by inversion": changes(given, own, inverted),
        "image to image, strength 0.6": changes(given, own, noised),
    }


def likeness(pictures: list[Levels], others: list[Levels]) -> str:
    """Their PSNR."""
    pairs = zip(pictures, others, strict=True)
    found = np.array([psnr(a[..., 0], b[..., 0], 255) for a, b in pairs])
    return f"{mean(found)}, least {found.min():.1f}"


def judged(pictures: list[Levels]) -> object:
    judge = load_judge("weights/judge.safetensors")
    found = scores(judge, torch.stack([image_files.from_integers(x) for x in pictures]), EFFUSION)
    return wilson(int((found > 0).sum()), len(found))


def changes(given: Phantoms, own: list[Levels], edited: list[Levels]) -> dict[str, str]:
    """How much changed in and outside of the fluid, and how near it comes to what is under it."""
    rows: dict[str, list[float]] = {}
    for before, after, fluid, well in zip(own, edited, given.fluid, given.well, strict=True):
        change = np.abs(after.astype(float) - before)[..., 0]
        left = np.abs(after.astype(float) - well)[..., 0]
        was = np.abs(before.astype(float) - well)[..., 0]
        for name, value in {
            f"share of pixels outside changed by > {VISIBLE} levels": (change > VISIBLE)[~fluid],
            f"share of pixels in the fluid changed by > {VISIBLE} levels": (change > VISIBLE)[
                fluid
            ],
            "mean change outside, levels": change[~fluid],
            "mean change in the fluid, levels": change[fluid],
            "in the fluid, from the chest without it, levels": left[fluid],
            "... before": was[fluid],
        }.items():
            rows.setdefault(name, []).append(float(value.mean()))
    return {name: str(mean(np.array(values))) for name, values in rows.items()}


def seams(pipe: LatentDiffusion, given: Phantoms, sampling: Sampling) -> dict[str, object]:
    """{how: share of the steps across the edge that are large, mean of them against before}"""
    rows: dict[str, list[tuple[float, float]]] = {}
    for i, picture in enumerate(given.sick):
        alpha = rectangle(i, picture.shape[:2])
        before = edge_steps(picture[..., 0], alpha > 0)[0]
        edits = {"phantom, untouched": picture}
        for times in (1, 4):
            batch = PictureBatch(pipe, [FLUID], [i], sampling)
            (edits[f"resample {times}"],) = image_editing.inpaint(batch, picture, alpha, times)
        for name, edited in edits.items():
            across, rest = edge_steps(edited[..., 0], alpha > 0)
            large = float((across > np.quantile(rest, 0.95)).mean())
            rows.setdefault(name, []).append((large, float(across.mean() / before.mean())))
    return {
        name: {
            "share of large steps across the edge": str(mean(np.array(values)[:, 0])),
            "mean step, that of the phantom being 1": str(mean(np.array(values)[:, 1])),
        }
        for name, values in rows.items()
    }


def rectangle(seed: int, shape: tuple[int, ...]) -> Floats:
    """Somewhere in the middle, of 24 to 56 pixels a side."""
    g, alpha = np.random.default_rng([FIRST, seed]), np.zeros(shape)
    (top, left), (height, width) = g.integers(16, 72, 2), g.integers(24, 57, 2)
    alpha[top : top + height, left : left + width] = 1
    return alpha


def picture_of(pipe: LatentDiffusion, given: Phantoms, drawing: Sampling, ddim: Sampling) -> Levels:
    """Rows: image to image, a counterfactual, inpainting, outpainting.

    Of the first phantom with fluid on a tenth of the picture, to have something to see.
    """
    one = next((i for i, mask in enumerate(given.fluid) if mask.mean() > 0.1), 0)
    sick, well, fluid = given.sick[one], given.well[one], given.fluid[one]
    alpha = compositing.alpha_of((fluid * np.uint8(255))[..., None], grow=6)
    hidden = np.where(alpha[..., None] > 0, 255, sick)
    rows: list[dict[str, Levels]] = [{"phantom with fluid": sick}]
    healthy = PictureBatch(pipe, [NONE], [0], drawing)
    for strength in (0.3, 0.6, 0.9):
        (drawn,) = image_editing.image_to_image(healthy, sick, strength)
        rows[0][f"no findings, strength {strength}"] = drawn
    words = {"inverted, same words": FLUID, "inverted, no findings": NONE}
    rows.append({"the same phantom": sick})
    for name, prompt in words.items():
        batch = PictureBatch(pipe, [prompt], [0], ddim)
        (rows[1][name],) = image_editing.counterfactual(batch, sick, [FLUID])
    rows[1]["phantom without fluid"] = well
    rows.append({"to be inpainted": hidden})
    for i, prompt in enumerate((NONE, NONE, FLUID)):
        batch = PictureBatch(pipe, [prompt], [i], drawing)
        (drawn,) = image_editing.inpaint(batch, sick, alpha, 4)
        rows[2][f"inpainted, {'no findings' if prompt == NONE else 'effusion'}, image {i}"] = drawn
    rows.append({})
    part = well[24:104, 24:104]
    for name, picture, size, at in (
        ("outpainted to 128 x 128", part, (128, 128), (24, 24)),
        ("outpainted to 128 x 192", well, (128, 192), (0, 0)),
    ):
        board, known = outpainting.place(picture, size, at)
        rows[3][f"phantom, on {size[0]} x {size[1]}"] = board
        boxes = outpainting.plan(known, pipe.config.image_size)
        *_, rows[3][name] = outpainting.outpaint(healthy, board, known, boxes, 4)
    figure = new(6.8, 7.8)
    for axis, (name, levels) in zip(
        figure.subplots(4, 4).flat, (item for row in rows for item in row.items()), strict=True
    ):
        axis.imshow(levels[..., 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(name, fontsize=7)
        axis.set_axis_off()
    figure.suptitle(SYNTHETIC, fontsize=9)
    return grey(as_png(figure))


def grey(png: bytes) -> Levels:
    """A drawing without colours as 8 bits of grey [H, W, 1], which is a third of its size."""
    from io import BytesIO

    from PIL import Image

    return np.asarray(Image.open(BytesIO(png)).convert("L"))[..., None]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="weights")
    parser.add_argument("--n", type=int, default=20, help="phantoms")
    parser.add_argument("--picture", type=Path, help="also a figure, as PNG")
    options = parser.parse_args()
    pipe = ldm.load(options.model)
    given, size = Phantoms(options.n), pipe.config.image_size
    drawing = Sampling(guidance=pipe.config.guidance, height=size, width=size)
    ddim = replace(drawing, steps=50, sampler="ddim", guidance=1.0)
    if options.picture:
        shown = picture_of(pipe, given, drawing, ddim)
        image_files.save(shown, options.picture, {"synthetic": SYNTHETIC})
    report = {
        "model": options.model,
        "weights": pipe.weights_hash,
        "inversion, 50 steps": inversion(pipe, given, ddim),
        "seam": seams(pipe, given, drawing),
    }
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "edits.py"))
