"""How fast is it?  python -m benchmarks [NAME ...] [--json]"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import compiling, conv, fid, sample, startup, train_step, unet, vae
from benchmarks.measure import Row, Setting, machine
from ldm.config import ModelConfig
from ldm.system import cli
from ldm.system.cli import load_config

PROGRAM = "python -m benchmarks"
BENCHMARKS: dict[str, Callable[[str, Setting], Iterable[Row]]] = {
    "unet_b2_64": partial(unet.rows, batch=2, side=64),
    "unet_b2_32": partial(unet.rows, batch=2, side=32),
    "compile": partial(compiling.rows, batch=2, side=32),
    "vae_512": partial(vae.rows, side=64),
    "train_b1_32": partial(train_step.rows, side=32),
    "fid_10k": partial(fid.rows, n=10_000),
    "startup": startup.rows,
    "sample": sample.rows,
    "conv": conv.rows,
}
HEAD = ("", "ours, s", "other, s", "ratio", "range of it", "GFLOP", "of sgemm", "sgemm", "n", "")
WIDTHS = (24, 9, 9, 7, 14, 9, 9, 7, 3, 0)


def line(cells: Iterable[str]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def cells(record: Mapping[str, Any]) -> list[str]:
    """A line of the table; an empty cell is one that has no figure."""

    def figure(key: str, form: str) -> str:
        return "" if record[key] is None else format(record[key], form)

    between = record["ratio_range"]
    return [
        record["name"],
        figure("ours_s", ".4g"),
        figure("other_s", ".4g"),
        figure("ratio", ".3f"),
        "" if between is None else "{:.3f}-{:.3f}".format(*between),
        figure("gflop", ".4g"),
        figure("share_of_sgemm", ".2f"),
        figure("sgemm_gflops", ".1f"),
        str(record["rounds"]),
        record["note"],
    ]


def parse(arguments: list[str] | None) -> tuple[list[str], Setting, bool]:
    about = "Seconds of ours and of the other, in turns, and what share of the machine's that is."
    parser = cli.Parser(PROGRAM, about)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"all, or some of {', '.join(BENCHMARKS)}")
    add("--rounds", type=cli.whole(1), default=5, metavar="N", help="turns of each (5)")
    add("--config", type=Path, metavar="YAML", help="sizes of another model than SD v1.4")
    add("--json", action="store_true", help="print one JSON object for each row")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in BENCHMARKS:
            parser.error(f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    config = load_config(ModelConfig, options.config) if options.config else ModelConfig()
    return options.names or list(BENCHMARKS), Setting(config, options.rounds), options.json


def main(arguments: list[str] | None = None) -> int:
    names, setting, as_json = parse(arguments)
    here = machine()
    if not as_json:
        print(f"{here}; ratio = ours / other; sgemm in GFLOP/s\n\n{line(HEAD)}", flush=True)
    for name in names:
        for row in BENCHMARKS[name](name, setting):
            record = row.record()
            print(json.dumps(record | {"machine": here}) if as_json else line(cells(record)))
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, PROGRAM))
