"""Distances between two sets of images in the features of an extractor, and the variety of one."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ldm import rng
from ldm.data import attributes
from ldm.data.image_sets import ImageSet, load_each
from ldm.judging.extractors import Extractor, batches
from ldm.metrics import estimate, fid
from ldm.metrics.estimate import Estimate
from ldm.metrics.fid import Array, Tenths
from ldm.metrics.image_quality import ms_ssim
from ldm.pictures import image_files
from ldm.system.cli import printable

KEPT = 10_000  # images of a set, at most, whose features are kept for all but FRECHET
PAIRS = 500  # of images compared by MS-SSIM, at most
SIDE = 256  # pixels at which they are: five scales need 176 or more
FRECHET = "Fréchet distance"
SHARES = ("precision", "recall", "coverage")  # between 0 and 1


def read_batches(
    asked: ImageSet, limit: int | None, skip_bad: bool, size: int = 32
) -> Iterator[tuple[list[int], list[torch.Tensor]]]:
    """The usable images of a set and their places in it, `size` at a time, with a progress bar."""
    total = len(asked) if limit is None else min(limit, len(asked))
    each = load_each(asked, limit, skip_bad)
    bar = tqdm(each, printable(asked.name), total, unit="image", delay=2, disable=None, leave=False)
    yield from batches(bar, size)


class FeatureSet:
    """The features of a set by one extractor.

    even, odd: the moments of every other image;  features: [n, d] of those kept
    """

    def __init__(self, width: int) -> None:
        self.even, self.odd = Tenths(width), Tenths(width)
        self.features: Array = np.empty((0, width))

    @property
    def n(self) -> int:
        return self.even.count + self.odd.count

    def counted(self, figure: str) -> int:
        """The number of images behind a figure."""
        return self.n if figure == FRECHET else len(self.features)

    def update(self, batch: Array, keep: list[bool]) -> None:
        """Add a batch [B, d]; keep: for each, whether its features are kept"""
        even = np.arange(self.n, self.n + len(batch)) % 2 == 0
        for tenths, which in ((self.even, even), (self.odd, ~even)):
            if which.any():
                tenths.update(batch[which])
        if any(keep):
            self.features = np.concatenate([self.features, batch[keep]])

    def halves(self) -> tuple["FeatureSet", "FeatureSet"]:
        """Every other image, and the rest: their distance is that of two sets of one kind."""
        even, odd = FeatureSet(self.features.shape[1]), FeatureSet(self.features.shape[1])
        even.even, even.features = self.even, self.features[::2]
        odd.even, odd.features = self.odd, self.features[1::2]
        return even, odd


class Seen:
    """A set, read once.

    views: {extractor: features};  hashes: of the pixels;  small: grey images [SIDE, SIDE] in
    [0, 1], for MS-SSIM. The images that are kept are drawn at random if there are more: the first
    ones would be of the first prompts alone.
    """

    def __init__(
        self,
        asked: ImageSet,
        extractors: Sequence[Extractor],
        limit: int | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.name, self.n = asked.name, 0
        self.views: dict[str, FeatureSet] = {}
        self.hashes: set[str] = set()
        self.told: list[Mapping[str, str]] = []  # of the images whose features are kept
        self.small: list[NDArray[Any]] = []
        total = len(asked) if limit is None else min(limit, len(asked))
        kept = draw_numbers(total, KEPT, "kept")
        paired = draw_numbers(total, 2 * PAIRS, "paired")
        for numbers, pictures in read_batches(asked, limit, skip_bad):
            for extractor in extractors:
                features = fid.checked(extractor(pictures), least=1)
                view = self.views.setdefault(extractor.name, FeatureSet(features.shape[1]))
                view.update(features, [number in kept for number in numbers])
            self.hashes |= {fingerprint(image) for image in pictures}
            self.told += [attributes_of(asked, number) for number in numbers if number in kept]
            for number, image in zip(numbers, pictures, strict=True):
                if number in paired:
                    grey = image_files.fit_square(image_files.to_channels(image, 1), SIDE)
                    self.small.append(((grey[0] + 1) / 2).numpy())
            self.n += len(pictures)
        if self.n < 10:  # a jackknife leaves out one in ten
            raise ValueError(f"{self.name} has {self.n} usable images; 10 or more are needed")


def attributes_of(asked: ImageSet, index: int) -> Mapping[str, str]:
    """What the prompt says of a drawn image; of any other one what its row or phantom says."""
    prompt = asked.text(index).get("prompt")
    return attributes.of_prompt(prompt) if prompt else asked.attributes(index)


def draw_numbers(total: int, count: int, purpose: str) -> set[int]:
    """At most `count` numbers below `total`, drawn at random, the same in every call."""
    return set(torch.randperm(total, generator=rng.generator(0, purpose))[:count].tolist())


def fingerprint(image: torch.Tensor) -> str:
    """Equal for images [C, H, W] of equal 8-bit pixels."""
    pixels = image_files.to_integers(image)
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def shared(real: Seen, fake: Seen) -> int:
    """The number of images in both sets. Raises ValueError if the sets are equal."""
    both = len(real.hashes & fake.hashes)
    if both == len(real.hashes) == len(fake.hashes):
        raise ValueError(
            f"{real.name} and {fake.name} hold the same images: a distance between them says "
            "nothing; name two different sets"
        )
    return both


def distances(real: FeatureSet, fake: FeatureSet, few: bool) -> dict[str, Estimate]:
    """Each figure of `fake` against `real` with its jackknife interval; none for fewer than 10.

    few: a Fréchet distance of fewer images than features is given, too, by a name that says so
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
    found |= fid.jackknife_each(figures_of_arrays, real.features, fake.features)
    for name in SHARES:
        one = found[name]
        found[name] = one._replace(low=max(one.low, 0.0), high=min(one.high, 1.0))
    return found


def enough(width: int) -> int:
    """The least n that exceeds `width` features even without a jackknife's tenth."""
    return int((width + 2) / 0.9) + 1


def figures_of_arrays(x: Array, y: Array) -> Mapping[str, float]:
    """Figures that need all features at once, x [n, d] of the real set and y of the fake one."""
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True).clip(min=1e-12) for z in (x, y)]
    return {"KID": fid.kid(x, y), "CMMD": fid.cmmd(*unit), **fid.neighbourhoods(x, y)._asdict()}


def by_group(real: Seen, fake: Seen, extractor: str) -> dict[str, dict[str, object]]:
    """{"sex: F": n of both and KID} of the real set's groups and the fake set's images of each.

    All images of the fake set where none of them tells the attribute.
    """
    found: dict[str, dict[str, object]] = {}
    for name, places in attributes.groups(real.told).items():
        attribute, _, word = name.partition(": ")
        is_told = any(attribute in each for each in fake.told)
        same = [i for i, t in enumerate(fake.told) if not is_told or t.get(attribute) == word]
        x, y = (s.views[extractor].features[p] for s, p in ((real, places), (fake, same)))
        enough = min(len(x), len(y)) >= 10
        found[name] = {
            "n, real": len(x),
            "n, fake": len(y),
            "KID": fid.jackknife(fid.kid, x, y) if enough else "too few images",
            "": "n < 30" if min(len(x), len(y)) < 30 else "",
        }
    return found


def vendi(view: FeatureSet) -> Estimate:
    """The Vendi score of a set."""
    return fid.jackknife(lambda x, _: fid.vendi(x), view.features, view.features)


def diversity(seen: Seen) -> Estimate:
    """Mean MS-SSIM of disjoint pairs of the set: 1 if all images are the same."""
    order = torch.randperm(len(seen.small), generator=rng.generator(0, "MS-SSIM")).tolist()
    pairs = zip(order[::2], order[1::2], strict=False)
    values = [ms_ssim(seen.small[i], seen.small[j], span=1) for i, j in pairs]
    return estimate.mean(values)
