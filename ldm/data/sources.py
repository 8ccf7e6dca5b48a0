"""Several sources of images: which rows, which are held out, and how often each is drawn.

`python -m ldm.data.sources configs/vae_256.yaml real.csv` writes the rows of a config's sources
with `split` train or held_out, so that `real.csv@held_out` can be measured.
"""

import csv
import logging
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from ldm.config import ConfigError, from_dict
from ldm.data import DataConfig, DataSource, HoldOut
from ldm.data.film_count import FilmCount
from ldm.data.film_rows import Row, read_rows
from ldm.system import cli
from ldm.system.atomic import whole_file
from ldm.system.cli import read_yaml

log = logging.getLogger(__name__)

HELD_OUT = "held_out"


def source_rows(source: DataSource, config: DataConfig) -> tuple[list[Row], list[Row], FilmCount]:
    """The usable rows of a source that `where` lets through: to train on, and held out; a count.

    The rule of `hold_out` is applied before `where`, so another `where` holds out the same.
    """
    path = Path(source.path)
    rows, count = read_rows(path, replace(config, path=source.path, split=None))
    _check_columns(source, rows)
    kept = held_out(rows, source.hold_out)
    wanted = _wanted(source).items()
    chosen = [row for row in rows if all(row.get(c, "") in values for c, values in wanted)]
    train = [row for row in chosen if _patient(row) not in kept]
    if not train:
        raise ConfigError(f"data.sources: {path} has no row to train on where {source.where}")
    apart = [row for row in chosen if _patient(row) in kept]
    count.films = len(train)
    count.note(len(apart), "held out")
    count.note(len(rows) - len(chosen), "not taken by `where`")
    return train, apart, count


def held_out(rows: Sequence[Row], rule: HoldOut) -> set[str]:
    """The patients, or blocks of files, that are never trained on.

    First those with a row whose `split` is not train; then, the smallest class first, patients in
    the order of the SHA-256 of their names, until max(least, share) of each class is held out. A
    row without `patient_id` is a patient of its own.
    """
    patients: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        patients[_patient(row)].append(row)
    classes = Counter(row.get(rule.of, "") for row in rows)
    found = {
        name
        for name, films in patients.items()
        if any(film.get("split") not in (None, "", "train") for film in films)
    }
    held = Counter(row.get(rule.of, "") for name in found for row in patients[name])
    order = sorted(patients, key=lambda name: sha256(name.encode()).hexdigest())
    for kind, count in sorted(classes.items(), key=lambda item: item[::-1]):
        goal = min(count, max(rule.least, math.ceil(rule.share * count)))
        for name in order:
            own = Counter(row.get(rule.of, "") for row in patients[name])
            if held[kind] < goal and name not in found and own[kind]:
                found.add(name)
                held += own
    return found


def drawing_weights(rows: Sequence[Row], group: str, balance: float) -> list[float]:
    """How often each row is drawn, so that a group of n rows is drawn as often as n^balance."""
    groups = Counter(row.get(group, "") for row in rows)
    return [groups[row.get(group, "")] ** (balance - 1) for row in rows]


def _patient(row: Row) -> str:
    return row.get("patient_id") or row["path"]


def _wanted(source: DataSource) -> dict[str, list[str]]:
    """{column: the cells that it may have}"""
    values = {c: v if isinstance(v, list | tuple) else [v] for c, v in source.where.items()}
    return {column: [str(value) for value in of] for column, of in values.items()}


def _check_columns(source: DataSource, rows: Sequence[Row]) -> None:
    for column in (*source.where, source.group, source.hold_out.of):
        if column and column not in rows[0]:
            raise ConfigError(
                f"data.sources: {source.path} has no column {column!r}; "
                f"there are {', '.join(sorted(rows[0].keys() - {'path'}))}"
            )


def main() -> int:
    parser = cli.Parser("ldm.data.sources", "Write the rows of a config's sources as one CSV.")
    parser.add_argument("config", help="a YAML file with data.sources")
    parser.add_argument("table", help="the CSV to write; it names patients, as its sources do")
    options = parser.parse_args()
    config = from_dict(DataConfig, read_yaml(options.config).get("data", {}), "data")
    if not config.sources:
        raise ConfigError(f"{options.config} has no data.sources")
    files = [source for source in config.sources if not source.path.startswith("phantoms:")]
    if left := len(config.sources) - len(files):
        log.info("%d sources of phantoms have no rows and are left out", left)
    parts = [source_rows(source, config)[:2] for source in files]
    table = [
        {**row, "filename": str(Path(row["path"]).resolve()), "split": split}
        for part in parts
        for rows, split in zip(part, ("train", HELD_OUT), strict=True)
        for row in rows
    ]
    columns = dict.fromkeys(column for row in table for column in row if column != "path")
    with whole_file(Path(options.table)) as path, path.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(columns), restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table)
    log.info("%s: %s", options.table, dict(Counter(row["split"] for row in table)))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "ldm.data.sources", logging.INFO))
