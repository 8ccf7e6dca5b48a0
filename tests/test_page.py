"""A page stands alone, says no more than it was given, and is the same in all three forms."""

import base64
import json
import math
import re
from html.parser import HTMLParser

import numpy as np

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
    assert '![Dots "near" <here>](p.png)' in lines


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
