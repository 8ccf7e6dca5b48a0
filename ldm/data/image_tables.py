"""Rows that describe image files, from a folder or a CSV: their paths, labels and sample ids."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from pathlib import Path

from ldm.config import ConfigError
from ldm.data.csv_tables import read_table
from ldm.data.data_config import DataConfig
from ldm.data.phantom import FINDINGS, captions

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
Row = dict[str, str]  # {column: cell} and the image's `path`


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
    known = {*labels, *map(captions.readable, FINDINGS)} - {""}
    if unknown := sorted(excluded(config) - known):
        raise ConfigError(
            f"data.exclude names {', '.join(unknown)}, which nothing is labelled with; "
            f"there are {', '.join(sorted(known))}"
        )
