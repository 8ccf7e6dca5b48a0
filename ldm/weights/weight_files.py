"""Reads weights files and folders of any layout, without running what they say."""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from ldm.config import ModelConfig, from_dict
from ldm.system import cli
from ldm.weights import diffusers_configs, safe_pickle, tensor_names
from ldm.weights.safe_pickle import PickleRefusedError
from ldm.weights.tensor_names import Layout, Tensors

Parts = Mapping[str, Mapping[str, Tensor]]  # "unet", "vae", "text" -> state dict

Words = Mapping[str, int]  # word -> training images that have it in a caption
TRAINED_WORDS = "words"  # the entry of a file's metadata that holds them, as JSON
# function: words without content, "no" and "without" are none; qualifier: of how, not of what
PROMPT_WORDS = json.loads(Path(__file__).with_name("prompt_words.json").read_text(encoding="utf-8"))

PART_FILES = {  # of a diffusers folder, preferred first
    "unet": ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
    "vae": ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
    "text_encoder": ("model.safetensors", "pytorch_model.bin"),
}

FOLDERS = {"text": "text_encoder"}  # of a part, where its name is another one


class WeightsError(ValueError):
    """Weights that cannot be used; the message says in one line which, why and what to do."""


@dataclass(frozen=True)
class Source:
    """The content of a file or folder; config: None if the layout does not keep it."""

    layout: Layout
    tensors: Tensors
    config: ModelConfig | None


def read(path: str | Path, without: Collection[str] = ()) -> Source:
    """Find the layout, the tensors and the config of a file or folder.

    without: parts that come from elsewhere, so that a diffusers folder may lack their weights
    """
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.exists():
        from ldm.weights import foreign_files

        path = foreign_files.found(path)
        file = path / "model.safetensors"
        if not file.exists():
            return _read_diffusers(path, without)
    tensors, config_text = open_tensors(file)
    layout: Layout = "ours"
    if config_text is None or not any(n.startswith(("unet.", "vae.", "text.")) for n in tensors):
        from ldm.weights import foreign_files  # no model of ours needs it

        layout, tensors = foreign_files.recognised(file, tensors)
    config = None
    if config_text is not None:
        try:
            values = cli.parse_json(config_text)
            rest = values.pop("rest", None)
            config = from_dict(ModelConfig, values)
        except (AttributeError, TypeError, ValueError) as error:
            raise WeightsError(f"the config in {file} cannot be used: {error}") from error
        if rest is not None and layout == "ours":
            tensors = _rest(file, str(rest), tensors) | tensors
    return Source(layout, tensors, config)


def _rest(file: Path, name: str, tensors: Tensors) -> Tensors:
    """The parts that `file` takes from another one beside it, which several models may share."""
    other = file.parent / name
    if name != other.name or not other.is_file():
        raise WeightsError(
            f"{file} holds a part of a model; the rest should be in {other}, which does not exist"
        )
    own = {tensor.partition(".")[0] for tensor in tensors}
    return {n: t for n, t in open_tensors(other)[0].items() if n.partition(".")[0] not in own}


def read_part(path: str | Path, part: str) -> Tensors:
    """The tensors of a part's own folder, file or shards, or of a file that holds more."""
    from ldm.weights import foreign_files

    name = FOLDERS.get(part, part)
    path = foreign_files.found(Path(path))
    path = path / name if (path / name).is_dir() else path
    own = path / "model.safetensors"  # of ours; a text tower of transformers has the same name
    if own.is_file() and not (path / "config.json").exists():
        path = own
    return open_all(path, PART_FILES[name]) if path.is_dir() else open_tensors(path)[0]


def open_all(folder: Path, plain: Sequence[str]) -> Tensors:
    """The tensors of the files of a part; plain: their names, preferred first."""
    from ldm.weights import foreign_files

    files = foreign_files.files_of(folder, plain)
    return {name: tensor for file in files for name, tensor in open_tensors(file)[0].items()}


def _read_diffusers(folder: Path, without: Collection[str]) -> Source:
    from ldm.weights import foreign_files

    foreign_files.refuse_others(folder, [f"{path.name}/" for path in folder.glob("*/")])
    absent = [part for part in PART_FILES if not (folder / part).is_dir()]
    if absent:
        raise WeightsError(
            f"{folder} is no folder of weights: it has neither a model.safetensors "
            f"nor {', '.join(f'{part}/' for part in absent)}"
        )
    tensors = {}
    elsewhere = {FOLDERS.get(part, part) for part in without}
    for part in PART_FILES.keys() - elsewhere:
        for name, tensor in open_all(folder / part, PART_FILES[part]).items():
            tensors[tensor_names.respelled(f"{part}/{name}")] = tensor
    return Source("diffusers", tensors, diffusers_configs.read_configs(folder))


def open_tensors(file: Path) -> tuple[Tensors, str | None]:
    """The tensors of one file under any names, and the text of its config if it has one."""
    try:
        with cli.regular(file).open("rb") as opened:
            head = opened.read(9)
        if not head:
            raise WeightsError(f"{file} is empty")
        # a safetensors file begins with the length of its header, 8 bytes, and the header's {
        if file.suffix == ".safetensors" or head[8:] == b"{":
            handle = safe_open(file, framework="pt", device="cpu")
            tensors: Tensors = {n: partial(handle.get_tensor, n) for n in list(handle.keys())}
            return tensors, (handle.metadata() or {}).get("config")
        return _open_pickle(file)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {error.strerror or error}") from error
    except Exception as error:  # a damaged file can raise any error in its reader
        from ldm.weights import foreign_files

        if reason := foreign_files.reason(file):
            raise WeightsError(f"{file} {reason}") from error
        if isinstance(error, PickleRefusedError):
            raise WeightsError(f"{file} was refused: {error}") from error
        reason = (str(error).splitlines() or [""])[0][:200]
        raise WeightsError(
            f"{file} is damaged or not a weights file ({type(error).__name__}: {reason})"
        ) from error


def _open_pickle(file: Path) -> tuple[Tensors, str | None]:
    content = safe_pickle.load(file)
    state = content.get("state_dict", content)
    for name, tensor in state.items():
        if not (isinstance(tensor, Tensor) and tensor.device.type == "cpu"):
            raise WeightsError(f"{file} is not a weights file: its {name!r} is not a tensor")
    return {str(name): tensor.detach for name, tensor in state.items()}, content.get("ldm_config")


def check_names(
    path: str | Path, wanted: Iterable[str], found: Collection[str], advice: str
) -> None:
    """Raises WeightsError, with the advice, if tensors are missing or unknown."""
    wanted = list(wanted)
    if missing := [name for name in wanted if name not in found]:
        raise WeightsError(f"{path} lacks {some(missing)}: it is incomplete, or {advice}")
    if unknown := sorted(set(found) - set(wanted)):
        raise WeightsError(
            f"{path} holds {some(unknown)}, which the model has no place for: {advice}"
        )


def fit(path: str | Path, name: str, tensor: Tensor, shape: Sequence[int], advice: str) -> Tensor:
    """The tensor in this shape; raises WeightsError, with the advice, if it has another."""
    # a 1 x 1 convolution [a, b, 1, 1] and a linear layer [a, b] hold the same numbers
    plain, expected = (x[:2] if x[2:] == (1, 1) else x for x in (tuple(tensor.shape), tuple(shape)))
    if plain != expected or not tensor.is_floating_point():
        raise WeightsError(
            f"{name} in {path} is {tensor.dtype} {list(tensor.shape)}, expected floating point "
            f"{list(shape)}; {advice}"
        )
    return tensor.reshape(shape)


def some(names: Iterable[str], few: int = 3) -> str:
    """The first few names, and the number of the others."""
    names = list(names)
    more = f" and {len(names) - few} more" if len(names) > few else ""
    return ", ".join(names[:few]) + more if names else "nothing"


def words_of(text: str) -> list[str]:
    """The words in lower case, without numbers: "(X-ray:1.2), 65-year old" -> x-ray, old"""
    return re.findall(r"(?<!\w)(?<!\d-)[^\W\d_](?:[\w'-]*\w)?", text.lower())


def trained_words(path: str | Path) -> Words | None:
    """The words that the U-Net in a file or run folder was trained on; None: unknown."""
    file = Path(path) / "model.safetensors" if Path(path).is_dir() else Path(path)
    if file.suffix != ".safetensors" or not file.is_file():
        return None
    with safe_open(cli.regular(file), framework="pt") as handle:
        text = (handle.metadata() or {}).get(TRAINED_WORDS)
    try:
        return None if text is None else {w: int(n) for w, n in cli.parse_json(text).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise WeightsError(f"the list of words in {file} cannot be used: {error}") from error


def join_words(first: Words | None, second: Words | None) -> Words | None:
    """Of two trainings in turn; an image of both counts twice. None if either is unknown."""
    if first is None or second is None:
        return None
    return {w: first.get(w, 0) + second.get(w, 0) for w in sorted(first.keys() | second.keys())}


def unseen_words(prompts: Sequence[str], trained: Words, new: Iterable[str] = ()) -> str:
    """A line on the words of the prompts that the model was not trained on; "" if there is none.

    new: words that were added to the text tower
    """
    function, qualifiers = (PROMPT_WORDS[kind].split() for kind in ("function", "qualifier"))
    known = {*function, *trained, *words_of(" ".join(new))}
    strange = [[w for w in words_of(prompt) if w not in known] for prompt in prompts]
    if not any(strange):
        return ""
    words = some(dict.fromkeys(w for each in strange for w in each), 10)
    among = f", in {sum(map(bool, strange))} of {len(prompts)} prompts" if len(prompts) > 1 else ""
    common = sorted(trained.keys() - {*function, *qualifiers}, key=lambda w: (-trained[w], w))
    of = some(common, 16)
    return f"hardly or never trained on: {words} (at most 2 images{among}); a model of: {of}"


def flatten(parts: Parts) -> dict[str, Tensor]:
    """{"unet.conv_in.weight": tensor}"""
    return {f"{part}.{n}": tensor for part, state in parts.items() for n, tensor in state.items()}
