"""Trials on phantoms, whose truth is known: outpainting of half a chest, and inversion to noise.

Outpainting: is the other half where anatomy has it? Inversion: up to noise, and down again with the
same words or with others.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ldm.data import phantom
from ldm.data.image_sets import UNSEEN
from ldm.drawing import image_editing, outpainting
from ldm.drawing.compositing import Box, Levels, Mask
from ldm.drawing.edited_pictures import RESAMPLE
from ldm.drawing.latent_editing import PictureBatch
from ldm.metrics.chest_anatomy import Chest, chest, lungs, spread
from ldm.metrics.classification import wilson
from ldm.metrics.estimate import Estimate, mean
from ldm.metrics.fid import Array
from ldm.metrics.image_quality import psnr
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.report import anatomy_survey, page
from ldm.report.anatomy_survey import prepare
from ldm.report.image_sheets import Panel
from ldm.report.page import Table

FIRST = UNSEEN + 30_000_000  # neither those of phantoms:N nor those that tried the estimates
EFFUSION = "pleural effusion"
HEALTHY, SICK = "phantom lung xray without findings", f"phantom lung xray with {EFFUSION}"
PHANTOM, DRAWN, MIRRORED = "the phantom itself", "drawn on", "its half mirrored"


class Extended(NamedTuple):
    """chests: {whose: [n]};  halves: {whose: [n] widths' ratio, NaN without two lungs};

    truth: [n] that ratio from the phantoms' masks;  shown: {whose: Levels} of the first
    changed: differing pixels in the half that was given
    """

    chests: dict[str, list[Chest]]
    halves: dict[str, Array]
    truth: Array
    changed: int
    shown: dict[str, Levels]

    def panels(self) -> list[Panel]:
        """The given half has a yellow box."""
        height, width = self.shown[PHANTOM].shape[:2]
        box = Box(0, 0, height, width // 2)
        return [Panel(name, picture, box) for name, picture in self.shown.items()]


def extend(pipe: LatentDiffusion, sampling: Sampling, count: int) -> Extended:
    """Extends the image's left half, the patient's right one, of healthy phantoms."""
    side = pipe.config.image_size
    shown: dict[str, Levels] = {}
    chests: dict[str, list[Chest]] = {whose: [] for whose in (PHANTOM, DRAWN, MIRRORED)}
    ratios: dict[str, list[float]] = {whose: [] for whose in chests}
    truth, changed = [], 0
    for index in tqdm(range(count), "outpainting", disable=None):
        drawn = phantom.render(phantom.sample_phantoms([FIRST + index], []), side)
        whole = image_files.to_integers(drawn.images[0])
        given = whole[:, : side // 2]
        board, known = outpainting.place(given, (side, side), (0, 0))
        boxes = outpainting.plan(known, side)
        batch = PictureBatch(pipe, [HEALTHY], [index], sampling)
        *_, result = outpainting.outpaint(batch, board, known, boxes, RESAMPLE)
        changed += int((result[:, : side // 2] != given).sum())
        mirrored = np.concatenate([given, given[:, ::-1]], axis=1)
        three = {PHANTOM: whole, DRAWN: result, MIRRORED: mirrored}
        for whose, picture in three.items():
            grey = prepare(image_files.from_integers(picture))
            chests[whose].append(chest(grey))
            ratios[whose].append(ratio(*lungs(grey)))
        masks = (drawn.masks[f"{name} lung"][0].numpy() for name in ("right", "left"))
        truth.append(ratio(*masks))
        shown = shown or three
    halves = {whose: np.array(values) for whose, values in ratios.items()}
    return Extended(chests, halves, np.array(truth), changed, shown)


def ratio(right: Mask | None, left: Mask | None) -> float:
    """How far the left lung reaches from the image's middle, by how far the right one does.

    NaN if one is missing.
    """
    if right is None or left is None:
        return math.nan
    middle = right.shape[1] / 2
    return float((spread(left, 0)[1] + 1 - middle) / (middle - spread(right, 0)[0]))


def half_table(found: Extended) -> tuple[Table, dict[str, Any]]:
    """Figures of the estimates that passed their trial, as a table and for JSON."""
    believed = anatomy_survey.trial().believed
    columns: dict[str, dict[str, Estimate]] = {}
    for whose, chests in found.chests.items():
        both = [one for one in chests if one.lungs == 2]
        figures: dict[str, Estimate] = {}
        if anatomy_survey.LUNGS in believed:
            figures["two lungs"] = wilson(len(both), len(chests))
        if anatomy_survey.LUNGS in believed and len(both) > 1:
            ratios = found.halves[whose]
            known = ~np.isnan(ratios)
            figures["ratio of widths, mean"] = mean(ratios[known])
            figures["error of that ratio"] = mean(abs(ratios - found.truth)[known])
        if anatomy_survey.HEART in believed and both:
            right = sum(one.shift is not None and one.shift > 0 for one in both)
            figures["heart at the image's right, of two-lunged"] = wilson(right, len(both))
        columns[whose] = figures
    truth, changed = mean(found.truth).show(), found.changed
    caption = page.passage("outpainting", n=len(found.truth), changed=changed, truth=truth)
    return Table.of(caption, "figure", columns), {"changed": changed, **columns}


class Inverted(NamedTuple):
    """All [n]. own: PSNR of the autoencoder's reconstruction to the phantom;  back: of the image
    drawn back from noise to that reconstruction;  back_to_phantom: to the phantom

    outside: share of the counterfactual's change that lies outside the fluid's mask;  truly: the
    same of the change from the phantom to itself without fluid;  area: share of the image outside
    nearer: PSNR to the phantom without fluid, of the counterfactual minus of the image drawn back
    """

    own: Array
    back: Array
    back_to_phantom: Array
    outside: Array
    truly: Array
    area: Array
    nearer: Array


def invert(
    pipe: LatentDiffusion, sampling: Sampling, count: int
) -> tuple[Inverted, dict[str, Levels]]:
    """Inverts phantoms with fluid, and draws them back with the same words and without findings."""
    side, rows = pipe.config.image_size, []
    shown: dict[str, Levels] = {}
    for index in tqdm(range(count), "inverting", disable=None):
        sick, well = (
            phantom.render(phantom.sample_phantoms([FIRST + index], names), side)
            for names in ([EFFUSION], [])
        )
        picture, without = (image_files.to_integers(one.images[0]) for one in (sick, well))
        fluid = sick.masks[EFFUSION][0].numpy()
        (own,) = image_editing.rounded(
            image_editing.decode(pipe, image_editing.encode(pipe, picture), picture), picture
        )
        batch = PictureBatch(pipe, [SICK, HEALTHY], range(2), sampling)
        back, other = image_editing.counterfactual(batch, picture, [SICK, SICK])
        rows.append(
            (
                decibels(own, picture),
                decibels(back, own),
                decibels(back, picture),
                outside(back, other, fluid),
                outside(picture, without, fluid),
                float((~fluid).mean()),
                decibels(other, without) - decibels(back, without),
            )
        )
        shown = shown or {
            "phantom": picture,
            "same words": back,
            "no findings": other,
            "phantom without fluid": without,
        }
    return Inverted(*np.array(rows).T), shown


def decibels(a: Levels, b: Levels) -> float:
    """PSNR, dB"""
    return psnr(a[..., 0], b[..., 0], 255)


def outside(before: Levels, after: Levels, mask: Mask) -> float:
    """The share of all |difference| that lies outside the mask; NaN where nothing differs."""
    change: NDArray[np.float64] = np.abs(after.astype(float) - before).sum(axis=2)
    return float(change[~mask].sum() / change.sum()) if change.any() else float("nan")
