"""Small files that change a model that is there already: new words, LoRA, projections."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ldm import lora
from ldm.pipeline import LatentDiffusion
from ldm.system import atomic

HOW = {  # what there is, and how to get one
    "word": "configs/textual_inversion.yaml",
    "lora": "configs/lora.yaml",
    "projection": "configs/projection_document.yaml",
}


def save(path: Path, kind: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write one; kind: a key of HOW;  facts: what a reader must know, ready for JSON."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic.whole_file(path) as unfinished:
        save_file(plain, unfinished, metadata={kind: json.dumps(dict(facts))})


def load(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a file or a run folder. Raises ValueError, in one line, for others."""
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    try:
        with safe_open(file, framework="pt") as handle:
            text = (handle.metadata() or {}).get(kind)
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no dict
        if text is None:
            raise ValueError(f"it holds no {kind}; train one with {HOW[kind]}")
        return tensors, json.loads(text)
    except (OSError, SafetensorError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"cannot open {file} as a {kind}: {reason}") from error


def apply(pipe: LatentDiffusion, words: Sequence[str] = (), loras: Sequence[str] = ()) -> None:
    """Teach the model new words and add LoRAs to its U-Net.

    The model's `weights_hash` then names them. All are files or run folders.
    """
    for path in words:
        tensors, facts = load(path, "word")
        add_word(pipe, facts["word"], tensors["vectors"], where=str(path))
        pipe.weights_hash += f"+{digest(tensors)}"
    for path in loras:
        tensors, facts = load(path, "lora")
        try:
            lora.merge(pipe.unet, tensors, facts["alpha"] / facts["rank"])
        except ValueError as error:
            raise ValueError(f"{path} is of another model: {error}") from error
        pipe.weights_hash += f"+{digest(tensors)}"


def add_word(pipe: LatentDiffusion, word: str, vectors: Tensor, where: str) -> None:
    width = pipe.config.text.width
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise ValueError(
            f"{where} has vectors of width {vectors.shape[-1]}, this text tower of {width}: "
            "it is of another model"
        )
    if word in pipe.text.words:
        raise ValueError(f"{where} gives {word} a second meaning; load one of them")
    pipe.text.words[word] = vectors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """8 hex digits that name these numbers."""
    whole = hashlib.sha256()
    for name in sorted(tensors):
        whole.update(name.encode() + tensors[name].float().numpy().tobytes())
    return whole.hexdigest()[:8]
