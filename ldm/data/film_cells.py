"""What the cells of a table say, in our spelling: view, sex, age, labels (film_cells.json)."""

import re
from collections.abc import Collection

from ldm.data.csv_tables import SPELLINGS, folded
from ldm.pictures.dicom_files import YEARS


def own_columns(names: Collection[str]) -> dict[str, str]:
    """{column: the name of ours that it is read as}, where no column has that name."""
    by_name = {folded(name): name for name in names}
    found = {}
    for ours, others in SPELLINGS["columns"].items():
        there = [by_name[other] for other in others if other in by_name]
        found.update({there[0]: ours} if there and ours not in names else {})
    return found


def read_age(cell: str) -> str | None:
    """Years, of "061Y" (DICOM), "61 years", "6 months" and "61.5"; None for what is no age."""
    match = re.fullmatch(r"(\d{1,3})(\.\d*)?\s*(?:([ymwd])[a-z]*\.?)?", cell.lower())
    if not match or (years := int(match[1]) // YEARS[(match[3] or "y").upper()]) > 120:
        return None
    return str(years) if match[3] else cell


def read_labels(cell: str) -> str:
    """Labels with | between them, of "A|B", "A; B", "A, B" and printed lists: "['A', 'B']"."""
    if cell.startswith(("[", "(", "{")):
        quoted = re.findall(r"'([^']*)'|\"([^\"]*)\"", cell)
        parts = ["".join(pair) for pair in quoted] or cell.strip("[](){}").split(",")
    else:
        mark = next((mark for mark in "|;" if mark in cell), "")
        parts = cell.split(mark) if mark else re.split(r",(?![^()]*\))", cell)  # not in brackets
    spelled = [SPELLINGS["labels"].get(part.strip().lower(), part.strip()) for part in parts]
    return "|".join(dict.fromkeys(part for part in spelled if not is_empty(part)))


def is_empty(cell: str) -> bool:
    """Is there nothing, or a word for it: NaN, None, null?"""
    return not cell or cell.lower() in SPELLINGS["empty"]


def read_cells(row: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """The row in our spelling, and the columns whose cells say nothing that we know.

    A view of that kind is kept, for it may be a word of another region; a sex or age is not.
    """
    read, unknown = dict(row), list[str]()
    for name in SPELLINGS["read"]:
        cell = read.get(name, "")
        if cell and is_empty(cell):
            read[name] = ""
        elif cell and name in ("labels", "uncertain"):
            read[name] = read_labels(cell)
        elif cell and name == "file_frame":  # 1.0 of a table that pandas wrote
            whole = re.fullmatch(r"(\d+)(\.0*)?", cell)
            read[name] = whole[1] if whole else ""
            unknown += [] if whole else [name]
        elif cell and name in ("view", "sex", "age"):
            found = read_age(cell) if name == "age" else SPELLINGS[name].get(folded(cell))
            read[name] = (cell if name == "view" else "") if found is None else found
            unknown += [name] if found is None else []
    return read, unknown
