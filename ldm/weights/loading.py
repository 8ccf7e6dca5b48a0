"""Opens weights of any layout, as parts of a model or as a whole LatentDiffusion.

Reading runs no code of the file, is strict about names and shapes, and needs no memory beyond the
weights: files are mapped, and float32 tensors stay in the file until their first use. So never
rewrite a file in place while its model is alive; to replace it, as `export` does, is harmless.
"""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ldm.clip import TextEncoder
from ldm.config import ModelConfig
from ldm.pipeline import LatentDiffusion
from ldm.system import cli
from ldm.unet import UNet
from ldm.vae import VAE
from ldm.weights import tensor_names
from ldm.weights.tensor_names import OPENCLIP
from ldm.weights.weight_files import (
    Parts,
    Tensors,
    WeightsError,
    check_names,
    fit,
    flatten,
    read,
    read_part,
    some,
    trained_words,
)

log = logging.getLogger(__name__)

Rows = dict[str, tuple[str, ...]]  # {our name: their names}
NONE: Mapping[str, str | Path] = {}


def _unet(config: ModelConfig) -> nn.Module:
    if not config.unet.beside:
        return UNet(config.unet)
    from ldm.weights.inpainting_unet import InpaintingUNet

    return InpaintingUNet(config.unet)


PARTS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "unet": _unet,
    "vae": lambda config: VAE(config.vae),
    "text": lambda config: TextEncoder(config.text),
}

OTHER_SIZES = "it is another model's, or of other sizes (name the right config)"
# names that files of a layout may hold besides the weights: buffers, and heads that nobody uses;
# "others": patterns of what training tools and merged files keep beside a model
EXTRAS = json.loads(Path(__file__).with_name("extra_tensors.json").read_text(encoding="utf-8"))


def load(
    path: str | Path,
    config: str | Path | None = None,
    ema: bool = False,
    dtype: torch.dtype | None = torch.float32,
    parts: Mapping[str, str | Path] = NONE,
) -> LatentDiffusion:
    """The model in a file or folder of any layout, in eval mode, on the CPU.

    config: a YAML of ModelConfig's fields, for a CompVis file of other sizes than SD v1.4's
    ema: take the averaged weights of a CompVis file that holds both
    dtype: None keeps each tensor's own
    parts: {"vae": file or folder with that part, of any layout}, in the place of the own one
    Raises ValueError, in one line, for anything that cannot be opened whole.
    """
    given = None if config is None else cli.load_config(ModelConfig, config)
    found, states = load_parts(path, given, ema, dtype, parts)
    if missing := PARTS.keys() - states.keys():
        raise ValueError(
            f"{path} has no {' and no '.join(sorted(missing))}; "
            "train the missing part or name a file with all three"
        )
    digest = weights_hash(states)
    modules = {part: build(part, found, states.pop(part)) for part in PARTS}
    pipe = LatentDiffusion(found, **modules, weights_hash=digest)  # type: ignore[arg-type]  # by name
    pipe.trained_words = trained_words(parts.get("unet", path))
    return pipe


def build(part: str, config: ModelConfig, state: Mapping[str, Tensor]) -> nn.Module:
    """One of PARTS with these very tensors, which are not copied, in eval mode."""
    with torch.device("meta"):
        module = PARTS[part](config)
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval()


def load_parts(
    path: str | Path,
    config: ModelConfig | None = None,
    ema: bool = False,
    dtype: torch.dtype | None = torch.float32,
    parts: Mapping[str, str | Path] = NONE,
) -> tuple[ModelConfig, dict[str, dict[str, Tensor]]]:
    """The config, and for each part ("unet", "vae", "text") its state dict under our names.

    Parts may be absent only in our own layout. A CompVis file that keeps no config is SD v1.4.
    config: replaces the file's own
    ema: take the averaged weights (model_ema.*) of a CompVis file that holds both
    dtype: None keeps each tensor's own
    parts: as of `load`
    """
    source = read(path, parts)
    config = config or source.config
    sd2 = source.layout == "compvis" and any(n.startswith(OPENCLIP) for n in source.tensors)
    if sd2 and not (config and config.text.openclip):
        raise WeightsError(
            f"{path} is of SD 2.x; name its sizes: --config configs/sd2_base.yaml (512 px, "
            "predicts eps) or configs/sd2.yaml (768 px, predicts v)"
        )
    config = config or (ModelConfig() if source.layout == "compvis" else None)
    if config is None:
        raise WeightsError(f"{path} keeps no config of its own; name one")
    first = source.tensors.get("model.diffusion_model.input_blocks.0.0.weight")
    if first and first().shape[1:2] == (2 * config.unet.in_channels + 1,):  # for inpainting
        beside = config.unet.in_channels + 1
        config = replace(config, unet=replace(config.unet, beside=beside))
    rows, tensors = tensor_names.names(config, source.layout), source.tensors
    if source.layout == "ours":
        present = {name.partition(".")[0] for name in tensors}
        rows = {ours: theirs for ours, theirs in rows.items() if ours.partition(".")[0] in present}
    if ema:
        rows, tensors = _averaged(path, rows, tensors)
    else:
        tensors = {n: t for n, t in tensors.items() if not n.startswith("model_ema.")}
        if len(tensors) < len(source.tensors):
            log.info("%s also holds averaged weights (model_ema.*), left out here", path)
    tensors = without_extras(path, source.layout, tensors)
    for part, place in parts.items():  # in the place of the file's own
        prefix = tensor_names.prefix(part, source.layout, config.text)
        tensors = {n: t for n, t in tensors.items() if not n.startswith(prefix)}
        rows = {ours: theirs for ours, theirs in rows.items() if not ours.startswith(f"{part}.")}
        more, found = part_tensors(place, part, config)
        rows, tensors = rows | more, tensors | found
    wanted = [name for theirs in rows.values() for name in theirs]
    check_names(path, wanted, tensors, OTHER_SIZES)

    expected = shapes(config, PARTS)
    states: dict[str, dict[str, Tensor]] = {}
    name = cli.printable(f"reading {Path(path).name}")
    bar = tqdm(rows.items(), name, delay=2, disable=None, leave=False)
    for ours, theirs in bar:
        height, *rest = expected[ours]
        shape = (height // len(theirs), *rest)
        # popped: float16 tensors are freed one by one while the float32 copy grows
        pieces = [fit(path, name, tensors.pop(name)(), shape, OTHER_SIZES) for name in theirs]
        tensor = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        part, _, name = ours.partition(".")
        states.setdefault(part, {})[name] = tensor.to(dtype or tensor.dtype).contiguous()
    return config, states


def part_tensors(path: str | Path, part: str, config: ModelConfig) -> tuple[Rows, Tensors]:
    """The rows and tensors of one part, from a model or from a file or folder of that part alone.

    Its names may have the prefix of a whole model, or none. The log says what was left out.
    """
    tensors = read_part(path, part)
    for layout in get_args(tensor_names.Layout):
        prefix = tensor_names.prefix(part, layout, config.text)
        bare = [name.removeprefix(prefix).removeprefix("text_model.") for name in tensors]
        whole = [tensor_names.respelled(prefix + name) for name in bare]
        named = dict(zip(whole, tensors.values(), strict=True))
        rows = tensor_names.names(config, layout)
        rows = {ours: theirs for ours, theirs in rows.items() if ours.startswith(f"{part}.")}
        wanted = {name for theirs in rows.values() for name in theirs}
        if wanted <= named.keys():
            if extra := [name for name in named if name not in wanted]:
                log.info("%s: of %s, %d tensors are taken", path, some(extra), len(wanted))
            return rows, {name: named[name] for name in wanted}
    raise WeightsError(f"{path} holds no {part} of these sizes: it has {some(tensors)}")


def without_extras(path: str | Path, layout: str, tensors: Tensors) -> Tensors:
    """The tensors without those of EXTRAS; the log says how many of the others were left out."""
    others = re.compile("|".join(EXTRAS["others"]))
    kept = {name: t for name, t in tensors.items() if name not in EXTRAS[layout]}
    if extra := [name for name in kept if layout == "compvis" and others.match(name)]:
        log.warning("%s: %d tensors are no part of the model: %s", path, len(extra), some(extra))
    return {name: tensor for name, tensor in kept.items() if name not in extra}


def _averaged(path: str | Path, rows: Rows, tensors: Tensors) -> tuple[Rows, Tensors]:
    """Rows and tensors with the U-Net's own weights replaced by their moving average."""
    live = {name for ours, theirs in rows.items() if ours.startswith("unet.") for name in theirs}
    if not any(tensor_names.ema_name(name) in tensors for name in live):
        raise WeightsError(
            f"{path} holds no averaged weights (model_ema.*): open it without asking for them "
            "(sd-v1-4.ckpt keeps the average under the plain names)"
        )
    rows = {
        ours: tuple(tensor_names.ema_name(name) if name in live else name for name in theirs)
        for ours, theirs in rows.items()
    }
    return rows, {name: tensor for name, tensor in tensors.items() if name not in live}


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

    The same numbers give the same digits in every layout.
    """
    parts = weights if isinstance(weights, Mapping) else load_parts(weights)[1]
    flat = flatten(parts)
    digest = hashlib.sha256()
    for name in tqdm(sorted(flat), "naming the weights", delay=2, disable=None, leave=False):
        digest.update(f"{name} {list(flat[name].shape)}\n".encode())
        digest.update(flat[name].detach().cpu().float().flatten().numpy().data)
    return digest.hexdigest()[:16]
