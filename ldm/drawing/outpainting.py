"""Outpainting: a picture on a larger canvas, which is filled window by window.

It may be stopped: after each window its state and a preview are saved in the folder.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ldm.config import ConfigError
from ldm.drawing import image_editing
from ldm.drawing.compositing import Box, Levels, Mask
from ldm.drawing.latent_editing import PictureBatch, reseeded
from ldm.pictures import image_files
from ldm.system.atomic import whole_file
from ldm.system.devices import available


def place(picture: Levels, size: Sequence[int], at: Sequence[int]) -> tuple[Levels, Mask]:
    """The picture on a black canvas of `size` (width, height) at `at` (x, y), and where it lies.

    ConfigError if it is not inside the canvas, or fills it, or the canvas does not fit in memory.
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
            f"a canvas of {width}x{height} pixels needs about {need / 1e9:.3g} GB, and "
            f"{room / 1e9:.3g} GB are available; make it smaller"
        )
    canvas = np.zeros((height, width, channels), picture.dtype)
    known = np.zeros((height, width), bool)
    box = Box(y, x, tall, wide)
    canvas[box.inside], known[box.inside] = picture, True
    return canvas, known


def plan(known: Mask, size: int) -> list[Box]:
    """The windows of size x size that fill what is not known, in the order of painting.

    They overlap by half. The next is always the one of which most is known, the first if equal.
    """
    height, width = (min(size, side) for side in known.shape)
    boxes = [
        Box(top, left, height, width)
        for top in _starts(known.shape[0], height)
        for left in _starts(known.shape[1], width)
    ]
    known, windows = known.copy(), []
    while not known.all():
        left_over = [box for box in boxes if not known[box.inside].all()]
        windows.append(max(left_over, key=lambda box: known[box.inside].mean()))
        known[windows[-1].inside] = True
    return windows


def _starts(side: int, size: int) -> list[int]:
    return sorted({*range(0, side - size, max(1, size // 2)), side - size})


def outpaint(
    batch: PictureBatch,
    canvas: Levels,
    known: Mask,
    boxes: Sequence[Box],
    resample: int = 1,
    done: int = 0,
) -> Iterator[Levels]:
    """The canvas after each window; what is known is kept bit for bit.

    Each window is inpainted with noise of its own, around what is there by then.

    batch: of one picture, with one prompt for all windows or one for each
    boxes: as from `plan`;  done: how many of them the canvas has already
    """
    known = known.copy()
    for number, box in enumerate(boxes):
        if number >= done:
            hole = (~known[box.inside]).astype(float)
            window = replace(
                batch,
                prompts=[batch.prompts[number % len(batch.prompts)]],
                sampling=reseeded(batch.sampling, "window", number),
            )
            (part,) = image_editing.inpaint(window, canvas[box.inside], hole, resample)
            canvas = canvas.copy()
            canvas[box.inside] = part
            yield canvas
        known[box.inside] = True


def unfinished(folder: Path, index: int) -> tuple[Path, Path]:
    """State and preview of image `index`, to be removed once the picture itself is saved."""
    return folder / f".{index:05d}.outpaint.npz", folder / f"{index:05d}.preview.png"


def outpaint_resumably(
    batch: PictureBatch,
    canvas: Levels,
    known: Mask,
    boxes: Sequence[Box],
    resample: int,
    folder: Path,
    text: Mapping[str, str],
) -> Levels:
    """The canvas after the last window; goes on where the same command was stopped.

    text: the PNG text of the result, which identifies the command
    Raises ConfigError if the state in the folder is damaged, or another command's.
    """
    state, preview = unfinished(folder, batch.indices[0])
    key = hashlib.sha256(json.dumps(dict(text), sort_keys=True).encode()).hexdigest()
    canvas, done = _read(state, key) if state.is_file() else (canvas, 0)
    painted = outpaint(batch, canvas, known, boxes, resample, done)
    for count, canvas in enumerate(painted, done + 1):
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(state) as path, path.open("wb") as file:
            np.savez(file, canvas=canvas, done=count, key=key, content=_digest(canvas, count))
        progress = {"unfinished": f"{count} of {len(boxes)} windows"}
        image_files.save(canvas, preview, {**text, **progress})
    return canvas


def _digest(canvas: Levels, done: int) -> str:
    head = f"{done} {canvas.shape} {canvas.dtype}"
    return hashlib.sha256(head.encode() + canvas.tobytes()).hexdigest()


def _read(state: Path, key: str) -> tuple[Levels, int]:
    try:
        with np.load(state, allow_pickle=False) as stored:
            canvas, done, same = stored["canvas"], int(stored["done"]), str(stored["key"]) == key
            if str(stored["content"]) != _digest(canvas, done):
                raise ValueError("its content differs from its digest")
    except Exception as error:  # a damaged file can raise any error in its reader
        raise ConfigError(
            f"{state} is damaged or of an older version; delete it to start again"
        ) from error
    if not same:
        raise ConfigError(
            f"{state} was left by another command: give that one again, delete the file, or name "
            "another folder with --out"
        )
    return canvas, done
