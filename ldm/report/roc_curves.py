"""ROC curves, and the images that a classifier and a prompt agree least on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from numpy.typing import ArrayLike
from torch import Tensor

from ldm.pictures import image_files
from ldm.report.plots import COLOURS, as_png, new

SHOWN = 8  # images of each kind at most


class Curve(NamedTuple):
    """scores, labels: [n]"""

    name: str
    scores: ArrayLike
    labels: ArrayLike


class Shown(NamedTuple):
    """image: [C, H, W]"""

    image: Tensor
    title: str


def roc(panels: Mapping[str, Sequence[Curve]]) -> bytes:
    """A PNG of one panel for each finding, with a line for each of its curves."""
    from sklearn.metrics import roc_curve

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new(4 * columns, 4 * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, (finding, curves) in zip(axes.flat, panels.items(), strict=False):
        for curve, colour, style in zip(curves, COLOURS, ("-", "--", "-.", ":"), strict=False):
            false, true, _ = roc_curve(curve.labels, curve.scores)
            axis.plot(false, true, color=colour, linestyle=style, label=curve.name)
        axis.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
        axis.set(title=finding, xlabel="1 - specificity", ylabel="sensitivity", aspect="equal")
        axis.legend(loc="lower right", fontsize=8, frameon=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    return as_png(figure)


def sheet(rows: Mapping[str, Sequence[Shown]], title: str) -> bytes:
    """A PNG of rows of grey images, each under its title, each row beside its name."""
    figure = new(1.3 * SHOWN + 1, 1.75 * len(rows) + 0.4)
    axes = figure.subplots(len(rows), SHOWN, squeeze=False)
    figure.suptitle(title, fontsize=9)
    for line, (name, row) in zip(axes, rows.items(), strict=True):
        for axis in line:
            axis.set(xticks=[], yticks=[])
            axis.set_frame_on(False)
        line[0].set_ylabel(name, fontsize=8)
        for axis, shown in zip(line, row, strict=False):
            grey = image_files.to_channels(shown.image, 1)[0].numpy()
            axis.imshow(grey, cmap="gray", vmin=-1, vmax=1)
            axis.set_title(shown.title, fontsize=7)
    return as_png(figure)
