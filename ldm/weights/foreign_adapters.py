"""New words and LoRAs of other programs, as tensors of ours.

New words: A1111's embeddings (.pt, .safetensors) and those of diffusers. LoRAs: of kohya's scripts
(arXiv:2106.09685 with alpha in the file), peft and diffusers, on linear layers and convolutions of
the U-Net and the text tower.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.config import ModelConfig
from ldm.system import cli
from ldm.weights import safe_pickle, tensor_names
from ldm.weights.foreign_files import reason
from ldm.weights.safe_pickle import ZIP_MAGIC

# {ending of a name: which matrix it is}
MATRICES = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".alpha": "alpha",
}
OTHER_KINDS = {"hada_": "a LoHa", "lokr_": "a LoKr", "dora_scale": "a DoRA", "oft_": "an OFT"}
PREFIXES = re.compile(r"^(base_model\.model\.|unet\.|text_encoder\.|lora_unet_|lora_te_)+")


def open_small(file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The content of a small file, and its metadata. Raises ValueError, in one line."""
    from safetensors import safe_open

    try:
        with cli.regular(file).open("rb") as opened:
            head = opened.read(9)
        if file.suffix == ".safetensors" or (head[8:] == b"{" and head[:4] != ZIP_MAGIC):
            with safe_open(file, framework="pt") as handle:
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
                return tensors, handle.metadata() or {}
        content = safe_pickle.load(file)
        if not isinstance(content, Mapping):
            raise ValueError("it holds no table of tensors")
        return dict(content), {}
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    except Exception as error:  # a damaged file can raise any error in its reader
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(reason(file) or first) from error


def words_of(content: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """{word: vectors [k, D]} of another program's file.

    name: the word where the file has none, as A1111 takes the file's name
    Raises ValueError for anything else.
    """
    if "clip_g" in content:
        raise ValueError("it is a word of SDXL, for two text towers")
    found: Mapping[str, Any] = content
    if isinstance(inner := content.get("string_to_param"), Mapping):  # * stands for the file's name
        found = inner
    own = {"*": name, "emb_params": name, "clip_l": name}
    words = {
        own.get(word, word): vectors.detach().float().reshape(-1, vectors.shape[-1])
        for word, vectors in found.items()
        if isinstance(word, str) and isinstance(vectors, Tensor) and vectors.ndim in (1, 2)
        if vectors.numel() and vectors.is_floating_point()
    }
    if not words or len(words) < len(found):
        names = ", ".join(map(str, found))
        raise ValueError(f"it holds no word but {names[:80] or 'nothing'}")
    if odd := [word for word, vectors in words.items() if not vectors.isfinite().all()]:
        raise ValueError(f"the vectors of {odd[0][:80]!r} are not finite")
    return words


def lora_changes(
    content: Mapping[str, Any], config: ModelConfig, settings: Mapping[str, Any]
) -> dict[str, Tensor]:
    """{our name: its change, alpha / r B A} of another program's LoRA, in float64.

    settings: of peft, with "lora_alpha" of files that have no alpha of their own
    Raises ValueError for layers that the model does not have.
    """
    for mark, what in OTHER_KINDS.items():
        if any(mark in name for name in content):
            raise ValueError(f"it is {what}, which is no LoRA")
    if odd := [n for n, v in settings.items() if n.endswith(("alpha_pattern", "rslora")) and v]:
        raise ValueError(f"its setting {odd[0]} is not known here")
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in content.items():
        ending = next((e for e in MATRICES if name.endswith(e)), None)
        if ending is None or not isinstance(tensor, Tensor):
            raise ValueError(f"{name} is no matrix of a LoRA")
        layer = _plain(PREFIXES.sub("", name.removesuffix(ending).replace(".processor.", ".")))
        part = "text" if layer.startswith("encoder_layers_") else "unet"
        layers.setdefault(f"{part}/{layer}", {})[MATRICES[ending]] = tensor.double()
    if not layers:
        raise ValueError("it holds no matrix")
    places = _places(config)
    changes: dict[str, Tensor] = {}
    for layer, matrices in layers.items():
        if layer not in places or not {"down", "up"} <= matrices.keys():
            raise ValueError(f"there is no layer {layer} with a down and an up")
        ours, row, rows = places[layer]
        down, up = matrices["down"], matrices["up"]
        if down.ndim < 2 or up.ndim < 2 or not 0 < len(down) == up.shape[1]:
            raise ValueError(f"down and up of {layer} are not of one rank")
        said = settings.get(f"{layer.partition('/')[0]}.lora_alpha", settings.get("lora_alpha"))
        if not isinstance(said, int | float | None):
            raise ValueError(f"its setting lora_alpha is no number, but {said!r}")
        alpha = float(matrices.get("alpha", len(down) if said is None else said))
        change = alpha / len(down) * (up.flatten(1) @ down.flatten(1))
        change = change.reshape(len(up), *down.shape[1:])
        if rows > 1:  # one of q, k and v, which lie one below the other
            whole = changes.setdefault(ours, change.new_zeros(rows * len(up), *change.shape[1:]))
            whole[row * len(up) : (row + 1) * len(up)] += change
        else:
            changes[ours] = changes.get(ours, 0) + change
    return changes


def _plain(name: str) -> str:
    """A layer as all of them spell it: down_blocks_0_attentions_0_..._attn1_to_out_0"""
    spelled = name.replace(".", "_").removeprefix("text_model_")
    return re.sub(r"(to_out)(?!_0)$", r"\1_0", spelled)


def _places(config: ModelConfig) -> dict[str, tuple[str, int, int]]:
    """{part/layer: our name of its weight, and which of how many blocks of its rows it is}"""
    found = {}
    for ours, theirs in tensor_names.names(config, "diffusers").items():
        part = ours.partition(".")[0]
        for row, name in enumerate(theirs):
            if part != "vae" and name.endswith(("weight",)):
                layer = _plain(name.partition("/")[2].removesuffix(".weight"))
                found[f"{part}/{layer}"] = (ours, row, len(theirs))
    return found


def lora_for(
    program: str, tensors: Mapping[str, Tensor], alpha: float, rank: int, config: ModelConfig
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A LoRA of ours, of linear layers of the U-Net, as another program's tensors and metadata.

    program: "kohya", "diffusers" or "peft", whose adapter_config.json the metadata hold
    Raises ValueError for layers that the model does not have.
    """
    theirs = {ours: names[0] for ours, names in tensor_names.names(config, "diffusers").items()}
    found = {}
    for name, tensor in tensors.items():
        layer, _, matrix = name.rpartition(".")
        if f"unet.{layer}.weight" not in theirs:
            raise ValueError(f"there is no layer {layer} in a model of these sizes")
        their = theirs[f"unet.{layer}.weight"].removeprefix("unet/").removesuffix(".weight")
        if program == "kohya":
            their = "lora_unet_" + their.replace(".", "_")
            found[f"{their}.alpha"] = torch.tensor(float(alpha))
            found[f"{their}.lora_{matrix}.weight"] = tensor
        else:
            start = {"diffusers": "unet.", "peft": "base_model.model."}[program]
            found[f"{start}{their}.lora_{'A' if matrix == 'down' else 'B'}.weight"] = tensor
    if program == "kohya":
        facts = {"ss_network_dim": rank, "ss_network_alpha": alpha}
        return found, {
            "ss_network_module": "networks.lora",
            **{k: str(v) for k, v in facts.items()},
        }
    targets = sorted({name.rpartition(".lora_")[0].split(".", 1)[1] for name in found})
    said = {"r": rank, "lora_alpha": alpha, "target_modules": targets}
    if program == "peft":
        targets = [name.removeprefix("model.") for name in targets]
        said |= {"peft_type": "LORA", "target_modules": targets}
        return found, {"adapter_config": json.dumps(said)}
    text = json.dumps({f"unet.{name}": value for name, value in said.items()})
    return found, {"lora_adapter_metadata": text, "format": "pt"}


def peft_settings(file: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """From peft's adapter_config.json beside a file, or from the metadata that diffusers writes."""
    try:
        if text := metadata.get("lora_adapter_metadata"):
            return {n.replace("text_encoder.", "text."): v for n, v in cli.parse_json(text).items()}
        return dict(cli.parse_json((file.parent / "adapter_config.json").read_bytes()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"its peft settings cannot be read: {error}") from error


@torch.no_grad()
def add_changes(
    modules: Mapping[str, torch.nn.Module], changes: Mapping[str, Tensor], strength: float
) -> None:
    """W <- W + strength change of each; ValueError, and none is changed, if one does not fit."""
    parameters = {
        f"{part}.{name}": p for part, m in modules.items() for name, p in m.named_parameters()
    }
    for name, change in changes.items():
        if change.numel() != parameters[name].numel() or len(change) != len(parameters[name]):
            shapes = list(parameters[name].shape), list(change.shape)
            raise ValueError(f"{name} is {shapes[0]} here, {shapes[1]} there")
    for name, change in changes.items():
        weight = parameters[name]
        whole = weight.double() + strength * change.reshape(weight.shape).to(weight.device)
        weight.data = whole.to(torch.float32 if weight.itemsize < 4 else weight.dtype)
