"""A page stands alone, says no more than it was given, and is the same in all three forms."""

import base64
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError

from ldm.report import page
from ldm.report.page import Heading, Picture, Table, files, html, markdown, text

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsVXVzwAAAABJRU5ErkJggg=="
)
TABLE = Table("Of <b> & co.", ("name", "x|y"), [("a<b>", "1"), ("long name", "23")])
BLOCKS = ["A & B < C.", TABLE, Picture("p.png", PNG, 'Dots "near" <here>')]


class Reader(HTMLParser):
    """Tags opened and closed, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [v or "" for k, v in attributes if k in ("src", "href", "alt")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_stands_alone_and_escapes_what_it_is_given() -> None:
    """Well nested, no address but the pictures' own bytes, and texts read back as they were."""
    page = html("T & <T>", BLOCKS)
    read = Reader(page)
    assert read.open == []
    source, alt = read.sources
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == PNG
    assert alt == 'Dots "near" <here>'
    assert not re.search(r"https?:|url\(|@import|<script|<link", page)
    for words in ("T & <T>", "A & B < C.", "Of <b> & co.", "a<b>", "23"):
        assert words in read.words


def test_markdown_keeps_columns_and_names_the_file() -> None:
    """A bar in a cell is no column; each row has as many as the header."""
    lines = markdown("T", BLOCKS).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {3}
    assert '![Dots "near" &lt;here>](p.png)' in lines


def test_text_aligns_its_columns() -> None:
    """Names to the left, numbers to the right."""
    lines = text("T", [TABLE]).splitlines()
    assert lines[-3:] == ["name       x|y", "a<b>         1", "long name   23"]


def test_json_has_no_infinity() -> None:
    """Wherever a figure is infinite or no number there is null; numpy's floats are floats."""
    values = {"a": [1.5, math.inf, (np.float64("nan"), 2)], "b": {"c": -math.inf, "d": None}}
    written = files("t", "T", [], values)["t.json"]
    assert json.loads(written) == {"a": [1.5, None, [None, 2]], "b": {"c": None, "d": None}}


def test_headings_are_listed_and_linked() -> None:
    """Each link of the list leads to the heading of the same words."""
    titles = ["1. Tables & more", "2. Limits"]
    page = html("T", [BLOCKS[0], *map(Heading, titles)])
    assert Reader(page).open == []
    links = re.findall(r'<a href="#([^"]+)">', page)
    assert links == re.findall(r'<h2 id="([^"]+)">', page) == ["1-tables-more", "2-limits"]
    assert "## 2. Limits" in markdown("T", [Heading("2. Limits")]).splitlines()


def test_the_pages_use_every_passage_and_miss_none() -> None:
    """A block of passages.md is named by the code or by another block, and each name has one."""
    room = Path(page.__file__).parent
    sources = "".join(path.read_text(encoding="utf-8") for path in room.rglob("*.py"))
    named = set(re.findall(r'\b(?:passage|paragraphs|about)\(\s*"(\w+)"', sources))
    named |= set(re.findall(r"self\.(\w+)\(\)", (room / "passages.md").read_text(encoding="utf-8")))
    assert named == page.passages().blocks.keys()


def test_a_passage_keeps_what_it_is_given() -> None:
    """Its lines are joined, spaces and marks in a value stay, and a missing value is an error."""
    facts = {"space": "a  <b> & c", "threshold": 0.5}
    found = page.passage("closest_pairs", **facts, nearest="x")
    assert found.startswith("The closest pairs in a  <b> & c: above, generated (synthetic); below")
    assert "\n" not in found
    with pytest.raises(UndefinedError, match="nearest"):
        page.passage("closest_pairs", **facts)


def test_a_table_of_columns_has_a_row_for_each_key() -> None:
    """Rows in the order in which keys appear; a cell that a column lacks is empty."""
    found = Table.of("", "key", {"x": {"a": 1, "b": None}, "y": {"c": 2.5, "a": "z"}})
    assert found.header == ("key", "x", "y")
    assert found.rows == [("a", "1", "z"), ("b", "None", ""), ("c", "", "2.5")]


def test_no_form_of_a_page_obeys_a_name_or_an_answer() -> None:
    """Markdown has no tag and no link of theirs, and a terminal sees no control character."""
    said = "<script>x</script> \x1b[2J\u202e ![p](https://x)\n<img src=x>"
    blocks = [said, Table(said, ("a", said), [(said, "p < 0.05")]), Heading(said)]
    blocks.append(Picture("p.png", PNG, said))
    for form in (markdown, text):
        shown = form("Title", blocks)
        assert shown.replace("\n", "").isprintable()
        assert shown.count("\\x1b[2J\\u202e") == 6
    shown = markdown("Title", blocks)
    assert not re.search("<[a-z/]", shown)
    assert "p < 0.05" in shown
    assert re.findall(r"(?<!\\)\]\((.*?)\)|\]\(", shown) == ["p.png"]
