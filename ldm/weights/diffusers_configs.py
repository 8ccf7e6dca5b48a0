"""The config.json files of a diffusers folder <-> ModelConfig.

Only SD v1's settings are understood; one that would change the network is an error.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ldm.config import ConfigError, ModelConfig, from_dict
from ldm.system import cli

Settings = Mapping[str, Any]

# fixed: settings of our networks at any size; with another value it is another network
# fields: {theirs: ours}; attention_head_dim is the number of heads in SD v1's files
SETTINGS: dict[str, dict[str, Settings]] = json.loads(
    Path(__file__).with_name("diffusers_settings.json").read_text(encoding="utf-8")
)
OPTIONAL = ("norm_num_groups", *SETTINGS["scheduler/scheduler"]["fields"])  # absent: SD v1.4's
PIPELINE = {  # part: where its class is, as model_index.json has it
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "scheduler": ("diffusers", "DDIMScheduler"),
    "feature_extractor": (None, None),
    "safety_checker": (None, None),
}
PREDICTIONS = {"eps": "epsilon", "v": "v_prediction"}


def read_configs(folder: Path) -> ModelConfig:
    """The config of the model in a diffusers folder; SD v1.4's schedule if none is given."""
    unet, vae, text = (_read(folder, part) for part in ("unet", "vae", "text_encoder"))
    steps: Settings = {}
    if (folder / "scheduler/scheduler_config.json").exists():
        found = _read(folder, "scheduler/scheduler")
        steps = {name: value for name, value in found.items() if value is not None}
    predictions = {theirs: ours for ours, theirs in PREDICTIONS.items()}
    try:
        attention = [kind.startswith("CrossAttn") for kind in unet["down_block_types"]]
        beside = unet["in_channels"] - vae["latent_channels"]
        if beside not in (0, vae["latent_channels"] + 1):  # the mask and a latent: for inpainting
            raise ValueError(f"the U-Net takes {unet['in_channels']} channels, which no SD does")
        values = {
            "unet": _ours("unet", unet)
            | {"attention": attention, "beside": beside, "in_channels": vae["latent_channels"]}
            | _heads(unet),
            "vae": _ours("vae", vae) | {"image_channels": vae["in_channels"]},
            "text": _ours("text_encoder", text) | {"openclip": _activation(text) == "gelu"},
            "schedule": {
                **_ours("scheduler/scheduler", steps),
                "prediction": predictions[steps.get("prediction_type", "epsilon")],
                "final_alpha_bar": "one" if steps.get("set_alpha_to_one", False) else "first",
            },
            "scale_factor": vae.get("scaling_factor", ModelConfig.scale_factor),
            "image_size": unet["sample_size"],
        }
        config = from_dict(ModelConfig, values)
        return replace(config, image_size=config.image_size * config.vae.factor)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be used: {error}"
        raise ConfigError(f"a config.json in {folder} {what}") from error


def configs(config: ModelConfig) -> dict[str, dict[str, Any]]:
    """{file in the folder: its content}; raises ConfigError for what diffusers does not have."""
    unet, vae, text, schedule = config.unet, config.vae, config.text, config.schedule
    if unet.patch != 1 or vae.patch != 1 or vae.shortcut:
        raise ConfigError(
            "a diffusers folder cannot hold a model with patch > 1 or a shortcut; keep our layout"
        )
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in unet.attention]
    levels = len(vae.channels)
    inpaint = "Inpaint" if unet.beside else ""
    return {
        "model_index.json": {
            "_class_name": f"StableDiffusion{inpaint}Pipeline",
            **{name: list(where) for name, where in PIPELINE.items()},
            "requires_safety_checker": False,
        },
        "unet/config.json": {
            "_class_name": "UNet2DConditionModel",
            **SETTINGS["unet"]["fixed"],
            "sample_size": config.image_size // vae.factor,
            **_theirs("unet", unet),
            "in_channels": unet.in_channels + unet.beside,
            "attention_head_dim": [unet.heads_of(width) for width in unet.channels]
            if unet.head_width
            else unet.heads,
            "use_linear_projection": unet.head_width > 0,  # as SD 2.x
            "down_block_types": down,
            "up_block_types": [name.replace("Down", "Up") for name in reversed(down)],
        },
        "vae/config.json": {
            "_class_name": "AutoencoderKL",
            **SETTINGS["vae"]["fixed"],
            "sample_size": config.image_size,
            "in_channels": vae.image_channels,
            "out_channels": vae.image_channels,
            **_theirs("vae", vae),
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
            "scaling_factor": config.scale_factor,
        },
        "text_encoder/config.json": {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            **SETTINGS["text_encoder"]["fixed"],
            "vocab_size": text.vocab_size,
            "hidden_act": "gelu" if text.openclip else "quick_gelu",
            "hidden_size": text.width,
            "intermediate_size": 4 * text.width,
            **_theirs("text_encoder", text),
        },
        "scheduler/scheduler_config.json": {
            "_class_name": "DDIMScheduler",
            **SETTINGS["scheduler/scheduler"]["fixed"],
            **_theirs("scheduler/scheduler", schedule),
            "prediction_type": PREDICTIONS[schedule.prediction],
            "set_alpha_to_one": schedule.final_alpha_bar == "one",
            "steps_offset": 1,
            "clip_sample": False,
        },
    }


def _heads(unet: Settings) -> dict[str, int]:
    """attention_head_dim is the number of heads: of all levels (SD 1.x), or of each (SD 2.x)"""
    heads = unet["attention_head_dim"]
    if not isinstance(heads, list):
        return {"heads": heads}
    if not all(isinstance(number, int) and 0 < number < 65536 for number in heads):
        raise ValueError(f"attention_head_dim is {heads}")
    widths = {
        width / number for width, number in zip(unet["block_out_channels"], heads, strict=True)
    }
    if len(widths) > 1 or not min(widths).is_integer():
        raise ValueError(f"its heads {heads} differ in width")
    return {"head_width": int(min(widths))}


def _activation(text: Settings) -> str:
    """quick_gelu of SD 1.x's text tower, or gelu of SD 2.x's; any other is another network."""
    found = text.get("hidden_act", "quick_gelu")
    if found not in ("quick_gelu", "gelu"):
        raise ValueError(f"text_encoder has hidden_act = {found!r}, which no SD has")
    return str(found)


def _ours(part: str, settings: Settings) -> dict[str, Any]:
    fields = SETTINGS[part]["fields"].items()
    return {ours: settings[k] for k, ours in fields if k in settings or k not in OPTIONAL}


def _theirs(part: str, config: Any) -> dict[str, Any]:
    return {theirs: getattr(config, ours) for theirs, ours in SETTINGS[part]["fields"].items()}


def _read(folder: Path, part: str) -> Settings:
    """The settings of a part, once it is known that they describe a network of ours."""
    path = folder / (f"{part}_config.json" if "/" in part else f"{part}/config.json")
    try:
        settings = cli.parse_json(cli.regular(path).read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must hold a JSON object of settings")
    for key, expected in SETTINGS[part]["fixed"].items():
        if settings.get(key, expected) != expected:
            raise ConfigError(
                f"{folder / part} has {key} = {settings[key]!r}; only {expected!r}, as in SD v1, "
                "can be loaded"
            )
    return settings
