"""Settings as frozen dataclasses, filled from strict YAML and `a.b=c` overrides.

An unknown key is an error with a suggestion, and types are checked: YAML reads `1e-5` as a string
and `yes` as a bool, so nothing is taken over unseen.
"""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

T = TypeVar("T")


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
        if not unet.channels or not vae.channels or len(unet.attention) != len(unet.channels):
            raise ConfigError(
                "channels must have one width for each level, unet.attention as many answers, got "
                f"unet {unet.channels} and {unet.attention}, vae {vae.channels}"
            )
        widths = [("unet", width, unet.heads_of(width)) for width in unet.channels]
        for part, width, number in [("text", text.width, text.heads), *widths]:
            if number < 1 or width % number:
                raise ConfigError(f"{part}: a width of {width} does not split into {number} heads")
        for one, a, other, b in (
            ("unet.context_dim", unet.context_dim, "text.width", text.width),
            ("unet.in_channels", unet.in_channels, "vae.latent_channels", vae.latent_channels),
            ("unet.out_channels", unet.out_channels, "unet.in_channels", unet.in_channels),
        ):
            if a != b:
                raise ConfigError(f"{one} is {a} and {other} is {b}; make them equal")


def to_dict(config: Any) -> dict[str, Any]:
    """The settings as plain dicts, lists and scalars, ready for YAML or JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))  # tuples become lists


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """An instance of the dataclass `cls`; keys that are absent keep their defaults.

    Raises ConfigError for an unknown key (with a suggestion) or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'config'} must be a table of settings, got {values!r}")
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]  # cls is a dataclass
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
            raise ConfigError(f"unknown setting {_join(where, str(key))!r}; {hint}")
    return cls(**{k: _convert(hints[k], v, _join(where, k)) for k, v in values.items()})


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    if origin in (typing.Union, types.UnionType):  # only `X | None` is used
        inner = next(a for a in args if a is not type(None))
        return None if value is None else _convert(inner, value, where)
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{where} is {value!r}; choose one of {', '.join(map(repr, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ConfigError(f"{where} must be a list, got {value!r}")
        return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-5 as a string
        except (ValueError, OverflowError):
            pass
    hint = origin or hint
    if hint is Any or (isinstance(value, hint) and not (hint is int and isinstance(value, bool))):
        return value
    raise ConfigError(f"{where} must be {hint.__name__}, got {value!r}")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError, naming the file, when there is none."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigError(f"cannot read the config {path}: {e.strerror}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(e).split())}") from e
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings (it needs lines like `key: value`)")
    return values


def load_config(cls: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """The dataclass `cls` filled from a YAML file, then from overrides like `train.steps=100`."""
    values = read_yaml(path)
    for override in overrides:
        _override(values, override)
    return from_dict(cls, values)


def _override(values: dict[str, Any], override: str) -> None:
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise ConfigError(f"override {override!r} must be key=value, e.g. train.steps=100")
    *parents, last = dotted.split(".")
    table = values
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"override {override!r}: {parent!r} is a value, not a table")
    try:
        table[last] = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise ConfigError(f"override {override!r}: the value is not YAML") from e
