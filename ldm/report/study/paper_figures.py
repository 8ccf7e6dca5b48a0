"""The paper's Figures 1, 4 and 5 with our images, from what the steps kept of them."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from ldm.data.radiographs import from_bytes
from ldm.pictures import image_files
from ldm.report.page import Picture
from ldm.report.plots import as_png, new
from ldm.report.study.adapted_rows import METHODS
from ldm.report.study.adapted_tables import LABELS
from ldm.report.study.paper_tables import Steps

SYNTHETIC = "Synthetic images, drawn by a model; they show no patient."
EACH = 4  # images of each prompt


def kept(done: Steps, step: str, kind: str) -> Tensor:
    """[n, 1, H, W], n at most work.SHOWN"""
    return from_bytes(np.load(io.BytesIO(done[step].read(f"{kind}.npy"))))


def both(done: Steps, step: str) -> list[Tensor | None]:
    """A few of the plain prompt, then as many with an effusion, blank where there are fewer."""
    cells: list[Tensor | None] = []
    for kind in ("plain", "fluid"):
        few = kept(done, step, kind)[:EACH]
        cells += [*few, *[None] * (EACH - len(few))]
    return cells


def sheet(rows: Mapping[str, list[Tensor | None]], titles: Mapping[int, str], text: str) -> bytes:
    """Images in rows with their names; titles: {column: what stands over it};  text: at the top"""
    columns = max(map(len, rows.values()))
    figure = new(2.2 + 1.1 * columns, 0.7 + 1.1 * len(rows))
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, cells) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, [*cells, *[None] * (columns - len(cells))], strict=True):
            axis.set(xticks=[], yticks=[])
            axis.set_frame_on(False)
            if image is not None:
                axis.imshow(
                    image_files.to_channels(image, 1)[0].numpy(), cmap="gray", vmin=-1, vmax=1
                )
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    for column, title in titles.items():
        axes[0, column].set_title(title, fontsize=8, loc="left")
    figure.suptitle(text, fontsize=8)
    return as_png(figure, text)


def first(done: Steps, tuned: str) -> Picture:
    """Figure 1: the original model and a fine-tuned one;  tuned: its step"""
    rows = {name: both(done, step) for name, step in (("original", "base"), ("fine-tuned", tuned))}
    caption = (
        f"Figure 1: images of the original and of the fine-tuned model ({LABELS[tuned]}), the "
        f"first {EACH} of each prompt, uncurated. {SYNTHETIC} Steps: base, {tuned}."
    )
    titles = {0: "A photo of a lung xray", EACH: "... with a visible pleural effusion"}
    return Picture("figure_1.png", sheet(rows, titles, SYNTHETIC), caption)


def fourth(done: Steps, drawn: bool) -> Picture:
    """Figure 4: every method;  drawn: the real images are phantoms, and may be shown"""
    rows = {LABELS[method.name]: both(done, method.name) for method in METHODS}
    if drawn:
        rows["phantoms, for comparison"] = both(done, "reference")
    caption = (
        f"Figure 4: the first {EACH} images of each method for each prompt, uncurated; one noise "
        f"down a column. {SYNTHETIC} Steps: {', '.join(method.name for method in METHODS)}."
    )
    titles = {0: "A photo of a lung xray", EACH: "... with a visible pleural effusion"}
    return Picture("figure_4.png", sheet(rows, titles, SYNTHETIC), caption)


def fifth(done: Steps, tuned: str, drawn: bool) -> Picture:
    """Figure 5: what a U-Net was tuned on, and what it draws."""
    trained, half = kept(done, tuned, "trained"), 5
    rows: dict[str, list[Tensor | None]] = {}
    for place, kind in enumerate(("plain", "fluid")):
        of_kind = trained[len(trained) // 2 * place :][: len(trained) // 2][:half]
        few = kept(done, tuned, kind)[:half]
        gap: list[Tensor | None] = [None] * (half - len(of_kind))
        rows["no finding" if kind == "plain" else "effusion"] = [*of_kind, *gap, None, *few]
    what = "phantoms, synthetic" if drawn else "real films: keep this page where they may be kept"
    caption = (
        f"Figure 5: left, the images that the U-Net was tuned on ({what}); right, what it draws "
        f"({LABELS[tuned]}). {SYNTHETIC if drawn else 'The right ones are synthetic.'} "
        f"Steps: {tuned}."
    )
    titles = {0: "tuned on", half + 1: "drawn (synthetic)"}
    text = SYNTHETIC if drawn else "left: real films; right: synthetic"
    return Picture("figure_5.png", sheet(rows, titles, text), caption)


def of_step(done: Steps, step: str, name: str, caption: str) -> Picture:
    """A picture that a step made."""
    return Picture(f"{step}_{name}", done[step].read(name), f"{caption} Steps: {step}.")
