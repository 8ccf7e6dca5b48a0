"""A report of sentences, tables and pictures as one HTML file, as Markdown and as plain text."""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ldm.metrics.estimate import as_json


@dataclass(frozen=True)
class Table:
    """rows: cells as they are shown, as many as the header has"""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


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
    import jinja2

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
    return "\n\n".join([f"# {title}", *map(_markdown, blocks)]) + "\n"


def text(title: str, blocks: Sequence[Block]) -> str:
    """For a terminal; of a picture, its file and caption."""
    return "\n\n".join([title, *map(_text, blocks)]) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, str):
        return block
    if isinstance(block, Heading):
        return f"## {block.text}"
    if isinstance(block, Picture):
        return f"![{block.caption}]({block.name})"

    def row(cells: Sequence[str]) -> str:
        plain = (" ".join(cell.split()).replace("|", r"\|") for cell in cells)
        return f"| {' | '.join(plain)} |"

    rule = "|---|" + "---:|" * (len(block.header) - 1)
    return "\n".join([f"*{block.caption}*\n", row(block.header), rule, *map(row, block.rows)])


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
