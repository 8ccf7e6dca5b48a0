"""Writes weights in another layout:  python -m ldm.weights convert IN OUT"""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import torch

from ldm.config import ModelConfig, load_config
from ldm.system import cli
from ldm.system.devices import DTYPES
from ldm.weights.export import export
from ldm.weights.loading import NONE, load_parts, weights_hash
from ldm.weights.tensor_names import Layout
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
    others: Mapping[str, str | Path] = NONE,
) -> list[Path]:
    """Write weights in another layout, bit for bit; returns the files written.

    dtype: None keeps each tensor's own
    to: by default from the target's name: .ckpt is compvis, .safetensors ours, else diffusers
    rest: a file beside the target; parts that are the same there are not written again, which
        only our own layout can record
    others: parts from elsewhere, as of `loading.load`
    """
    by_suffix: dict[str, Layout] = {".ckpt": "compvis", ".safetensors": "ours"}
    layout = to or by_suffix.get(Path(target).suffix, "diffusers")
    found, parts = load_parts(source, config, ema, dtype, others)
    if rest is None:
        return export(layout, target, found, parts)
    target, rest = Path(target), Path(rest)
    if layout != "ours" or rest.resolve() != target.resolve().parent / rest.name:
        raise WeightsError(f"{target} can leave parts to {rest} only as a .safetensors beside it")
    there = load_parts(rest)[1]
    own = {
        part: state
        for part, state in parts.items()
        if part not in there or weights_hash({part: state}) != weights_hash({part: there[part]})
    }
    if not own or len(own) == len(parts):
        raise WeightsError(f"{source} and {rest} have {'all' if not own else 'no'} parts in common")
    return export(layout, target, found, own, rest=rest.name)


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(lambda: command_line(arguments), PROGRAM, logging.INFO)


def command_line(arguments: Sequence[str] | None) -> int:
    what = "write weights in another layout, bit for bit"
    parser = cli.Parser(PROGRAM)
    command = parser.add_subparsers(dest="command", required=True).add_parser("convert", help=what)
    add = command.add_argument
    add("source", metavar="IN", help="a file or folder of any layout")
    add("target", metavar="OUT", help="a .ckpt, a .safetensors or a new folder")
    add("--to", choices=get_args(Layout), help="default: by the name of OUT")
    add("--config", help="YAML of the sizes, if IN is not SD v1.4 and keeps none")
    add("--ema", action="store_true", help="take the averaged weights (model_ema.*)")
    cli.part_arguments(command)
    add("--dtype", choices=DTYPES, help="default: bit for bit as in IN")
    add("--rest", metavar="FILE", help="beside OUT: leave out the parts that are the same there")
    add("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    watch = cli.Stopwatch()
    with watch("convert"):
        config = load_config(ModelConfig, options.config) if options.config else None
        layout, dtype = options.to, DTYPES.get(options.dtype)
        written = convert(
            options.source,
            options.target,
            layout,
            config,
            options.ema,
            dtype,
            options.rest,
            options.parts,
        )
    sys.stdout.write(cli.report(written, watch, options.json) + "\n")
    return 0
