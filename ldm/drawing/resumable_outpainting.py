"""Outpainting that may be stopped: after each window its state and a preview lie in the folder."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ldm.config import ConfigError
from ldm.drawing.latent_editing import OnStep, ignore
from ldm.drawing.masks import Box, Levels, Mask
from ldm.drawing.outpainting import outpaint
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.system.atomic import whole_file


def unfinished(folder: Path, index: int) -> tuple[Path, Path]:
    """State and preview of image `index`, to be removed once the picture itself is there."""
    return folder / f".{index:05d}.outpaint.npz", folder / f"{index:05d}.preview.png"


def outpaint_in(
    folder: Path,
    text: Mapping[str, str],
    pipe: LatentDiffusion,
    canvas: Levels,
    known: Mask,
    boxes: Sequence[Box],
    prompt: str,
    index: int,
    sampling: Sampling,
    resample: int,
    on_step: OnStep = ignore,
) -> Levels:
    """The canvas with every window painted; it goes on where the same command was stopped.

    text: the PNG text of the result, which tells one command from another
    Raises ConfigError if what lies in the folder is of another command.
    """
    state, preview = unfinished(folder, index)
    key = hashlib.sha256(json.dumps(dict(text), sort_keys=True).encode()).hexdigest()
    done = 0
    if state.exists():
        canvas, done = _read(state, key)
    args = (boxes, prompt, index, sampling, resample, done, on_step)
    for further in outpaint(pipe, canvas, known, *args):
        canvas, done = further, done + 1
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(state) as path, path.open("wb") as file:
            np.savez(file, canvas=canvas, done=done, key=key)
        how_far = {"unfinished": f"{done} of {len(boxes)} windows"}
        image_files.save_integers(canvas, preview, {**text, **how_far})
    return canvas


def _read(state: Path, key: str) -> tuple[Levels, int]:
    try:
        with np.load(state, allow_pickle=False) as stored:
            canvas, done, same = stored["canvas"], int(stored["done"]), str(stored["key"]) == key
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{state} is damaged; delete it to start again") from error
    if not same:
        raise ConfigError(
            f"{state} was left by another command: give that one again, delete the file, or name "
            "another folder with --out"
        )
    return canvas, done
