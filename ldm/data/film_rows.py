"""The usable films of a folder or a table, and a count of those left out, and why."""

import mimetypes
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Set
from functools import cache
from pathlib import Path

from ldm.config import ConfigError
from ldm.data import DataConfig, dicom_rows, published_sets
from ldm.data.csv_tables import SPELLINGS, folded, is_table, read_table
from ldm.data.film_cells import own_columns, read_cells
from ldm.data.film_count import FilmCount
from ldm.data.phantom import BODY_FINDINGS, FINDINGS, captions
from ldm.pictures import dicom_files, image_files

SHEETS = r"(grid|trajectory|\d{5,}_words)\.png"  # what sample.py writes beside its images
NAMED = (*image_files.SUFFIXES, ".dcm", ".dicom")  # published tables leave them out
SIDECARS = (".txt", ".caption")
Row = dict[str, str]  # {column: cell} and the image's `path`
Finder = Callable[[str], tuple[Path | None, str]]  # a name in a table -> its file and how, or why


def read_rows(source: Path, config: DataConfig) -> tuple[list[Row], FilmCount]:
    """The usable films of a folder or of a table, and the count of those left out.

    A table is a published one (published_sets.json), or has `filename` (beside it, or in images/
    beside it) and `caption`, or `labels` (separated by |) with `view`, `sex` and `age`. Rows of
    another `split`, with a `quality_flag` or an excluded label, or whose file is not found are
    left out. A folder may have such a table; else x.txt or x.caption is the caption of x.png, and
    a folder named NORMAL holds normal films.

    Raises ConfigError where nothing is left, and with data.strict where anything is at fault.
    """
    if not is_table(source) and not source.is_dir():
        raise ConfigError(f"data.path {source} is no folder and no .csv file")
    if config.window:
        dicom_files.parse_window(config.window)  # raises
    count = FilmCount()
    if tables := [source] if is_table(source) else published_sets.tables_of(source):
        rows, find = _table_rows(source, tables, config, count)
        kept = _usable(rows, source, config, find, count)
    else:
        kept = _folder_rows(source, config, count)
    kept = [{**row, "ct_window": config.window} for row in kept] if config.window else kept
    count.films = len(kept)
    if config.strict and (faults := count.faults()):
        raise ConfigError(f"{source}: data.strict lets nothing be skipped, but here are {faults}")
    files = {(row["path"], row.get("file_frame")) for row in kept}
    count.note(len(kept) - len(files), "name the file of another row")
    plain = sum(not row.get("caption") and not row.get("labels") for row in kept)
    count.note(plain, "without caption or labels")
    return kept, count


def _table_rows(
    source: Path, tables: list[Path], config: DataConfig, count: FilmCount
) -> tuple[list[tuple[int, Row]], Finder]:
    """The rows of tables in our columns, each with its number, and what finds their files."""
    kept: list[tuple[int, Row]] = []
    root = source if source.is_dir() else source.parent
    root = root.parent if root.name in published_sets.INNER else root
    published = ""
    for table in tables:
        is_xml = table.suffix == ".xml"
        cells = rows = published_sets.openi_rows(table) if is_xml else read_table(table)
        published = "Open-I" if is_xml else published_sets.layout_of(rows)
        if published and not is_xml:
            rows = published_sets.own_rows(published, rows, root, count)
        elif not published:
            rows = _own_rows(table, rows, count)
        split = (
            published_sets.KNOWN["splits"].get(table.name.removesuffix(".gz"))
            if table != source
            else None
        )
        rows = [{**row, "split": row.get("split") or split} if split else row for row in rows]
        numbered = len(rows) == len(cells) and not is_xml  # not where readers became one row
        kept += [(number if numbered else 0, row) for number, row in enumerate(rows, start=2)]
    count.notes += [f"by {tables[0].name}"] if tables[0] != source else []
    count.notes += [f"recognised as {published}"] if published else []
    root = root if published else tables[0].parent
    limit = config.root or os.environ.get("LDM_DATA_ROOT") or root
    return kept, _finder(root, bool(published), limit)


def _own_rows(table: Path, rows: list[Row], count: FilmCount) -> list[Row]:
    """The rows of a table with our columns, or with those that other programs give the same."""
    others = own_columns(rows[0]) if rows else {}
    if not rows or "filename" not in {*rows[0], *others.values()}:
        raise ConfigError(
            f"{table} needs a header line with a column `filename`; a folder is read by it"
        )
    named = ", ".join(f"{theirs} as {ours}" for theirs, ours in others.items())
    count.notes += [f"columns read: {named}"] if named else []
    unread = [name for name in rows[0] if name not in {*SPELLINGS["own"], *others}]
    count.notes += [f"columns without a meaning here: {', '.join(unread)}"] if unread else []
    return [{others.get(name, name): cell for name, cell in row.items()} for row in rows]


def _usable(
    rows: list[tuple[int, Row]], source: Path, config: DataConfig, find: Finder, count: FilmCount
) -> list[Row]:
    """The rows that are asked for, in our spelling, with the path of each one's file."""
    spelled = [(number, *read_cells(row)) for number, row in rows]
    check_exclude(config, set().union(*(words(row) for _, row, _ in spelled)))
    unwanted, noted, absent = excluded(config), Counter[str](), ""
    kept = []
    for number, row, unknown in spelled:
        if doubtful := row.pop("uncertain", ""):
            if config.uncertain == "unknown":
                row["uncertain"] = doubtful
            elif config.uncertain == "positive":
                row["labels"] = f"{row.get('labels', '')}|{doubtful}".strip("|")
        if config.split and row.get("split") not in (None, "", config.split):
            count.skip("other split")
        elif row.get("quality_flag") not in (None, "", "0"):
            count.skip("quality_flag", number)
        elif unwanted and not row.get("labels"):
            raise ConfigError(f"{source}, row {number}: data.exclude needs a label in each row")
        elif words(row) & unwanted:
            count.skip("excluded finding")
        elif "exclude" in {row.get("view", "").lower(), *words(row)}:  # PadChest's word
            count.skip("marked exclude", number)
        elif (found := find(row["filename"]))[0] is None:
            absent = absent or f"; row {number} names {row['filename'] or 'no file'}"
            count.skip(found[1], number)
        else:
            noted[f"with uncertain findings ({config.uncertain} by data.uncertain)"] += bool(
                doubtful
            )
            noted.update(f"with unknown {name}" for name in unknown)
            noted[f"found {found[1]}"] += bool(found[1])
            if report := row.pop("report_file", ""):
                row["caption"] = _report_caption(find(report)[0])
                noted["without impression and findings"] += not row["caption"]
            kept.append({**row, "path": str(found[0])})
    for what, number in noted.items():
        count.note(number, what)
    if not kept:
        absent += ", which is not beside it" if absent else ""
        raise ConfigError(
            f"{source}: none of {len(rows)} rows is usable: of split {config.split!r}, without "
            f"quality_flag, not in data.exclude and with its file; {count}{absent}"
        )
    return kept


def _report_caption(path: Path | None) -> str:
    """The impression of a report, else its findings; "" where there is none."""
    from ldm.data import labelled_reports

    text = path.read_text(encoding="utf-8", errors="replace") if path else ""
    return labelled_reports.impression(text) or labelled_reports.findings(text) or ""


def _finder(root: Path, everywhere: bool, limit: str | Path) -> Finder:
    """A function from a name in a table to its file and how it was found, or why there is none.

    Names may have \\ for / (Windows), a path of another machine before them, or another Unicode
    form (macOS decomposes umlauts).
    everywhere: in any folder below `root`, and perhaps without its suffix
    limit: a folder; what a table names outside of it, by .. or a whole path, is not read
    """
    limits = {os.path.abspath(limit), os.path.realpath(limit)}

    def form(name: str) -> str:
        return "/" + unicodedata.normalize("NFC", name)

    @cache
    def listed() -> dict[str, list[Path]]:
        found = defaultdict(list)
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not is_hidden(name))
            for path in (Path(folder, name) for name in sorted(names) if not is_hidden(name)):
                short = [path.stem] if path.suffix.lower() in NAMED else []
                for name in (path.name, *short):
                    found[form(name)].append(path)
        return found

    def find(name: str) -> tuple[Path | None, str]:
        plain = name.replace("\\", "/")
        parts = plain.split("/")
        # without the name of the set; of a path of another machine its end, but never a bare name,
        # which another patient's film may have, too
        last = (
            len(parts) - 1 if parts[0] == "" or parts[0].endswith(":") else min(len(parts) - 1, 2)
        )
        tails = [name, plain, *("/".join(parts[start:]) for start in range(1, last))]
        outside = False
        for place in (folder / tail for tail in tails for folder in (root, root / "images")):
            # os.path, because Path.is_file raises for names that are too long
            if os.path.isfile(place):
                how = "" if place.as_posix().endswith(plain) else "by the end of the path"
                if any(Path(os.path.abspath(place)).is_relative_to(each) for each in limits):
                    return place, how
                outside = True
        paths = listed()[form(parts[-1])] if name and (everywhere or not name.isascii()) else []
        if len(parts) > 1:
            paths = [path for path in paths if form(path.as_posix()).endswith(form(plain))]
        if len(paths) == 1:
            return paths[0], "by file name"
        absent = (
            "outside of the table's folder (see data.root, LDM_DATA_ROOT)"
            if outside
            else "not found"
        )
        return None, "found in several places" if paths else absent

    return find


def is_hidden(name: str) -> bool:
    """What macOS and Windows leave beside files: ._x.png, __MACOSX, .DS_Store, Thumbs.db"""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db")


def _folder_rows(source: Path, config: DataConfig, count: FilmCount) -> list[Row]:
    """The images of a folder and its folders, captioned by text files or by their prompts.

    A folder's name is a label where it is one (NORMAL, COVID); then train, val and test are
    splits, masks are no films, and names like Kermany's tell patients: person1_virus_6.jpeg.
    """
    if config.exclude:
        raise ConfigError(f"data.exclude needs labels, which only a CSV has; {source} is a folder")
    rows: list[Row] = []
    other: Counter[str] = Counter()
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        if path.suffix.lower() in SIDECARS:
            continue
        parts = path.relative_to(source).parts
        folders = [folded(part) for part in parts[:-1]]
        labels = "|".join(filter(None, map(SPELLINGS["folders"].get, folders)))
        split = next(filter(None, map(SPELLINGS["splits"].get, folders)), "")
        if any(map(is_hidden, parts)):
            count.skip("hidden (._*, __MACOSX, dot folders)")
        elif not image_files.is_picture(path):
            kind = path.suffix.lower()  # of a DICOM's name it may be a date
            other[kind if kind in mimetypes.types_map else "of another kind"] += 1
        elif re.fullmatch(SHEETS, path.name):
            count.skip("sample sheet")
        elif labels and "masks" in folders:
            count.skip("mask")
        elif labels and config.split and split not in ("", config.split):
            count.skip("other split")
        else:
            row = {"path": str(path), "caption": _caption_beside(path)}
            if labels:
                patient = re.match("|".join(SPELLINGS["patients"]), path.name)
                row |= {"labels": labels, "split": split}
                row |= {"patient_id": patient[0]} if patient else {}
            rows.append(row)
    kinds = ", ".join(f"{number} {kind}" for kind, number in other.items())
    count.notes += [f"other files: {kinds}"] if kinds else []
    rows, empty = dicom_rows.expanded(rows, config)
    for _ in range(empty):
        count.skip("DICOM without a picture")
    if not rows:
        raise ConfigError(
            f"{source} holds no images ({', '.join(image_files.SUFFIXES)}, DICOM); {count}"
        )
    return rows


def _caption_beside(path: Path) -> str:
    """From x.txt or x.caption, or the prompt that sample.py wrote into x.png; "" for none"""
    for text in filter(Path.is_file, map(path.with_suffix, SIDECARS)):
        try:
            return text.read_text(encoding="utf-8-sig").strip()
        except UnicodeDecodeError as e:
            raise ConfigError(f"{text} is no UTF-8 text; save it as such") from e
    with path.open("rb") as file:
        drawn = b"iTXtprompt\0" in file.read(4096)
    try:
        return image_files.read_text(path).get("prompt", "") if drawn else ""
    except ValueError:  # damaged, which is said when it is loaded, or left out by --skip-bad
        return ""


def words(row: Row, column: str = "labels") -> set[str]:
    """ "Effusion|Mass" -> {"pleural effusion", "lung mass"}; No Finding is "" """
    return {captions.readable(label) for label in (row.get(column) or "").split("|")}


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
