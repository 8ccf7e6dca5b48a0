"""Texts to learn words from: the captions of a table, of phantoms, or of both; no pictures."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ldm.config import ConfigError
from ldm.data import phantom
from ldm.data.csv_tables import read_table
from ldm.data.data_config import DataConfig
from ldm.data.phantom import FINDINGS, captions
from ldm.data.radiographs import check_exclude, excluded
from ldm.system.fingerprint import digest

log = logging.getLogger(__name__)

WORDINGS = 8  # of a phantom's caption; fewer repeat
HELD_OUT = 10  # every tenth text is


@dataclass(frozen=True)
class Texts:
    """Distinct texts, sorted; none is in both."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    key: str  # changes whenever a text does; their order in the file is no matter


def open_texts(data: DataConfig) -> Texts:
    """All texts of a run as one: the table's where data.share is 1, else the phantoms' too.

    A text counts once, however often it is written; so the share says only who is there, and
    `open_shares` is what to draw from. Raises ConfigError for a table that cannot be used.
    """
    return split(text for found, _ in _sources(data) for text in found)


def open_shares(data: DataConfig) -> list[tuple[Texts, float]]:
    """The table's texts and the phantoms', each with its share of every batch."""
    return [(split(found), share) for found, share in _sources(data)]


def split(found: Iterable[str]) -> Texts:
    """Texts with their white space folded, each once; held out is every tenth, by its hash.

    So a text is held out or not whatever it stands beside, in capitals or not.
    Raises ConfigError where there are too few for both sides to have one.
    """
    distinct = sorted({" ".join(text.split()) for text in found} - {""})
    sides: tuple[list[str], list[str]] = ([], [])
    for text in distinct:
        sides[is_held_out(text)].append(text)
    if not all(sides):
        raise ConfigError(
            f"{len(distinct)} distinct texts are too few: none is left to "
            f"{'be held out' if sides[0] else 'learn from'}; give a hundred or more"
        )
    return Texts(tuple(sides[0]), tuple(sides[1]), digest(distinct))


def is_held_out(text: str) -> bool:
    """One text in ten, by a hash of its letters in lower case."""
    number = int.from_bytes(hashlib.sha256(text.lower().encode()).digest()[:8], "big")
    return number % HELD_OUT == 0


def _sources(data: DataConfig) -> list[tuple[list[str], float]]:
    if not 0 < data.share <= 1:
        raise ConfigError(f"data.share wants a fraction above 0, up to 1, got {data.share}")
    if data.path is None:
        return [(phantom_captions(data), 1.0)]
    table = read_captions(Path(data.path), data)
    if data.share == 1:
        return [(table, 1.0)]
    return [(table, data.share), (phantom_captions(data), 1 - data.share)]


def phantom_captions(data: DataConfig) -> list[str]:
    """Every wording for the phantoms of the run's seeds."""
    check_exclude(excluded(data), set())
    exclude = [name for name in FINDINGS if captions.readable(name) in excluded(data)]
    seeds = range(data.phantom_seed, data.phantom_seed + data.phantoms)
    patients = phantom.sample_phantoms(seeds, exclude=exclude)
    return [phantom.caption(patient, i) for patient in patients for i in range(WORDINGS)]


def read_captions(path: Path, data: DataConfig) -> list[str]:
    """The column `caption` of a CSV: rows of data.split, where it has a column `split`.

    Rows without a caption are left out, and the log says how many.
    """
    if data.exclude:
        raise ConfigError(f"data.exclude wants labels; of {path} only the captions are read")
    rows = read_table(path)
    if rows and "caption" not in rows[0]:
        raise ConfigError(f"{path} needs a header line with a column `caption`")
    found = [
        row["caption"]
        for row in rows
        if not data.split or row.get("split") in (None, "", data.split)
    ]
    empty = sum(not caption.strip() for caption in found)
    if empty == len(found):
        raise ConfigError(f"{path} has no caption in {len(found)} rows of split {data.split!r}")
    if empty:
        log.warning("%s: %d of %d rows have no caption", path, empty, len(found))
    return found
