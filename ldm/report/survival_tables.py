"""How the survival of things of known size is shown: tables, JSON, a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm.data.image_sets import UNSEEN
from ldm.data.phantom import sample_phantoms
from ldm.data.phantom.body import draw_anatomy
from ldm.report.classifier_rereading import show
from ldm.report.page import Picture, Table
from ldm.report.plots import as_png, new
from ldm.report.probe_survival import HALF, Series, smallest

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

WHAT = {"nodule": "nodule, diameter", "wire": "wire, diameter", "letter": "letter, height"}
SYNTHETIC = "Synthetic: drawn phantoms and their reconstructions; no patient is shown."


def tables(series: Sequence[Series], size: int) -> list[Table]:
    """Each probe in each size, then the smallest that survives;  size: of the images, pixels"""
    rows = []
    for one in series:
        quartiles = np.quantile(one.values["kept"], (0.5, 0.25, 0.75), axis=1).T
        for i, (half, read) in enumerate(zip(one.halves(), one.reads(), strict=True)):
            middle, low, high = quartiles[i]
            rows.append(
                (
                    f"{WHAT[one.name]} {one.sizes[i]:g} mm",
                    f"{one.values['contrast'][i].mean():.1f}",
                    f"{middle:.2f} ({low:.2f} to {high:.2f})",
                    show(half),
                    f"{np.median(one.values['alike'][i]):.2f}",
                    show(read) if read else "",
                    str(half.n),
                )
            )
    caption = (
        f"One thing of known size in a phantom of {size} px, of {_pixel(series, size):.1f} mm each "
        "in the median. Contrast: grey levels of 255 that it adds on its mask. Kept: the share of "
        "it in the decoded posterior mean, median and quartiles. Likeness: cosine of what is left "
        "and what was there, median. Read: letters that what is left looks more like than like "
        "the other three; chance is 0.25."
    )
    header = ("thing", "contrast", "kept", "keep half of it", "likeness", "read", "n")
    ends = [(WHAT[one.name], *(_mm(found, one.sizes) for found in smallest(one))) for one in series]
    caption_of_ends = (
        "The smallest size from which on at least half of the phantoms keep at least half of the "
        "contrast, and the sizes that the 95 % intervals of these shares allow."
    )
    return [
        Table(caption, header, rows),
        Table(caption_of_ends, ("thing", "smallest", "from", "to"), ends),
    ]


def _pixel(series: Sequence[Series], size: int) -> float:
    """mm of the body that a pixel shows, the median phantom's."""
    count = series[0].values["kept"].shape[1]
    phantoms = sample_phantoms(range(UNSEEN, UNSEEN + count), findings=[])
    return float(np.median([10 * draw_anatomy(one).view_width / size for one in phantoms]))


def _mm(size: float, sizes: Sequence[float]) -> str:
    """In words where the series ends."""
    if math.isinf(size):
        return f"> {sizes[-1]:g} mm"
    return f"{'<= ' if size == sizes[0] else ''}{size:g} mm"


def as_json(series: Sequence[Series]) -> dict[str, Any]:
    """Sizes larger than any of the series, and what no letter can be, are null."""
    return {
        one.name: {
            "mm": one.sizes,
            "n": one.values["kept"].shape[1],
            "keep half": [share._asdict() for share in one.halves()],
            "read": [share and share._asdict() for share in one.reads()],
            "smallest": {
                end: None if math.isinf(size) else size
                for end, size in smallest(one)._asdict().items()
            },
            **{
                f"median {name}": np.median(one.values[name], axis=1).round(4).tolist()
                for name in ("kept", "alike", "contrast")
            },
        }
        for one in series
    }


def picture(series: Sequence[Series], size: int) -> Picture:
    """The curves, and beside them the first phantom's crops in the window of the largest probe."""
    figure = new(12, 3.2 * len(series))
    figure.suptitle(SYNTHETIC, fontsize=10)
    parts: Any = figure.subfigures(len(series), 1, squeeze=False)  # its type depends on its shape
    for part, one in zip(parts[:, 0], series, strict=True):
        _draw(part, one)
    n = series[0].values["kept"].shape[1]
    caption = (
        f"{SYNTHETIC} Left: share of the contrast kept, median and quartiles of n = {n}, "
        f"{size} px. Right: around the thing in the first phantom, above the original, below the "
        "reconstruction."
    )
    return Picture("survival.png", as_png(figure, SYNTHETIC), caption)


def _draw(part: SubFigure, one: Series) -> None:
    sides: Any = part.subfigures(1, 2, width_ratios=[1, 2.4])
    curve, crops = sides
    axis = curve.subplots()
    low, middle, high = np.quantile(one.values["kept"], (0.25, 0.5, 0.75), axis=1)
    axis.fill_between(one.sizes, low, high, alpha=0.25)
    axis.plot(one.sizes, middle, marker="o")
    axis.axhline(HALF, color="gray", linestyle=":")
    axis.set(xlabel=f"{WHAT[one.name]}, mm", ylabel="contrast kept", ylim=(0, 1.1))
    axis.set(xscale="log", xticks=one.sizes, xticklabels=[f"{size:g}" for size in one.sizes])
    axis.minorticks_off()
    window = {"vmin": float(one.crops[-1, 0].min()), "vmax": float(one.crops[-1, 0].max())}
    grid = crops.subplots(2, len(one.sizes))
    for column, size in enumerate(one.sizes):
        for row in range(2):
            grid[row, column].imshow(one.crops[column, row].numpy(), cmap="gray", **window)
            grid[row, column].set(xticks=[], yticks=[])
        grid[0, column].set_title(f"{size:g} mm", fontsize=9)
    grid[0, 0].set_ylabel("original", fontsize=9)
    grid[1, 0].set_ylabel("reconstruction", fontsize=9)
