"""The paper's Figures 1, 4 and 5 with our images, from what the steps kept of them."""

from collections.abc import Mapping

from torch import Tensor

from ldm.pictures import image_files
from ldm.report import page
from ldm.report.image_sheets import frameless
from ldm.report.page import Picture
from ldm.report.plots import as_png
from ldm.report.study.adapted_rows import kept_images
from ldm.report.study.paper_tables import LABELS, NAMES, Steps

SYNTHETIC = "Synthetic images, drawn by a model; they show no patient."
EACH = 4  # images of each prompt
PROMPTS = {0: "A photo of a lung xray", EACH: "... with a visible pleural effusion"}


def both_prompts(done: Steps, step: str) -> list[Tensor | None]:
    """A few of the plain prompt, then as many with an effusion, blank where there are fewer."""
    rows = (kept_images(done[step], kind)[:EACH] for kind in ("plain", "fluid"))
    return [image for few in rows for image in padded(few, EACH)]


def padded(images: Tensor, count: int) -> list[Tensor | None]:
    return [*images, *[None] * (count - len(images))]


def sheet(rows: Mapping[str, list[Tensor | None]], titles: Mapping[int, str], text: str) -> bytes:
    """Images in rows with their names; titles: {column: heading};  text: at the top"""
    columns = max(map(len, rows.values()))
    size = (2.2 + 1.1 * columns, 0.7 + 1.1 * len(rows))
    figure, axes = frameless(len(rows), columns, size, text, fontsize=8)
    for line, (name, cells) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, cells, strict=True):
            if image is not None:
                grey = image_files.to_channels(image, 1)[0].numpy()
                axis.imshow(grey, cmap="gray", vmin=-1, vmax=1)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    for column, title in titles.items():
        axes[0, column].set_title(title, fontsize=8, loc="left")
    return as_png(figure, text)


def original_and_tuned(done: Steps, tuned: str) -> Picture:
    """Figure 1: the original model and a fine-tuned one;  tuned: its step"""
    steps = {"original": "base", "fine-tuned": tuned}
    rows = {name: both_prompts(done, step) for name, step in steps.items()}
    facts = {"model": LABELS[tuned], "each": EACH, "synthetic": SYNTHETIC, "tuned": tuned}
    caption = page.passage("figure_1", **facts)
    return Picture("figure_1.png", sheet(rows, PROMPTS, SYNTHETIC), caption)


def every_method(done: Steps, phantoms: bool) -> Picture:
    """Figure 4;  phantoms: whether the real images are phantoms, which may be shown"""
    rows = {LABELS[name]: both_prompts(done, name) for name in NAMES}
    if phantoms:
        rows["phantoms, for comparison"] = both_prompts(done, "reference")
    caption = page.passage("figure_4", each=EACH, synthetic=SYNTHETIC, steps=NAMES)
    return Picture("figure_4.png", sheet(rows, PROMPTS, SYNTHETIC), caption)


def trained_and_drawn(done: Steps, tuned: str, phantoms: bool) -> Picture:
    """Figure 5: the images that the U-Net was tuned on, and those that it draws."""
    rows, half = {}, 5
    trained = kept_images(done[tuned], "trained").tensor_split(2)
    kinds = (("no finding", "plain"), ("effusion", "fluid"))
    for (name, kind), real in zip(kinds, trained, strict=True):
        drawn = kept_images(done[tuned], kind)[:half]
        rows[name] = [*padded(real[:half], half), None, *drawn]
    facts = {"model": LABELS[tuned], "synthetic": SYNTHETIC, "tuned": tuned}
    caption = page.passage("figure_5", phantoms=phantoms, **facts)
    titles = {0: "tuned on", half + 1: "drawn (synthetic)"}
    text = SYNTHETIC if phantoms else "left: real films; right: synthetic"
    return Picture("figure_5.png", sheet(rows, titles, text), caption)


def picture_of(done: Steps, step: str, name: str, caption: str) -> Picture:
    """A picture that a step made."""
    return Picture(f"{step}_{name}", done[step].read(name), f"{caption} Steps: {step}.")
