"""Settings as frozen dataclasses, filled from tables (of YAML: system/cli.py) that are checked.

An unknown key is an error with a suggestion, and types are checked: YAML reads `1e-5` as a string
and `yes` as a bool, so nothing is taken over unseen.
"""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

T = TypeVar("T")

RANGES = {  # of the numbers of networks by their names; all others are from 1 to 65,536
    **dict.fromkeys(("beside", "head_width"), (0, 65536)),
    **dict.fromkeys(("beta_start", "beta_end"), (1e-9, 0.9999)),
    **{"steps": (1, 100_000), "context_length": (3, 65536), "vocab_size": (1, 1_000_000)},
    **{"layers": (1, 256), "res_blocks": (1, 64), "eps": (1e-30, 1)},
    **{"scale_factor": (1e-6, 1e6), "guidance": (-1e4, 1e4)},
}


class ConfigError(ValueError):
    """A setting that cannot be used; the message is one line: which, where, what to do."""


@dataclass(frozen=True)
class UNetConfig:
    """The noise predictor; the defaults are SD v1.4's (860 M parameters)."""

    in_channels: int = 4
    beside: int = 0  # channels of what is known beside x_t: 5 in SD's weights for inpainting
    out_channels: int = 4
    channels: tuple[int, ...] = (320, 640, 1280, 1280)  # width of each level, finest first
    attention: tuple[bool, ...] = (True, True, True, False)  # a spatial transformer at each level?
    res_blocks: int = 2  # per level on the way down, one more on the way up
    heads: int = 8
    head_width: int = 0  # channels of each head, as SD 2.x fixes them; 0: width / heads
    context_dim: int = 768
    groups: int = 32
    patch: int = 1  # pixel unshuffle before the first convolution

    def heads_of(self, width: int) -> int:
        return width // self.head_width if self.head_width else self.heads


@dataclass(frozen=True)
class VAEConfig:
    """The autoencoder; the defaults are SD v1.4's. It shrinks each side by `factor`."""

    image_channels: int = 3
    latent_channels: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)
    res_blocks: int = 2  # per level of the encoder, one more in the decoder
    groups: int = 32
    patch: int = 1
    shortcut: bool = False  # a linear map of each block of pixels beside the networks

    @property
    def factor(self) -> int:
        return self.patch * 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class TextConfig:
    """The text tower; the defaults are CLIP ViT-L/14's."""

    vocab_size: int = 49408
    context_length: int = 77
    width: int = 768
    layers: int = 12
    heads: int = 12
    openclip: bool = False  # SD 2.x's: exact GELU, padded with token 0


@dataclass(frozen=True)
class ScheduleConfig:
    """The noise schedule: sqrt(beta) runs linearly from sqrt(beta_start) to sqrt(beta_end)."""

    steps: int = 1000  # T of the papers
    beta_start: float = 0.00085
    beta_end: float = 0.012
    prediction: Literal["eps", "v"] = "eps"
    final_alpha_bar: Literal["first", "one"] = "first"  # where sampling ends
    zero_terminal_snr: bool = False  # is x_T pure noise? (arXiv:2305.08891)


@dataclass(frozen=True)
class ModelConfig:
    """All that fixes the shapes of a latent diffusion model; the defaults are SD v1.4's."""

    unet: UNetConfig = field(default_factory=UNetConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    text: TextConfig = field(default_factory=TextConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    scale_factor: float = 0.18215  # 1 / std of VAE latents, fixed by the SD v1 checkpoint
    image_size: int = 512
    guidance: float = 7.5  # the default when drawing

    @property
    def multiple(self) -> int:
        """The sides of images must be multiples of this number of pixels."""
        return self.vae.factor * self.unet.patch * 2 ** (len(self.unet.channels) - 1)

    def __post_init__(self) -> None:
        unet, vae, text = self.unet, self.vae, self.text
        levels = len(unet.channels), len(vae.channels)
        if min(levels) < 1 or max(levels) > 10 or len(unet.attention) != levels[0]:
            raise ConfigError(
                "channels must have one width for each level (1 to 10), unet.attention as many "
                f"answers, got unet {unet.channels} and {unet.attention}, vae {vae.channels}"
            )
        check_numbers(self)
        splits = [("unet", width, unet.heads_of(width), "heads") for width in unet.channels]
        splits += [("unet", width, unet.groups, "groups") for width in unet.channels]
        splits += [("vae", width, vae.groups, "groups") for width in vae.channels]
        splits += [("text", text.width, text.heads, "heads")]
        for part, width, number, what in splits:
            if number < 1 or width % number:
                raise ConfigError(f"{part}: a width of {width} does not split into {number} {what}")
        for one, a, other, b in (
            ("unet.context_dim", unet.context_dim, "text.width", text.width),
            ("unet.in_channels", unet.in_channels, "vae.latent_channels", vae.latent_channels),
            ("unet.out_channels", unet.out_channels, "unet.in_channels", unet.in_channels),
        ):
            if a != b:
                raise ConfigError(f"{one} is {a} and {other} is {b}; make them equal")


def check_numbers(config: Any, where: str = "") -> None:
    """Raises ConfigError for a number in a dataclass, or one inside it, that is not in RANGES."""
    for name, value in vars(config).items():
        low, high = RANGES.get(name, (1, 65536))
        for number in value if isinstance(value, tuple) else [value]:
            if dataclasses.is_dataclass(number):
                check_numbers(number, f"{name}.")
            elif type(number) in (int, float) and not low <= number <= high:
                raise ConfigError(f"{where}{name} must be from {low} to {high}, got {number}")


def to_dict(config: Any) -> dict[str, Any]:
    """The settings as plain dicts, lists and scalars, ready for YAML or JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))  # tuples become lists


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """An instance of the dataclass `cls`; keys that are absent keep their defaults.

    Raises ConfigError for an unknown key (with a suggestion) or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'config'} must be a table of settings, got {values!r}")
    hints, start = typing.get_type_hints(cls), f"{where}." if where else ""
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(hints)}"
            raise ConfigError(f"unknown setting {f'{start}{key}'!r}; {hint}")
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]  # cls is a dataclass
        if f.default is f.default_factory is dataclasses.MISSING and f.name not in values:
            raise ConfigError(f"{start}{f.name} is missing")
    return cls(**{k: _convert(hints[k], v, f"{start}{k}") for k, v in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    if origin in (typing.Union, types.UnionType):  # only `X | None` is used
        return None if value is None else _convert(args[0], value, where)
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{where} is {value!r}; choose one of {', '.join(map(repr, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ConfigError(f"{where} must be a list, got {value!r}")
        return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            value = float(value)  # YAML reads 1e-5 as a string
    hint = origin or hint
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} must be a finite number, got {value}")
    if hint is int and isinstance(value, int) and abs(value) > 1 << 53:
        raise ConfigError(f"{where} must be at most 2^53, got {value}")
    if hint is Any or (isinstance(value, hint) and not (hint is int and isinstance(value, bool))):
        return value
    raise ConfigError(f"{where} must be {hint.__name__}, got {value!r}")
