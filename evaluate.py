"""Measure:  python evaluate.py text-encoders"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ldm.report import (
    classify,
    edits,
    images,
    memorization,
    reader_study,
    reconstruction,
    study,
    text_encoders,
)
from ldm.system import atomic, cli

ABOUT = "Measure a model or its parts; results are tables, pictures and a page in --out."
SUBCOMMANDS: dict[str, Any] = {  # modules, see ldm/report
    "classify": classify,
    "edits": edits,
    "images": images,
    "memorization": memorization,
    "reader-study": reader_study,
    "reconstruction": reconstruction,
    "study": study,
    "text-encoders": text_encoders,
}


def main(arguments: list[str] | None = None) -> int:
    parser = cli.Parser("evaluate.py", ABOUT)
    commands = parser.add_subparsers(dest="command", required=True, metavar="WHAT")
    for name, module in SUBCOMMANDS.items():
        command = commands.add_parser(name, description=module.ABOUT, help=module.ABOUT)
        out = Path("runs", name.replace("-", "_"))
        for each in module.arguments(command) or [command]:
            each.add_argument(
                "--out", type=cli.folder, default=out, metavar="FOLDER", help=f"where to ({out})"
            )
            each.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    cli.check_folder(options.out)
    watch = cli.Stopwatch()
    with watch("measuring"):
        from ldm.metrics.estimate import as_json  # imports numpy

        report = SUBCOMMANDS[options.command].run(options)
    with atomic.whole_folder(options.out) as folder:
        for name, content in report.files.items():
            (folder / name).write_bytes(content)
    paths = [str(options.out / name) for name in report.files]
    values = as_json({**report.values, "paths": paths, "seconds": watch.rounded()})
    print(json.dumps(values) if options.json else "\n".join([report.text, *paths]))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "evaluate.py"))
