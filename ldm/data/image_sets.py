"""Sets of images to be measured: each as its file has it, of any size, read when asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from ldm.config import ConfigError
from ldm.data import phantom
from ldm.data.data_config import DataConfig
from ldm.data.phantom import FINDINGS, captions
from ldm.data.radiographs import SUFFIXES, labels_of, read_csv, read_folder, sample_ids
from ldm.pictures import image_files

log = logging.getLogger(__name__)

SHEETS = ("grid.png", "trajectory.png")  # what sample.py writes beside its images


class ImageSet(Protocol):
    """Numbered images with their labels."""

    name: str  # what the set was asked for as

    def __len__(self) -> int: ...

    def load(self, index: int) -> Tensor:
        """float32 [C, H, W] in [-1, 1]; ValueError, naming the file, if it cannot be used."""

    def sample_id(self, index: int) -> str:
        """What a report or a log may say of it; another one for each image."""

    def findings(self, index: int) -> Mapping[str, bool]:
        """Is it there? for each finding that the set knows of; the words are the captions'."""

    def text(self, index: int) -> Mapping[str, str]:
        """What the image says of itself: `synthetic`, and `prompt`, if it was drawn by a model."""

    def patient(self, index: int) -> str | None:
        """The same for images of one patient; None where the set does not say whose it is."""


class FileSet:
    """The images of a folder and its folders, or of the rows of a CSV (as data.path in training).

    Sheets that sample.py wrote into a folder are left out, and so is what a CSV marks with a
    `quality_flag`. CSV@SPLIT are the rows whose `split` is that and nothing else.
    """

    def __init__(self, source: str) -> None:
        self.name = source
        before, table, split = source.rpartition(".csv@")
        path = Path(f"{before}.csv" if table else source)
        if not path.exists():
            raise ConfigError(f"{path} does not exist; name a folder, a CSV or phantoms:N")
        config = DataConfig(path=str(path), split=split if table else None)
        rows = read_csv(path, config) if path.suffix == ".csv" else read_folder(path, config)
        if table:
            rows = of_split(rows, path, split)
        self.rows = [row for row in rows if Path(row["path"]).name not in SHEETS]
        if not self.rows:
            raise ConfigError(f"{source} holds no images ({', '.join(SUFFIXES)})")
        self.path, self.known = path, labels_of(self.rows)
        self.ids = sample_ids(self.rows, path)

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, index: int) -> Tensor:
        return image_files.load(self.rows[index]["path"])

    def sample_id(self, index: int) -> str:
        return self.ids[index]

    def findings(self, index: int) -> Mapping[str, bool]:
        return self.known[index]

    def text(self, index: int) -> Mapping[str, str]:
        path = Path(self.rows[index]["path"])
        return image_files.read_text(path) if path.suffix.lower() == ".png" else {}

    def patient(self, index: int) -> str | None:
        return self.rows[index].get("patient_id") or None


def of_split(rows: list[dict[str, str]], path: Path, split: str) -> list[dict[str, str]]:
    """The rows whose column `split` has this word; ConfigError if there are none.

    Training is more lenient, but what is held out must not be what was trained on.
    """
    if "split" not in rows[0]:
        raise ConfigError(f"{path} has no column `split`, so nothing is known to be of {split!r}")
    found = [row for row in rows if row["split"] == split]
    if not found:
        raise ConfigError(f"{path} has no row of split {split!r}")
    return found


class PhantomSet:
    """Phantoms of consecutive seeds, `phantoms:N` or `phantoms:N:FIRST_SEED`."""

    def __init__(self, source: str, size: int = 128) -> None:
        self.name, self.size = source, size
        _, *numbers = source.split(":")
        try:
            count, first = int(numbers[0]), int(numbers[1]) if len(numbers) > 1 else UNSEEN
        except ValueError:
            count = first = -1
        if count < 1 or first < 0 or len(numbers) > 2:
            raise ConfigError(f"{source!r} wants to be phantoms:N or phantoms:N:FIRST_SEED")
        self.phantoms = phantom.sample_phantoms(range(first, first + count))

    def __len__(self) -> int:
        return len(self.phantoms)

    def load(self, index: int) -> Tensor:
        return phantom.render([self.phantoms[index]], size=self.size).images[0]

    def sample_id(self, index: int) -> str:
        return f"phantom-{self.phantoms[index].seed}"

    def findings(self, index: int) -> Mapping[str, bool]:
        there = self.phantoms[index]
        return {captions.readable(name): there.finding(name) is not None for name in FINDINGS}

    def text(self, index: int) -> Mapping[str, str]:
        return {"synthetic": "This is a computed phantom; it shows no patient."}

    def patient(self, index: int) -> str:
        return self.sample_id(index)


UNSEEN = 900_000_000  # first seed of phantoms that nothing of ours was trained on


def open_set(source: str, size: int = 128) -> ImageSet:
    """The set that a folder, a CSV, CSV@SPLIT or `phantoms:N` names; ConfigError for none.

    size: pixels at which phantoms are drawn; files are as they are
    """
    return PhantomSet(source, size) if source.startswith("phantoms:") else FileSet(source)


def patients(asked: ImageSet, indices: Iterable[int]) -> tuple[list[str], int]:
    """The patient of each image, or the image itself where none is known; and how many those are.

    A page that speaks of patients is to say so where there are any.
    """
    named = [asked.patient(index) for index in indices]
    apart = [name or f"image {place}" for place, name in enumerate(named)]
    return apart, named.count(None)


def warn_of_shared_patients(one: ImageSet, other: ImageSet) -> None:
    """A line in the log if two splits of a CSV have films of the same patients.

    Not of two CSVs: each may count its patients from 1.
    """
    if not (isinstance(one, FileSet) and isinstance(other, FileSet) and one.path == other.path):
        return
    first, second = ({asked.patient(i) for i in range(len(asked))} for asked in (one, other))
    if both := len((first & second) - {None}):
        log.warning("patients with films in both %s and %s: %d", one.name, other.name, both)


def load_each(
    asked: ImageSet, limit: int | None = None, skip_bad: bool = False
) -> Iterator[tuple[int, Tensor]]:
    """The number and the image [C, H, W] of each, the first `limit` of them.

    skip_bad: leave out what cannot be read, whose id is in the log, in the place of a ValueError
    """
    for index in range(len(asked) if limit is None else min(limit, len(asked))):
        try:
            yield index, asked.load(index)
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{error}; --skip-bad goes on without it") from error
            # not the error, whose path may name a patient
            log.warning("left out, for it cannot be read: %s", asked.sample_id(index))
