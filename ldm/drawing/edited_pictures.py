"""A folder of edited pictures: numbered PNGs that say how they were made, without the original."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ldm.config import ConfigError
from ldm.drawing import image_editing, latent_editing, masks, outpainting
from ldm.drawing.drawing_settings import DrawingSettings, describe
from ldm.drawing.edit_options import Edit, edit_of, given_in
from ldm.drawing.latent_editing import OnStep
from ldm.drawing.masks import Box, Floats, Levels, Mask
from ldm.drawing.resumable_outpainting import outpaint_in, unfinished
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.samplers import Step
from ldm.system.cli import Stopwatch
from ldm.system.processes import Processes

log = logging.getLogger(__name__)

SYNTHETIC = (
    "This is a synthetic image: a model changed an image that it was given. What it shows is no "
    "finding of anybody; what was left of the given image may be of a patient."
)
STRENGTH = 0.6
RESAMPLE = 4  # see benchmarks/edits.py for what it does to the seam


@dataclass(frozen=True)
class Job:
    """An edit, the levels of the image it is about, and where it is repainted."""

    edit: Edit
    picture: Levels  # [H, W, C]
    alpha: Floats | None = None  # [H, W]
    files: Sequence[Path] = ()


def open_job(options: Mapping[str, Any], image: str | Path | None = None) -> Job | None:
    """What the options ask for, the rest as the PNG `image` says; None: nothing is to be edited.

    Raises ValueError, in one line, for files that cannot be edited, or are not those of `image`.
    """
    old = recall(image) if image else None
    init, mask = options["init"], options["mask"]
    if init is None:
        if old is not None:
            also = " and its mask with --mask" if old.mask else ""
            raise ConfigError(
                f"{image} is an edit; give the image it was made from with --init{also}"
            )
        return None
    picture = image_files.read(init)
    given = given_in(options) | {"init": digest(picture)}
    drawn_mask = read_mask(mask, picture) if mask else None
    if drawn_mask is not None:
        given["mask"] = digest(drawn_mask)
    edit = dataclasses.replace(old, **given) if old else Edit(**given)
    for name, path in (("init", init), ("mask", mask)):
        wanted, found = getattr(old, name, None), given.get(name)
        if wanted and wanted != found:
            trouble = f"{path} is another" if path else "give it, too"
            raise ConfigError(f"{image} was made with --{name} of the hash {wanted}; {trouble}")
    edit = settled(edit, picture)
    alpha = None
    if drawn_mask is not None:
        alpha = masks.alpha_of(drawn_mask, edit.grow or 0, bool(edit.invert_mask))
    return Job(edit, picture, alpha, [Path(path) for path in (init, mask) if path])


def settled(edit: Edit, picture: Levels) -> Edit:
    """The same with everything said that its PNG's text has to say; ConfigError if it cannot be."""
    height, width = picture.shape[:2]
    if edit.outpaint is not None:
        left, top, right, bottom = edit.outpaint
        size = (left + width + right, top + height + bottom)
        edit = dataclasses.replace(edit, outpaint=None, canvas=size, at=(left, top))
    if edit.canvas is not None and edit.at is not None:
        outpainting.place(picture, edit.canvas, edit.at)  # raises where it does not fit
    if edit.way in ("inpainting", "outpainting"):
        return dataclasses.replace(edit, resample=edit.resample or RESAMPLE)
    usual = STRENGTH if edit.invert is None else 1.0
    return dataclasses.replace(edit, strength=edit.strength or usual)


def recall(path: str | Path) -> Edit | None:
    """The edit that the PNG is of, if any. Raises ValueError if its text was changed."""
    text = image_files.read_text(path).get("edit")
    try:
        return None if text is None else edit_of(text)
    except ValueError as error:
        raise ValueError(f"the PNG text of {path} was changed: {error}") from error


def read_mask(path: str | Path, picture: Levels) -> Levels:
    """The levels of a mask for the picture; those of a JPEG, which waver, are cut in the middle."""
    mask = image_files.read(path)
    if mask.shape[:2] != picture.shape[:2]:
        sizes = [f"{one.shape[1]}x{one.shape[0]}" for one in (mask, picture)]
        raise ConfigError(f"the mask is {sizes[0]} and the image {sizes[1]}; make them of one size")
    if Path(path).suffix.lower() in (".jpg", ".jpeg"):
        log.warning("%s is a JPEG, whose levels waver: cut in the middle, without soft edges", path)
        return (mask.mean(axis=2, keepdims=True) > 127) * np.uint8(255)
    return mask


def digest(levels: Levels) -> str:
    """The same for the same levels, whatever file they are in."""
    what = f"{levels.dtype.name} {levels.shape}".encode()
    return hashlib.sha256(what + levels.tobytes()).hexdigest()[:32]


def draw(
    pipe: LatentDiffusion,
    order: DrawingSettings,
    job: Job,
    folder: Path,
    model: str,
    watch: Stopwatch,
    world: Processes | None = None,
) -> list[Path]:
    """Edit and save: 00000.png ...; returns the paths. Each process of the world does its share.

    model: the name that the PNG text gives the weights;  watch: gets the seconds of its parts
    """
    edit = job.edit
    height, width = job.picture.shape[:2] if edit.canvas is None else edit.canvas[::-1]
    order = dataclasses.replace(order, size=(width, height))
    sampling, world = order.sampling(pipe.config), world or Processes()
    check(pipe, job, sampling)
    paths = [folder / f"{i:05d}.png" for i in order.indices]
    if taken := {path.resolve() for path in job.files} & {path.resolve() for path in paths}:
        raise ConfigError(f"the result would replace {min(taken)}; name another folder with --out")
    alone = edit.way == "outpainting"
    batches = [range(i, i + 1) for i in order.indices] if alone else order.batches(sampling)
    batches = batches[world.rank :: world.size]
    total = len(batches) * steps_of(pipe, job, sampling)
    with tqdm(total=total, desc="editing", unit="step", disable=None, leave=False) as bar:

        def on_step(step: Step) -> None:
            bar.update()

        for batch in batches:
            prompts = [order.prompts[order.prompt(i)] for i in batch]
            texts = [
                describe(order, pipe, model, range(i, i + 1), batch)
                | {"synthetic": SYNTHETIC, "edit": edit.text()}
                for i in batch
            ]
            with watch("steps"):
                args = (pipe, job, prompts, batch, sampling, on_step)
                drawn = extend(*args, folder, texts[0]) if alone else change(*args)
            with watch("save"):
                folder.mkdir(parents=True, exist_ok=True)
                for i, picture, text in zip(batch, drawn, texts, strict=True):
                    if i in order.indices:
                        image_files.save_integers(picture, folder / f"{i:05d}.png", text)
                        for path in unfinished(folder, i):
                            path.unlink(missing_ok=True)
    world.wait()
    return paths


def change(
    pipe: LatentDiffusion,
    job: Job,
    prompts: Sequence[str],
    indices: Sequence[int],
    sampling: Sampling,
    on_step: OnStep,
) -> list[Levels]:
    """The picture as each prompt has it, of its own size."""
    edit, picture = job.edit, job.picture
    if job.alpha is not None:
        where, times = job.alpha, edit.resample or 1
        return image_editing.inpaint(
            pipe, picture, where, prompts, indices, sampling, times, on_step
        )
    share = edit.strength or 1.0
    if edit.invert is None:
        return image_editing.image_to_image(
            pipe, picture, prompts, indices, sampling, share, on_step
        )
    shown = [edit.invert or prompt for prompt in prompts]
    return image_editing.counterfactual(pipe, picture, shown, prompts, sampling, share, on_step)


def extend(
    pipe: LatentDiffusion,
    job: Job,
    prompts: Sequence[str],
    indices: Sequence[int],
    sampling: Sampling,
    on_step: OnStep,
    folder: Path,
    text: Mapping[str, str],
) -> list[Levels]:
    """The picture, alone in its batch, on its canvas; state and preview lie in the folder."""
    board, known, boxes = windows(pipe, job)
    args = (prompts[0], indices[0], sampling, job.edit.resample or 1, on_step)
    return [outpaint_in(folder, text, pipe, board, known, boxes, *args)]


def windows(pipe: LatentDiffusion, job: Job) -> tuple[Levels, Mask, list[Box]]:
    """The picture on its canvas, where it is, and the windows to paint."""
    size, at = job.edit.canvas, job.edit.at
    if size is None or at is None:
        raise ConfigError("outpainting wants a canvas, and where the image lies on it")
    board, known = outpainting.place(job.picture, size, at)
    return board, known, outpainting.plan(known, pipe.config.image_size)


def check(pipe: LatentDiffusion, job: Job, sampling: Sampling) -> None:
    """ConfigError, before any work, for what this model cannot do."""
    size = pipe.config.image_size
    height, width = job.picture.shape[:2]
    image_editing.check_smallest(height, width)
    if job.alpha is not None:
        _, _, height, width = masks.window(job.alpha > 0, size)
    elif job.edit.canvas is not None:
        height, width = (min(size, side) for side in job.edit.canvas[::-1])
    image_editing.check(pipe, height, width)
    pipe.check(image_editing.sized(pipe, sampling, height, width))
    if job.edit.way == "inversion":
        latent_editing.check_inversion(sampling)


def steps_of(pipe: LatentDiffusion, job: Job, sampling: Sampling) -> int:
    """How many steps one batch takes, for the progress bar."""
    edit = job.edit
    if edit.way == "outpainting":
        return sampling.steps * len(windows(pipe, job)[2])
    if edit.way == "inpainting":
        return sampling.steps
    return sampling.steps - latent_editing.skipped(edit.strength or 1, sampling.steps)
