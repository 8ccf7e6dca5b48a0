"""Does a set of images copy the images that its model was trained on? In three spaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ldm import rng
from ldm.config import ConfigError
from ldm.data.augmentation import augment
from ldm.data.image_sets import UNSEEN, ImageSet, PhantomSet, load_each, open_set
from ldm.judging.extractors import Array, Extractor
from ldm.metrics.classification import wilson
from ldm.metrics.estimate import Estimate
from ldm.metrics.nearest_images import Audit, audit, nearest
from ldm.pictures import image_files
from ldm.report.set_distances import fingerprint
from ldm.report.trained_images import TrainedImages
from ldm.training.run_config import load_run
from ldm.vae import VAE
from ldm.weights.loading import build, load_parts, weights_hash

SIDE = 64  # pixels at which images are compared as such: what makes a chest that chest
VERSIONS = 2000  # training images and changed versions of them, together
PLANTED = 200
LEAST = 20  # held-out images; their nearest sets the threshold if they are fewer than 100
MEMORY = 2_000_000_000  # bytes of training images
PHANTOMS = 300  # held out, where nothing is named
QUANTILE = 0.01


class Square(NamedTuple):
    """Images [n, C, size, size] in [-1, 1] as the autoencoder takes them, and their sample ids."""

    pictures: Tensor
    ids: list[str]


class Space(NamedTuple):
    """Where images are compared: what the audit says, and how well it works there.

    planted, changed: share of training images found that passed through the autoencoder, as they
    are and a little changed;  false_alarms: share of held-out images called copies by a threshold
    that the other half of them set
    """

    name: str
    audit: Audit
    planted: Estimate
    changed: Estimate
    false_alarms: Estimate


@dataclass
class Finder:
    """The autoencoder and the extractor by which copies are looked for."""

    vae: VAE
    size: int  # pixels
    extractor: Extractor

    @classmethod
    def open(cls, model: str, extractor: Extractor) -> Finder:
        config, parts = load_parts(model)
        if "vae" not in parts:
            raise ValueError(f"{model} has no vae; name weights that have one with --model")
        vae: VAE = build("vae", config, parts["vae"])  # type: ignore[assignment]  # by its name
        return cls(vae, config.image_size, extractor)

    def read(self, asked: ImageSet, limit: int | None = None, skip_bad: bool = False) -> Square:
        channels, pictures, ids = self.vae.config.image_channels, [], []
        total = len(asked) if limit is None else min(limit, len(asked))
        each = load_each(asked, limit, skip_bad)
        for i, image in tqdm(
            each, asked.name, total, unit="image", delay=2, disable=None, leave=False
        ):
            pictures.append(
                image_files.to_channels(image_files.fit_square(image, self.size), channels)
            )
            ids.append(asked.sample_id(i))
        if not pictures:
            raise ValueError(f"{asked.name} has no usable image")
        return Square(torch.stack(pictures), ids)

    def room(self) -> int:
        """How many images of this size there is room for."""
        return MEMORY // (4 * self.vae.config.image_channels * self.size**2)

    def find(self, fake: Square, train: Square, held_out: Square) -> tuple[Square, list[Space]]:
        """The training images with their changed versions, and what each space says.

        Samples have passed through the autoencoder, which brings images nearer to each other: so
        do held-out and planted images before they are compared.
        """
        check_apart(train, held_out)
        versions = with_versions(train)
        some = torch.linspace(0, len(train.ids) - 1, min(PLANTED, len(train.ids))).long()
        planted = train.pictures[some]
        changed = augment(planted, rng.generator(0, "planted copies"))
        sets = [fake.pictures, versions.pictures]
        sets += [self.through(x) for x in (held_out.pictures, planted, changed)]
        spaces = []
        for name, place in self.places().items():
            samples, known, unseen, plain, moved = (each(x, place, name) for x in sets)
            found = audit(samples, known, unseen, QUANTILE)
            recall, of_changed = (share_below(x, known, found.threshold) for x in (plain, moved))
            spaces.append(Space(name, found, recall, of_changed, cross(found)))
        return versions, spaces

    def through(self, pictures: Tensor) -> Tensor:
        return torch.cat([self._through(x) for x in pictures.split(16)])

    @torch.inference_mode()
    def _through(self, x: Tensor) -> Tensor:
        return self.vae.decode(self.vae.encode(x).mean).clamp(-1, 1)

    def places(self) -> dict[str, Callable[[Tensor], Array]]:
        def pixels(x: Tensor) -> Array:
            small = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
            return small.flatten(1).double().numpy()

        @torch.inference_mode()
        def latents(x: Tensor) -> Array:
            return self.vae.encode(x).mean.flatten(1).double().numpy()

        def features(x: Tensor) -> Array:
            return self.extractor(list(x))

        return {
            "pixels": pixels,
            "latents": latents,
            f"features of {self.extractor.name}": features,
        }


def check_apart(train: Square, held_out: Square) -> None:
    """Raises ValueError for held-out images that cannot say what no copying looks like."""
    known = {fingerprint(image) for image in train.pictures}
    if trained := sum(fingerprint(image) in known for image in held_out.pictures):
        raise ValueError(
            f"{trained} of {len(held_out.ids)} held-out images were trained on; name others with "
            "--held-out"
        )
    if len(held_out.ids) < LEAST:
        raise ValueError(
            f"{len(held_out.ids)} held-out images are too few to say what is near; name {LEAST} or "
            "more with --held-out"
        )


def each(pictures: Tensor, place: Callable[[Tensor], Array], name: str) -> Array:
    """[n, d]"""
    parts = tqdm(pictures.split(16), name, unit="batch", delay=2, disable=None, leave=False)
    return np.concatenate([place(part) for part in parts])


def with_versions(train: Square) -> Square:
    """The training images, and after them as many changed versions as `VERSIONS` leaves room for.

    A model that was trained on changed versions copies those, and they pass for new beside the
    unchanged image.
    """
    count = max(0, min(64, VERSIONS // len(train.ids) - 1))
    changed = [
        augment(train.pictures, rng.generator(0, "versions", version)) for version in range(count)
    ]
    return Square(torch.cat([train.pictures, *changed]), train.ids * (1 + count))


def share_below(samples: Array, known: Array, threshold: float) -> Estimate:
    hits = int((nearest(samples, known).distance < threshold).sum())
    return wilson(hits, len(samples))


def cross(found: Audit) -> Estimate:
    """False alarms: each half of the held-out images by the threshold of the other half."""
    distance, hits = found.held_out.distance, 0
    for i in (0, 1):
        threshold = np.quantile(distance[i::2], QUANTILE)
        hits += int((distance[1 - i :: 2] < threshold).sum())
    return wilson(hits, len(distance))


def trained_on(asked: ImageSet, skip_bad: bool = False) -> TrainedImages | None:
    """What the images' own text says that they were drawn with, if that run is here or in runs/.

    skip_bad: do not ask what cannot be read, in the place of a ValueError
    """
    said = set()
    for index in range(len(asked)):
        try:
            text = asked.text(index)
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{error}; --skip-bad goes on without it") from error
            continue  # the log names it when the images are read
        said.add((text.get("model", ""), text.get("weights")))
    if len(said) != 1:
        return None  # several models, or none
    model, weights = said.pop()
    if not model or Path(model).name != model or len(model) > 200:
        return None  # no name of one
    for folder in (Path(model), Path("runs") / model):
        if (folder / "config.yaml").is_file() and weights == hash_of(folder):
            return TrainedImages(folder)
    return None


def hash_of(run: Path) -> str:
    """As LatentDiffusion has it; "" for a run that has no whole model."""
    try:
        return weights_hash(load_parts(run)[1])
    except ValueError:
        return ""


def open_train(source: str) -> ImageSet:
    """A set, or the run folder whose training images are meant."""
    return (
        TrainedImages(Path(source))
        if (Path(source) / "config.yaml").is_file()
        else open_set(source)
    )


def open_held_out(source: str | None, train: ImageSet) -> ImageSet:
    """The set named, or what is like the training set but was not trained on."""
    if source is not None:
        return open_set(source)
    data = load_run(train.folder / "config.yaml").data if isinstance(train, TrainedImages) else None
    mixed = data is not None and data.path is not None and data.share < 1
    if isinstance(train, PhantomSet) or (data is not None and data.path is None):
        return open_set(f"phantoms:{PHANTOMS}:{UNSEEN}")
    table = train.name.removesuffix("@train") if data is None else data.path or ""
    if table.endswith(".csv") and not mixed and (data is None or data.split == "train"):
        try:
            return open_set(f"{table}@val")
        except ConfigError as error:
            raise ConfigError(f"{error}; name what was not trained on with --held-out") from error
    raise ValueError(
        f"what was held out of {train.name} is not known; name images like it that were not "
        "trained on with --held-out"
    )


def closest(found: Audit, count: int = 8) -> Sequence[int]:
    """The samples nearest to a training image, nearest first."""
    return [int(i) for i in np.argsort(found.samples.distance, kind="stable")[:count]]
