"""Grey images beside each other as PNG: reconstructions, edits, disagreements of a classifier."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ldm.drawing.compositing import Box, Levels
from ldm.pictures import image_files
from ldm.report import page
from ldm.report.page import Picture
from ldm.report.plots import as_png, new

COLUMNS = 8  # images of each kind of disagreement at most
SYNTHETIC = "Synthetic: a model or a fill made the pictures beside the originals."


class Triple(NamedTuple):
    """An image [1, H, W] in [-1, 1] and its reconstruction."""

    title: str
    original: Tensor
    copy: Tensor


class TitledImage(NamedTuple):
    """image: [C, H, W] in [-1, 1]"""

    image: Tensor
    title: str


class Panel(NamedTuple):
    """box: has a yellow border;  erased: it is black inside"""

    title: str
    picture: Levels
    box: Box | None = None
    erased: bool = False


def triples(shown: Sequence[Triple], labels: tuple[str, str], text: str) -> bytes:
    """Rows of original, reconstruction and their difference, one scale for all differences.

    labels: the titles of originals and reconstructions;  text: goes into the file
    """
    figure = new(9, 2.9 * len(shown))
    axes = figure.subplots(len(shown), 3, squeeze=False)
    errors = [127.5 * (one.copy - one.original)[0].numpy() for one in shown]
    most = max(float(np.quantile(np.abs(error), 0.995)) for error in errors) or 1.0
    for row, one, error in zip(axes, shown, errors, strict=True):
        for axis, image in zip(row, (one.original, one.copy), strict=False):
            axis.imshow(image[0].numpy(), cmap="gray", vmin=-1, vmax=1)
        drawn = row[2].imshow(error, cmap="RdBu_r", vmin=-most, vmax=most)
        row[0].set_ylabel(one.title, fontsize=8)
        for axis in row:
            axis.set(xticks=[], yticks=[])
    for axis, label in zip(axes[0], (*labels, "difference, grey levels of 255"), strict=True):
        axis.set_title(label, fontsize=9)
    figure.colorbar(drawn, ax=list(axes[:, 2]), shrink=0.6)
    return as_png(figure, text)


def frameless(
    rows: int, columns: int, size: tuple[float, float], title: str, fontsize: float = 9
) -> tuple[Any, Any]:
    """A titled figure and its axes [rows, columns], which have no ticks and no frame."""
    figure = new(*size)
    figure.suptitle(title, fontsize=fontsize)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    return figure, axes


def titled_rows(rows: Mapping[str, Sequence[TitledImage]], title: str) -> bytes:
    """Each image under its title, each row beside its name."""
    columns = max(map(len, rows.values()))
    size = (max(1.3 * columns + 1, 6), 1.75 * len(rows) + 0.4)
    figure, axes = frameless(len(rows), columns, size, title)
    for line, (name, row) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name, fontsize=8)
        for axis, one in zip(line, row, strict=False):
            grey = image_files.to_channels(one.image, 1)[0].numpy()
            axis.imshow(grey, cmap="gray", vmin=-1, vmax=1)
            axis.set_title(one.title, fontsize=7)
    return as_png(figure)


def edits(rows: Sequence[Sequence[Panel]], warning: str, height: float = 2.35) -> Picture:
    """warning: whose the originals are;  height: of a row"""
    from matplotlib.patches import Rectangle

    columns = max(map(len, rows))
    size = (2.1 * columns, height * len(rows) + 0.4)
    figure, axes = frameless(len(rows), columns, size, f"{SYNTHETIC} {warning}")
    for line, panels in zip(axes, rows, strict=True):
        for axis, panel in zip(line, panels, strict=False):
            picture = panel.picture[..., 0].copy()
            if panel.box and panel.erased:
                picture[panel.box.inside] = 0
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
            axis.set_title(panel.title, fontsize=8)
            if panel.box:
                top, left, height, width = panel.box
                corner = (left - 0.5, top - 0.5)
                axis.add_patch(Rectangle(corner, width, height, fill=False, edgecolor="yellow"))
    caption = page.passage("edited_pictures", warning=f"{SYNTHETIC} {warning}")
    return Picture("sheet.png", as_png(figure, caption), caption)
