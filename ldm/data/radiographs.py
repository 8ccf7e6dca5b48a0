"""Radiographs to train on, phantoms or files: image sets with captions, their pixels cached."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ldm.data import phantom
from ldm.data.cache import CachedRows
from ldm.data.data_config import DataConfig
from ldm.data.image_sets import FileSet, ImageSet, PhantomSet
from ldm.data.image_tables import excluded, read_rows
from ldm.data.phantom import FINDINGS, captions
from ldm.pictures import image_files
from ldm.system.fingerprint import code_version, digest


class Phantoms(PhantomSet):
    """Phantom chests of consecutive seeds, each rendered when it is first drawn."""

    augmented = False  # there is always another seed

    def __init__(self, config: DataConfig, channels: int) -> None:
        super().__init__(configured_phantoms(config), config.size)
        what = [phantom.VERSION, config.phantom_seed, config.phantoms, excluded_phantoms(config)]
        self.key = f"{digest(what)}-{config.size}-{channels}"
        self.pixels = cached_pixels(self, f"phantoms-{digest(what)}", config, channels)

    def images(self, indices: Tensor) -> Tensor:
        return from_bytes(self.pixels[indices.numpy()])

    def caption(self, index: int, wording: int) -> str:
        return phantom.caption(self.phantoms[index], wording)

    def collection(self, index: int) -> str:
        return "phantoms"


class Files(FileSet):
    """The images of a folder, or of the rows of a CSV (see `read_rows`), as central squares.

    An image without a caption and without labels has data.caption.
    """

    def __init__(self, config: DataConfig, channels: int) -> None:
        source = Path(config.path or "")
        super().__init__(read_rows(source, config), source)
        self.augmented, self.default_caption = config.augment, config.caption
        states = [(row["path"], Path(row["path"]).stat()) for row in self.rows]
        stamps = [[path, state.st_size, state.st_mtime_ns] for path, state in states]
        stamps.append([code_version(image_files.__file__)])
        self.pixels = cached_pixels(self, f"files-{digest(stamps)}", config, channels)
        self.pixels.fill()  # a damaged file is found now, not hours later
        # the key is that of the content: the same images elsewhere are the same dataset
        words = [{**row, "path": Path(row["path"]).name} for row in self.rows]
        self.key = f"{digest([words, config.caption])}-{self.pixels.digest()}"

    def images(self, indices: Tensor) -> Tensor:
        return from_bytes(self.pixels[indices.numpy()])

    def caption(self, index: int, wording: int) -> str:
        row = self.rows[index]
        if row.get("caption"):
            return row["caption"]
        if not row.get("labels"):
            return self.default_caption
        age = int(float(row["age"])) if row.get("age") else None
        labels = [label for label in row["labels"].split("|") if label]
        return phantom.caption_from_labels(
            labels, row.get("view") or "", row.get("sex") or "", age, wording
        )

    def collection(self, index: int) -> str:
        return self.rows[index].get("source_repo", "")


def cached_pixels(images: ImageSet, name: str, config: DataConfig, channels: int) -> CachedRows:
    """uint8 [n, channels, size, size]: each image's central square, made when first asked for."""

    def make(index: int) -> np.ndarray:
        square = image_files.fit_square(images.load(index), config.size)
        return to_bytes(image_files.to_channels(square, channels))

    path = Path(config.cache) / f"{name}-{config.size}-{channels}"
    shape = (len(images), channels, config.size, config.size)
    return CachedRows(path, shape, np.uint8, make)


def configured_phantoms(config: DataConfig) -> list[phantom.Phantom]:
    """The phantoms of a run's seeds, without the findings that it excludes."""
    seeds = range(config.phantom_seed, config.phantom_seed + config.phantoms)
    return phantom.sample_phantoms(seeds, exclude=excluded_phantoms(config))


def excluded_phantoms(config: DataConfig) -> list[str]:
    """The phantom's findings among data.exclude."""
    return [name for name in FINDINGS if captions.readable(name) in excluded(config)]


def to_bytes(pixels: Tensor) -> np.ndarray:
    """[-1, 1] -> uint8 of the same shape"""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().numpy().astype(np.uint8)


def from_bytes(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float32)) / 127.5 - 1
