"""Small files: new words, LoRA and projections, which change a loaded model; the judge."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ldm.lora import LoRALinear
from ldm.pipeline import LatentDiffusion
from ldm.system import cli
from ldm.weights import foreign_adapters
from ldm.weights.export import write_safetensors
from ldm.weights.weight_files import join_words

log = logging.getLogger(__name__)

TRAINED_WITH = {  # kind: config
    "word": "configs/textual_inversion.yaml",
    "lora": "configs/lora.yaml",
    "projection": "configs/projection_document.yaml",
    "judge": "configs/judge.yaml",
}


def save(path: Path, kind: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write one; kind: a key of TRAINED_WITH;  facts: what a reader must know, ready for JSON."""
    write_safetensors(path, tensors, {kind: json.dumps(dict(facts))})


def load(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a file or a run folder; ValueError, in one line, for any other file."""
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    try:
        with safe_open(cli.regular(file), framework="pt") as handle:
            text = (handle.metadata() or {}).get(kind)
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no dict
        if text is None:
            raise ValueError(f"it holds no {kind}; train one with {TRAINED_WITH[kind]}")
        if odd := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
            raise ValueError(f"{odd[0]} is not finite")
        return tensors, cli.parse_json(text)
    except (OSError, SafetensorError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"cannot open {file} as a {kind}: {reason}") from error


def apply(pipe: LatentDiffusion, words: Sequence[str] = (), loras: Sequence[str] = ()) -> None:
    """Add new words and LoRAs, ours or other programs', to a model, and to its `weights_hash`.

    loras: files or run folders; FILE:0.7 adds that share of it
    """
    for path in words:
        width = pipe.config.text.width
        for word, vectors in read_words(path).items():
            if vectors.ndim != 2 or vectors.shape[1] != width:
                raise ValueError(
                    f"{path} has vectors of width {vectors.shape[-1]}, this text tower of {width}: "
                    "it is of another model"
                )
            if word.lower() in map(str.lower, pipe.text.words):
                raise ValueError(f"{path} gives {word} a second meaning; load one of them")
            pipe.text.words[word] = vectors
            log.info("%s: the word %s", Path(path).name, word)
            pipe.weights_hash += f"+{digest({'vectors': vectors})}"
    for given in loras:
        parted = None if Path(given).exists() else re.fullmatch(r"(.+):(-?\d*\.?\d+)", given)
        path, strength = (parted[1], float(parted[2])) if parted else (given, 1.0)
        tensors = _add_lora(pipe, Path(path), strength)
        pipe.weights_hash += f"+{digest(tensors)}" + (f"x{strength:g}" if strength != 1 else "")


def read_words(path: str | Path) -> dict[str, Tensor]:
    """{word: vectors [k, D]} of a file or run folder, ours or another program's."""
    file = _file(path)
    try:
        content, said = foreign_adapters.open_small(file)
        if "word" in said:
            content = {cli.parse_json(said["word"])["word"]: content["vectors"]}
        return foreign_adapters.words_of(content, file.stem)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"cannot open {file} as a word: {error}") from error


def _add_lora(pipe: LatentDiffusion, path: Path, strength: float) -> dict[str, Tensor]:
    """Change the weights; returns the numbers that decide the change."""
    file = _file(path)
    try:
        tensors, said = foreign_adapters.open_small(file)
    except ValueError as error:
        raise ValueError(f"cannot open {file} as a lora: {error}") from error
    try:
        if "lora" in said:
            facts = cli.parse_json(said["lora"])
            merge_lora(pipe.unet, tensors, strength * facts["alpha"] / facts["rank"])
            words = facts.get("words")
            pipe.trained_words = join_words(pipe.trained_words, words and dict(words))
            return tensors
        settings = foreign_adapters.peft_settings(file, said)
        changes = foreign_adapters.lora_changes(tensors, pipe.config, settings)
        parts = {"unet": pipe.unet, "text": pipe.text}
        foreign_adapters.add_changes(parts, changes, strength)
        pipe.trained_words = None  # it does not say what it was trained on
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"{path} is of another model: {error}") from error  # of any shape
    log.info("%s: a LoRA of %d layers", file.name, len(changes))
    alphas = [float(settings[n]) for n in sorted(settings) if n.endswith("lora_alpha")]
    return {**tensors, "lora_alpha": torch.tensor(alphas)}  # which decides the weights, too


def _file(path: str | Path) -> Path:
    """The weights of a run folder, of peft's folder, or the file itself."""
    path = Path(path)
    peft = path / "adapter_model.safetensors"
    return path if not path.is_dir() else peft if peft.exists() else path / "model.safetensors"


def digest(tensors: Mapping[str, Tensor]) -> str:
    """8 hex digits that name these numbers."""
    whole = hashlib.sha256()
    for name in sorted(tensors):
        whole.update(name.encode() + tensors[name].detach().float().numpy().tobytes())
    return whole.hexdigest()[:8]


def lora_tensors(network: nn.Module) -> dict[str, Tensor]:
    """{"<layer>.down": A [r, C], "<layer>.up": B [C', r]} of a network with LoRAs."""
    return {
        f"{name}.{part}": getattr(module, part).weight
        for name, module in network.named_modules()
        if isinstance(module, LoRALinear)
        for part in ("down", "up")
    }


@torch.no_grad()
def merge_lora(network: nn.Module, tensors: Mapping[str, Tensor], scale: float) -> None:
    """W <- W + scale B A in a network without LoRAs; -scale takes it out again, but for rounding.

    Layers of shorter weights become float32, so that several LoRAs are rounded once, by whoever
    moves the network to its dtype.
    Raises ValueError, before anything is changed, if the names or shapes are another network's.
    """
    layers = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear)}
    changes = {}
    for name in sorted({key.rpartition(".")[0] for key in tensors}):
        down, up = tensors.get(f"{name}.down"), tensors.get(f"{name}.up")
        if name not in layers or down is None or up is None:
            raise ValueError(f"there is no layer {name or 'without a name'} with a down and an up")
        if (shape := (len(up), down.shape[1])) != layers[name].weight.shape:
            raise ValueError(
                f"{name} is {list(layers[name].weight.shape)} here, {list(shape)} there"
            )
        changes[name] = scale * (up.double() @ down.double())
    for name, change in changes.items():
        layer = layers[name]
        weight = (layer.float() if layer.weight.itemsize < 4 else layer).weight
        weight.copy_(weight.double() + change.to(weight.device))
