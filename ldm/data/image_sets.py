"""Images with labels, from a folder, a table or phantoms: of any size, read when they are used."""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

from torch import Tensor

from ldm.config import ConfigError
from ldm.data import DataConfig, attributes, dicom_rows, phantom
from ldm.data.csv_tables import is_table
from ldm.data.film_rows import Row, read_rows, words
from ldm.data.phantom import captions
from ldm.data.phantom.selection import parse, possible, seen_bones, select
from ldm.pictures import bit_depths, image_files

log = logging.getLogger(__name__)

UNSEEN = 900_000_000  # first seed of phantoms that nothing of ours was trained on


class LabelledImages(Protocol):
    """Numbered images with their labels."""

    def __len__(self) -> int: ...

    def sample_id(self, index: int) -> str:
        """A distinct name without patient data, for reports and logs."""

    def findings(self, index: int) -> Mapping[str, bool]:
        """{finding: is it there?} of those that the source knows, in the words of captions."""


class ImageSet(LabelledImages, Protocol):
    """Images to be measured."""

    name: str  # as `open_set` takes it
    count: str  # of what was read and what was not, and why

    def attributes(self, index: int) -> Mapping[str, str]:
        """{"region": "knee", ...} of what is known beside findings (data/attributes.py)."""

    def load(self, index: int) -> Tensor:
        """float32 [C, H, W] in [-1, 1]; ValueError, naming the file, if it cannot be used."""

    def text(self, index: int) -> Mapping[str, str]:
        """Texts stored in the image: `synthetic`, and `prompt`, if a model drew it."""

    def patient(self, index: int) -> str | None:
        """Equal for images of one patient; None where the patient is unknown."""


class NumberedImages:
    """The part of an image set that a list gives: the id of each image."""

    def __init__(self, name: str, ids: Sequence[str], count: str) -> None:
        self.name, self.ids, self.count = name, ids, count

    def __len__(self) -> int:
        return len(self.ids)

    def sample_id(self, index: int) -> str:
        return self.ids[index]


class FileSet(NumberedImages):
    """The images of a folder or a CSV, by the rows that `read_rows` gives, with their count."""

    def __init__(self, rows: list[Row], path: Path, count: str, name: str = "") -> None:
        super().__init__(name, sample_ids(rows, path), count)
        self.rows, self.path = rows, path
        # a finding that a collection never labels is unknown in its films, not absent
        labelled: defaultdict[str, set[str]] = defaultdict(set)
        for row in rows:
            labelled[row.get("source_repo", "")] |= words(row) - {""}
        self.labelled = {source: sorted(found) for source, found in labelled.items()}

    def findings(self, index: int) -> Mapping[str, bool]:
        row = self.rows[index]
        if not row.get("labels"):
            return {}
        shown, doubtful = words(row), words(row, "uncertain")
        labelled = self.labelled[row.get("source_repo", "")]
        return {word: word in shown for word in labelled if word not in doubtful}

    def attributes(self, index: int) -> Mapping[str, str]:
        return attributes.of_row(self.rows[index])

    def load(self, index: int) -> Tensor:
        row = self.rows[index]
        frame, window = row.get("file_frame"), row.get("ct_window")
        return image_files.load(row["path"], int(frame) if frame else None, window or None)

    def text(self, index: int) -> Mapping[str, str]:
        path = Path(self.rows[index]["path"])
        drawn = path.suffix.lower() in (".png", ".dcm")
        return image_files.read_text(path) if drawn else {}

    def patient(self, index: int) -> str | None:
        return self.rows[index].get("patient_id") or None


class PhantomSet(NumberedImages):
    """Phantoms, of which each finding that their picture can show is known."""

    def __init__(self, phantoms: list[phantom.Phantom], size: int, name: str = "") -> None:
        super().__init__(
            name, [f"phantom-{p.seed}" for p in phantoms], f"{len(phantoms):,} phantoms"
        )
        self.phantoms, self.size = phantoms, size

    def attributes(self, index: int) -> Mapping[str, str]:
        return attributes.of_phantom(self.phantoms[index])

    def findings(self, index: int) -> Mapping[str, bool]:
        p = self.phantoms[index]
        bones = {f"bone={bone}": bone != p.without for bone in seen_bones(p)}
        return bones | {
            captions.readable(finding): p.finding(finding) is not None
            for finding in possible(p.region, p.modality)
        }

    def load(self, index: int) -> Tensor:
        return phantom.render([self.phantoms[index]], size=self.size).images[0]

    def text(self, index: int) -> Mapping[str, str]:
        return {"synthetic": "This is a computed phantom; it shows no patient."}

    def patient(self, index: int) -> str:
        return self.sample_id(index)


def open_set(source: str, size: int = 128) -> FileSet | PhantomSet:
    """A folder and its folders, a table, SET@SPLIT (the rows whose `split` is that), or phantoms:N.

    phantoms: see `named_phantoms`. The sheets that sample.py writes into a folder are left out.
    Raises ConfigError for anything else.
    size: pixels at which phantoms are drawn; files are as they are
    """
    if source.startswith("phantoms:"):
        return PhantomSet(named_phantoms(source), size, source)
    before, table, split = ("", "", "") if Path(source).exists() else source.rpartition("@")
    path = Path(before if table else source)
    if not path.exists():
        raise ConfigError(f"{path} does not exist; name a folder, a CSV or phantoms:N")
    rows, count = read_rows(path, DataConfig(path=str(path), split=split if table else None))
    if table:  # training takes rows without a split, too; what is held out must not be among them
        everything, rows = rows, [row for row in rows if row.get("split") == split]
        count.films = len(rows)
        count.note(len(everything) - len(rows), "without a split are left out")
    if not rows:
        raise ConfigError(f"{path} has no row whose column `split` is {split!r}")
    return FileSet(rows, path, str(count), source)


def named_phantoms(source: str, exclude: Sequence[str] = ()) -> list[phantom.Phantom]:
    """phantoms:N are chests that nothing was trained on, phantoms:N:FIRST_SEED others.

    phantoms:N:FIRST_SEED:region=hand+knee,view=lateral are pictures of those regions from that
    side; `phantom.selection` has the settings. Raises ConfigError.
    """
    match = re.fullmatch(r"phantoms:0*([1-9]\d{0,5})(?::(\d{1,18})(?::(\w+=.+))?)?", source)
    if not match:
        raise ConfigError(
            "expected phantoms:N, N below a million, phantoms:N:FIRST_SEED or "
            f"phantoms:N:FIRST_SEED:region=hand+knee, got {source!r}"
        )
    first = int(match[2] or UNSEEN)
    try:
        return select(range(first, first + int(match[1])), parse(match[3] or ""), exclude)
    except ValueError as e:
        raise ConfigError(f"{source}: {e}") from e


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
    asked: ImageSet,
    limit: int | None = None,
    skip_bad: bool = False,
    indices: Iterable[int] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """The number and the image [C, H, W] of each, the first `limit` of them.

    skip_bad: leave out unreadable images and log their ids, instead of raising ValueError
    indices: which of them (all)
    """
    for index in islice(range(len(asked)) if indices is None else indices, limit):
        try:
            yield index, asked.load(index)
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{error}; --skip-bad goes on without it") from error
            # not the error, whose path may name a patient
            log.warning("left out, for it cannot be read: %s", asked.sample_id(index))
    bit_depths.tell_guesses()


def sample_ids(rows: Sequence[Row], source: Path) -> list[str]:
    """The name of each row's file without its suffix; where several files have one, the path of
    each in the folder, or from where the CSV is.
    """
    paths = [Path(row["path"]) for row in rows]
    files = Counter(path.stem for path in set(paths))
    root = source.parent if is_table(source) else source
    names = [
        path.stem if files[path.stem] == 1 else Path(os.path.relpath(path, root)).as_posix()
        for path in paths
    ]
    return [dicom_rows.sample_id(*each) for each in zip(names, rows, strict=True)]
