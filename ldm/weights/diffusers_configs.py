"""The config.json files of a diffusers folder <-> ModelConfig.

Only what SD v1 has is understood; a setting that would change the network is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldm.config import (
    ConfigError,
    ModelConfig,
    ScheduleConfig,
    from_dict,
)

Settings = Mapping[str, Any]

# what our networks are, whatever their size: a folder that says otherwise holds another network
FIXED: dict[str, Settings] = {
    "unet": {
        "act_fn": "silu",
        "center_input_sample": False,
        "class_embed_type": None,
        "downsample_padding": 1,
        "dual_cross_attention": False,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "only_cross_attention": False,
        "resnet_time_scale_shift": "default",
        "transformer_layers_per_block": 1,
    },
    "vae": {"act_fn": "silu"},
    "text_encoder": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-05},
    "scheduler/scheduler": {
        "beta_schedule": "scaled_linear",
        "rescale_betas_zero_snr": False,
        "trained_betas": None,
    },
}
PREDICTIONS = {"eps": "epsilon", "v": "v_prediction"}


def read_configs(folder: Path) -> ModelConfig:
    """The config of the model in a diffusers folder; SD v1.4's schedule if none is given."""
    parts = {part: _read(folder, part) for part in ("unet", "vae", "text_encoder")}
    for part, settings in parts.items():
        _check(folder, part, settings)
    scheduler: Settings = {}
    if (folder / "scheduler/scheduler_config.json").exists():
        scheduler = _read(folder, "scheduler/scheduler")
        _check(folder, "scheduler/scheduler", scheduler)
    unet, vae, text = parts.values()
    try:
        return _model_config(unet, vae, text, scheduler)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be used: {error}"
        raise ConfigError(f"a config.json in {folder} {what}") from error


def _model_config(unet: Settings, vae: Settings, text: Settings, steps: Settings) -> ModelConfig:
    vae_config = {
        "image_channels": vae["in_channels"],
        "latent_channels": vae["latent_channels"],
        "channels": vae["block_out_channels"],
        "res_blocks": vae["layers_per_block"],
        "groups": vae.get("norm_num_groups", 32),
    }
    predictions = {theirs: ours for ours, theirs in PREDICTIONS.items()}
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    return from_dict(
        ModelConfig,
        {
            "unet": {
                "in_channels": unet["in_channels"],
                "out_channels": unet["out_channels"],
                "channels": unet["block_out_channels"],
                "attention": [kind.startswith("CrossAttn") for kind in unet["down_block_types"]],
                "res_blocks": unet["layers_per_block"],
                "heads": unet["attention_head_dim"],  # in SD v1's files this is their number
                "context_dim": unet["cross_attention_dim"],
                "groups": unet.get("norm_num_groups", 32),
            },
            "vae": vae_config,
            "text": {
                "vocab_size": text["vocab_size"],
                "context_length": text["max_position_embeddings"],
                "width": text["hidden_size"],
                "layers": text["num_hidden_layers"],
                "heads": text["num_attention_heads"],
            },
            "schedule": {
                "steps": steps.get("num_train_timesteps", ScheduleConfig.steps),
                "beta_start": steps.get("beta_start", ScheduleConfig.beta_start),
                "beta_end": steps.get("beta_end", ScheduleConfig.beta_end),
                "prediction": predictions[steps.get("prediction_type", "epsilon")],
                "final_alpha_bar": "one" if steps.get("set_alpha_to_one", False) else "first",
            },
            "scale_factor": vae.get("scaling_factor", ModelConfig.scale_factor),
            "image_size": unet["sample_size"] * factor,
        },
    )


def configs(config: ModelConfig) -> dict[str, dict[str, Any]]:
    """{file in the folder: its content}; raises ConfigError for what diffusers does not have."""
    unet, vae, text, schedule = config.unet, config.vae, config.text, config.schedule
    if unet.patch != 1 or vae.patch != 1 or vae.shortcut:
        raise ConfigError(
            "a diffusers folder cannot hold a model with patch > 1 or a shortcut; keep our layout"
        )
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in unet.attention]
    levels = len(vae.channels)
    return {
        "unet/config.json": {
            "_class_name": "UNet2DConditionModel",
            **FIXED["unet"],
            "sample_size": config.image_size // vae.factor,
            "in_channels": unet.in_channels,
            "out_channels": unet.out_channels,
            "block_out_channels": list(unet.channels),
            "layers_per_block": unet.res_blocks,
            "cross_attention_dim": unet.context_dim,
            "attention_head_dim": unet.heads,
            "norm_num_groups": unet.groups,
            "down_block_types": down,
            "up_block_types": [name.replace("Down", "Up") for name in reversed(down)],
        },
        "vae/config.json": {
            "_class_name": "AutoencoderKL",
            **FIXED["vae"],
            "sample_size": config.image_size,
            "in_channels": vae.image_channels,
            "out_channels": vae.image_channels,
            "latent_channels": vae.latent_channels,
            "layers_per_block": vae.res_blocks,
            "block_out_channels": list(vae.channels),
            "norm_num_groups": vae.groups,
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
            "scaling_factor": config.scale_factor,
        },
        "text_encoder/config.json": {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            **FIXED["text_encoder"],
            "vocab_size": text.vocab_size,
            "hidden_size": text.width,
            "intermediate_size": 4 * text.width,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "max_position_embeddings": text.context_length,
        },
        "scheduler/scheduler_config.json": {
            "_class_name": "DDIMScheduler",
            **FIXED["scheduler/scheduler"],
            "num_train_timesteps": schedule.steps,
            "beta_start": schedule.beta_start,
            "beta_end": schedule.beta_end,
            "prediction_type": PREDICTIONS[schedule.prediction],
            "set_alpha_to_one": schedule.final_alpha_bar == "one",
            "steps_offset": 1,
            "clip_sample": False,
        },
    }


def _read(folder: Path, part: str) -> Settings:
    path = folder / (f"{part}_config.json" if "/" in part else f"{part}/config.json")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} holds no settings (wants a JSON object)")
    return settings


def _check(folder: Path, part: str, settings: Settings) -> None:
    for key, expected in FIXED[part].items():
        if settings.get(key, expected) != expected:
            raise ConfigError(
                f"{folder / part} has {key} = {settings[key]!r}; only {expected!r}, as in SD v1, "
                "can be loaded"
            )
