"""Rows of any table of text: each cell under its own header, none lost."""

import csv
import gzip
import io
import json
import logging
import re
import zlib
from collections import Counter
from pathlib import Path

from ldm.config import ConfigError
from ldm.system import cli

log = logging.getLogger(__name__)

SPELLINGS = json.loads(Path(__file__).with_name("film_cells.json").read_text(encoding="utf-8"))
ENDINGS = (".csv", ".csv.gz", ".tsv", ".jsonl")


def is_table(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


def folded(name: str) -> str:
    """A name as it is compared with others: "View Position" -> "view_position"."""
    return "_".join(name.lower().split())


def read_table(path: str | Path) -> list[dict[str, str]]:
    """{column: cell} of each row; what a short row lacks is "".

    CSV with any of , ; | or tabs between cells, gzipped or not, or JSON lines; UTF-8, UTF-16 or
    Windows-1252. A name that differs from one of ours by capitals and spaces is taken for it.

    Raises ConfigError for an unreadable file, and for a row with more cells than the header: the
    rest of an unquoted caption would be lost.
    """
    path = Path(path)
    text = _text(path)
    if path.suffix.lower() == ".jsonl":
        return _json_rows(text, path)
    text = re.sub(r"\A\s*sep=.\s*?\n|\A[\r\n]+", "", text)  # Excel's own line before the header
    first = re.sub('"[^"]*"', "", text.partition("\n")[0])
    mark = max(",;\t|", key=first.count)
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=mark, skipinitialspace=True, strict=True)
    short, long = 0, list[int]()
    found: list[dict[str, str]] = []
    try:
        header = _names(next(reader, []), path)
        for cells in filter(None, reader):
            values = [cell.strip() for cell in cells]
            if any(values[len(header) :]):
                raise ConfigError(
                    f"{path}, line {reader.line_num}: more cells than the header has; "
                    'put text with a comma in "quotes"'
                )
            short += len(values) < len(header)
            long += [len(found) + 2] if any("\n" in value for value in values) else []
            found.append({**dict.fromkeys(header, ""), **dict(zip(header, values, strict=False))})
    except csv.Error as error:
        raise ConfigError(
            f"cannot read {path}, line {reader.line_num}: {error}; look for a quotation mark"
        ) from error
    if long:
        what = "%s: %d rows go over several lines, the first is row %d; check its quotation marks"
        log.warning(what, path, len(long), long[0])
    if short:
        log.warning("%s: %d rows have fewer cells than the header; the rest is empty", path, short)
    return found


def _names(cells: list[str], path: Path) -> list[str]:
    """The header, without what is empty at its end."""
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    names = [name or f"column {place}" for place, name in enumerate(names, start=1)]
    own = {name: folded(name) for name in names if folded(name) in SPELLINGS["own"]}
    ours = [name if own.get(name) in (None, *names) else own[name] for name in names]
    count = Counter(map(folded, ours))
    if twice := [name for name in ours if count[folded(name)] > 1]:
        raise ConfigError(f"{path} has several columns {twice[0]!r}; rename or delete all but one")
    return ours


def _text(path: Path) -> str:
    try:
        content = cli.regular(path).read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read {path}: {reason}") from error
    marked = content[:2] in (b"\xff\xfe", b"\xfe\xff")  # the byte-order mark of UTF-16
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "cp1252"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == "cp1252":
            log.warning("%s is not UTF-8; it is read as Windows-1252 (Latin-1)", path)
        if "\0" not in text:
            return text
    raise ConfigError(f"cannot read {path}: it is no text in UTF-8, UTF-16 or Windows-1252")


def _json_rows(text: str, path: Path) -> list[dict[str, str]]:
    """JSON lines as data sets have them: {"file_name": "a.png", "text": "..."}"""
    rows: list[dict[str, str]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            row = cli.parse_json(line or "{}")
            cells = {name: str(cell).strip() for name, cell in row.items() if cell is not None}
        except (ValueError, AttributeError) as error:
            raise ConfigError(
                f"{path}, line {number} is no JSON object ({error}); write one a line"
            ) from error
        if cells:
            rows.append(dict(zip(_names(list(cells), path), cells.values(), strict=False)))
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{**dict.fromkeys(columns, ""), **row} for row in rows]
