"""Reads small forged copies of public sets of chest films, and prints what is made of each.

python -m benchmarks.published_sets            # the table of docs/films.md
python -m benchmarks.published_sets FOLDER ... # the same of folders or tables of your own
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ldm.data import DataConfig
from ldm.data.film_rows import read_rows
from tests.forged_sets import forge

HEADER = ("set", "recognised", "labels", "views", "split", "read", "left out", "noted")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.published_sets")
    parser.add_argument("paths", nargs="*", type=Path, help="folders or tables (forged copies)")
    paths = parser.parse_args().paths
    if paths:
        print(table({path.name: path for path in paths}))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(table(forge(Path(folder))))


def table(paths: Mapping[str, Path]) -> str:
    """Markdown: a row for each set, read whole."""
    lines = [HEADER, ("---",) * len(HEADER)]
    for name, path in paths.items():
        rows, count = read_rows(path, DataConfig(path=str(path), split=None))
        labels = counted(label for row in rows for label in row.get("labels", "").split("|"))
        views = counted(row.get("view", "") for row in rows)
        splits = counted(row.get("split", "") for row in rows)
        _, *said = str(count).split("; ")
        left_out = said.pop(0) if said and "skipped: " in said[0] else ""
        known = next((part for part in said if part.startswith("recognised as ")), "")
        by = [part for part in said if part.startswith("by ")]
        noted = "; ".join(part for part in said if part not in (known, *by))
        shown = known.removeprefix("recognised as ") or ("our columns" if by else "folders")
        lines.append((name, shown, labels, views, splits, str(len(rows)), left_out, noted))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def counted(cells: Iterable[str], most: int = 4) -> str:
    found = Counter(filter(None, cells)).most_common()
    more: Sequence[str] = [f"{len(found) - most} more"] if len(found) > most else []
    return ", ".join([*(f"{cell} {n}" for cell, n in found[:most]), *more])


if __name__ == "__main__":
    main()
