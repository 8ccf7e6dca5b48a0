"""Sets of images to be measured: each as its file has it, of any size, read when asked for."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from ldm.config import ConfigError
from ldm.data import phantom
from ldm.data.data_config import DataConfig
from ldm.data.image_tables import Row, labels_of, read_rows, sample_ids
from ldm.data.phantom import FINDINGS, captions
from ldm.pictures import image_files

log = logging.getLogger(__name__)

SHEETS = ("grid.png", "trajectory.png")  # what sample.py writes beside its images
UNSEEN = 900_000_000  # first seed of phantoms that nothing of ours was trained on


class ImageSet(Protocol):
    """Numbered images with their labels."""

    name: str  # as `open_set` takes it

    def __len__(self) -> int: ...

    def load(self, index: int) -> Tensor:
        """float32 [C, H, W] in [-1, 1]; ValueError, naming the file, if it cannot be used."""

    def sample_id(self, index: int) -> str:
        """A distinct name without patient data, for reports and logs."""

    def findings(self, index: int) -> Mapping[str, bool]:
        """{finding: is it there?} of those that the set knows, in the words of captions."""

    def text(self, index: int) -> Mapping[str, str]:
        """Texts stored in the image: `synthetic`, and `prompt`, if a model drew it."""

    def patient(self, index: int) -> str | None:
        """Equal for images of one patient; None where the patient is unknown."""


class NumberedImages:
    """The part of an image set that lists give: the id of each image, and its known findings."""

    def __init__(self, name: str, ids: Sequence[str], known: Sequence[Mapping[str, bool]]) -> None:
        self.name, self.ids, self.known = name, ids, known

    def __len__(self) -> int:
        return len(self.ids)

    def sample_id(self, index: int) -> str:
        return self.ids[index]

    def findings(self, index: int) -> Mapping[str, bool]:
        return self.known[index]


class FileSet(NumberedImages):
    """The images of a folder or a CSV, by the rows that `read_rows` gives."""

    def __init__(self, rows: list[Row], path: Path, name: str = "") -> None:
        super().__init__(name, sample_ids(rows, path), labels_of(rows))
        self.rows, self.path = rows, path

    def load(self, index: int) -> Tensor:
        return image_files.load(self.rows[index]["path"])

    def text(self, index: int) -> Mapping[str, str]:
        path = Path(self.rows[index]["path"])
        return image_files.read_text(path) if path.suffix.lower() == ".png" else {}

    def patient(self, index: int) -> str | None:
        return self.rows[index].get("patient_id") or None


class PhantomSet(NumberedImages):
    """Phantoms, of which all findings are known."""

    def __init__(self, phantoms: list[phantom.Phantom], size: int, name: str = "") -> None:
        words = {finding: captions.readable(finding) for finding in FINDINGS}
        known = [{words[f]: p.finding(f) is not None for f in FINDINGS} for p in phantoms]
        super().__init__(name, [f"phantom-{p.seed}" for p in phantoms], known)
        self.phantoms, self.size = phantoms, size

    def load(self, index: int) -> Tensor:
        return phantom.render([self.phantoms[index]], size=self.size).images[0]

    def text(self, index: int) -> Mapping[str, str]:
        return {"synthetic": "This is a computed phantom; it shows no patient."}

    def patient(self, index: int) -> str:
        return self.sample_id(index)


def open_set(source: str, size: int = 128) -> ImageSet:
    """A folder and its folders, a CSV, CSV@SPLIT (the rows whose `split` is that), or phantoms:N.

    phantoms:N:FIRST_SEED names other phantoms than the N that nothing was trained on. The sheets
    that sample.py writes into a folder are left out. Raises ConfigError for anything else.
    size: pixels at which phantoms are drawn; files are as they are
    """
    if source.startswith("phantoms:"):
        if not (match := re.fullmatch(r"phantoms:0*([1-9]\d*)(?::(\d+))?", source)):
            raise ConfigError(f"expected phantoms:N or phantoms:N:FIRST_SEED, got {source!r}")
        first = int(match[2] or UNSEEN)
        seeds = range(first, first + int(match[1]))
        return PhantomSet(phantom.sample_phantoms(seeds), size, source)
    before, table, split = source.rpartition(".csv@")
    path = Path(f"{before}.csv" if table else source)
    if not path.exists():
        raise ConfigError(f"{path} does not exist; name a folder, a CSV or phantoms:N")
    rows = read_rows(path, DataConfig(path=str(path), split=split if table else None))
    if table:  # training takes rows without a split, too; what is held out must not be among them
        rows = [row for row in rows if row.get("split") == split]
    rows = [row for row in rows if Path(row["path"]).name not in SHEETS]
    if not rows:
        what = f"row whose column `split` is {split!r}" if table else "image beside sample sheets"
        raise ConfigError(f"{path} has no {what}")
    return FileSet(rows, path, source)


def patients(asked: ImageSet, indices: Iterable[int]) -> tuple[list[str], int]:
    """The patient of each image, or the image's place if unknown; and how many are unknown."""
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

    skip_bad: leave out unreadable images and log their ids, instead of raising ValueError
    """
    for index in range(len(asked) if limit is None else min(limit, len(asked))):
        try:
            yield index, asked.load(index)
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{error}; --skip-bad goes on without it") from error
            # not the error, whose path may name a patient
            log.warning("left out, for it cannot be read: %s", asked.sample_id(index))
