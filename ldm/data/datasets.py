"""Radiographs with captions behind one interface: files, phantoms, or a mixture in batches."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from ldm.config import ConfigError
from ldm.data.augmentation import augment
from ldm.data.data_config import DataConfig
from ldm.data.image_tables import check_exclude
from ldm.data.radiographs import Files, Phantoms

T = TypeVar("T")


class Batch(NamedTuple):
    """Images with captions for one training step."""

    images: Tensor  # [B, C, H, W] in [-1, 1], or their cached latents
    captions: list[str]
    ids: list[str]  # sample ids: logs hold nothing else of a patient's image
    findings: Sequence[Mapping[str, bool]] = ()  # as Dataset.findings


class Dataset(Protocol):
    """Numbered radiographs with captions."""

    key: str  # changes with the images
    augmented: bool  # are small changes of these images wanted?

    def __len__(self) -> int: ...

    def images(self, indices: Tensor) -> Tensor:
        """float32 [B, C, size, size] in [-1, 1];  indices: int64 [B]"""

    def caption(self, index: int, wording: int) -> str:
        """A prompt for the image; `wording` picks one of many."""

    def sample_id(self, index: int) -> str:
        """A name without patient data, for logs."""

    def findings(self, index: int) -> Mapping[str, bool]:
        """{finding: is it there?} of those that the source knows, in the words of captions."""

    def collection(self, index: int) -> str:
        """The source of the image, if the dataset was put together from several."""


def open_datasets(config: DataConfig, channels: int) -> list[tuple[Dataset, float]]:
    """The datasets of a run, each with its share of every batch."""
    return open_sources(config, lambda: Files(config, channels), lambda: Phantoms(config, channels))


def open_sources(
    config: DataConfig, files: Callable[[], T], phantoms: Callable[[], T]
) -> list[tuple[T, float]]:
    """The files of data.path, the phantoms, or both, each with its share of every batch."""
    if not 0 < config.share <= 1:
        raise ConfigError(f"data.share must be above 0 and at most 1, got {config.share}")
    if config.path is None:
        check_exclude(config)
        return [(phantoms(), 1.0)]
    if not config.path.strip():
        raise ConfigError("data.path is empty; leave it out for phantoms alone")
    found = [(files(), config.share)]
    return found if config.share == 1 else [*found, (phantoms(), 1 - config.share)]


def draw(datasets: Sequence[tuple[Dataset, float]], size: int, generator: torch.Generator) -> Batch:
    """A batch of `size` images, any as likely as any other of its dataset."""
    picks = [
        (dataset, torch.randint(len(dataset), (count,), generator=generator))
        for dataset, count in shares(datasets, size)
    ]
    return collect(picks, generator)


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
        )


def collect(picks: Sequence[tuple[Dataset, Tensor]], generator: torch.Generator) -> Batch:
    """The batch of the images [count] picked from each dataset, with a wording drawn for each."""
    parts: list[Tensor] = []
    rows: list[tuple[str, str, Mapping[str, bool]]] = []
    for dataset, indices in picks:
        wordings = torch.randint(1 << 30, (len(indices),), generator=generator).tolist()
        part = dataset.images(indices)
        parts.append(augment(part, generator) if dataset.augmented else part)
        rows += [
            (dataset.caption(index, wording), dataset.sample_id(index), dataset.findings(index))
            for index, wording in zip(indices.tolist(), wordings, strict=True)
        ]
    texts, ids, findings = map(list, zip(*rows, strict=True))
    return Batch(torch.cat(parts), texts, ids, findings)
