"""Writes weights, and LoRAs, in another layout:  python -m ldm.weights convert|lora|word IN OUT

Compares files with the checksums in them:  python -m ldm.weights check FILE ...
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import torch

from ldm.config import ModelConfig
from ldm.pipeline import LatentDiffusion
from ldm.system import cli
from ldm.system.atomic import whole_file
from ldm.system.cli import load_config
from ldm.system.devices import DTYPES
from ldm.weights import adapters, foreign_adapters
from ldm.weights.export import export, write_safetensors
from ldm.weights.loading import NONE, PARTS, build, load_parts, weights_hash
from ldm.weights.tensor_names import Layout
from ldm.weights.weight_files import WeightsError, trained_words

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
    loras: Sequence[str] = (),
) -> list[Path]:
    """Write weights in another layout, bit for bit; returns the files written.

    dtype: None keeps each tensor's own
    to: by default from the target's name: .ckpt is compvis, .safetensors ours, else diffusers
    rest: a file beside the target; parts that are the same there are not written again, which
        only our own layout can record
    others: parts from elsewhere, as of `loading.load`
    loras: files to be added to the weights, as of `adapters.apply`
    """
    by_suffix: dict[str, Layout] = {".ckpt": "compvis", ".safetensors": "ours"}
    layout = to or by_suffix.get(Path(target).suffix, "diffusers")
    found, parts = load_parts(source, config, ema, dtype, others)
    words = trained_words(others.get("unet", source))
    if loras:
        if lacking := PARTS.keys() - parts.keys():
            raise WeightsError(f"{source} has no {' and no '.join(sorted(lacking))} for a LoRA")
        kinds = {part: {n: t.dtype for n, t in state.items()} for part, state in parts.items()}
        modules = {part: build(part, found, parts[part]) for part in parts}
        pipe = LatentDiffusion(found, **modules)  # type: ignore[arg-type]  # by name
        pipe.trained_words = words
        adapters.apply(pipe, loras=loras)
        words = pipe.trained_words
        parts = {
            part: {name: t.to(kinds[part][name]) for name, t in module.state_dict().items()}
            for part, module in modules.items()
        }
    if rest is None:
        return export(layout, target, found, parts, words=words)
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
    return export(layout, target, found, own, rest=rest.name, words=words)


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(lambda: command_line(arguments), PROGRAM, logging.INFO)


def convert_lora(
    source: str | Path, target: str | Path, program: str, config: ModelConfig
) -> list[Path]:
    """Write a LoRA of ours as a file that another program opens; peft's is a folder."""
    tensors, facts = adapters.load(source, "lora")
    sizes = facts["alpha"], facts["rank"]
    found, said = foreign_adapters.lora_for(program, tensors, *sizes, config)
    target = Path(target)
    if program != "peft":
        write_safetensors(target, found, said)
        return [target]
    target.mkdir(parents=True, exist_ok=True)
    write_safetensors(target / "adapter_model.safetensors", found, {"format": "pt"})
    with whole_file(target / "adapter_config.json") as path:
        path.write_text(said["adapter_config"], encoding="utf-8")
    return [target / "adapter_model.safetensors", target / "adapter_config.json"]


def convert_word(source: str | Path, target: str | Path, program: str) -> list[Path]:
    """Write a new word for diffusers, or for A1111, which calls it by the file's name."""
    (word, vectors), *more = adapters.read_words(source).items()
    if more:
        raise WeightsError(f"{source} holds {1 + len(more)} words; write one at a time")
    name = word if program == "diffusers" else "emb_params"
    write_safetensors(Path(target), {name: vectors}, {})
    return [Path(target)]


def command_line(arguments: Sequence[str] | None) -> int:
    parser = cli.Parser(PROGRAM)
    commands = parser.add_subparsers(dest="command", required=True)
    what = "write weights in another layout, bit for bit"
    command = commands.add_parser("convert", help=what)
    add = command.add_argument
    add("source", metavar="IN", help="a file or folder of any layout")
    add("target", type=cli.folder, metavar="OUT", help="a .ckpt, a .safetensors or a new folder")
    add("--to", choices=get_args(Layout), help="default: by the name of OUT")
    add("--ema", action="store_true", help="take the averaged weights (model_ema.*)")
    cli.part_arguments(command)
    add("--dtype", choices=DTYPES, help="default: bit for bit as in IN")
    add("--rest", metavar="FILE", help="beside OUT: leave out the parts that are the same there")
    command.add_many("--lora", "loras", "PATH", "a LoRA to be added to the weights")
    small = commands.add_parser("lora", help="write a LoRA for other programs")
    small.add_argument("source", metavar="IN", help="a LoRA that train.py made")
    what = "a .safetensors, for peft a folder"
    small.add_argument("target", type=cli.folder, metavar="OUT", help=what)
    small.add_argument("--to", choices=("kohya", "diffusers", "peft"), required=True)
    word = commands.add_parser("word", help="write a new word for other programs")
    word.add_argument("source", metavar="IN", help="a word that train.py made")
    word.add_argument("target", type=cli.folder, metavar="OUT", help="a .safetensors")
    word.add_argument("--to", choices=("diffusers", "a1111"), required=True)
    whole = commands.add_parser("check", help="compare files with the checksums that they carry")
    whole.add_argument("files", metavar="FILE", nargs="+", help="of any layout, or a checkpoint")
    for each in (command, small):
        each.add_argument("--config", help="YAML of the sizes, if not SD v1.4's or the file's own")
    for each in (command, small, word):
        each.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.command == "check":
        from ldm.weights import checksums

        for line in checksums.compare_all(options.files):
            sys.stdout.write(cli.printable(line) + "\n")
        return 0
    watch = cli.Stopwatch()
    with watch(options.command):
        named = vars(options).get("config")
        config = load_config(ModelConfig, named) if named else None
        source, target, to = options.source, options.target, options.to
        cli.check_folder(target if target.is_dir() else target.parent)
        if options.command == "lora":
            written = convert_lora(source, target, to, config or ModelConfig())
        elif options.command == "word":
            written = convert_word(source, target, to)
        else:
            dtype, more = DTYPES.get(options.dtype), (options.parts, options.loras)
            ema, rest = options.ema, options.rest
            written = convert(source, target, to, config, ema, dtype, rest, *more)
    sys.stdout.write(cli.report(written, watch, options.json) + "\n")
    return 0
