"""Sentences, tables and pictures as one HTML file, as Markdown and as plain text."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ldm.metrics.estimate import as_json

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
  color: #111; background: #fff; }
p { max-width: 45rem; }
nav ul { columns: 2; column-gap: 3rem; list-style: none; padding: 0; }
nav li { break-inside: avoid; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.85em; }
figure { margin: 1.5rem 0; overflow-x: auto; }
figcaption { font-size: 0.9em; margin: 0.3rem 0; }
th, td { padding: 0.2rem 0.6rem; border-bottom: 1px solid #ccc; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
@page { size: A4 landscape; margin: 12mm; }
@media print {
  body { margin: 0; font-size: 10pt; max-width: none; }
  th, td { padding: 0.1rem 0.3rem; }
  figure { break-inside: avoid; overflow: visible; }
  h2 { break-after: avoid; }
  img { max-height: 165mm; }
}
"""


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


@dataclass(frozen=True)
class Heading:
    """The title of a section; a page with some begins with a list of them."""

    text: str


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
    """One file that needs no other and no network; it prints on A4."""
    body = "\n".join([*_contents(blocks), *map(_html, blocks)])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def markdown(title: str, blocks: Sequence[Block]) -> str:
    return "\n\n".join([f"# {title}", *map(_markdown, blocks)]) + "\n"


def text(title: str, blocks: Sequence[Block]) -> str:
    """For a terminal; of a picture, its file and caption."""
    return "\n\n".join([title, *map(_text, blocks)]) + "\n"


def _contents(blocks: Sequence[Block]) -> list[str]:
    titles = [block.text for block in blocks if isinstance(block, Heading)]
    items = [f'<li><a href="#{_anchor(text)}">{escape(text)}</a></li>' for text in titles]
    return [f"<nav><ul>{''.join(items)}</ul></nav>"] if items else []


def _anchor(text: str) -> str:
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")


def _html(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{escape(block)}</p>"
    if isinstance(block, Heading):
        return f'<h2 id="{_anchor(block.text)}">{escape(block.text)}</h2>'
    caption = escape(block.caption)
    if isinstance(block, Picture):
        data = base64.b64encode(block.png).decode()
        image = f'<img src="data:image/png;base64,{data}" alt="{caption}">'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"

    def row(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    head, rows = row(block.header, "th"), "\n".join(row(cells, "td") for cells in block.rows)
    table = f"<table>\n<thead>{head}</thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
    return f"<figure><figcaption>{caption}</figcaption>{table}</figure>"


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
