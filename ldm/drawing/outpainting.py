"""Outpainting: a picture on a larger canvas, which is filled window by window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ldm.config import ConfigError
from ldm.drawing import image_editing
from ldm.drawing.latent_editing import OnStep, ignore, reseeded
from ldm.drawing.masks import Box, Levels, Mask
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.system.devices import available


def place(picture: Levels, size: Sequence[int], at: Sequence[int]) -> tuple[Levels, Mask]:
    """The picture on a black canvas of `size` (width, height) at `at` (x, y), and where it lies.

    Raises ConfigError where it does not lie on the canvas, or fills it, or memory does not do.
    """
    (width, height), (x, y) = size, at
    tall, wide, channels = picture.shape
    if width < wide or height < tall:
        raise ConfigError(f"the canvas, {width}x{height}, is smaller than the image, {wide}x{tall}")
    if x + wide > width or y + tall > height:
        raise ConfigError(
            f"the image, {wide}x{tall} at {x},{y}, does not lie on the canvas, {width}x{height}"
        )
    if picture.shape[:2] == (height, width):
        raise ConfigError("the canvas is no larger than the image: nothing is to be painted")
    need, room = 16 * height * width * channels, available(torch.device("cpu"))
    if need > room:
        raise ConfigError(
            f"a canvas of {width}x{height} pixels wants about {need / 1e9:.3g} GB, and "
            f"{room / 1e9:.3g} GB are to be had; make it smaller"
        )
    canvas = np.zeros((height, width, channels), picture.dtype)
    known = np.zeros((height, width), bool)
    box = Box(y, x, tall, wide)
    canvas[box.inside], known[box.inside] = picture, True
    return canvas, known


def plan(known: Mask, size: int) -> list[Box]:
    """The windows of size x size that fill what is not known, in order.

    They overlap by half. Next comes always that with most to go by, the first one of several.
    """
    height, width = (min(size, side) for side in known.shape)
    boxes = [
        Box(top, left, height, width)
        for top in _starts(known.shape[0], height)
        for left in _starts(known.shape[1], width)
    ]
    known, order = known.copy(), []
    while not known.all():
        open_ones = [box for box in boxes if not known[box.inside].all()]
        order.append(max(open_ones, key=lambda box: known[box.inside].mean()))
        known[order[-1].inside] = True
    return order


def _starts(side: int, size: int) -> list[int]:
    return sorted({*range(0, side - size, max(1, size // 2)), side - size})


def outpaint(
    pipe: LatentDiffusion,
    canvas: Levels,
    known: Mask,
    boxes: Sequence[Box],
    prompt: str,
    index: int,
    sampling: Sampling,
    resample: int = 1,
    done: int = 0,
    on_step: OnStep = ignore,
) -> Iterator[Levels]:
    """The canvas after each window; what is known is kept bit for bit.

    A window is inpainted: what lies in it already stays, and it has noise of its own.

    boxes: as from `plan`;  done: how many of them the canvas has already
    """
    known = known.copy()
    for number, box in enumerate(boxes):
        if number >= done:
            hole = ~known[box.inside]
            own = reseeded(sampling, "window", number)
            (part,) = image_editing.inpaint(
                *(pipe, canvas[box.inside], hole.astype(float), [prompt], [index], own),
                resample,
                on_step,
            )
            canvas = canvas.copy()
            canvas[box.inside] = part
            yield canvas
        known[box.inside] = True
