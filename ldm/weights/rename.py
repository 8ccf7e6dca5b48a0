"""The name of every weight: ours, in CompVis files (SD v1.4) and in diffusers folders.

One table per kind of block, `ours: (CompVis, diffusers)`; a single name stands for both. `*` is
weight and bias, `{q,k,v}` three tensors that lie one below the other in ours. Loops over the config
put the tables in their places; the result is one flat {our name: (their names)}.
"""

from collections.abc import Iterator
from typing import Literal

from ldm.config import ModelConfig, TextConfig, UNetConfig, VAEConfig

Layout = Literal["compvis", "diffusers", "ours"]
Table = dict[str, str | tuple[str, str]]
Place = tuple[Table, str, str, str]  # a table and its prefixes: ours, CompVis, diffusers

PARTS = {  # the prefixes of all names of a part
    "unet": ("unet.", "model.diffusion_model.", "unet/"),
    "vae": ("vae.", "first_stage_model.", "vae/"),
    "text": ("text.", "cond_stage_model.transformer.text_model.", "text_encoder/text_model."),
}

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
VAE_SHORTCUT: Table = {n: n for n in ("shortcut.encode.*", "shortcut.decode.*")}  # ours alone
VAE_HALF_ENDS: Table = {
    "conv_in.*": "conv_in.*",
    "norm_out.*": ("norm_out.*", "conv_norm_out.*"),
    "conv_out.*": "conv_out.*",
}
VAE_RES: Table = {n: n for n in ("norm1.*", "conv1.*", "norm2.*", "conv2.*")}
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
    places = {"unet": _unet(config.unet), "vae": _vae(config.vae), "text": _text(config.text)}
    result = {}
    for part, prefixes in PARTS.items():
        for table, *place in places[part]:
            for ours, theirs in table.items():
                spelled = (ours, theirs, theirs) if isinstance(theirs, str) else (ours, *theirs)
                whole = ["".join(pieces) for pieces in zip(prefixes, place, spelled, strict=True)]
                for leaf in ("weight", "bias") if "*" in ours else ("",):
                    key, name = (whole[i].replace("*", leaf) for i in (0, column))
                    stacked = "qkv" if "{q,k,v}" in name else "-"
                    result[key] = tuple(name.replace("{q,k,v}", x) for x in stacked)
    return result


def ema_name(live: str) -> str:
    """The name of a U-Net weight's moving average: `model_ema.diffusion_modelout0bias`.

    It drops every dot, so it cannot be split back: build it from the live name.
    """
    return "model_ema." + live.removeprefix("model.").replace(".", "")


def _unet(cfg: UNetConfig) -> Iterator[Place]:
    last = len(cfg.channels) - 1
    yield UNET_ENDS, "", "", ""

    width, n = cfg.channels[0], 1  # CompVis numbers all blocks in a row; 0 is conv_in
    for i, channels in enumerate(cfg.channels):
        ours, theirs = f"down.{i}.", f"down_blocks.{i}."
        for j in range(cfg.res_blocks):
            place = f"{ours}res.{j}.", f"input_blocks.{n}.0.", f"{theirs}resnets.{j}."
            yield UNET_RES, *place
            if width != channels:
                yield UNET_SKIP, *place
            if cfg.attention[i]:
                place = f"{ours}attn.{j}.", f"input_blocks.{n}.1.", f"{theirs}attentions.{j}."
                yield UNET_ATTENTION, *place
            width, n = channels, n + 1
        if i < last:
            yield UNET_DOWN, ours, f"input_blocks.{n}.0.", f"{theirs}downsamplers.0."
            n += 1

    yield UNET_RES, "mid.res.0.", "middle_block.0.", "mid_block.resnets.0."
    yield UNET_ATTENTION, "mid.attn.0.", "middle_block.1.", "mid_block.attentions.0."
    yield UNET_RES, "mid.res.1.", "middle_block.2.", "mid_block.resnets.1."

    for i in range(last + 1):  # deepest first, in all three layouts
        ours, theirs, attention = f"up.{i}.", f"up_blocks.{i}.", cfg.attention[last - i]
        for j in range(cfg.res_blocks + 1):
            n = i * (cfg.res_blocks + 1) + j
            place = f"{ours}res.{j}.", f"output_blocks.{n}.0.", f"{theirs}resnets.{j}."
            yield UNET_RES, *place
            yield UNET_SKIP, *place  # the input is the lower level and the skip: always wider
            if attention:
                place = f"{ours}attn.{j}.", f"output_blocks.{n}.1.", f"{theirs}attentions.{j}."
                yield UNET_ATTENTION, *place
        if i < last:
            place = ours, f"output_blocks.{n}.{2 if attention else 1}.", f"{theirs}upsamplers.0."
            yield UNET_UP, *place


def _vae(cfg: VAEConfig) -> Iterator[Place]:
    last = len(cfg.channels) - 1
    yield VAE_ENDS, "", "", ""
    if cfg.shortcut:
        yield VAE_SHORTCUT, "", "", ""
    for half in ("encoder.", "decoder."):
        yield VAE_HALF_ENDS, half, half, half
        mid = f"{half}mid"
        for j in (0, 1):
            yield VAE_RES, f"{mid}.res.{j}.", f"{mid}.block_{j + 1}.", f"{mid}_block.resnets.{j}."
        yield VAE_ATTENTION, f"{mid}.attn.0.", f"{mid}.attn_1.", f"{mid}_block.attentions.0."

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
                yield VAE_RES, *place
                if width != channels:
                    yield VAE_SKIP, *place
                width = channels
            if i < last:
                place = ours, f"{compvis}{direction}sample.", f"{diffusers}{direction}samplers.0."
                yield VAE_RESAMPLE, *place


def _text(cfg: TextConfig) -> Iterator[Place]:
    yield TEXT_ENDS, "", "", ""
    for i in range(cfg.layers):
        theirs = f"encoder.layers.{i}."
        yield TEXT_BLOCK, f"transformer.resblocks.{i}.", theirs, theirs
