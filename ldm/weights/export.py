"""Writes weights in any layout, whole or not at all."""

import json
import re
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldm.config import ModelConfig, to_dict
from ldm.schedule import NoiseSchedule
from ldm.system import atomic
from ldm.weights import clip_vocabulary, diffusers_configs, tensor_names
from ldm.weights.tensor_names import Layout
from ldm.weights.weight_files import PART_FILES, TRAINED_WORDS, Parts, WeightsError, flatten, some

CHECKSUMS = "crc32"  # the entry of the metadata that holds `checksums`, of the other entries too
POSITION_IDS = "text_model.embeddings.position_ids"  # 0, 1, 2 ...: not weights, but expected


def save(
    path: str | Path, config: ModelConfig, parts: Parts, dtype: torch.dtype | None = None
) -> Path:
    """Write our own layout; returns the file.

    path: ends in .safetensors, or names a folder to hold a model.safetensors
    dtype: None keeps each tensor's own
    """
    return export("ours", path, config, parts, dtype)[0]


def export(
    layout: Layout,
    path: str | Path,
    config: ModelConfig,
    parts: Parts,
    dtype: torch.dtype | None = None,
    rest: str | None = None,
    words: Mapping[str, int] | None = None,
) -> list[Path]:
    """Write a model in a layout; returns the files. Only our own layout takes single parts.

    compvis: a .ckpt, or a .safetensors with the same names;  diffusers: a folder, new or empty;
    ours: a .safetensors, or a folder to hold a model.safetensors
    rest: the name of a file of our layout in the same folder, from which readers take other parts
    words: those that the U-Net was trained on, kept by a .safetensors file; none: unknown
    """
    path = Path(path)
    tensors = _renamed(layout, config, parts, dtype)
    try:
        if layout == "diffusers":
            return _write_folder(path, config, tensors)
        if layout == "compvis":
            tensors |= _compvis_extras(config)
        elif path.suffix != ".safetensors":
            path.mkdir(exist_ok=True)
            path = path / "model.safetensors"
        text = json.dumps(to_dict(config) | ({} if rest is None else {"rest": rest}))
        _write_file(path, tensors, text, {TRAINED_WORDS: json.dumps(words)} if words else {})
        return [path]
    except (OSError, RuntimeError) as error:  # a full disk has many names
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise WeightsError(f"cannot write {path}: {reason}") from error


def _renamed(
    layout: Layout, config: ModelConfig, parts: Parts, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """The tensors under the layout's names, detached and on the CPU."""
    flat = flatten(parts)
    rows = tensor_names.names(config, layout)
    wanted = {n for n in rows if layout != "ours" or n.partition(".")[0] in parts}
    if wanted != flat.keys():
        lacking, strange = some(sorted(wanted - flat.keys())), some(sorted(flat.keys() - wanted))
        raise WeightsError(
            f"cannot write these weights as {layout}: missing there: {lacking}; unknown: {strange}"
        )
    layers = r"vae/.*\.attentions\."  # 1 x 1 convolutions here that are linear there
    if config.unet.head_width and layout != "ours":  # SD 2.x
        layers += r"|(model\.diffusion_model\.|unet/).*\.proj_(in|out)\.weight"
    result = {}
    for ours, tensor in flat.items():
        tensor = tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
        for name, piece in zip(rows[ours], tensor.chunk(len(rows[ours])), strict=True):
            linear = piece.ndim == 4 and re.match(layers, name) is not None
            result[name] = piece[:, :, 0, 0] if linear else piece
    return result


def _compvis_extras(config: ModelConfig) -> dict[str, Tensor]:
    """The buffers that CompVis checkpoints carry beside the weights (DDPM, arXiv:2006.11239)."""
    beta = NoiseSchedule(**vars(config.schedule)).beta.numpy()
    ab = np.cumprod(1 - beta)
    before = np.append(1.0, ab[:-1])
    variance = beta * (1 - before) / (1 - ab)  # of q(x_{t-1} | x_t, x_0), eq. 7
    buffers = {
        "betas": beta,
        "alphas_cumprod": ab,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": np.sqrt(ab),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - ab),
        "log_one_minus_alphas_cumprod": np.log(1 - ab),
        "sqrt_recip_alphas_cumprod": np.sqrt(1 / ab),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / ab - 1),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
        "posterior_mean_coef1": beta * np.sqrt(before) / (1 - ab),
        "posterior_mean_coef2": (1 - before) * np.sqrt(1 - beta) / (1 - ab),
    }
    return {name: torch.from_numpy(b).float() for name, b in buffers.items()} | {
        "cond_stage_model.transformer." + POSITION_IDS: _position_ids(config)
    }


def _position_ids(config: ModelConfig) -> Tensor:
    return torch.arange(config.text.context_length)[None]


def _write_file(
    path: Path, tensors: dict[str, Tensor], text: str, metadata: dict[str, str]
) -> None:
    if path.suffix == ".safetensors":
        write_safetensors(path, tensors, {"config": text} | metadata)
        return
    own = {  # torch.save writes the whole storage behind a view
        name: tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
        for name, tensor in tensors.items()
    }
    # an open file: of a path torch.save writes the name, too, and a partial one is never the same
    with atomic.whole_file(path) as partial, partial.open("wb") as file:
        torch.save({"state_dict": own, "global_step": 0, "ldm_config": text}, file)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors of any device and memory format, and checksums of all, into one file.

    The library's own writer puts the metadata in any order, so that equal weights would differ in
    their bytes, and a kill leaves a file whose name does not tell whose it is.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    plain = dict(sorted(plain.items(), key=lambda item: (-item[1].itemsize, item[0])))  # aligned
    sums = json.dumps(checksums(plain, metadata))
    head: dict[str, Any] = {"__metadata__": {**metadata, CHECKSUMS: sums}}
    place = 0
    for name, tensor in plain.items():
        ends = [place, place := place + tensor.nbytes]
        kind, shape = _kind(tensor.dtype), list(tensor.shape)
        head[name] = {"dtype": kind, "shape": shape, "data_offsets": ends}
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic.whole_file(path) as partial, partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in plain.values():
            file.write(_bytes(tensor))


def checksums(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> dict[str, int]:
    """{name: CRC32 of dtype, shape and numbers, "__metadata__": CRC32}"""
    sums = {"__metadata__": zlib.crc32(json.dumps(metadata, sort_keys=True).encode())}
    for name, tensor in tensors.items():
        said = f"{_kind(tensor.dtype)} {list(tensor.shape)}"
        sums[name] = zlib.crc32(_bytes(tensor), zlib.crc32(said.encode()))
    return sums


def _kind(dtype: torch.dtype) -> str:
    """As safetensors calls it: F32, BF16, I64, U8, F8_E4M3."""
    name = str(dtype).removeprefix("torch.").replace("uint", "u").replace("int", "i")
    return name.replace("float", "f").upper().removesuffix("FN")


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _write_folder(path: Path, config: ModelConfig, tensors: dict[str, Tensor]) -> list[Path]:
    """Write it beside its place, then rename it: the folder appears whole."""
    settings = diffusers_configs.configs(config)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise WeightsError(f"cannot write {path}: it exists already; name a new folder")
    partial = path.with_name(f".{path.name}{atomic.unfinished()}")
    tensors["text_encoder/" + POSITION_IDS] = _position_ids(config)
    try:
        for part, files in PART_FILES.items():
            (partial / part).mkdir(parents=True)
            state = {
                name.partition("/")[2]: tensor
                for name, tensor in tensors.items()
                if name.startswith(part + "/")
            }
            write_safetensors(partial / part / files[0], state, {"format": "pt"})
        texts = {name: json.dumps(values, indent=2) + "\n" for name, values in settings.items()}
        words = clip_vocabulary.files("!" if config.text.openclip else "<|endoftext|>")
        for name, text in (texts | {f"tokenizer/{n}": text for n, text in words.items()}).items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_text(text, encoding="utf-8")
        written = sorted(file.relative_to(partial) for file in partial.rglob("*.*"))
        partial.replace(path)
        atomic.sync(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return [path / file for file in written]
