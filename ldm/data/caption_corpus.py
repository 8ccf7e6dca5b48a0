"""Texts without pictures for text encoders: captions of a table, of phantoms, or of both."""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ldm.config import ConfigError
from ldm.data import DataConfig, phantom
from ldm.data.csv_tables import read_table
from ldm.data.datasets import configured_phantoms, open_sources
from ldm.system.atomic import digest

log = logging.getLogger(__name__)

WORDINGS = 8  # of a phantom's caption; fewer repeat
HELD_OUT = 10  # every tenth text is


@dataclass(frozen=True)
class Texts:
    """Distinct texts, sorted; none is in both."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    key: str  # changes with any text, not with their order in the file


def open_texts(data: DataConfig) -> Texts:
    """All texts of a run as one: the table's where data.share is 1, else the phantoms' too.

    A text counts once, however often it is written; to draw batches by share use `open_shares`.
    Raises ConfigError for a table that cannot be used.
    """
    return split(text for found, _ in _sources(data) for text in found)


def open_shares(data: DataConfig) -> list[tuple[Texts, float]]:
    """The table's texts and the phantoms', each with its share of every batch."""
    return [(split(found), share) for found, share in _sources(data)]


def split(found: Iterable[str]) -> Texts:
    """Texts with their white space folded, each once; held out is every tenth, by its hash.

    So a text is on the same side whatever the other texts are, in capitals or not.
    Raises ConfigError where there are too few for both sides to have one.
    """
    distinct = sorted({" ".join(text.split()) for text in found} - {""})
    sides: tuple[list[str], list[str]] = ([], [])
    for text in distinct:
        number = int.from_bytes(hashlib.sha256(text.lower().encode()).digest()[:8], "big")
        sides[number % HELD_OUT == 0].append(text)
    if not all(sides):
        raise ConfigError(
            f"{len(distinct)} distinct texts are too few: none is left to "
            f"{'be held out' if sides[0] else 'learn from'}; give a hundred or more"
        )
    return Texts(tuple(sides[0]), tuple(sides[1]), digest(distinct))


def _sources(data: DataConfig) -> list[tuple[list[str], float]]:
    """The captions of the table, of phantoms in every wording, or both, each with its share."""

    def phantom_captions() -> list[str]:
        patients = configured_phantoms(data)
        return [phantom.caption(patient, i) for patient in patients for i in range(WORDINGS)]

    return open_sources(data, lambda: read_captions(Path(data.path or ""), data), phantom_captions)


def read_captions(path: Path, data: DataConfig) -> list[str]:
    """The column `caption` of a CSV: rows of data.split, where it has a column `split`.

    Rows without a caption are left out, and the log says how many.
    """
    if data.exclude:
        raise ConfigError(f"data.exclude needs labels; only the captions of {path} are read")
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
