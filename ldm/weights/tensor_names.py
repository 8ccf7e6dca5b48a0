"""The name of every weight: ours, in CompVis files (SD v1.4) and in diffusers folders.

`tensor_names.csv` has a table for each kind of block. `*` is weight and bias, `[qkv]` three tensors
that lie one below the other in ours. Loops over the config put the tables in their places; the
result is one flat {our name: (their names)}.
"""

import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from torch import Tensor

from ldm.config import ModelConfig, TextConfig, UNetConfig, VAEConfig

Layout = Literal["compvis", "diffusers", "ours"]
Tensors = dict[str, Callable[[], Tensor]]  # a tensor is read when its function is called
Place = tuple[str, str, str, str]  # the kind of block, and its prefixes: ours, CompVis, diffusers

PARTS = {  # the prefixes of all names of a part
    "unet": ("unet.", "model.diffusion_model.", "unet/"),
    "vae": ("vae.", "first_stage_model.", "vae/"),
    "text": ("text.", "cond_stage_model.transformer.text_model.", "text_encoder/text_model."),
}
OPENCLIP = "cond_stage_model.model."  # before SD 2.x's text tower, whose names are ours

RESPELLED = {  # patterns of other spellings: ours
    # the VAE's attention in diffusers folders written before diffusers 0.17
    r"(vae/.*\.attentions\..*)\.query\.": r"\1.to_q.",
    r"(vae/.*\.attentions\..*)\.key\.": r"\1.to_k.",
    r"(vae/.*\.attentions\..*)\.value\.": r"\1.to_v.",
    r"(vae/.*\.attentions\..*)\.proj_attn\.": r"\1.to_out.0.",
    # CLIP as transformers 5.6 and later write it, and some merged CompVis files
    r"(text_encoder/|cond_stage_model\.transformer\.)(?=embeddings|encoder|final_layer_norm)": (
        r"\1text_model."
    ),
}


def names(config: ModelConfig, layout: Layout) -> dict[str, tuple[str, ...]]:
    """{our name: (their name,)}, or three names where theirs are stacked: 1,082 rows in SD v1.4.

    Diffusers names begin with their folder: `unet/`, `vae/`, `text_encoder/`.
    """
    tables: dict[str, list[list[str]]] = {}
    with Path(__file__).with_name("tensor_names.csv").open(newline="", encoding="utf-8") as file:
        for kind, *spelled in csv.reader(file):
            tables.setdefault(kind, []).append(spelled)
    column = ("ours", "compvis", "diffusers").index(layout)
    places = {"unet": _unet(config.unet), "vae": _vae(config.vae), "text": _text(config.text)}
    result = {}
    for part, prefixes in PARTS.items():
        for kind, *place in places[part]:
            for spelled in tables[kind]:
                whole = ["".join(pieces) for pieces in zip(prefixes, place, spelled, strict=True)]
                if layout == "compvis" and part == "text" and config.text.openclip:
                    whole[column] = whole[0].replace("text.", OPENCLIP, 1)
                for leaf in ("weight", "bias") if "*" in whole[0] else ("",):
                    key, name = (whole[i].replace("*", leaf) for i in (0, column))
                    stacked = "qkv" if "[qkv]" in name else "-"
                    result[key] = tuple(name.replace("[qkv]", x) for x in stacked)
    return result


def prefix(part: str, layout: Layout, text: TextConfig) -> str:
    """What all names of a part begin with."""
    if part == "text" and layout == "compvis" and text.openclip:
        return OPENCLIP
    return PARTS[part][("ours", "compvis", "diffusers").index(layout)]


def respelled(name: str) -> str:
    """A name of another version of CompVis's or diffusers' code, as `names` has it."""
    for pattern, spelling in RESPELLED.items():
        name = re.sub(f"^{pattern}", spelling, name)
    return name


def ema_name(live: str) -> str:
    """The name of a U-Net weight's moving average: `model_ema.diffusion_modelout0bias`.

    It drops every dot, so it cannot be split back: build it from the live name.
    """
    return "model_ema." + live.removeprefix("model.").replace(".", "")


def _unet(cfg: UNetConfig) -> Iterator[Place]:
    last = len(cfg.channels) - 1
    yield "unet ends", "", "", ""

    width, n = cfg.channels[0], 1  # CompVis numbers all blocks in a row; 0 is conv_in
    for i, channels in enumerate(cfg.channels):
        ours, theirs = f"down.{i}.", f"down_blocks.{i}."
        for j in range(cfg.res_blocks):
            place = f"{ours}res.{j}.", f"input_blocks.{n}.0.", f"{theirs}resnets.{j}."
            yield "unet res", *place
            if width != channels:
                yield "unet skip", *place
            if cfg.attention[i]:
                place = f"{ours}attn.{j}.", f"input_blocks.{n}.1.", f"{theirs}attentions.{j}."
                yield "unet attention", *place
            width, n = channels, n + 1
        if i < last:
            yield "unet down", ours, f"input_blocks.{n}.0.", f"{theirs}downsamplers.0."
            n += 1

    yield "unet res", "mid.res.0.", "middle_block.0.", "mid_block.resnets.0."
    yield "unet attention", "mid.attn.0.", "middle_block.1.", "mid_block.attentions.0."
    yield "unet res", "mid.res.1.", "middle_block.2.", "mid_block.resnets.1."

    for i in range(last + 1):  # deepest first, in all three layouts
        ours, theirs, attention = f"up.{i}.", f"up_blocks.{i}.", cfg.attention[last - i]
        for j in range(cfg.res_blocks + 1):
            n = i * (cfg.res_blocks + 1) + j
            place = f"{ours}res.{j}.", f"output_blocks.{n}.0.", f"{theirs}resnets.{j}."
            yield "unet res", *place
            yield "unet skip", *place  # the input is the lower level and the skip: always wider
            if attention:
                place = f"{ours}attn.{j}.", f"output_blocks.{n}.1.", f"{theirs}attentions.{j}."
                yield "unet attention", *place
        if i < last:
            place = ours, f"output_blocks.{n}.{2 if attention else 1}.", f"{theirs}upsamplers.0."
            yield "unet up", *place


def _vae(cfg: VAEConfig) -> Iterator[Place]:
    last = len(cfg.channels) - 1
    yield "vae ends", "", "", ""
    if cfg.shortcut:
        yield "vae shortcut", "", "", ""  # in our layout alone
    for half in ("encoder.", "decoder."):
        yield "vae half ends", half, half, half
        mid = f"{half}mid"
        for j in (0, 1):
            yield "vae res", f"{mid}.res.{j}.", f"{mid}.block_{j + 1}.", f"{mid}_block.resnets.{j}."
        yield "vae attention", f"{mid}.attn.0.", f"{mid}.attn_1.", f"{mid}_block.attentions.0."

    for direction, half in (("down", "encoder."), ("up", "decoder.")):
        down = direction == "down"
        widths = cfg.channels if down else cfg.channels[::-1]
        width = widths[0]
        for i, channels in enumerate(widths):
            ours, diffusers = f"{half}{direction}.{i}.", f"{half}{direction}_blocks.{i}."
            # CompVis counts `up` from the finest level, against the order it runs in
            compvis = f"{half}{direction}.{i if down else last - i}."
            for j in range(cfg.res_blocks + (not down)):
                place = f"{ours}res.{j}.", f"{compvis}block.{j}.", f"{diffusers}resnets.{j}."
                yield "vae res", *place
                if width != channels:
                    yield "vae skip", *place
                width = channels
            if i < last:
                place = ours, f"{compvis}{direction}sample.", f"{diffusers}{direction}samplers.0."
                yield "vae resample", *place


def _text(cfg: TextConfig) -> Iterator[Place]:
    yield "text ends", "", "", ""
    for i in range(cfg.layers):
        theirs = f"encoder.layers.{i}."
        yield "text block", f"transformer.resblocks.{i}.", theirs, theirs
