"""What a weights file or folder holds, whatever its layout, found without running what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from ldm.config import ModelConfig, from_dict
from ldm.weights import diffusers_configs, rename, safe_pickle
from ldm.weights.rename import Layout
from ldm.weights.safe_pickle import PickleRefusedError

Tensors = dict[str, Callable[[], Tensor]]  # each is read when it is called

PART_FILES = {  # of a diffusers folder, preferred first
    "unet": ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
    "vae": ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
    "text_encoder": ("model.safetensors", "pytorch_model.bin"),
}


class WeightsError(ValueError):
    """Weights that cannot be used; the message is one line that says which, why and what to do."""


@dataclass(frozen=True)
class Source:
    """What a file or folder holds; each tensor is read when its function is called.

    config: None if the layout does not keep it
    """

    layout: Layout
    tensors: Tensors
    config: ModelConfig | None


def read(path: str | Path) -> Source:
    """Look into weights of any layout, without running anything that they say."""
    path = Path(path)
    if not path.exists():
        raise WeightsError(f"{path} does not exist")
    if path.is_dir() and not (path / "model.safetensors").exists():
        return _read_diffusers(path)
    file = path / "model.safetensors" if path.is_dir() else path
    tensors, config_text = open_tensors(file)
    if any(name.startswith(("unet.", "vae.", "text.")) for name in tensors):
        layout: Layout = "ours"
    elif any(re.match(r"model\.diffusion_model\.|(first|cond)_stage_model\.", n) for n in tensors):
        layout = "compvis"
    else:
        raise WeightsError(
            f"{file} has an unknown layout: it holds {some(tensors)}, where our own files have "
            "unet.*, vae.*, text.* and CompVis files model.diffusion_model.*"
        )
    config = None
    if config_text is not None:
        try:
            values = json.loads(config_text)
            rest = values.pop("rest", None)
            config = from_dict(ModelConfig, values)
        except (AttributeError, TypeError, ValueError) as error:
            raise WeightsError(f"the config in {file} cannot be used: {error}") from error
        if rest is not None and layout == "ours":
            tensors = _rest(file, str(rest), tensors) | tensors
    return Source(layout, tensors, config)


def _rest(file: Path, name: str, tensors: Tensors) -> Tensors:
    """The parts that `file` leaves to another one beside it, which several models may share."""
    other = file.parent / name
    if name != other.name or not other.is_file():
        raise WeightsError(
            f"{file} holds a part of a model; the rest should be in {other}, which is not there"
        )
    own = {tensor.partition(".")[0] for tensor in tensors}
    return {n: t for n, t in open_tensors(other)[0].items() if n.partition(".")[0] not in own}


def _read_diffusers(folder: Path) -> Source:
    absent = [part for part in PART_FILES if not (folder / part).is_dir()]
    if absent:
        raise WeightsError(
            f"{folder} is no folder of weights: it has neither a model.safetensors "
            f"nor {', '.join(f'{part}/' for part in absent)}"
        )
    tensors = {}
    for part, files in PART_FILES.items():
        paths = [folder / part / file for file in files]
        if not (there := [path for path in paths if path.exists()]):
            raise WeightsError(f"{folder / part} holds neither {' nor '.join(files)}")
        for name, tensor in open_tensors(there[0])[0].items():
            if part == "vae" and ".attentions." in name:
                for old, new in rename.OLD_DIFFUSERS.items():
                    name = name.replace(old, new)
            tensors[f"{part}/{name}"] = tensor
    return Source("diffusers", tensors, diffusers_configs.read_configs(folder))


def open_tensors(file: Path) -> tuple[Tensors, str | None]:
    """The tensors of one file, and the config in it if it has one; its names may be any."""
    try:
        with file.open("rb") as handle:
            head = handle.read(9)
        if not head:
            raise WeightsError(f"{file} is empty")
        # a safetensors file begins with the length of its header, 8 bytes, and the header's {
        if file.suffix == ".safetensors" or head[8:] == b"{":
            return _open_safetensors(file)
        return _open_pickle(file)
    except PickleRefusedError as error:
        raise WeightsError(f"{file} was refused: {error}") from error
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {error.strerror or error}") from error
    except Exception as error:  # a damaged file breaks its reader in any way the reader knows
        reason = (str(error).splitlines() or [""])[0][:200]
        raise WeightsError(
            f"{file} is damaged or no weights file ({type(error).__name__}: {reason})"
        ) from error


def _open_safetensors(file: Path) -> tuple[Tensors, str | None]:
    handle = safe_open(file, framework="pt", device="cpu")
    tensors: Tensors = {name: partial(handle.get_tensor, name) for name in list(handle.keys())}
    return tensors, (handle.metadata() or {}).get("config")


def _open_pickle(file: Path) -> tuple[Tensors, str | None]:
    content = safe_pickle.load(file)
    state = content.get("state_dict", content)
    for name, tensor in state.items():
        if not (isinstance(tensor, Tensor) and tensor.device.type == "cpu"):
            raise WeightsError(f"{file} is no weights file: its {name!r} is no tensor")
    return {str(name): tensor.detach for name, tensor in state.items()}, content.get("ldm_config")


def some(names: Iterable[str], few: int = 3) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - few} more" if len(names) > few else ""
    return ", ".join(names[:few]) + more if names else "nothing"
