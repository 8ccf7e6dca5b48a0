"""How far one set of images is from another, as extractors see them, and how varied it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ldm import rng
from ldm.data.image_sets import ImageSet, load_each
from ldm.judging.extractors import Extractor, batches
from ldm.metrics import fid
from ldm.metrics.estimate import Estimate
from ldm.metrics.fid import Array, Tenths
from ldm.metrics.image_quality import ms_ssim
from ldm.pictures import image_files

KEPT = 10_000  # images of a set, at most, whose features are kept for all but FRECHET
PAIRS = 500  # of images compared by MS-SSIM, at most
SIDE = 256  # pixels at which they are: five scales want 176 or more
FRECHET = "Fréchet distance"
SHARES = ("precision", "recall", "coverage")  # between 0 and 1


class View:
    """A set as one extractor sees it.

    even, odd: the moments of every other image;  features: [n, d] of those kept
    """

    def __init__(self, width: int) -> None:
        self.even, self.odd = Tenths(width), Tenths(width)
        self.features: Array = np.empty((0, width))

    @property
    def n(self) -> int:
        return self.even.count + self.odd.count

    def counted(self, figure: str) -> int:
        """How many images a figure is of."""
        return self.n if figure == FRECHET else len(self.features)

    def update(self, batch: Array, keep: list[bool]) -> None:
        """Take in a batch [B, d]; keep: which of it are kept"""
        even = np.arange(self.n, self.n + len(batch)) % 2 == 0
        for tenths, which in ((self.even, even), (self.odd, ~even)):
            if which.any():
                tenths.update(batch[which])
        if any(keep):
            self.features = np.concatenate([self.features, batch[keep]])

    def halves(self) -> tuple[View, View]:
        """What two sets of one kind are apart: every other image, and the rest."""
        both = []
        for tenths, start in ((self.even, 0), (self.odd, 1)):
            half = View(self.features.shape[1])
            half.even, half.features = tenths, self.features[start::2]
            both.append(half)
        return both[0], both[1]


class Seen:
    """A set, read once.

    views: {extractor: what it sees};  hashes: of the pixels;  small: grey images [SIDE, SIDE] in
    [0, 1], for MS-SSIM. Of more images than are kept, those are drawn at random: the first ones
    would be of the first prompts alone.
    """

    def __init__(
        self,
        asked: ImageSet,
        extractors: Sequence[Extractor],
        limit: int | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.name, self.n = asked.name, 0
        self.views: dict[str, View] = {}
        self.hashes: set[str] = set()
        self.small: list[NDArray[Any]] = []
        total = len(asked) if limit is None else min(limit, len(asked))
        kept, paired = some(total, KEPT, "kept"), some(total, 2 * PAIRS, "paired")
        with tqdm(
            total=total, desc=self.name, unit="image", delay=2, disable=None, leave=False
        ) as bar:
            for numbers, pictures in batches(load_each(asked, limit, skip_bad)):
                for extractor in extractors:
                    features = fid.checked(extractor(pictures), least=1)
                    view = self.views.setdefault(extractor.name, View(features.shape[1]))
                    view.update(features, [number in kept for number in numbers])
                self.hashes |= {fingerprint(image) for image in pictures}
                for number, image in zip(numbers, pictures, strict=True):
                    if number not in paired:
                        continue
                    grey = image_files.fit_square(image_files.to_channels(image, 1), SIDE)
                    self.small.append(((grey[0] + 1) / 2).numpy())
                self.n += len(pictures)
                bar.update(len(pictures))
        if self.n < 10:  # a jackknife leaves out one in ten
            raise ValueError(f"{self.name} has {self.n} usable images; wants 10 or more")


def some(total: int, count: int, purpose: str) -> set[int]:
    """Numbers below `total`, `count` of them at most, drawn at random and always the same."""
    return set(torch.randperm(total, generator=rng.generator(0, purpose))[:count].tolist())


def fingerprint(image: torch.Tensor) -> str:
    """Equal for images [C, H, W] of equal 8-bit pixels."""
    pixels = image_files.to_integers(image)
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def shared(real: Seen, fake: Seen) -> int:
    """How many images are in both sets. Raises ValueError if they are the same sets."""
    both = len(real.hashes & fake.hashes)
    if both == len(real.hashes) == len(fake.hashes):
        raise ValueError(
            f"{real.name} and {fake.name} hold the same images: a distance between them says "
            "nothing; name two different sets"
        )
    return both


def distances(real: View, fake: View, few: bool) -> dict[str, Estimate]:
    """Each figure of `fake` against `real` with its jackknife interval.

    few: give a Fréchet distance of fewer images than features, too, under a name that says so
    """
    found: dict[str, Estimate] = {}
    least = min(real.n, fake.n)
    if least < 10:
        return found
    if least >= enough(real.features.shape[1]):
        found[FRECHET] = fid.frechet_of_tenths(real.even + real.odd, fake.even + fake.odd)
    elif few:
        name = f"{FRECHET} (fewer images than features)"
        found[name] = fid.jackknife(fid.frechet, real.features, fake.features)
    found |= fid.jackknife_each(others, real.features, fake.features)
    for name in SHARES:
        value, low, high, n = found[name]
        found[name] = Estimate(value, max(low, 0.0), min(high, 1.0), n)
    return found


def enough(width: int) -> int:
    """Images that are more than `width` features even after a jackknife took out a tenth."""
    return int((width + 2) / 0.9) + 1


def others(x: Array, y: Array) -> Mapping[str, float]:
    """What needs all features at once: [n, d] of the real set, and of the fake one."""
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True).clip(min=1e-12) for z in (x, y)]
    return {"KID": fid.kid(x, y), "CMMD": fid.cmmd(*unit), **fid.neighbourhoods(x, y)._asdict()}


def diversity(seen: Seen) -> Estimate:
    """Mean MS-SSIM of disjoint pairs of the set: 1 if all images are the same."""
    order = torch.randperm(len(seen.small), generator=rng.generator(0, "MS-SSIM")).tolist()
    pairs = zip(order[::2], order[1::2], strict=False)
    values = [ms_ssim(seen.small[i], seen.small[j], span=1) for i, j in pairs]
    mean, half = float(np.mean(values)), float(1.96 * np.std(values, ddof=1) / len(values) ** 0.5)
    return Estimate(mean, mean - half, mean + half, len(values))
