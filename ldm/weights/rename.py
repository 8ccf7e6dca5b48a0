"""What every weight is called: here, in CompVis files (SD v1.4) and in diffusers folders.

One table per kind of block, `ours: (CompVis, diffusers)`; a single name stands for both. `*` is
weight and bias, `{q,k,v}` three tensors that lie one below the other in ours. Loops over the config
put the tables in their places; the result is one flat {our name: (their names)}.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from ldm.config import ModelConfig, TextConfig, UNetConfig, VAEConfig

Layout = Literal["compvis", "diffusers", "ours"]
Table = dict[str, str | tuple[str, str]]
Place = tuple[Table, str, str, str]  # a table and where it goes: ours, CompVis, diffusers

UNET_ENDS: Table = {
    "time_embed.0.*": ("time_embed.0.*", "time_embedding.linear_1.*"),
    "time_embed.2.*": ("time_embed.2.*", "time_embedding.linear_2.*"),
    "conv_in.*": ("input_blocks.0.0.*", "conv_in.*"),
    "norm_out.*": ("out.0.*", "conv_norm_out.*"),
    "conv_out.*": ("out.2.*", "conv_out.*"),
}
UNET_RES: Table = {
    "norm1.*": ("in_layers.0.*", "norm1.*"),
    "conv1.*": ("in_layers.2.*", "conv1.*"),
    "time.*": ("emb_layers.1.*", "time_emb_proj.*"),
    "norm2.*": ("out_layers.0.*", "norm2.*"),
    "conv2.*": ("out_layers.3.*", "conv2.*"),
}
UNET_SKIP: Table = {"skip.*": ("skip_connection.*", "conv_shortcut.*")}
UNET_DOWN: Table = {"resample.*": ("op.*", "conv.*")}
UNET_UP: Table = {"resample.*": "conv.*"}
UNET_ATTENTION: Table = {
    "norm.*": "norm.*",
    "proj_in.*": "proj_in.*",
    "proj_out.*": "proj_out.*",
    "blocks.0.norm1.*": "transformer_blocks.0.norm1.*",
    "blocks.0.self_attn.q.weight": "transformer_blocks.0.attn1.to_q.weight",
    "blocks.0.self_attn.k.weight": "transformer_blocks.0.attn1.to_k.weight",
    "blocks.0.self_attn.v.weight": "transformer_blocks.0.attn1.to_v.weight",
    "blocks.0.self_attn.out.*": "transformer_blocks.0.attn1.to_out.0.*",
    "blocks.0.norm2.*": "transformer_blocks.0.norm2.*",
    "blocks.0.cross_attn.q.weight": "transformer_blocks.0.attn2.to_q.weight",
    "blocks.0.cross_attn.k.weight": "transformer_blocks.0.attn2.to_k.weight",
    "blocks.0.cross_attn.v.weight": "transformer_blocks.0.attn2.to_v.weight",
    "blocks.0.cross_attn.out.*": "transformer_blocks.0.attn2.to_out.0.*",
    "blocks.0.norm3.*": "transformer_blocks.0.norm3.*",
    "blocks.0.ff.in_proj.*": "transformer_blocks.0.ff.net.0.proj.*",
    "blocks.0.ff.out_proj.*": "transformer_blocks.0.ff.net.2.*",
}
VAE_ENDS: Table = {"quant.*": "quant_conv.*", "post_quant.*": "post_quant_conv.*"}
VAE_SHORTCUT: Table = {  # an option of ours
    "shortcut.encode.*": "shortcut.encode.*",
    "shortcut.decode.*": "shortcut.decode.*",
}
VAE_HALF_ENDS: Table = {
    "conv_in.*": "conv_in.*",
    "norm_out.*": ("norm_out.*", "conv_norm_out.*"),
    "conv_out.*": "conv_out.*",
}
VAE_RES: Table = {
    "norm1.*": "norm1.*",
    "conv1.*": "conv1.*",
    "norm2.*": "norm2.*",
    "conv2.*": "conv2.*",
}
VAE_SKIP: Table = {"skip.*": ("nin_shortcut.*", "conv_shortcut.*")}
VAE_RESAMPLE: Table = {"resample.*": "conv.*"}
VAE_ATTENTION: Table = {
    "norm.*": ("norm.*", "group_norm.*"),
    "q.*": ("q.*", "to_q.*"),
    "k.*": ("k.*", "to_k.*"),
    "v.*": ("v.*", "to_v.*"),
    "out.*": ("proj_out.*", "to_out.0.*"),
}
TEXT_ENDS: Table = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.*": "final_layer_norm.*",
}
TEXT_BLOCK: Table = {
    "ln_1.*": "layer_norm1.*",
    "attn.in_proj_*": "self_attn.{q,k,v}_proj.*",
    "attn.out_proj.*": "self_attn.out_proj.*",
    "ln_2.*": "layer_norm2.*",
    "mlp.c_fc.*": "mlp.fc1.*",
    "mlp.c_proj.*": "mlp.fc2.*",
}

# spellings of the VAE's attention in diffusers folders written before diffusers 0.17
OLD_DIFFUSERS = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}


def names(config: ModelConfig, layout: Layout) -> dict[str, tuple[str, ...]]:
    """{our name: (their name,)}, or three names where theirs are stacked: 1,082 rows in SD v1.4.

    Diffusers names begin with their folder: `unet/`, `vae/`, `text_encoder/`.
    """
    column = ("ours", "compvis", "diffusers").index(layout)
    places = [*_unet(config.unet), *_vae(config.vae), *_text(config.text)]
    result = {}
    for table, *prefixes in places:
        for ours, theirs in table.items():
            spelled = (ours, theirs, theirs) if isinstance(theirs, str) else (ours, *theirs)
            for leaf in ("weight", "bias") if "*" in ours else ("",):
                key = (prefixes[0] + ours).replace("*", leaf)
                name = (prefixes[column] + spelled[column]).replace("*", leaf)
                stacked = "{q,k,v}" in name
                result[key] = tuple(name.replace("{q,k,v}", x) for x in ("qkv" if stacked else "-"))
    return result


def ema_name(live: str) -> str:
    """The name of a U-Net weight's moving average: `model_ema.diffusion_modelout0bias`.

    It drops every dot, so it cannot be split back: build it from the live name.
    """
    return "model_ema." + live.removeprefix("model.").replace(".", "")


def _unet(cfg: UNetConfig) -> Iterator[Place]:
    compvis, last = "model.diffusion_model.", len(cfg.channels) - 1
    yield UNET_ENDS, "unet.", compvis, "unet/"

    width, n = cfg.channels[0], 1  # CompVis numbers all blocks in a row; 0 is conv_in
    for i, channels in enumerate(cfg.channels):
        for j in range(cfg.res_blocks):
            place = f"unet.down.{i}.res.{j}.", f"{compvis}input_blocks.{n}.0."
            theirs = f"unet/down_blocks.{i}.resnets.{j}."
            yield UNET_RES, *place, theirs
            if width != channels:
                yield UNET_SKIP, *place, theirs
            if cfg.attention[i]:
                yield (
                    UNET_ATTENTION,
                    f"unet.down.{i}.attn.{j}.",
                    f"{compvis}input_blocks.{n}.1.",
                    f"unet/down_blocks.{i}.attentions.{j}.",
                )
            width, n = channels, n + 1
        if i < last:
            place = f"unet.down.{i}.", f"{compvis}input_blocks.{n}.0."
            yield UNET_DOWN, *place, f"unet/down_blocks.{i}.downsamplers.0."
            n += 1

    middle = f"{compvis}middle_block."
    yield UNET_RES, "unet.mid.res.0.", f"{middle}0.", "unet/mid_block.resnets.0."
    yield UNET_ATTENTION, "unet.mid.attn.0.", f"{middle}1.", "unet/mid_block.attentions.0."
    yield UNET_RES, "unet.mid.res.1.", f"{middle}2.", "unet/mid_block.resnets.1."

    for i in range(last + 1):  # deepest first, in all three layouts
        attention = cfg.attention[last - i]
        for j in range(cfg.res_blocks + 1):
            n = i * (cfg.res_blocks + 1) + j
            place = f"unet.up.{i}.res.{j}.", f"{compvis}output_blocks.{n}.0."
            theirs = f"unet/up_blocks.{i}.resnets.{j}."
            yield UNET_RES, *place, theirs
            yield UNET_SKIP, *place, theirs  # what comes up and what was kept: always wider
            if attention:
                yield (
                    UNET_ATTENTION,
                    f"unet.up.{i}.attn.{j}.",
                    f"{compvis}output_blocks.{n}.1.",
                    f"unet/up_blocks.{i}.attentions.{j}.",
                )
        if i < last:
            place = f"unet.up.{i}.", f"{compvis}output_blocks.{n}.{2 if attention else 1}."
            yield UNET_UP, *place, f"unet/up_blocks.{i}.upsamplers.0."


def _vae(cfg: VAEConfig) -> Iterator[Place]:
    compvis, last = "first_stage_model.", len(cfg.channels) - 1
    yield VAE_ENDS, "vae.", compvis, "vae/"
    if cfg.shortcut:
        yield VAE_SHORTCUT, "vae.", compvis, "vae/"
    for half in ("encoder.", "decoder."):
        yield VAE_HALF_ENDS, f"vae.{half}", compvis + half, f"vae/{half}"
        for j in (0, 1):
            place = f"vae.{half}mid.res.{j}.", f"{compvis}{half}mid.block_{j + 1}."
            yield VAE_RES, *place, f"vae/{half}mid_block.resnets.{j}."
        place = f"vae.{half}mid.attn.0.", f"{compvis}{half}mid.attn_1."
        yield VAE_ATTENTION, *place, f"vae/{half}mid_block.attentions.0."

    for way, half in (("down", "encoder."), ("up", "decoder.")):
        widths = cfg.channels if way == "down" else cfg.channels[::-1]
        width = widths[0]
        for i, channels in enumerate(widths):
            # CompVis counts `up` from the finest level, against the order it runs in
            theirs = f"{compvis}{half}{way}.{i if way == 'down' else last - i}."
            for j in range(cfg.res_blocks + (way == "up")):
                place = f"vae.{half}{way}.{i}.res.{j}.", f"{theirs}block.{j}."
                diffusers = f"vae/{half}{way}_blocks.{i}.resnets.{j}."
                yield VAE_RES, *place, diffusers
                if width != channels:
                    yield VAE_SKIP, *place, diffusers
                width = channels
            if i < last:
                place = f"vae.{half}{way}.{i}.", f"{theirs}{way}sample."
                yield VAE_RESAMPLE, *place, f"vae/{half}{way}_blocks.{i}.{way}samplers.0."


def _text(cfg: TextConfig) -> Iterator[Place]:
    compvis = "cond_stage_model.transformer.text_model."
    diffusers = "text_encoder/text_model."
    yield TEXT_ENDS, "text.", compvis, diffusers
    for i in range(cfg.layers):
        block = f"encoder.layers.{i}."
        yield TEXT_BLOCK, f"text.transformer.resblocks.{i}.", compvis + block, diffusers + block
