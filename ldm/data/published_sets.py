"""Public sets of chest films as they come: their tables, in our columns (published_sets.json)."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ldm.config import ConfigError
from ldm.data.csv_tables import folded, read_table
from ldm.data.film_count import FilmCount

Row = dict[str, str]
KNOWN = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
LAYOUTS: dict[str, dict[str, Any]] = KNOWN["layouts"]
INNER = (".", "annotations")  # folders of a set that may hold its tables


def tables_of(folder: Path) -> list[Path]:
    """The tables by which a folder is read: those of a published set, or one of its own."""
    found = (files_of(folder, *patterns) for patterns in KNOWN["tables"])
    return next(filter(None, found), [])


def files_of(folder: Path, *patterns: str) -> list[Path]:
    """The files of these names, gzipped or not, in the folder or one of INNER."""
    places = [(folder / inner, p + end) for p in patterns for inner in INNER for end in ("", ".gz")]
    paths = [path for place, pattern in places for path in sorted(place.glob(pattern))]
    files = [path for path in paths if path.is_file() and not path.name.startswith(".")]
    return [path for path in files if path.suffix != ".gz" or path.with_suffix("") not in files]


def layout_of(rows: list[Row]) -> str:
    """The published set whose table has the columns of these rows; "" if none has."""
    names = {folded(name) for row in rows[:1] for name in row}
    for name, layout in LAYOUTS.items():
        # a table of somebody's own has its films under our name
        own = "filename" in names and layout["columns"]["filename"] != ["filename"]
        if names.issuperset(layout["header"]) and not own:
            return name
    return ""


def own_rows(name: str, rows: list[Row], root: Path, count: FilmCount) -> list[Row]:
    """The rows of a published table in our columns, with those of the tables that belong to it.

    Columns: filename, labels, uncertain, view, sex, age, patient_id, split, caption; report_file,
    the name of the text that holds the caption.
    root: the folder of the set
    """
    from ldm.data import labelled_reports

    layout = LAYOUTS[name]
    rows = list(map(_folded, rows))
    for pattern, key in layout.get("join", {}).items():
        # torchxrayvision has views, sexes and ages of RSNA's films, which are in their DICOM alone
        paths = files_of(root, pattern) or files_of(labelled_reports.installed().parent, pattern)
        others = [_folded(row) for path in paths[:1] for row in read_table(path)]
        by_key = {row.get(key, ""): row for row in others}
        count.note(sum(row[key] not in by_key for row in rows), f"rows are not in {pattern}")
        rows = [{**by_key.get(row[key], {}), **row} for row in rows]
    lists = layout.get("lists", {})
    splits = {
        film: split
        for file, split in lists.items()
        for path in files_of(root, file)
        for film in path.read_text(encoding="utf-8", errors="replace").split()
    }
    own = [_own_row(row, layout) for row in rows]
    for row in own:
        row["split"] = splits.get(row["filename"], row.get("split", ""))
    count.note(sum(bool(lists) and not row["split"] for row in own), "in no official list")
    return _vote(own) if layout.get("votes") else own


def _folded(row: Row) -> Row:
    return {folded(column): cell for column, cell in row.items()}


def _own_row(row: Mapping[str, str], layout: Mapping[str, Any]) -> Row:
    cells = {ours: [row.get(name, "") for name in each] for ours, each in layout["columns"].items()}
    own = {"labels": ""} | {ours: next(filter(None, x), "") for ours, x in cells.items()}
    if sides := {"PA", "AP"}.intersection(cells.get("view", [])):  # which say more than frontal
        own["view"] = sides.pop()
    if "between" in layout:  # its labels, which may have commas
        own["labels"] = own["labels"].replace(layout["between"], "|") + "|"
    if "report" in layout:
        own["report_file"] = layout["report"].format(own.pop("report"))
    if match := re.search(layout.get("patient", "$^"), own["filename"]):
        own["patient_id"] = match[1]
    if "born" in own:  # a year, and a date
        born, taken = (re.match(r"\d{4}", own.pop(name)) for name in ("born", "taken"))
        own["age"] = str(int(taken[0]) - int(born[0])) if born and taken else ""
    marks = {name: row.get(folded(name), "") for name in layout.get("findings", [])}
    for name, mark in marks.items():  # 1 there; 0 or nothing absent; anything else uncertain
        if mark not in ("", "0", "0.0"):
            column = "labels" if mark in ("1", "1.0") else "uncertain"
            own[column] = f"{own.get(column, '')}{layout.get('names', {}).get(name, name)}|"
    return own


def _vote(rows: list[Row]) -> list[Row]:
    """A row for each film: a label of half its readers or more is there, of fewer uncertain."""
    films: dict[str, Row] = {}
    readers: defaultdict[str, set[str]] = defaultdict(set)  # of a film
    votes: defaultdict[tuple[str, str], set[str]] = defaultdict(set)  # for a film's label
    for row in rows:
        film = films.setdefault(row["filename"], row)
        readers[film["filename"]].add(row.get("reader", ""))
        for label in filter(None, row.get("labels", "").split("|")):
            votes[film["filename"], label].add(row.get("reader", ""))
    for film in films.values():
        film["labels"] = film["uncertain"] = ""
    for (name, label), found in votes.items():
        many = 2 * len(found) >= len(readers[name])
        if many or label.lower() != "no finding":
            films[name]["labels" if many else "uncertain"] += f"{label}|"
    return list(films.values())


def openi_rows(path: Path) -> list[Row]:
    """A row for each film of a report of Open-I, with CheXpert's classes of its MeSH terms."""
    from ldm.data import labelled_reports

    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ConfigError(f"cannot read the report {path}: {error}") from error
    report = labelled_reports.parse_report(root)
    row = {"labels": "|".join(sorted(report.labels)), "patient_id": report.id}
    row["caption"] = report.impression or report.findings or ""
    return [{"filename": node.get("id", ""), **row} for node in root.iter("parentImage")]
