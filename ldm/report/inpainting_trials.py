"""Inpainting of boxes in films, compared with the originals and with cheaper fills."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from ldm.config import ConfigError
from ldm.data import phantom, row_captions
from ldm.data.image_sets import FileSet, PhantomSet, load_each, patients
from ldm.drawing import image_editing
from ldm.drawing.compositing import Box, Floats, Levels, Mask
from ldm.drawing.edited_pictures import RESAMPLE
from ldm.drawing.latent_editing import PictureBatch
from ldm.metrics.fid import Array
from ldm.metrics.image_quality import edge_steps, psnr, rmse, ssim
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.report.image_sheets import Panel

Fill = Callable[[Levels, Mask], Floats]
# The regions of Adams et al. (arXiv:2209.13696, figure 3) as frontal phantoms frame them; a wrist
# counts as a hand. Top, left, height, width as shares of the image; the patient's left is at the
# image's right. A shoulder's box holds the joint of either side.
PLACES = {
    "pelvis": {"left hip joint": (0.42, 0.55, 0.28, 0.30)},
    "ankle": {"ankle joint": (0.45, 0.32, 0.30, 0.36)},
    "chest": {
        "left lung base": (0.50, 0.60, 0.25, 0.28),
        "heart": (0.45, 0.40, 0.30, 0.30),
        "right shoulder": (0.08, 0.05, 0.25, 0.25),
    },
    "shoulder": {"glenohumeral joint": (0.15, 0.25, 0.35, 0.45)},
    "knee": {"patella": (0.08, 0.30, 0.32, 0.38), "knee joint": (0.36, 0.22, 0.24, 0.50)},
    "hand": {"carpals": (0.32, 0.30, 0.30, 0.40)},
    "spine": {"vertebrae": (0.30, 0.33, 0.36, 0.32)},
}
MODEL, MEAN, BIHARMONIC, TELEA = "model", "mean of the rim", "biharmonic", "Telea"
OTHER, ORIGINAL = "another person's patch", "the original itself"
FIGURES = ("PSNR", "SSIM", "seam", "distance")
PLAIN = "a photo of a lung xray"  # the caption of a chest without labels


class Film(NamedTuple):
    """A square picture of the set's image number `at`, and its words."""

    at: int
    picture: Levels
    words: str


@dataclass
class Repainted:
    """figures: {region: {place: {method: {figure: [n]}}}};  changed: differing pixels outside

    shown: {place: {method: Levels}} of one film each;  left_out: {why: images}
    """

    figures: dict[str, dict[str, dict[str, dict[str, Array]]]] = field(default_factory=dict)
    changed: int = 0
    outside: int = 0
    shown: dict[str, dict[str, Levels]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def panels(self) -> list[list[Panel]]:
        """A row for each place: erased, the model's, the other fills, the original."""
        rows = []
        for place, shown in self.shown.items():
            box = box_of(place, shown[ORIGINAL].shape[0])
            erased = Panel(f"erased: {place}", shown[ORIGINAL], box, erased=True)
            rows.append([erased, *(Panel(name, picture) for name, picture in shown.items())])
        return rows


def box_of(place: str, side: int) -> Box:
    """The place in an image of side x side."""
    [shares] = [places[place] for places in PLACES.values() if place in places]
    return Box(*(round(share * side) for share in shares))


def words_of(asked: FileSet | PhantomSet, index: int) -> str:
    """A caption of the image's region and findings, without the patient's age and sex."""
    if isinstance(asked, PhantomSet):
        return phantom.caption(asked.phantoms[index], 3)
    known = asked.findings(index)
    if not known and asked.attributes(index)["region"] == "chest":
        return PLAIN
    return row_captions.caption(asked.rows[index], known, 6)


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


def open_telea() -> Fill | None:
    """The fast marching fill of OpenCV (Telea, J. Graphics Tools 9(1), 2004); None without it."""
    try:
        import cv2
    except ImportError:
        return None

    def fill(picture: Levels, hole: Mask) -> Floats:
        filled = cv2.inpaint(picture[..., 0], hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)
        return np.asarray(filled, np.float64)[..., None]

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


def score(original: Levels, result: Levels, box: Box, apart: float) -> dict[str, float]:
    """PSNR and SSIM of the box alone, as if it were the whole image (SSIM leaves out 5 pixels).

    seam: mean step between the pixels on both sides of the box's edge, the original's being 1
    distance: root mean square of the difference in the box, by that between persons (`apart`)
    """
    span = float(np.iinfo(original.dtype).max)
    a, b = (x.mean(axis=2) for x in (original, result))
    before, after = (edge_steps(x, mask_of(box, original))[0].mean() for x in (a, b))
    a, b = a[box.inside], b[box.inside]
    seam = after / before if before > 0 else float("nan")
    distance = rmse(a, b) / apart if apart > 0 else float("nan")
    return {"PSNR": psnr(a, b, span), "SSIM": ssim(a, b, span), "seam": seam, "distance": distance}


def distance_of_others(films: list[Film], number: int, box: Box) -> float:
    """Root mean square difference in the box between this film and all others, grey levels."""
    own, *others = (x.picture[box.inside].mean(axis=2) for x in [films[number], *films])
    del others[number]
    return float(np.sqrt(np.mean([rmse(own, other) ** 2 for other in others])))


def choose(
    asked: FileSet | PhantomSet, count: int, side: int, skip_bad: bool
) -> tuple[dict[str, list[Film]], Counter[str]]:
    """{region: the first `count` films, one of a person}, and how many images are left out, why.

    Raises ConfigError if no region has two.
    """
    films: dict[str, list[Film]] = defaultdict(list)
    left_out: Counter[str] = Counter()

    def candidates() -> Iterator[int]:
        seen = set()
        for index, person in enumerate(patients(asked, range(len(asked)))[0]):
            told = asked.attributes(index)
            region = told["region"]
            if told["modality"] != "x-ray":
                left_out["no film"] += 1
            elif region not in PLACES:
                left_out[f"no box for {region}"] += 1
            elif told.get("view", "frontal" if region == "chest" else "") != "frontal":
                left_out["not frontal"] += 1
            elif len(films[region]) == count:
                left_out[f"beyond {count} of a region"] += 1
            elif person in seen:
                left_out["of a person who has one"] += 1
            else:
                seen.add(person)
                yield index

    for index, image in load_each(asked, None, skip_bad, candidates()):
        square = image_files.fit_square(image_files.to_channels(image, 1), side)
        film = Film(index, image_files.to_integers(square), words_of(asked, index))
        films[asked.attributes(index)["region"]].append(film)
    left_out["the only one of a region"] = sum(len(each) == 1 for each in films.values())
    several = {region: films[region] for region in PLACES if len(films[region]) > 1}
    if not several:
        raise ConfigError(
            f"{asked.name} has no two usable films of one of {', '.join(PLACES)} of different "
            "persons; an interval needs them"
        )
    return several, +left_out


def measure(
    pipe: LatentDiffusion,
    asked: FileSet | PhantomSet,
    sampling: Sampling,
    count: int,
    prompt: str | None = None,
    skip_bad: bool = False,
) -> Repainted:
    """Repaints boxes of the first `count` films of each region; see `choose`.

    prompt: the same for all; None: the caption of each
    """
    side = pipe.config.image_size
    fills = {MEAN: mean_of_rim, BIHARMONIC: open_biharmonic(), TELEA: open_telea()}
    boxes = {place: box_of(place, side) for places in PLACES.values() for place in places}
    if min(min(box.height, box.width) for box in boxes.values()) < 11:
        raise ConfigError(f"SSIM needs boxes of 11 pixels; this model's images have {side}")
    chosen, left_out = choose(asked, count, side, skip_bad)
    found = Repainted(left_out=left_out)
    each = [(films, number) for films in chosen.values() for number in range(len(films))]
    rows: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for films, number in tqdm(each, "repainting", disable=None):
        index, picture, words = films[number]
        other = films[(number + 1) % len(films)].picture.astype(np.float64)
        batch = PictureBatch(pipe, [prompt or words], [index], sampling)
        for position, place in enumerate(PLACES[asked.attributes(index)["region"]]):
            hole = mask_of(boxes[place], picture)
            (drawn,) = image_editing.inpaint(batch, picture, hole.astype(float), RESAMPLE)
            results = {MODEL: drawn}
            for name, fill in fills.items():
                if fill:
                    results[name] = fill_hole(picture, fill(picture, hole), hole)
            results |= {OTHER: fill_hole(picture, other, hole), ORIGINAL: picture}
            apart = distance_of_others(films, number, boxes[place])
            for method, result in results.items():
                for name, value in score(picture, result, boxes[place], apart).items():
                    rows[place, method, name].append(value)
            found.changed += int((drawn != picture).any(axis=2)[~hole].sum())
            found.outside += int((~hole).sum())
            if number == position % len(films):  # places of one region from different films
                found.shown[place] = results
    methods = [name for name in (MODEL, *fills, OTHER, ORIGINAL) if fills.get(name, name)]
    for region in chosen:
        found.figures[region] = {
            place: {m: {name: np.array(rows[place, m, name]) for name in FIGURES} for m in methods}
            for place in PLACES[region]
        }
    return found
