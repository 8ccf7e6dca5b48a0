"""Edits of an image that sample.py is given; the PNGs say how, and hold hashes of the image."""

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ldm.config import ConfigError
from ldm.drawing import compositing, image_editing, latent_editing, outpainting
from ldm.drawing.compositing import Floats, Levels
from ldm.drawing.drawing_settings import DrawingSettings
from ldm.drawing.edit_settings import Edit
from ldm.drawing.latent_editing import OnStep, PictureBatch
from ldm.drawing.picture_folder import Painter, Texts
from ldm.pictures import bit_depths, dicom_files, image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.system import cli
from ldm.system.devices import available, codec_bytes

log = logging.getLogger(__name__)

SMALLEST = 64  # pixels a side
FAR = 1.5  # times the training size
STRENGTH = 0.6
RESAMPLE = 4  # see benchmarks/edits.py for what it does to the seam


@dataclass(frozen=True)
class Original:
    """The image to edit, and where it is repainted."""

    picture: Levels  # [H, W, C]
    alpha: Floats | None  # [H, W]


def open_original(
    settings: DrawingSettings, options: Mapping[str, Any]
) -> tuple[DrawingSettings, Original]:
    """The image of --init, and the settings with its hash, size and the options of editing.

    Raises ValueError, in one line, for files that cannot be edited, are not those of --from, or
    would be replaced by the result.
    """
    out, old = options["out"], settings.edit
    files = {name: options[name] for name in ("init", "mask") if options[name] is not None}
    picture = image_files.read(files["init"])
    height, width = picture.shape[:2]
    if min(height, width) < SMALLEST:
        raise ConfigError(
            f"the image is {width}x{height}; editing needs {SMALLEST} pixels a side or more"
        )
    given = cli.given(options, Edit) | {"init": digest(picture)}
    mask = read_mask(files["mask"], picture) if "mask" in files else None
    if mask is not None:
        given["mask"] = digest(mask)
    if image_files.is_dicom(files["init"]):
        given["spacing"] = dicom_files.facts(files["init"])[0]["pixel_spacing"] or None
    edit = dataclasses.replace(old or Edit(), **given)
    for name in ("init", "mask"):
        expected = getattr(old, name, None)
        if expected and expected != given.get(name):
            trouble = f"{files[name]} is another" if name in files else "give it, too"
            raise ConfigError(
                f"{options['image']} was made with --{name} of the hash {expected}; {trouble}"
            )
    bit_depths.tell_guesses()
    edit = with_defaults(edit, picture)
    alpha = None
    if mask is not None:
        alpha = compositing.alpha_of(mask, edit.grow or 0, bool(edit.invert_mask))
    results = {settings.path(out, i).resolve() for i in settings.indices}
    if taken := results & {Path(path).resolve() for path in files.values()}:
        raise ConfigError(f"the result would replace {min(taken)}; name another folder with --out")
    settings = dataclasses.replace(settings, edit=edit, size=edit.canvas or (width, height))
    return settings, Original(picture, alpha)


def with_defaults(edit: Edit, picture: Levels) -> Edit:
    """The edit with every value that its PNG text records; ConfigError if it cannot be done."""
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


def read_mask(path: str | Path, picture: Levels) -> Levels:
    """The levels of a mask for the picture; those of a JPEG, which are noisy, as black or white."""
    mask = image_files.read(path)
    if mask.shape[:2] != picture.shape[:2]:
        sizes = [f"{one.shape[1]}x{one.shape[0]}" for one in (mask, picture)]
        raise ConfigError(f"the mask is {sizes[0]} and the image {sizes[1]}; make them of one size")
    if 0 < mask.max() < np.iinfo(mask.dtype).max / 16:
        log.warning("the mask %s is nearly black: a label map, of which all but 0 is white", path)
        return (mask > 0) * np.uint8(255)
    if image_files.head(path)[:2] == b"\xff\xd8":  # JPEG
        log.warning("%s is a JPEG with noisy levels: read as black or white, no soft edges", path)
        return (mask.mean(axis=2, keepdims=True) > 127) * np.uint8(255)
    return mask


def digest(levels: Levels) -> str:
    """32 hex digits; equal levels have equal ones, whatever file they are in."""
    what = f"{levels.dtype.name} {levels.shape}".encode()
    return hashlib.sha256(what + levels.tobytes()).hexdigest()[:32]


def prepare(
    pipe: LatentDiffusion,
    settings: DrawingSettings,
    original: Original,
    folder: Path,
    watch: cli.Stopwatch,
) -> Painter:
    """A painter of edits of the original; outpainting keeps its state and a preview in the folder.

    ConfigError, before any work, for what this model cannot do.
    """
    sampling, edit = settings.sampling(pipe.config), settings.edit or Edit()
    check(pipe, edit, original, sampling)
    picture, alpha = original.picture, original.alpha
    strength, resample = edit.strength or 1.0, edit.resample or 1

    def batch_of(indices: range, on_step: OnStep) -> PictureBatch:
        prompts = [settings.prompts[settings.prompt(i)] for i in indices]
        return PictureBatch(pipe, prompts, indices, sampling, on_step)

    def change(indices: range, texts: Texts, on_step: OnStep) -> list[Levels]:
        batch = batch_of(indices, on_step)
        with watch("steps"):
            if alpha is not None:
                return image_editing.inpaint(batch, picture, alpha, resample)
            if edit.invert is None:
                return image_editing.image_to_image(batch, picture, strength)
            described = [edit.invert or prompt for prompt in batch.prompts]
            return image_editing.counterfactual(batch, picture, described, strength)

    if edit.canvas is None or edit.at is None:
        skipped = latent_editing.skipped(strength, sampling.steps)
        return Painter(settings.batches(sampling), sampling.steps - skipped, change)

    board, known = outpainting.place(picture, edit.canvas, edit.at)
    boxes = outpainting.plan(known, pipe.config.image_size)

    def extend(indices: range, texts: Texts, on_step: OnStep) -> list[Levels]:
        task = (batch_of(indices, on_step), board, known, boxes, resample)
        with watch("steps"):
            return [outpainting.outpaint_resumably(*task, folder, texts[indices[0]])]

    alone = [range(i, i + 1) for i in settings.indices]
    leftovers = partial(outpainting.unfinished, folder)
    return Painter(alone, sampling.steps * len(boxes), extend, leftovers)


def check(pipe: LatentDiffusion, edit: Edit, original: Original, sampling: Sampling) -> None:
    """ConfigError for what this model cannot do; warns of sizes far from those of its training."""
    size = pipe.config.image_size
    height, width = original.picture.shape[:2]
    if original.alpha is not None:
        _, _, height, width = compositing.window(original.alpha > 0, size)
    elif edit.canvas is not None:
        height, width = (min(size, side) for side in edit.canvas[::-1])
    need, room = codec_bytes(pipe.config.vae, height, width), available(pipe.device)
    if need > room:
        raise ConfigError(
            f"editing {width}x{height} pixels at once needs about {need / 1e9:.3g} GB, and "
            f"{room / 1e9:.3g} GB are available; make the image smaller, or repaint less of it"
        )
    if max(height, width) > FAR * size or max(height, width) * FAR < size:
        message = "editing %dx%d pixels with a model trained at %d: expect odd anatomy"
        log.warning(message, width, height, size)
    pipe.check(image_editing.sized(pipe, sampling, height, width))
    if edit.way == "inversion":
        latent_editing.check_inversion(sampling)
