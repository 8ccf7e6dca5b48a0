"""Inpainting of boxes in images, compared with the originals and with cheaper fills."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from ldm.config import ConfigError
from ldm.data import phantom
from ldm.data.image_sets import ImageSet, PhantomSet, load_each
from ldm.drawing import image_editing
from ldm.drawing.compositing import Box, Floats, Levels, Mask
from ldm.drawing.edited_pictures import RESAMPLE, STRENGTH
from ldm.drawing.latent_editing import PictureBatch
from ldm.metrics.fid import Array
from ldm.metrics.image_quality import edge_steps, psnr, ssim
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.report.image_sheets import Panel

Fill = Callable[[Levels, Mask], Floats]
# top, left, height, width as shares of the image; the patient's left is at the image's right
PLACES = {
    "left lung base": (0.50, 0.60, 0.25, 0.28),
    "heart": (0.45, 0.40, 0.30, 0.30),
    "right shoulder": (0.08, 0.05, 0.25, 0.25),
}
MODEL, MEAN, BIHARMONIC, PASTE = "model", "mean of the rim", "biharmonic", "image to image, pasted"
METHODS = (MODEL, MEAN, BIHARMONIC, PASTE)
FIGURES = ("PSNR", "SSIM", "seam")
ORIGINAL = "original"
PLAIN = "a photo of a lung xray"  # the caption of an image without labels


@dataclass
class Repainted:
    """figures: {place: {method: {figure: [n]}}};  changed: differing pixels outside the boxes

    shown: {place: {method: Levels}} of one image each, with its original as ORIGINAL
    """

    ids: list[str] = field(default_factory=list)
    figures: dict[str, dict[str, dict[str, Array]]] = field(default_factory=dict)
    changed: int = 0
    outside: int = 0
    shown: dict[str, dict[str, Levels]] = field(default_factory=dict)

    def panels(self) -> list[list[Panel]]:
        """A row for each place: erased, the model's, the other fills, the original."""
        rows = []
        for place, shown in self.shown.items():
            box = box_of(place, shown[ORIGINAL].shape[0])
            erased = Panel(f"erased: {place}", shown[ORIGINAL], box, erased=True)
            rows.append([erased, *(Panel(name, shown[name]) for name in (*METHODS, ORIGINAL))])
        return rows


def box_of(place: str, side: int) -> Box:
    """The place in an image of side x side."""
    return Box(*(round(share * side) for share in PLACES[place]))


def words_of(asked: ImageSet, index: int) -> str:
    """A caption of the image's findings."""
    known = asked.findings(index)
    if not known:
        return PLAIN
    present = [name for name, there in known.items() if there]
    # wording 3 names every finding and nothing of the patient
    is_phantom = isinstance(asked, PhantomSet)
    return phantom.caption_from_labels(present, "", "", None, 3, phantom=is_phantom)


def mean_of_rim(picture: Levels, hole: Mask) -> Floats:
    """[H, W, C] whose hole has the mean of the pixels that touch it."""
    rim = ndimage.binary_dilation(hole) & ~hole
    filled = picture.astype(np.float64)
    filled[hole] = filled[rim].mean(axis=0)
    return filled


def open_biharmonic() -> Fill:
    """The biharmonic fill of scikit-image; ConfigError if that is not installed."""
    try:
        from skimage.restoration import inpaint_biharmonic
    except ImportError as error:
        message = "the biharmonic fill needs scikit-image: pip install scikit-image"
        raise ConfigError(message) from error

    def fill(picture: Levels, hole: Mask) -> Floats:
        values = picture.astype(np.float64)
        filled = inpaint_biharmonic(values, hole, channel_axis=-1)
        return np.asarray(filled, np.float64).clip(0, np.iinfo(picture.dtype).max)

    return fill


def mask_of(box: Box, picture: Levels) -> Mask:
    """[H, W], True inside the box"""
    mask = np.zeros(picture.shape[:2], bool)
    mask[box.inside] = True
    return mask


def fill_hole(picture: Levels, filled: Floats, hole: Mask) -> Levels:
    """The picture with `filled`, rounded, in the hole."""
    result = picture.copy()
    result[hole] = filled[hole].round().astype(picture.dtype)
    return result


def score(original: Levels, result: Levels, box: Box) -> dict[str, float]:
    """PSNR and SSIM of the box alone, as if it were the whole image (SSIM leaves out 5 pixels).

    seam: mean step between the pixels on both sides of the box's edge, the original's being 1
    """
    span = float(np.iinfo(original.dtype).max)
    a, b = (x.mean(axis=2) for x in (original, result))
    before, after = (edge_steps(x, mask_of(box, original))[0].mean() for x in (a, b))
    a, b = a[box.inside], b[box.inside]
    seam = after / before if before > 0 else float("nan")
    return {"PSNR": psnr(a, b, span), "SSIM": ssim(a, b, span), "seam": float(seam)}


def measure(
    pipe: LatentDiffusion,
    asked: ImageSet,
    sampling: Sampling,
    count: int,
    prompt: str | None = None,
    skip_bad: bool = False,
) -> Repainted:
    """Repaints boxes of the first `count` images. Raises ValueError for fewer than two.

    prompt: the same for all; None: the caption of each
    """
    side, biharmonic = pipe.config.image_size, open_biharmonic()
    if min(min(box_of(place, side)[2:]) for place in PLACES) < 11:
        raise ConfigError(f"SSIM needs boxes of 11 pixels; this model's images have {side}")
    if len(asked) < 2:
        raise ConfigError(f"{asked.name} has {len(asked)} image; an interval needs 2 or more")
    found = Repainted()
    rows: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    usable = islice(load_each(asked, None, skip_bad), count)
    for index, image in tqdm(usable, "repainting", min(count, len(asked)), disable=None):
        square = image_files.fit_square(image_files.to_channels(image, 1), side)
        picture = image_files.to_integers(square)
        words = [prompt or words_of(asked, index)]
        batch = PictureBatch(pipe, words, [index], sampling)
        (redrawn,) = image_editing.image_to_image(batch, picture, STRENGTH)
        for number, place in enumerate(PLACES):
            box = box_of(place, side)
            hole = mask_of(box, picture)
            (drawn,) = image_editing.inpaint(batch, picture, hole.astype(float), RESAMPLE)
            results = {
                MODEL: drawn,
                MEAN: fill_hole(picture, mean_of_rim(picture, hole), hole),
                BIHARMONIC: fill_hole(picture, biharmonic(picture, hole), hole),
                PASTE: fill_hole(picture, redrawn.astype(np.float64), hole),
            }
            for method, result in results.items():
                rows[place, method].append(score(picture, result, box))
            found.changed += int((drawn != picture).any(axis=2)[~hole].sum())
            found.outside += int((~hole).sum())
            if len(found.ids) <= number:  # of the first, second and third image one place each
                found.shown[place] = {ORIGINAL: picture, **results}
        found.ids.append(asked.sample_id(index))
    if len(found.ids) < 2:
        raise ValueError(f"{asked.name} has {len(found.ids)} usable images; 2 or more are needed")
    for place in PLACES:
        found.figures[place] = {
            method: {name: np.array([one[name] for one in rows[place, method]]) for name in FIGURES}
            for method in METHODS
        }
    return found
