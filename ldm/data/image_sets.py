"""Images with labels, from a folder, a CSV or phantoms: each of any size, read when it is used."""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Protocol

from torch import Tensor

from ldm.config import ConfigError
from ldm.data import DataConfig, attributes, phantom
from ldm.data.csv_tables import read_table
from ldm.data.phantom import BODY_FINDINGS, FINDINGS, captions
from ldm.data.phantom.selection import parse, possible, select
from ldm.pictures import image_files

log = logging.getLogger(__name__)

SHEETS = ("grid.png", "trajectory.png")  # what sample.py writes beside its images
UNSEEN = 900_000_000  # first seed of phantoms that nothing of ours was trained on
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
Row = dict[str, str]  # {column: cell} and the image's `path`


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

    def load(self, index: int) -> Tensor:
        """float32 [C, H, W] in [-1, 1]; ValueError, naming the file, if it cannot be used."""

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

    def attributes(self, index: int) -> Mapping[str, str]:
        return attributes.of_row(self.rows[index])

    def load(self, index: int) -> Tensor:
        return image_files.load(self.rows[index]["path"])

    def text(self, index: int) -> Mapping[str, str]:
        path = Path(self.rows[index]["path"])
        return image_files.read_text(path) if path.suffix.lower() == ".png" else {}

    def patient(self, index: int) -> str | None:
        return self.rows[index].get("patient_id") or None


class PhantomSet(NumberedImages):
    """Phantoms, of which each finding that their picture can show is known."""

    def __init__(self, phantoms: list[phantom.Phantom], size: int, name: str = "") -> None:
        known = [
            {
                captions.readable(finding): p.finding(finding) is not None
                for finding in possible(p.region, p.modality)
            }
            for p in phantoms
        ]
        super().__init__(name, [f"phantom-{p.seed}" for p in phantoms], known)
        self.phantoms, self.size = phantoms, size

    def attributes(self, index: int) -> Mapping[str, str]:
        return attributes.of_phantom(self.phantoms[index])

    def load(self, index: int) -> Tensor:
        return phantom.render([self.phantoms[index]], size=self.size).images[0]

    def text(self, index: int) -> Mapping[str, str]:
        return {"synthetic": "This is a computed phantom; it shows no patient."}

    def patient(self, index: int) -> str:
        return self.sample_id(index)


def open_set(source: str, size: int = 128) -> ImageSet:
    """A folder and its folders, a CSV, CSV@SPLIT (the rows whose `split` is that), or phantoms:N.

    phantoms: see `named_phantoms`. The sheets that sample.py writes into a folder are left out.
    Raises ConfigError for anything else.
    size: pixels at which phantoms are drawn; files are as they are
    """
    if source.startswith("phantoms:"):
        return PhantomSet(named_phantoms(source), size, source)
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


def named_phantoms(source: str, exclude: Sequence[str] = ()) -> list[phantom.Phantom]:
    """phantoms:N are chests that nothing was trained on, phantoms:N:FIRST_SEED others.

    phantoms:N:FIRST_SEED:region=hand+knee,view=lateral are pictures of those regions from that
    side; `phantom.selection` has the settings. Raises ConfigError.
    """
    match = re.fullmatch(r"phantoms:0*([1-9]\d*)(?::(\d+)(?::(\w+=.+))?)?", source)
    if not match:
        raise ConfigError(
            "expected phantoms:N, phantoms:N:FIRST_SEED or phantoms:N:FIRST_SEED:region=hand+knee, "
            f"got {source!r}"
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


def read_rows(source: Path, config: DataConfig) -> list[Row]:
    """The usable images of a folder or of a CSV.

    CSV columns: `filename` (beside the CSV, or in images/ beside it); then `caption`, or `labels`
    (separated by |) with `view`, `sex` and `age`. Rows of another `split`, rows with a
    `quality_flag` and rows with an excluded label are left out. In a folder without a CSV the
    caption of x.png is in x.txt.
    """
    rows = read_csv(source, config) if source.suffix == ".csv" else read_folder(source, config)
    if not rows:
        raise ConfigError(f"{source} holds no images ({', '.join(SUFFIXES)})")
    return rows


def sample_ids(rows: Sequence[Row], source: Path) -> list[str]:
    """The name of each row's file without its suffix; where several files have one, the path of
    each in the folder, or from where the CSV is.
    """
    paths = [Path(row["path"]) for row in rows]
    files = Counter(path.stem for path in set(paths))
    root = source.parent if source.suffix == ".csv" else source
    return [
        path.stem if files[path.stem] == 1 else Path(os.path.relpath(path, root)).as_posix()
        for path in paths
    ]


def labels_of(rows: Sequence[Row]) -> list[dict[str, bool]]:
    """{finding: is it there?} of each row; empty for one without labels.

    A finding that a collection never labels is unknown in its films, not absent.
    """
    named: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        named[row.get("source_repo", "")] |= _words(row) - {""}
    return [
        {word: word in _words(row) for word in named[row.get("source_repo", "")]}
        if row.get("labels")
        else {}
        for row in rows
    ]


def _words(row: Row) -> set[str]:
    """ "Effusion|Mass" -> {"pleural effusion", "lung mass"}; No Finding is "" """
    return {captions.readable(label) for label in (row.get("labels") or "").split("|")}


def read_folder(source: Path, config: DataConfig) -> list[Row]:
    if not source.is_dir():
        raise ConfigError(f"data.path {source} is no folder and no .csv file")
    if config.exclude:
        raise ConfigError(f"data.exclude needs labels, which only a CSV has; {source} is a folder")
    rows = []
    for path in sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES):
        text = path.with_suffix(".txt")
        try:
            caption = text.read_text(encoding="utf-8-sig").strip() if text.exists() else ""
        except UnicodeDecodeError as e:
            raise ConfigError(f"{text} is no UTF-8 text; save it as such") from e
        rows.append({"path": str(path), "caption": caption})
    return rows


def read_csv(source: Path, config: DataConfig) -> list[Row]:
    rows = read_table(source)
    if not rows or "filename" not in rows[0]:
        raise ConfigError(f"{source} needs a header line with a column `filename`")
    check_exclude(config, set().union(*map(_words, rows)))
    unwanted, kept = excluded(config), []
    for number, row in enumerate(rows, start=2):
        where = f"{source}, line {number}"
        other_split = config.split and row.get("split") not in (None, "", config.split)
        flagged = row.get("quality_flag") not in (None, "", "0")
        if other_split or flagged or _words(row) & unwanted:
            continue
        if unwanted and not row.get("labels"):
            raise ConfigError(f"{where}: data.exclude needs a label in each row")
        if row.get("age") and not re.fullmatch(r"\d{1,3}(\.\d*)?", row["age"]):
            raise ConfigError(f"{where}: the age is not a number of years; it may be empty")
        places = (source.parent / row["filename"], source.parent / "images" / row["filename"])
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            name = row["filename"] or "no file"
            raise ConfigError(f"{where} names {name}, which is not beside it")
        kept.append({**row, "path": str(path)})
    if not kept:
        raise ConfigError(
            f"{source}: none of {len(rows)} rows is usable: of split {config.split!r}, without "
            "quality_flag and not in data.exclude"
        )
    return kept


def excluded(config: DataConfig) -> set[str]:
    """The words of data.exclude as captions have them: Effusion is "pleural effusion"."""
    return {captions.readable(name) for name in config.exclude}


def check_exclude(config: DataConfig, labels: Set[str] = frozenset()) -> None:
    """Raises ConfigError for a word that neither a phantom nor a file is labelled with."""
    known = {*labels, *map(captions.readable, (*FINDINGS, *BODY_FINDINGS))} - {""}
    if unknown := sorted(excluded(config) - known):
        raise ConfigError(
            f"data.exclude names {', '.join(unknown)}, which nothing is labelled with; "
            f"there are {', '.join(sorted(known))}"
        )
