"""Files of other programs: what a file really is, and which files hold a part."""

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ldm.system import cli, downloads
from ldm.weights import tensor_names
from ldm.weights.tensor_names import Layout, Tensors

log = logging.getLogger(__name__)

# {what it is: a pattern of names of tensors or folders that nothing else has}
ARCHITECTURES = {
    "a model with a transformer in the U-Net's place": r"transformer/",
    "SDXL, with two text towers": r"conditioner\.embedders\.|text_encoder_2/",
    "a ControlNet": r"control_model\.|(control_model\.)?input_hint_block\.|controlnet",
    "Stable Diffusion 3": r"(model\.diffusion_model\.)?joint_blocks\.",
    "Flux": r"(model\.diffusion_model\.)?double_blocks\.",
}
SMALL_FILES = {  # of other programs, and ours by the word in their metadata
    "a LoRA, which goes with --lora": r"lora_(unet|te)|.*\.(lora_(A|B|up|down)|lora\.(up|down))\.",
    "a new word, which goes with --embedding": r"string_to_param|emb_params|clip_l$|<.*>$",
}
KINDS = {
    "lora": "a LoRA, which goes with --lora",
    "word": "a new word, which goes with --embedding",
    "projection": "a projection, which goes with --text-encoder",
    "judge": "a judge of images, no model that draws",
}
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def reason(file: Path) -> str | None:
    """Why a file is no weights at all, by its first bytes; None where they tell nothing."""
    if what := downloads.mistaken(file):
        return what
    with file.open("rb") as opened:
        head = opened.read(9)
    if file.suffix == ".safetensors" and len(head) == 9:
        return _cut_off(file, int.from_bytes(head[:8], "little"))
    return None


def _cut_off(file: Path, length: int) -> str | None:
    """A safetensors file names the end of its last tensor: a part of a download is known."""
    size = file.stat().st_size
    if not (entries := _header(file, length)):
        return None
    ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    if size == (whole := 8 + length + max(ends, default=0)):
        return None
    return f"has {size:,} bytes where its header asks for {whole:,}: download it again"


def _header(file: Path, length: int) -> dict[str, Any] | None:
    """What a safetensors file says of itself; None where it cannot be read."""
    if not 2 <= length <= min(file.stat().st_size - 8, 100_000_000):
        return None
    with file.open("rb") as opened:
        opened.seek(8)
        try:
            entries = cli.parse_json(opened.read(length))
            [e["data_offsets"][1] + 0 for n, e in entries.items() if n != "__metadata__"]
        except (ValueError, AttributeError, KeyError, TypeError, IndexError):
            return None
    return entries


def recognised(file: Path, tensors: Tensors) -> tuple[Layout, Tensors]:
    """The layout of a file that is no model of ours with a config, and its tensors by our table.

    Raises ValueError for what ldm cannot open as a model, by its name.
    """
    refuse_others(file, tensors)
    if any(re.match(r"model\.diffusion_model\.|(first|cond)_stage_model\.", n) for n in tensors):
        return "compvis", {tensor_names.respelled(name): tensor for name, tensor in tensors.items()}
    if small := _small_file(file, tensors):
        raise ValueError(f"{file} is {small}; name the model it belongs to")
    if any(name.startswith(("unet.", "vae.", "text.")) for name in tensors):
        return "ours", tensors
    raise ValueError(
        f"{file} has an unknown layout: it holds {', '.join(list(tensors)[:3])} ..., where our own "
        "files have unet.*, vae.*, text.* and CompVis files model.diffusion_model.*"
    )


def refuse_others(path: Path, names: Iterable[str]) -> None:
    """Raises ValueError for the tensors or folders of networks that ldm does not have."""
    names = list(names)
    for what, pattern in ARCHITECTURES.items():
        if any(re.match(pattern, name) for name in names):
            raise ValueError(f"{path} is {what}; ldm opens SD 1.x and 2.x, and models of its own")


def _small_file(file: Path, names: Iterable[str]) -> str | None:
    """What a file is that is no model but goes beside one; names: of its tensors"""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
    said = (_header(file, length) or {}).get("__metadata__", {})
    ours = next((what for kind, what in KINDS.items() if kind in said), None)
    names = list(names)
    theirs = (w for w, p in SMALL_FILES.items() if any(re.match(p, name) for name in names))
    return ours or next(theirs, None)


def found(path: Path) -> Path:
    """The path, or of models--AUTHOR--NAME in the hub's cache its snapshot.

    Raises ValueError if there is nothing, or a choice.
    """
    if not path.exists():
        raise ValueError(
            f"{path} does not exist here; if it is a name of the Hugging Face hub: nothing is "
            "downloaded, so download it and name the folder or file"
            if HUB_NAME.fullmatch(str(path))
            else f"{path} does not exist"
        )
    snapshots = sorted(p for p in path.glob("snapshots/*") if p.is_dir())
    main = path / "refs" / "main"
    if main.is_file() and (named := path / "snapshots" / main.read_text().strip()) in snapshots:
        return named
    if len(snapshots) > 1:
        raise ValueError(f"{path} holds {len(snapshots)} snapshots; name one, as {snapshots[0]}")
    return snapshots[0] if snapshots else path


def files_of(folder: Path, plain: Sequence[str]) -> list[Path]:
    """The files that hold a part: one, or the shards that an index names.

    plain: names without variant, preferred first; then comes fp16, then the one variant there is,
    as in NAME.fp16.safetensors, and the log says so
    Raises ValueError, in one line, where there is none.
    """
    found: dict[str, Path] = {}
    for name in plain:
        stem, suffix = name.rsplit(".", 1)
        shape = re.compile(rf"{stem}(?:\.(\w+))?\.{suffix}(?:(\.index)(?:\.(\w+))?\.json)?")
        for path in sorted(folder.iterdir()):
            if match := shape.fullmatch(path.name):
                found.setdefault(match[1] or match[3] or "", path)
    known = [variant for variant in ("", "fp16", *found) if variant in found]
    if not known or (len(found) > 1 and known[0] not in ("", "fp16")):
        there = f"only variants: {', '.join(sorted(found))}; keep one" if found else "no weights"
        raise ValueError(f"{folder} holds {there}; fetch {' or '.join(plain)}")
    if known[0]:
        log.info("%s: the variant %s", folder, known[0])
    path = found[known[0]]
    return _shards(path) if path.suffix == ".json" else [path]


def _shards(index: Path) -> list[Path]:
    try:
        names = set(cli.parse_json(cli.regular(index).read_bytes())["weight_map"].values())
        shards = [index.parent / Path(str(name)).name for name in sorted(names)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of shards: {error}") from error
    if missing := [shard.name for shard in shards if not shard.is_file()]:
        raise ValueError(f"{index} names {missing[0]}, which is not beside it; fetch it")
    return shards
