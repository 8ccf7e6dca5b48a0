"""Rows of a CSV: each cell under its own header, none lost."""

import csv
from pathlib import Path

from ldm.config import ConfigError


def read_table(path: str | Path) -> list[dict[str, str]]:
    """{column: cell} of each row; what a short row lacks is "".

    Raises ConfigError for an unreadable file, and for a row with more cells than the header: the
    rest of an unquoted caption would be lost.
    """
    found = []
    try:
        # utf-8-sig: Excel writes a byte-order mark
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, restval="")
            for row in rows:
                if None in row:  # where DictReader puts surplus cells
                    raise ConfigError(
                        f"{path}, line {rows.line_num}: more cells than the header has; "
                        'put text with a comma in "quotes"'
                    )
                found.append(row)
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    return found
