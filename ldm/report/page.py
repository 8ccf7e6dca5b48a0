"""A report of sentences, tables and pictures as one HTML file, as Markdown and as plain text."""

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from ldm.data.image_sets import ImageSet
from ldm.metrics.estimate import as_json
from ldm.report import Report
from ldm.system import cli


@dataclass(frozen=True)
class Table:
    """rows: cells as they are shown, as many as the header has"""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    @classmethod
    def of(cls, caption: str, corner: str, columns: Mapping[str, Mapping[str, object]]) -> "Table":
        """A row for each key of the columns, empty where a column lacks it."""
        keys = dict.fromkeys(key for column in columns.values() for key in column)
        rows = [(key, *(str(each.get(key, "")) for each in columns.values())) for key in keys]
        return cls(caption, (corner, *columns), rows)


@dataclass(frozen=True)
class Picture:
    """name: of its PNG file beside the Markdown;  caption: also read to who cannot see it"""

    name: str
    png: bytes
    caption: str

    @property
    def base64(self) -> str:
        return base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Heading:
    """The title of a section; a page that has headings begins with links to them."""

    text: str

    @property
    def anchor(self) -> str:
        return re.sub("[^a-z0-9]+", "-", self.text.lower()).strip("-")


Block = str | Table | Picture | Heading  # a str is a paragraph


def report(
    stem: str,
    title: str,
    blocks: Sequence[Block],
    values: dict[str, Any],
    *,
    summary: Sequence[Block] | None = None,
    more: Mapping[str, bytes] = {},
) -> Report:
    """summary: the blocks for the terminal, None: all;  more: files beside the page"""
    shown = text(title, blocks if summary is None else summary)
    return Report(shown, values, {**files(stem, title, blocks, values), **more})


def read_from(sets: Iterable[ImageSet]) -> str:
    """A paragraph: what was read of each set, what was not, and why."""
    return " ".join(f"Read from {asked.name}: {asked.count}." for asked in sets)


@cache
def passages() -> jinja2.Template:
    """passages.md: single ends of lines are spaces, blank lines part paragraphs."""
    source = Path(__file__).with_name("passages.md").read_text(encoding="utf-8")
    unwrapped = re.sub(r"(?<!\n)\n(?!\n)", " ", source)
    return jinja2.Template(unwrapped, undefined=jinja2.StrictUndefined)


def passage(name: str, /, **values: object) -> str:
    """The text of a block of passages.md with these values."""
    template = passages()
    return "".join(template.blocks[name](template.new_context(values))).strip()


def paragraphs(name: str, /, **values: object) -> list[str]:
    return [part.strip() for part in re.split(r"\n\s*\n", passage(name, **values))]


def files(stem: str, title: str, blocks: Sequence[Block], values: object) -> dict[str, bytes]:
    """{file name: content}: the page in three forms, `values` as JSON, and each picture."""
    contents = {
        "html": html(title, blocks),
        "md": markdown(title, blocks),
        "txt": text(title, blocks),
        "json": json.dumps(as_json(values), indent=1) + "\n",
    }
    written = {f"{stem}.{kind}": content.encode() for kind, content in contents.items()}
    return written | {block.name: block.png for block in blocks if isinstance(block, Picture)}


def html(title: str, blocks: Sequence[Block]) -> str:
    """One file that needs no other file and no network; it prints on A4 (page.html)."""
    template = jinja2.Template(
        Path(__file__).with_suffix(".html").read_text(encoding="utf-8"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    headings = [block for block in blocks if isinstance(block, Heading)]
    return template.render(title=title, blocks=blocks, headings=headings)


def markdown(title: str, blocks: Sequence[Block]) -> str:
    return cli.printable("\n\n".join([f"# {title}", *map(_markdown, blocks)])) + "\n"


def text(title: str, blocks: Sequence[Block]) -> str:
    """For a terminal; of a picture, its file and caption."""
    return cli.printable("\n\n".join([title, *map(_text, blocks)])) + "\n"


def _plain(text: str) -> str:
    """Markdown without tags and links, whatever a name or an answer says."""
    return re.sub("<(?=[a-zA-Z/!?])", "&lt;", text).replace("](", r"]\(")


def _markdown(block: Block) -> str:
    if isinstance(block, str):
        return _plain(block)
    if isinstance(block, Heading):
        return f"## {_plain(block.text)}"
    if isinstance(block, Picture):
        return f"![{_plain(block.caption)}]({block.name})"

    def row(cells: Sequence[str]) -> str:
        plain = (_plain(" ".join(cell.split())).replace("|", r"\|") for cell in cells)
        return f"| {' | '.join(plain)} |"

    rule = "|---|" + "---:|" * (len(block.header) - 1)
    caption = f"*{_plain(block.caption)}*\n"
    return "\n".join([caption, row(block.header), rule, *map(row, block.rows)])


def _text(block: Block) -> str:
    if isinstance(block, str):
        return block
    if isinstance(block, Heading):
        return f"--- {block.text} ---"
    if isinstance(block, Picture):
        return f"{block.name}: {block.caption}"
    lines = [block.header, *block.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def row(cells: Sequence[str]) -> str:
        first, *rest = cells
        return "  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])])

    return "\n".join([block.caption, *map(row, lines)])
