"""Where radiographs come from: phantoms rendered when they are first drawn, and files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ldm.config import ConfigError
from ldm.data import phantom
from ldm.data.cache import CachedRows
from ldm.data.csv_tables import read_table
from ldm.data.data_config import DataConfig
from ldm.data.phantom import FINDINGS, captions
from ldm.pictures import image_files
from ldm.system.fingerprint import code_version, digest

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


class Phantoms:
    """Phantom chests of consecutive seeds, each rendered when it is first drawn."""

    augmented = False  # there is always another seed

    def __init__(self, config: DataConfig, channels: int) -> None:
        seeds = range(config.phantom_seed, config.phantom_seed + config.phantoms)
        exclude = [name for name in FINDINGS if captions.readable(name) in excluded(config)]
        self.phantoms = phantom.sample_phantoms(seeds, exclude=exclude)
        what = [phantom_version(), config.phantom_seed, config.phantoms, exclude]
        self.key = f"{digest(what)}-{config.size}-{channels}"
        shape = (len(seeds), channels, config.size, config.size)

        def make(index: int) -> np.ndarray:
            rendered = phantom.render([self.phantoms[index]], size=config.size)
            return to_bytes(image_files.to_channels(rendered.images[0], channels))

        path = Path(config.cache) / f"phantoms-{self.key}"
        self.pixels = CachedRows(path, shape, np.uint8, make)

    def __len__(self) -> int:
        return len(self.phantoms)

    def images(self, indices: Tensor) -> Tensor:
        return from_bytes(self.pixels[indices.numpy()])

    def caption(self, index: int, wording: int) -> str:
        return phantom.caption(self.phantoms[index], wording)

    def sample_id(self, index: int) -> str:
        return f"phantom-{self.phantoms[index].seed}"

    def findings(self, index: int) -> Mapping[str, bool]:
        there = self.phantoms[index]
        return {captions.readable(name): there.finding(name) is not None for name in FINDINGS}

    def collection(self, index: int) -> str:
        return "phantoms"


class Files:
    """The images of a folder, or of the rows of a CSV, as central squares.

    CSV columns: `filename` (beside the CSV, or in images/ beside it); then `caption`, or `labels`
    (separated by |) with `view`, `sex` and `age`. Rows of another `split`, rows with a
    `quality_flag` and rows with an excluded label are left out. In a folder without a CSV the
    caption of x.png is in x.txt, else `data.caption`.
    """

    def __init__(self, config: DataConfig, channels: int) -> None:
        source = Path(config.path or "")
        self.augmented = config.augment
        self.rows = (
            read_csv(source, config) if source.suffix == ".csv" else read_folder(source, config)
        )
        self.default_caption = config.caption
        self.known = labels_of(self.rows)
        self.ids = sample_ids(self.rows, source)
        if not self.rows:
            raise ConfigError(f"{source} holds no usable images ({', '.join(SUFFIXES)})")
        states = [(row["path"], Path(row["path"]).stat()) for row in self.rows]
        stamps = [[path, state.st_size, state.st_mtime_ns] for path, state in states]
        stamps.append([code_version(image_files.__file__)])
        shape = (len(self.rows), channels, config.size, config.size)

        def read(row: dict[str, str]) -> Tensor:
            image = image_files.fit_square(image_files.load(row["path"]), config.size)
            return image_files.to_channels(image, channels)

        path = Path(config.cache) / f"files-{digest(stamps)}-{config.size}-{channels}"
        self.pixels = CachedRows(path, shape, np.uint8, lambda i: to_bytes(read(self.rows[i])))
        self.pixels.fill()  # a damaged file is found now, not hours later
        # the key is that of the content: the same images elsewhere are the same dataset
        words = [{**row, "path": Path(row["path"]).name} for row in self.rows]
        self.key = f"{digest([words, config.caption])}-{self.pixels.digest()}"

    def __len__(self) -> int:
        return len(self.rows)

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

    def sample_id(self, index: int) -> str:
        return self.ids[index]

    def findings(self, index: int) -> Mapping[str, bool]:
        return self.known[index]

    def collection(self, index: int) -> str:
        return self.rows[index].get("source_repo", "")


def sample_ids(rows: Sequence[Mapping[str, str]], source: Path) -> list[str]:
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


def labels_of(rows: Sequence[Mapping[str, str]]) -> list[dict[str, bool]]:
    """{finding: is it there?} of each row; empty for one without labels.

    What one collection never labels is not absent from its films.
    """
    known: dict[str, set[str]] = {}
    for row in rows:
        there = known.setdefault(row.get("source_repo", ""), set())
        there |= _words(row.get("labels")) - {""}
    return [
        {word: word in _words(row["labels"]) for word in known[row.get("source_repo", "")]}
        if row.get("labels")
        else {}
        for row in rows
    ]


def _words(labels: str | None) -> set[str]:
    """ "Effusion|Mass" -> {"pleural effusion", "lung mass"}; No Finding is "" """
    return {captions.readable(label) for label in (labels or "").split("|")}


def read_folder(source: Path, config: DataConfig) -> list[dict[str, str]]:
    if not source.is_dir():
        raise ConfigError(f"data.path {source} is no folder and no .csv file")
    if config.exclude:
        raise ConfigError(f"data.exclude wants labels, which only a CSV has; {source} is a folder")
    rows = []
    for path in sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES):
        text = path.with_suffix(".txt")
        try:
            caption = text.read_text(encoding="utf-8-sig").strip() if text.exists() else ""
        except UnicodeDecodeError as e:
            raise ConfigError(f"{text} is no UTF-8 text; save it as such") from e
        rows.append({"path": str(path), "caption": caption})
    return rows


def read_csv(source: Path, config: DataConfig) -> list[dict[str, str]]:
    rows = read_table(source)
    if not rows or "filename" not in rows[0]:
        raise ConfigError(f"{source} needs a header line with a column `filename`")
    unwanted, kept = excluded(config), []
    check_exclude(unwanted, set().union(*(_words(row.get("labels")) for row in rows)))
    for number, row in enumerate(rows, start=2):
        where = f"{source}, line {number}"
        other_split = config.split and row.get("split") not in (None, "", config.split)
        labels = _words(row.get("labels"))
        flagged = row.get("quality_flag") not in (None, "", "0")
        if other_split or flagged or labels & unwanted:
            continue
        if unwanted and not row.get("labels"):
            raise ConfigError(f"{where}: without labels nobody knows if data.exclude concerns it")
        if row.get("age") and not re.fullmatch(r"\d{1,3}(\.\d*)?", row["age"]):
            raise ConfigError(f"{where}: the age is no number of years; empty is allowed")
        beside = source.parent / row["filename"]
        path = beside if beside.is_file() else source.parent / "images" / row["filename"]
        if not path.is_file():
            raise ConfigError(
                f"{where} names {row['filename'] or 'no file'}, which is not beside it"
            )
        kept.append({**row, "path": str(path)})
    if not kept:
        raise ConfigError(
            f"{source}: none of {len(rows)} rows is usable: of split {config.split!r}, without "
            "quality_flag and not in data.exclude"
        )
    return kept


def phantom_version() -> str:
    """A hash of the phantom's code, so that no cache outlives a change of it."""
    return code_version(*sorted(Path(phantom.__file__).parent.glob("*.py")))


def excluded(config: DataConfig) -> set[str]:
    """The words of data.exclude as captions have them: Effusion is "pleural effusion"."""
    return {captions.readable(name) for name in config.exclude}


def check_exclude(unwanted: set[str], labels: set[str]) -> None:
    """Raises ConfigError for a word that neither a phantom nor a file is labelled with."""
    known = labels | {captions.readable(name) for name in FINDINGS}
    if unknown := sorted(unwanted - known):
        raise ConfigError(
            f"data.exclude names {', '.join(unknown)}, which nothing is labelled with; "
            f"there are {', '.join(sorted(known - {''}))}"
        )


def to_bytes(pixels: Tensor) -> np.ndarray:
    """[-1, 1] -> uint8 of the same shape"""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().numpy().astype(np.uint8)


def from_bytes(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float32)) / 127.5 - 1
