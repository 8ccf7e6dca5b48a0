"""What evaluate.py measures: one module for each of its subcommands, and how results are shown.

A subcommand is a module with ABOUT, a line; `arguments(parser)`, which adds its options (and
returns the parsers of its own subcommands, if it has any); and `run(options) -> Report`. It imports
what takes seconds inside `run`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Report(NamedTuple):
    """text: for the terminal;  values: one JSON object;  files: {name: content} for --out"""

    text: str
    values: dict[str, Any]
    files: Mapping[str, bytes]
