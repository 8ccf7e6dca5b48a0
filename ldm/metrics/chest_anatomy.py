"""Lungs, heart and ribs of a frontal chest radiograph, estimated from its grey levels.

Adams et al. (What Does DALL-E 2 Know About Radiology?) looked for such faults by eye. These
estimates are rough: any dark region of a lung's size passes for one. ldm.report.anatomy_survey
tries each on phantoms before it is believed. Grey images [128, 128], any range, air dark; the
patient's left is at the image's right.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Grey = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
SIDE = 128  # pixels, for which the widths below are meant
LEAST, MOST = 0.02, 0.3  # of the image, that one lung covers
HIGHEST = 0.2  # of the image's height, from the top: where a lung's centre may be
HEART = (0.5, 0.85)  # of the lungs' height, from the top: where the heart's borders are looked for


class LungMasks(NamedTuple):
    """The patient's, as masks [128, 128]; None where there is none."""

    right: Mask | None
    left: Mask | None

    @property
    def seen(self) -> int:
        return sum(lung is not None for lung in self)


class Chest(NamedTuple):
    """lungs: 0 to 2; the rest is None without two of them.

    shift: of the heart to the image's right, as a share of the thorax's width;  ratio: heart's
    width to the thorax's;  ribs: crossed by a line down the middle of the right and the left lung
    """

    lungs: int
    shift: float | None = None
    ratio: float | None = None
    ribs: tuple[int, int] | None = None


def chest(grey: Grey) -> Chest:
    """The anatomy of one image, estimated."""
    found = lungs(grey)
    if found.right is None or found.left is None:
        return Chest(found.seen)
    start, end = spread(found.right | found.left, axis=0)
    right, left = heart_borders(grey, found.right, found.left)
    middle, width = (start + end) / 2, end - start + 1
    return Chest(
        found.seen,
        shift=float(((right + left) / 2 - middle).mean() / width),
        # a tenth is left to outliers: a vessel or a rib passes for a border now and then
        ratio=float((np.quantile(left, 0.9) - np.quantile(right, 0.1)) / width),
        ribs=(rib_count(grey, found.right), rib_count(grey, found.left)),
    )


def lungs(grey: Grey) -> LungMasks:
    """The largest dark region centred in each half of the image, at the threshold that shows most.

    Dark regions that reach the sides or the bottom are air around the body, those centred in the
    top fifth are air beside the neck, or in the trachea. A threshold that shows a lung in both
    halves goes before all that show one.
    """
    if grey.shape != (SIDE, SIDE):
        raise ValueError(f"lungs are looked for in images [{SIDE}, {SIDE}], got {grey.shape}")
    smooth = ndimage.gaussian_filter(grey, 1.5)
    best, most = LungMasks(None, None), (0, 0)
    for threshold in np.quantile(smooth, np.linspace(0.05, 0.6, 12)):
        labels, _ = ndimage.label(smooth < threshold)
        area = np.bincount(labels.ravel())
        outside = np.unique(np.concatenate([labels[:, 0], labels[:, -1], labels[-1]]))
        fits = (area >= LEAST * grey.size) & (area <= MOST * grey.size)
        fits[0] = False  # what is not dark
        fits[outside] = False
        y, x = (
            np.bincount(labels.ravel(), weights=places.ravel()) / np.maximum(area, 1)
            for places in np.indices(labels.shape)
        )
        fits &= y >= HIGHEST * SIDE
        halves = [np.flatnonzero(fits & half) for half in (x < SIDE / 2, x >= SIDE / 2)]
        largest = [max(half, key=lambda i: area[i]) if len(half) else None for half in halves]
        masks = LungMasks(*(None if i is None else labels == i for i in largest))
        shown = (masks.seen, sum(int(area[i]) for i in largest if i is not None))
        if shown > most:
            best, most = masks, shown
    return best


def heart_borders(grey: Grey, right: Mask, left: Mask) -> tuple[Grey, Grey]:
    """Columns of the heart's borders, row by row of `HEART`: where grey changes most.

    Looked for from the middle of each lung to the middle of the thorax.
    """
    smooth = ndimage.gaussian_filter(grey, (2, 1))
    slope = np.gradient(smooth, axis=1)
    start, end = spread(right | left, axis=0)
    middle = (start + end) // 2
    inner = [int(np.median(np.nonzero(lung)[1])) for lung in (right, left)]
    a, b = min(inner[0], middle - 1), max(inner[1], middle + 1)
    top, bottom = spread(right | left, axis=1)
    rows = slice(*(top + int(share * (bottom - top)) for share in HEART))
    return (
        a + slope[rows, a : middle + 1].argmax(axis=1),
        middle + slope[rows, middle : b + 1].argmin(axis=1),
    )


def rib_count(grey: Grey, lung: Mask) -> int:
    """Bright bands along the line down the middle of a lung."""
    column = sum(spread(lung, axis=0)) // 2
    top, bottom = spread(lung[:, column : column + 1], axis=1)
    profile = grey[top : bottom + 1, column - 1 : column + 2].mean(axis=1)
    bands = ndimage.gaussian_filter1d(profile, 1) > ndimage.gaussian_filter1d(profile, 5)
    return runs(bands)


def runs(line: Mask) -> int:
    """The number of unbroken stretches of True in [n]."""
    return int((np.diff(line.astype(int), prepend=0) == 1).sum())


def spread(mask: Mask, axis: int) -> tuple[int, int]:
    """First and last place where the mask has anything: columns for axis 0, rows for axis 1."""
    places = np.flatnonzero(mask.any(axis=axis))
    return int(places[0]), int(places[-1])
