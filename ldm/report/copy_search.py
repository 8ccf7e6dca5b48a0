"""Search for copies of training images in a set of images, in three spaces.

The training images are a set, or those of the run whose name sample.py wrote into its images.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ldm import rng
from ldm.config import ConfigError, from_dict
from ldm.data.augmentation import augment
from ldm.data.datasets import open_datasets
from ldm.data.image_sets import UNSEEN, ImageSet, PhantomSet, open_set
from ldm.judging.extractors import Array, Extractor
from ldm.metrics.classification import wilson
from ldm.metrics.estimate import Estimate
from ldm.metrics.nearest_images import Audit, audit, nearest
from ldm.pictures import image_files
from ldm.report.roundtrip import open_copier
from ldm.report.set_distances import fingerprint, read_batches
from ldm.training.methods.adaptation import Instances, Kind
from ldm.training.training_run import load_run
from ldm.vae import VAE
from ldm.weights.loading import load_parts, weights_hash

SIDE = 64  # pixels at which images are compared in the space of pixels
VERSIONS = 2000  # training images and changed versions of them, together
PLANTED = 200
LEAST = 20  # held-out images; their nearest sets the threshold if they are fewer than 100
MEMORY = 2_000_000_000  # bytes of training images
PHANTOMS = 300  # held out, where nothing is named
QUANTILE = 0.01


class Square(NamedTuple):
    """Images [n, C, size, size] in [-1, 1] for the autoencoder, and their sample ids."""

    pictures: Tensor
    ids: list[str]


class Space(NamedTuple):
    """A space in which images are compared: its audit, and how well copies are found there.

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
    """Looks for copies by an autoencoder and an extractor."""

    vae: VAE
    size: int  # pixels
    extractor: Extractor

    @classmethod
    def open(cls, model: str, extractor: Extractor) -> "Finder":
        copier = open_copier(model)
        return cls(copier.vae, copier.size, extractor)

    def read(self, asked: ImageSet, limit: int | None = None, skip_bad: bool = False) -> Square:
        channels, pictures, ids = self.vae.config.image_channels, [], []
        for indices, images in read_batches(asked, limit, skip_bad):
            squares = [image_files.fit_square(image, self.size) for image in images]
            pictures += [image_files.to_channels(square, channels) for square in squares]
            ids += [asked.sample_id(i) for i in indices]
        if not pictures:
            raise ValueError(f"{asked.name} has no usable image")
        return Square(torch.stack(pictures), ids)

    def room(self) -> int:
        """The number of images of this size that fit into MEMORY."""
        return MEMORY // (4 * self.vae.config.image_channels * self.size**2)

    def find(self, fake: Square, train: Square, held_out: Square) -> tuple[Square, list[Space]]:
        """The training images with their changed versions, and the result in each space.

        The autoencoder brings images nearer to each other. Samples have passed through it, so
        held-out and planted images do, too, before they are compared.
        """
        check_apart(train, held_out)
        versions = with_versions(train)
        chosen = torch.linspace(0, len(train.ids) - 1, min(PLANTED, len(train.ids))).long()
        planted = train.pictures[chosen]
        changed = augment(planted, rng.generator(0, "planted copies"))
        sets = [fake.pictures, versions.pictures]
        sets += [self.through(x) for x in (held_out.pictures, planted, changed)]
        spaces = []
        for name, place in self.places().items():
            samples, known, unseen, plain, moved = (embed(x, place, name) for x in sets)
            found = audit(samples, known, unseen, QUANTILE)
            recall, of_changed = (
                wilson(int((nearest(x, known).distance < found.threshold).sum()), len(x))
                for x in (plain, moved)
            )
            spaces.append(Space(name, found, recall, of_changed, false_alarms(found)))
        return versions, spaces

    @torch.inference_mode()
    def through(self, pictures: Tensor) -> Tensor:
        """The reconstructions of images [n, C, size, size] by posterior means."""
        parts = pictures.split(16)
        return torch.cat([self.vae.decode(self.vae.encode(x).mean).clamp(-1, 1) for x in parts])

    def places(self) -> dict[str, Callable[[Tensor], Array]]:
        """{space: images [B, C, size, size] -> points [B, d]}"""

        def pixels(x: Tensor) -> Array:
            small = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
            return small.flatten(1).double().numpy()

        @torch.inference_mode()
        def latents(x: Tensor) -> Array:
            return self.vae.encode(x).mean.flatten(1).double().numpy()

        features = f"features of {self.extractor.name}"
        return {"pixels": pixels, "latents": latents, features: self.extractor}


def check_apart(train: Square, held_out: Square) -> None:
    """Raises ValueError for held-out images that were trained on, or are fewer than LEAST."""
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


def embed(pictures: Tensor, place: Callable[[Tensor], Array], name: str) -> Array:
    """[n, d]"""
    parts = tqdm(pictures.split(16), name, unit="batch", delay=2, disable=None, leave=False)
    return np.concatenate([place(part) for part in parts])


def with_versions(train: Square) -> Square:
    """The training images, and after them at most VERSIONS - n changed versions of them.

    A model that was trained on changed versions copies those, which are far from the unchanged
    image and would pass for new.
    """
    count = max(0, min(64, VERSIONS // len(train.ids) - 1))
    changed = [
        augment(train.pictures, rng.generator(0, "versions", version)) for version in range(count)
    ]
    return Square(torch.cat([train.pictures, *changed]), train.ids * (1 + count))


def false_alarms(found: Audit) -> Estimate:
    """The share of copies in each half of the held-out images by the other half's threshold."""
    distance, hits = found.held_out.distance, 0
    for i in (0, 1):
        threshold = np.quantile(distance[i::2], QUANTILE)
        hits += int((distance[1 - i :: 2] < threshold).sum())
    return wilson(hits, len(distance))


class TrainedImages:
    """The training images of a run folder (an image_sets.ImageSet): grey, at the run's size.

    Of `method.kinds`, the few images that were picked; else all of the run's data.
    """

    def __init__(self, folder: Path) -> None:
        run = load_run(folder / "config.yaml")
        self.name, self.folder = str(folder), folder
        kinds = [from_dict(Kind, kind, "method.kinds") for kind in run.method.get("kinds", [])]
        datasets = [dataset for dataset, _ in open_datasets(run.data, channels=1)]
        self.count = "; ".join(dataset.count for dataset in datasets)
        parts = [Instances(dataset, kinds, ["{}"]) for dataset in datasets]
        self.places = [(part, i) for part in parts for i in range(len(part))]

    def __len__(self) -> int:
        return len(self.places)

    def load(self, index: int) -> Tensor:
        part, i = self.places[index]
        return part.images(torch.tensor([i]))[0]

    def sample_id(self, index: int) -> str:
        part, i = self.places[index]
        return part.sample_id(i)

    def findings(self, index: int) -> Mapping[str, bool]:
        part, i = self.places[index]
        return part.findings(i)

    def attributes(self, index: int) -> Mapping[str, str]:
        part, i = self.places[index]
        return part.attributes(i)

    def text(self, index: int) -> Mapping[str, str]:
        return {}

    def patient(self, index: int) -> str | None:
        return None


def trained_on(asked: ImageSet, skip_bad: bool = False) -> TrainedImages | None:
    """The images of the run that the PNG texts name, if it is in the current folder or in runs/.

    skip_bad: pass over files that cannot be read, in the place of a ValueError
    """
    named = set()
    for index in range(len(asked)):
        try:
            text = asked.text(index)
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{error}; --skip-bad goes on without it") from error
            continue  # the log names it when the images are read
        named.add((text.get("model", ""), text.get("weights")))
    if len(named) != 1:
        return None  # several models, or none
    model, weights = named.pop()
    if not model or Path(model).name != model or len(model) > 200:
        return None  # no name of one
    for folder in (Path(model), Path("runs") / model):
        if (folder / "config.yaml").is_file() and weights == hash_of(folder):
            return TrainedImages(folder)
    return None


def hash_of(run: Path) -> str:
    """LatentDiffusion.weights_hash of a run; "" for one that has no whole model."""
    try:
        return weights_hash(load_parts(run)[1])
    except ValueError:
        return ""


def open_train(source: str) -> ImageSet:
    """A set, or the training images of a run folder."""
    is_run = (Path(source) / "config.yaml").is_file()
    return TrainedImages(Path(source)) if is_run else open_set(source)


def open_held_out(source: str | None, train: ImageSet) -> ImageSet:
    """The set of that name; None: images like the training set that were not trained on."""
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
    """The numbers of the samples nearest to a training image, nearest first."""
    return [int(i) for i in np.argsort(found.samples.distance, kind="stable")[:count]]
