"""Small files: new words, LoRA and projections, which change a loaded model; the judge."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ldm.lora import LoRALinear
from ldm.pipeline import LatentDiffusion
from ldm.weights.export import write_safetensors

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
        with safe_open(file, framework="pt") as handle:
            text = (handle.metadata() or {}).get(kind)
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no dict
        if text is None:
            raise ValueError(f"it holds no {kind}; train one with {TRAINED_WITH[kind]}")
        return tensors, json.loads(text)
    except (OSError, SafetensorError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"cannot open {file} as a {kind}: {reason}") from error


def apply(pipe: LatentDiffusion, words: Sequence[str] = (), loras: Sequence[str] = ()) -> None:
    """Add new words and LoRAs, files or run folders, to a model, and to its `weights_hash`."""
    for path in words:
        tensors, facts = load(path, "word")
        word, vectors, width = facts["word"], tensors["vectors"], pipe.config.text.width
        if vectors.ndim != 2 or vectors.shape[1] != width:
            raise ValueError(
                f"{path} has vectors of width {vectors.shape[-1]}, this text tower of {width}: "
                "it is of another model"
            )
        if word in pipe.text.words:
            raise ValueError(f"{path} gives {word} a second meaning; load one of them")
        pipe.text.words[word] = vectors
        pipe.weights_hash += f"+{digest(tensors)}"
    for path in loras:
        tensors, facts = load(path, "lora")
        try:
            merge_lora(pipe.unet, tensors, facts["alpha"] / facts["rank"])
        except ValueError as error:
            raise ValueError(f"{path} is of another model: {error}") from error
        pipe.weights_hash += f"+{digest(tensors)}"


def digest(tensors: Mapping[str, Tensor]) -> str:
    """8 hex digits that name these numbers."""
    whole = hashlib.sha256()
    for name in sorted(tensors):
        whole.update(name.encode() + tensors[name].float().numpy().tobytes())
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
