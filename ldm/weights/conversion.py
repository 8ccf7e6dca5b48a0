"""Writes weights anew in another layout:  python -m ldm.weights convert IN OUT"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch

from ldm.config import ModelConfig, load_config
from ldm.system import cli
from ldm.system.devices import DTYPES
from ldm.weights.export import export
from ldm.weights.loading import load_parts, weights_hash
from ldm.weights.rename import Layout
from ldm.weights.weight_files import WeightsError

PROGRAM = "python -m ldm.weights"


def convert(
    source: str | Path,
    target: str | Path,
    to: Layout | None = None,
    config: ModelConfig | None = None,
    ema: bool = False,
    dtype: torch.dtype | None = None,
    rest: str | Path | None = None,
) -> list[Path]:
    """Write weights anew in another layout, bit for bit; returns the files written.

    dtype: None keeps each tensor's own
    to: by default what the target's name says: .ckpt is compvis, .safetensors ours, else diffusers
    rest: a file beside the target; parts that are the same there are left to it, which only our
        own layout can say
    """
    by_suffix: dict[str, Layout] = {".ckpt": "compvis", ".safetensors": "ours"}
    layout = to or by_suffix.get(Path(target).suffix, "diffusers")
    found, parts = load_parts(source, config, ema=ema, dtype=dtype)
    if rest is None:
        return export(layout, target, found, parts)
    target, rest = Path(target), Path(rest)
    if layout != "ours" or rest.resolve() != target.resolve().parent / rest.name:
        raise WeightsError(f"{target} can leave parts to {rest} only as a .safetensors beside it")
    others = load_parts(rest)[1]
    own = {
        part: state
        for part, state in parts.items()
        if part not in others or weights_hash({part: state}) != weights_hash({part: others[part]})
    }
    if not own or len(own) == len(parts):
        raise WeightsError(f"{source} and {rest} have {'all' if not own else 'no'} parts in common")
    return export(layout, target, found, own, rest=rest.name)


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(lambda: command_line(arguments), PROGRAM, logging.INFO)


def command_line(arguments: Sequence[str] | None) -> int:
    parser = cli.Parser(PROGRAM, "Write weights anew in another layout, bit for bit.")
    command = parser.add_subparsers(dest="command", required=True).add_parser(
        "convert", help="write weights anew in another layout, bit for bit"
    )
    command.add_argument("source", metavar="IN", help="a file or folder of any layout")
    command.add_argument("target", metavar="OUT", help="a .ckpt, a .safetensors or a new folder")
    command.add_argument("--to", choices=get_args(Layout), help="default: by the name of OUT")
    command.add_argument("--config", help="YAML of the sizes, if IN is no SD v1.4 and keeps none")
    command.add_argument(
        "--ema", action="store_true", help="take the averaged weights (model_ema.*)"
    )
    command.add_argument("--dtype", choices=DTYPES, help="default: bit for bit as in IN")
    command.add_argument(
        "--rest", metavar="FILE", help="beside OUT: leave out the parts that are the same there"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    watch = cli.Stopwatch()
    with watch("convert"):
        config = load_config(ModelConfig, options.config) if options.config else None
        dtype = DTYPES.get(options.dtype)
        written = convert(
            options.source,
            options.target,
            options.to,
            config,
            options.ema,
            dtype,
            options.rest,
        )
    paths = [str(path) for path in written]
    report = {"paths": paths, "seconds": watch.rounded()}
    sys.stdout.write((json.dumps(report) if options.json else "\n".join(paths)) + "\n")
    return 0
