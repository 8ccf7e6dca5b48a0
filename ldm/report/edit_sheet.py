"""The edits as a sheet: what was erased has a yellow border, what was given a yellow box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ldm.drawing.masks import Box, Levels
from ldm.report.inpainting_trials import MODEL, ORIGINAL, Repainted, box_of
from ldm.report.page import Picture
from ldm.report.plots import as_png, new

SYNTHETIC = "Synthetic: a model or a fill made the pictures beside the originals."


class Panel(NamedTuple):
    """box: drawn yellow;  erased: it is black inside"""

    title: str
    picture: Levels
    box: Box | None = None
    erased: bool = False


def inpainted(found: Repainted) -> list[list[Panel]]:
    """A row for each place: erased, the model's, the other fills, the original."""
    rows = []
    for place, shown in found.shown.items():
        original = shown[ORIGINAL]
        box = box_of(place, original.shape[0])
        fills = [Panel(name, shown[name]) for name in shown if name not in (ORIGINAL, MODEL)]
        erased = Panel(f"erased: {place}", original, box, erased=True)
        rows.append([erased, Panel(MODEL, shown[MODEL]), *fills, Panel(ORIGINAL, original)])
    return rows


def extended(shown: Mapping[str, Levels]) -> list[Panel]:
    """The half that was given has a yellow box."""
    height, width = next(iter(shown.values())).shape[:2]
    box = Box(0, 0, height, width // 2)
    return [Panel(name, picture, box) for name, picture in shown.items()]


def sheet(rows: Sequence[Sequence[Panel]], warning: str) -> Picture:
    """warning: whose the originals are"""
    from matplotlib.patches import Rectangle

    columns = max(map(len, rows))
    figure = new(2.1 * columns, 2.35 * len(rows) + 0.4)
    figure.suptitle(f"{SYNTHETIC} {warning}", fontsize=9)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
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
    caption = (
        "Erased regions have a yellow border; of extended and mirrored chests the half that was "
        f"given has a yellow box. {SYNTHETIC} {warning}"
    )
    return Picture("sheet.png", as_png(figure, caption), caption)
