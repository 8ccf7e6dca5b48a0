"""Radiographs with captions to train on: files, phantoms or both, in batches, and their latents."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm import rng
from ldm.config import ConfigError
from ldm.data import DataConfig, DataSource, augmentation, phantom
from ldm.data.cache import CachedRows, cached_squares, from_bytes
from ldm.data.file_dataset import Files
from ldm.data.film_rows import check_exclude, excluded
from ldm.data.image_sets import LabelledImages, PhantomSet, named_phantoms
from ldm.data.phantom import BODY_FINDINGS, FINDINGS, captions
from ldm.data.phantom.selection import select
from ldm.pictures import image_files
from ldm.system import cli
from ldm.system.atomic import digest
from ldm.vae import VAE
from ldm.weights.weight_files import words_of

T = TypeVar("T")
WORDINGS = 16  # captions of each image that are looked at for its words
LEAST = 3  # images that have a word, for it to be kept


class Batch(NamedTuple):
    """Images with captions for one training step."""

    images: Tensor  # [B, C, H, W] in [-1, 1], or their cached latents
    captions: list[str]
    ids: list[str]  # sample ids: logs hold nothing else of a patient's image
    findings: Sequence[Mapping[str, bool]] = ()  # as Dataset.findings
    masks: Tensor | None = None  # bool [B, 1, H, W]: not padding; None: nothing is


class Dataset(LabelledImages, Protocol):
    """Numbered radiographs with captions."""

    key: str  # changes with the images
    count: str  # of what was read and what was not, and why
    augmented: bool  # are small changes of these images wanted?
    weights: Tensor | None  # how often each is drawn, up to a factor; None: equally often

    def images(self, indices: Tensor) -> Tensor:
        """float32 [B, C, size, size] in [-1, 1];  indices: int64 [B]"""

    def masks(self, indices: Tensor) -> Tensor | None:
        """bool [B, 1, size, size]: where the image is, not padding; None: everywhere"""

    def attributes(self, index: int) -> Mapping[str, str]:
        """{"region": "knee", ...} of what is known beside findings (data/attributes.py)."""

    def caption(self, index: int, wording: int) -> str:
        """A prompt for the image; `wording` picks one of many."""

    def collection(self, index: int) -> str:
        """The source of the image, if the dataset was put together from several."""


class Unpadded:
    """The part of a dataset without padding or attributes, drawn equally often."""

    weights: Tensor | None = None
    count: str = ""

    def attributes(self, index: int) -> Mapping[str, str]:
        return {}

    def masks(self, indices: Tensor) -> Tensor | None:
        return None


class Phantoms(PhantomSet, Unpadded):
    """Phantoms, each rendered when it is first drawn.

    named: as `named_phantoms` takes it; "": chests of the configured seeds
    """

    augmented = False  # there is always another seed

    def __init__(self, config: DataConfig, channels: int, named: str = "") -> None:
        unwanted = excluded_phantoms(config)
        if named:
            if named.count(":") == 1:  # without a first seed, which would be one to measure on
                named = f"{named}:{config.phantom_seed}"
            chosen = named_phantoms(named, unwanted)
            what = digest([phantom.VERSION, phantom.BODY_VERSION, named, unwanted])
        else:
            chosen = configured_phantoms(config)
            what = digest([phantom.VERSION, config.phantom_seed, config.phantoms, unwanted])
        super().__init__(chosen, config.size)
        self.key = f"{what}-{config.size}-{channels}"
        name = f"phantoms-{what}"
        self.pixels = cached_squares(name, config, len(self), channels, self.square)
        self.channels = channels

    def square(self, index: int) -> Tensor:
        """float32 [C, size, size] in [-1, 1]"""
        square = image_files.fit_square(self.load(index), self.size)
        return image_files.to_channels(square, self.channels)

    def images(self, indices: Tensor) -> Tensor:
        return from_bytes(self.pixels[indices.numpy()])

    def caption(self, index: int, wording: int) -> str:
        return phantom.caption(self.phantoms[index], wording)

    def collection(self, index: int) -> str:
        return "phantoms"


def open_datasets(config: DataConfig, channels: int) -> list[tuple[Dataset, float]]:
    """The datasets of a run, each with its share of every batch."""
    if not config.sources:
        named = partial(Phantoms, config, channels, config.path or "")
        files = named if is_phantoms(config.path) else partial(Files, config, channels)
        return open_sources(config, files, partial(Phantoms, config, channels))
    if config.path or config.exclude or not all(source.share > 0 for source in config.sources):
        raise ConfigError(
            "data.sources goes without data.path and data.exclude (`where` of each source chooses "
            "rows), and its shares must be above 0"
        )
    check_share(config)
    total = sum(source.share for source in config.sources) / config.share
    found: list[tuple[Dataset, float]] = [
        (_open(config, channels, source), source.share / total) for source in config.sources
    ]
    if config.share < 1:
        found.append((Phantoms(config, channels), 1 - config.share))
    return found


def is_phantoms(path: str | None) -> bool:
    return (path or "").startswith("phantoms:")


def _open(config: DataConfig, channels: int, source: DataSource) -> Dataset:
    if not is_phantoms(source.path):
        return Files(config, channels, source)
    if source != DataSource(source.path, source.share):
        raise ConfigError(f"data.sources: {source.path} goes with path and share alone")
    return Phantoms(config, channels, source.path)


def check_share(config: DataConfig) -> None:
    if not 0 < config.share <= 1:
        raise ConfigError(f"data.share must be above 0 and at most 1, got {config.share}")


def open_sources(
    config: DataConfig, files: Callable[[], T], phantoms: Callable[[], T]
) -> list[tuple[T, float]]:
    """The files of data.path, the phantoms, or both, each with its share of every batch."""
    check_share(config)
    if config.sources:
        raise ConfigError("data.sources is for methods that read images; here name data.path")
    if config.path is None:
        if config.exclude:
            check_exclude(config)
        return [(phantoms(), 1.0)]
    if not config.path.strip():
        raise ConfigError("data.path is empty; leave it out for phantoms alone")
    found = [(files(), config.share)]
    return found if config.share == 1 else [*found, (phantoms(), 1 - config.share)]


def draw(datasets: Sequence[tuple[Dataset, float]], size: int, generator: torch.Generator) -> Batch:
    """A batch of `size` images, each as likely as its dataset's weights say."""
    picks = [(d, pick(d, count, generator)) for d, count in shares(datasets, size)]
    return collect(picks, generator)


def pick(dataset: Dataset, count: int, generator: torch.Generator) -> Tensor:
    """int64 [count], the numbers of images drawn as the dataset's weights say"""
    if dataset.weights is None:
        return torch.randint(len(dataset), (count,), generator=generator)
    return torch.multinomial(dataset.weights, count, replacement=True, generator=generator)


def shares(datasets: Sequence[tuple[T, float]], size: int) -> list[tuple[T, int]]:
    """The samples of each dataset in a batch of `size`: its share, rounded; the last: the rest."""
    counts = [round(share * size) for _, share in datasets[:-1]]
    counts.append(size - sum(counts))
    return [(d, count) for (d, _), count in zip(datasets, counts, strict=True) if count > 0]


def check_shares(datasets: Sequence[tuple[object, float]], batch_size: int) -> None:
    """Raises ConfigError if a dataset would have no sample in any batch."""
    if len(shares(datasets, batch_size)) < len(datasets):
        raise ConfigError(
            f"data.share={datasets[0][1]} of train.batch_size={batch_size} leaves none of "
            "the files or none of the phantoms; take a larger batch, or one of them alone"
            if len(datasets) == 2
            else f"of train.batch_size={batch_size} one of data.sources has no image; take a "
            "larger batch or a larger share"
        )


def collect(picks: Sequence[tuple[Dataset, Tensor]], generator: torch.Generator) -> Batch:
    """The batch of the images [count] picked from each dataset, with a wording drawn for each."""
    parts: list[Tensor] = []
    masks: list[Tensor | None] = []
    rows: list[tuple[str, str, Mapping[str, bool]]] = []
    for dataset, indices in picks:
        wordings = torch.randint(1 << 30, (len(indices),), generator=generator).tolist()
        part, mask = dataset.images(indices), dataset.masks(indices)
        if dataset.augmented:
            part, mask = augmentation.augment_masked(part, mask, generator)
        parts.append(part)
        masks.append(mask)
        rows += [
            (dataset.caption(index, wording), dataset.sample_id(index), dataset.findings(index))
            for index, wording in zip(indices.tolist(), wordings, strict=True)
        ]
    texts, ids, findings = map(list, zip(*rows, strict=True))
    images = torch.cat(parts)
    if all(mask is None for mask in masks):
        return Batch(images, texts, ids, findings)
    whole = [
        torch.ones(len(part), 1, *part.shape[2:], dtype=torch.bool) if mask is None else mask
        for part, mask in zip(parts, masks, strict=True)
    ]
    return Batch(images, texts, ids, findings, torch.cat(whole))


def count_words(datasets: Sequence[Dataset]) -> dict[str, int]:
    """{word: images that have it in one of WORDINGS captions, drawn as in training}, sorted.

    All images count, whether their turn comes in training or not. Words of fewer than LEAST images
    are left out: in captions of reports they may be names.
    """
    counts: Counter[str] = Counter()
    generator = rng.generator(0, "words")
    for dataset in datasets:
        for index in range(len(dataset)):
            wordings = torch.randint(1 << 30, (WORDINGS,), generator=generator).tolist()
            captions = {dataset.caption(index, wording) for wording in wordings}
            counts.update({word for caption in captions for word in words_of(caption)})
    return {word: count for word, count in sorted(counts.items()) if count >= LEAST}


def configured_phantoms(config: DataConfig) -> list[phantom.Phantom]:
    """The phantoms of a run's seeds, without the findings that it excludes."""
    if config.phantoms > cli.LARGEST:
        raise ConfigError(f"data.phantoms must be at most {cli.LARGEST}, got {config.phantoms}")
    seeds = range(config.phantom_seed, config.phantom_seed + config.phantoms)
    return select(seeds, {}, excluded_phantoms(config))


def excluded_phantoms(config: DataConfig) -> list[str]:
    """The phantom's findings among data.exclude."""
    known = (*FINDINGS, *BODY_FINDINGS) if config.exclude else ()
    return [name for name in known if captions.readable(name) in excluded(config)]


class DerivedDataset(Unpadded):
    """Images that each come from one of `dataset`, whose texts and findings they keep."""

    dataset: Dataset
    augmented = False

    def origin(self, index: int) -> int:
        """The number of the image in `dataset`."""
        raise NotImplementedError

    def caption(self, index: int, wording: int) -> str:
        return self.dataset.caption(self.origin(index), wording)

    def sample_id(self, index: int) -> str:
        return self.dataset.sample_id(self.origin(index))

    def findings(self, index: int) -> Mapping[str, bool]:
        return self.dataset.findings(self.origin(index))

    def attributes(self, index: int) -> Mapping[str, str]:
        return self.dataset.attributes(self.origin(index))

    def collection(self, index: int) -> str:
        return self.dataset.collection(self.origin(index))


class Latents(DerivedDataset):
    """A dataset whose images are mean and logvar of their latents, stacked: [B, 2 C_z, h, w].

    They are kept once made, so that training does not run the encoder at every step. Files that
    are to be augmented are encoded `variants` times, each time changed a little.
    """

    def __init__(
        self, dataset: Dataset, vae: VAE, vae_hash: str, variants: int, size: int, cache: str
    ) -> None:
        self.dataset, self.vae = dataset, vae
        self.variants = variants if dataset.augmented else 1
        how = f"{variants}-{augmentation.VERSION}" if dataset.augmented else "plain"
        self.key = f"{dataset.key}-{how}-{vae_hash}"
        side = size // vae.config.factor
        self.padded = dataset.masks(torch.tensor([0])) is not None
        self.channels = 2 * vae.config.latent_channels  # a mask follows where there is padding
        shape = (len(dataset) * self.variants, self.channels + self.padded, side, side)
        if dataset.weights is not None:
            self.weights = dataset.weights.repeat_interleave(self.variants)
        path = Path(cache) / f"latents-{self.key}-{shape[0]}"  # rows lie elsewhere among others
        self.moments = CachedRows(path, shape, np.float16, self.make)

    @torch.inference_mode()
    def make(self, index: int) -> np.ndarray:
        """Encoded alone, because in a batch the last bits would depend on its other images."""
        place = torch.tensor([self.origin(index)])
        image, mask = self.dataset.images(place), self.dataset.masks(place)
        if self.dataset.augmented:
            generator = rng.generator(0, "latents", index)
            image, mask = augmentation.augment_masked(image, mask, generator)
        posterior = self.vae.encode(image.to(next(self.vae.parameters()).device))
        moments = torch.cat([posterior.mean, posterior.logvar], dim=1)
        if mask is not None:  # a cell with any pixel of the image counts
            cells = F.max_pool2d(mask.float(), self.vae.config.factor)
            moments = torch.cat([moments, cells.to(moments.device)], dim=1)
        return moments[0].half().cpu().numpy()

    def __len__(self) -> int:
        return len(self.moments)

    def origin(self, index: int) -> int:
        return index // self.variants

    def images(self, indices: Tensor) -> Tensor:
        rows = self.moments[indices.numpy()][:, : self.channels]
        return torch.from_numpy(rows.astype(np.float32))

    def masks(self, indices: Tensor) -> Tensor | None:
        if not self.padded:
            return None
        return torch.from_numpy(self.moments[indices.numpy()][:, self.channels :] > 0)
