"""The anatomy of sets of images by metrics.chest_anatomy, whose estimates are tried on phantoms.

An estimate that is right in fewer than nine of ten phantoms, or no nearer than a constant, is not
used.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from ldm.data import phantom
from ldm.data.image_sets import UNSEEN, ImageSet
from ldm.metrics.chest_anatomy import SIDE, Chest, Grey, Mask, chest, lungs, runs, spread
from ldm.metrics.classification import wilson
from ldm.metrics.estimate import Estimate, mean
from ldm.pictures import image_files
from ldm.report import page
from ldm.report.page import Block, Table
from ldm.system.cli import printable

PHANTOMS = 100
FIRST = UNSEEN + 20_000_000  # neither those of phantoms:N nor those the estimates were made on
RIGHT = 0.9  # share of phantoms in which a count must be right
LUNGS, HEART, RATIO, RIBS = "lungs", "heart's side", "cardiothoracic ratio", "ribs"


class EstimateTrial(NamedTuple):
    """measured: {claim: share right or mean error};  believed: the estimates that may be used"""

    measured: dict[str, Estimate]
    believed: tuple[str, ...]


def trial(count: int = PHANTOMS, first: int = FIRST) -> EstimateTrial:
    """The share of phantoms in which each estimate is right, or its error."""
    drawn = phantom.render(phantom.sample_phantoms(range(first, first + count)), SIDE)
    greys = drawn.images[:, 0].numpy()
    masks = {name: mask.numpy() for name, mask in drawn.masks.items()}
    found = [chest(grey) for grey in greys]
    # every other phantom as its mirror image, so that each counts once
    mirrored = [chest(grey[:, ::-1]) for grey in greys[1::2]]
    shifts = [one.shift for one in found[::2] if one.shift is not None]
    shifts += [-one.shift for one in mirrored if one.shift is not None]
    right_counts = {
        "two lungs are two": wilson(sum(one.lungs == 2 for one in found), count),
        "one lung, the other covered, is one": wilson(covered(greys, masks, 1), count),
        "none, both covered, is none": wilson(covered(greys, masks, 2), count),
    }
    heart = wilson(sum(shift > 0 for shift in shifts), len(shifts))
    truth = np.array([row["cardiothoracic_ratio"] for row in drawn.truth], float)
    ratios = np.array([one.ratio for one in found], float)  # NaN without two lungs
    errors = mean(abs(ratios - truth)[~np.isnan(ratios)])
    constant = mean(abs(truth - truth.mean()))
    ribs = rib_trial(greys, masks["ribs"], found)
    measured = right_counts | {
        "heart's side, every other phantom mirrored": heart,
        "cardiothoracic ratio, mean absolute error": errors,
        "error of always saying the phantoms' mean ratio": constant,
        "ribs on a line down a lung, exactly as many": ribs,
    }
    checks = {
        LUNGS: min(e.value for e in right_counts.values()) >= RIGHT,
        HEART: heart.value >= RIGHT,
        RATIO: errors.high < constant.value,
        RIBS: ribs.value >= RIGHT,
    }
    return EstimateTrial(measured, tuple(name for name, passed in checks.items() if passed))


def covered(greys: Grey, masks: dict[str, Mask], sides: int) -> int:
    """The number of phantoms whose remaining lungs are counted right after `sides` are covered.

    The paint is the heart's mean grey; with one side it covers the left and the right lung in turn.
    """
    right, both = 0, ("left lung", "right lung")
    for i, grey in enumerate(greys):
        names = both if sides == 2 else both[i % 2 : i % 2 + 1]
        paint = np.any([masks[name][i] for name in names], axis=0)
        paint = ndimage.binary_dilation(paint, iterations=3)
        without = np.where(paint, grey[masks["heart"][i]].mean(), grey)
        right += lungs(without).seen == 2 - sides
    return right


def rib_trial(greys: Grey, ribs: Mask, found: Sequence[Chest]) -> Estimate:
    """The share of lungs with as many ribs counted as the phantom has on the same line."""
    hits = total = 0
    for grey, mask, one in zip(greys, ribs, found, strict=True):
        if one.ribs is None:
            continue
        for lung, count in zip(lungs(grey), one.ribs, strict=True):
            assert lung is not None  # there are ribs
            column = sum(spread(lung, axis=0)) // 2
            top, bottom = spread(lung[:, column : column + 1], axis=1)
            hits += count == runs(mask[top : bottom + 1, column])
            total += 1
    return wilson(hits, total)


def survey(asked: ImageSet, indices: Iterable[int], believed: Sequence[str]) -> dict[str, Estimate]:
    """The believed estimates of the images of a set."""
    bar = tqdm(indices, printable(f"anatomy of {asked.name}"), delay=2, disable=None, leave=False)
    found = [chest(prepare(asked.load(index))) for index in bar]
    result: dict[str, Estimate] = {}
    if LUNGS in believed:
        for count, name in ((2, "two lungs"), (1, "one lung"), (0, "no lung")):
            result[name] = wilson(sum(one.lungs == count for one in found), len(found))
    both = [one for one in found if one.lungs == 2]
    if HEART in believed and both:
        hits = sum(one.shift is not None and one.shift > 0 for one in both)
        result["heart at the image's right, of those with two lungs"] = wilson(hits, len(both))
    if RATIO in believed and len(both) > 1:
        result["cardiothoracic ratio, mean"] = mean(np.array([one.ratio for one in both], float))
    if RIBS in believed and len(both) > 1:
        result["ribs on a line down a lung, mean"] = mean(
            [count for one in both for count in one.ribs or ()]
        )
    return result


def prepare(image: Tensor) -> Grey:
    """[C, H, W] of any size -> grey [SIDE, SIDE]"""
    grey = image_files.fit_square(image_files.to_channels(image, 1), SIDE)
    return grey[0].to(torch.float64).numpy()


def tables(tried: EstimateTrial, surveys: Mapping[str, Mapping[str, Estimate]]) -> list[Block]:
    """The trial, and the believed estimates of each set."""
    failed = [name for name in (LUNGS, HEART, RATIO, RIBS) if name not in tried.believed]
    facts = {"phantoms": PHANTOMS, "believed": tried.believed, "failed": failed, "right": RIGHT}
    caption = page.passage("anatomy_trial", **facts)
    measured = {"share right, or error": tried.measured}
    blocks: list[Block] = [Table.of(caption, "on phantoms", measured)]
    if any(surveys.values()):
        blocks.append(Table.of(page.passage("anatomy_survey"), "", surveys))
    return blocks
