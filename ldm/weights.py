"""Weights in and out: CompVis files (SD v1.4), diffusers folders, our own safetensors file.

    python -m ldm.weights convert sd-v1-4.ckpt sd-v1-4.safetensors

Reading runs nothing that a file says, is strict about names and shapes, and costs no memory beyond
the weights: files are mapped, and float32 tensors stay in the file until they are touched. So the
file must not be rewritten in place while its model is alive; replacing or deleting it is harmless,
and that is how everything here writes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ldm import cli, rename
from ldm.config import ModelConfig, load_config
from ldm.devices import DTYPES
from ldm.export import Parts, export, save
from ldm.models.clip import TextEncoder
from ldm.models.unet import UNet
from ldm.models.vae import VAE
from ldm.rename import Layout
from ldm.sources import Source, Tensors, WeightsError, read, some

log = logging.getLogger(__name__)

__all__ = ["Source", "WeightsError", "export", "load_parts", "read", "save", "weights_hash"]

PROGRAM = "python -m ldm.weights"

Rows = dict[str, tuple[str, ...]]  # our name -> their name or names

PARTS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "unet": lambda config: UNet(config.unet),
    "vae": lambda config: VAE(config.vae),
    "text": lambda config: TextEncoder(config.text),
}

SCHEDULE_BUFFERS = (
    "betas|(sqrt_)?alphas_cumprod|alphas_cumprod_prev|(sqrt|log)_one_minus_alphas_cumprod"
    "|sqrt_recipm?1?_alphas_cumprod|posterior_(variance|log_variance_clipped|mean_coef[12])"
)
EXTRAS = {  # what files of a layout may hold besides the weights
    "compvis": re.compile(
        rf"{SCHEDULE_BUFFERS}|lvlb_weights|logvar|model_ema\.(decay|num_updates)"
        r"|cond_stage_model\.(transformer\.)?(text_projection(\.weight)?|logit_scale)"
        r"|cond_stage_model\.transformer\.text_model\.embeddings\.position_ids"
    ),
    "diffusers": re.compile(
        r"text_encoder/(text_model\.embeddings\.position_ids|text_projection\.weight|logit_scale)"
    ),
    "ours": re.compile(r"(?!)"),  # nothing
}


def load_parts(
    path: str | Path,
    config: ModelConfig | None = None,
    ema: bool = False,
    dtype: torch.dtype | None = torch.float32,
) -> tuple[ModelConfig, dict[str, dict[str, Tensor]]]:
    """The config, and for each part ("unet", "vae", "text") its state dict under our names.

    Parts may be absent only in our own layout. A CompVis file that keeps no config is SD v1.4.
    config: replaces what the file says of itself
    ema: take the averaged weights (model_ema.*) of a CompVis file that holds both
    dtype: None keeps each tensor's own
    """
    source = read(path)
    config = config or source.config or (ModelConfig() if source.layout == "compvis" else None)
    if config is None:
        raise WeightsError(f"{path} keeps no config of its own; name one")
    rows = rename.names(config, source.layout)
    present = set(PARTS)
    if source.layout == "ours":
        present &= {name.partition(".")[0] for name in source.tensors}
        rows = {ours: theirs for ours, theirs in rows.items() if ours.partition(".")[0] in present}
    tensors = source.tensors
    if ema:
        rows, tensors = _averaged(path, rows, tensors)
    else:
        tensors = {n: t for n, t in tensors.items() if not n.startswith("model_ema.")}
        if len(tensors) < len(source.tensors):
            log.info("%s also holds averaged weights (model_ema.*), left out here", path)
    wanted = [name for theirs in rows.values() for name in theirs]
    _check_names(path, wanted, tensors, EXTRAS[source.layout])

    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS if part in present}
    expected = shapes(config, parts)
    bar = tqdm(rows.items(), f"reading {Path(path).name}", delay=2, disable=None, leave=False)
    for ours, theirs in bar:
        height, *rest = expected[ours]
        shape = (height // len(theirs), *rest)
        # popped: a float16 file is let go tensor by tensor while its float32 copy grows
        pieces = [_fit(path, name, tensors.pop(name)(), shape) for name in theirs]
        tensor = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        part, _, name = ours.partition(".")
        parts[part][name] = tensor.to(dtype or tensor.dtype).contiguous()
    return config, parts


def _averaged(path: str | Path, rows: Rows, tensors: Tensors) -> tuple[Rows, Tensors]:
    """Rows and tensors with the U-Net's own weights replaced by their moving average."""
    live = {name for ours, theirs in rows.items() if ours.startswith("unet.") for name in theirs}
    if not any(rename.ema_name(name) in tensors for name in live):
        raise WeightsError(
            f"{path} holds no averaged weights (model_ema.*): open it without asking for them "
            "(sd-v1-4.ckpt keeps the average under the plain names)"
        )
    rows = {
        ours: tuple(rename.ema_name(name) if name in live else name for name in theirs)
        for ours, theirs in rows.items()
    }
    return rows, {name: tensor for name, tensor in tensors.items() if name not in live}


def _check_names(
    path: str | Path, wanted: Iterable[str], found: Iterable[str], extras: re.Pattern[str]
) -> None:
    wanted, found = list(wanted), set(found)
    if missing := [name for name in wanted if name not in found]:
        raise WeightsError(
            f"{path} lacks {some(missing)}: the file is incomplete, or its sizes are not the "
            "config's (name the right config)"
        )
    if unknown := sorted(n for n in found - set(wanted) if not extras.fullmatch(n)):
        raise WeightsError(
            f"{path} holds {some(unknown)}, which the model has no place for: it is another "
            "model's file, or its sizes are not the config's (name the right config)"
        )


def _fit(path: str | Path, name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    # a 1 x 1 convolution [a, b, 1, 1] and a linear layer [a, b] hold the same numbers
    plain, expected = (x[:2] if x[2:] == (1, 1) else x for x in (tuple(tensor.shape), shape))
    if plain != expected or not tensor.is_floating_point():
        raise WeightsError(
            f"{name} in {path} is {tensor.dtype} {list(tensor.shape)}, expected floating point "
            f"{list(shape)}; if the model has other sizes, name its config"
        )
    return tensor.reshape(shape)


def shapes(config: ModelConfig, parts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """{our name: shape} of every tensor of the parts; builds them without memory."""
    with torch.device("meta"):
        modules = {part: PARTS[part](config) for part in parts}
    return {
        f"{part}.{name}": tuple(tensor.shape)
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


def weights_hash(weights: str | Path | Parts) -> str:
    """16 hex digits that name these weights: sha256 over names, shapes and float32 values.

    The same numbers give the same digits in whatever layout they are kept.
    """
    parts = weights if isinstance(weights, Mapping) else load_parts(weights)[1]
    flat = _flat(parts)
    digest = hashlib.sha256()
    for name in tqdm(sorted(flat), "naming the weights", delay=2, disable=None, leave=False):
        digest.update(f"{name} {list(flat[name].shape)}\n".encode())
        digest.update(flat[name].detach().cpu().float().flatten().numpy().data)
    return digest.hexdigest()[:16]


def _flat(parts: Parts) -> dict[str, Tensor]:
    return {f"{part}.{n}": tensor for part, state in parts.items() for n, tensor in state.items()}


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


if __name__ == "__main__":
    sys.exit(main())
