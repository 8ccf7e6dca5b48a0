"""A training run as its YAML file gives it: the tables `train`, `data`, `model` and `method`."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ldm.config import ConfigError, load_config
from ldm.data.data_config import DataConfig


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast, for every method."""

    method: str = "unet"  # a key of ldm.training.methods.METHODS
    out: str = ""  # the run folder; empty: runs/<name of the config file>
    seed: int = 0
    device: str = ""  # cpu, cuda, cuda:1 or mps; empty: the best one here
    steps: int = 1000
    batch_size: int = 16
    accumulate: int = 1  # batches in a step, shared out among the processes of torchrun
    precision: Literal["float32", "bfloat16"] = "float32"  # of the forward pass (autocast)
    checkpointing: bool = False  # compute the U-Net's blocks twice rather than keep them: memory
    attention: Literal["sdpa", "reference", "fused"] = "sdpa"  # the U-Net's; fused needs CUDA
    unfold: bool = False  # small maps convolved by products of matrices: faster, CPU only
    compile: Literal["", "whole", "regions"] = ""  # the U-Net, which takes minutes
    learning_rate: float = 1e-4
    warmup: int = 100  # steps of a linear rise, times a cosine that falls to zero at `steps`
    weight_decay: float = 0.01
    clip: float = 1.0  # largest gradient norm; 1e9 is off
    update_in_backward: bool = False  # each weight at once, no gradients kept: memory; no clip
    ema: float = 0.999  # decay of the averaged weights, which are the ones saved
    save_every: int = 200
    sample_every: int = 500  # steps between previews, and one at the end; 0: none

    def __post_init__(self) -> None:
        if self.update_in_backward and (self.accumulate != 1 or self.clip < 1e9):
            raise ConfigError(
                "train.update_in_backward changes weights before all gradients are there: it needs "
                "one process, train.accumulate=1 and train.clip=1e9 (off), got "
                f"train.accumulate={self.accumulate} and train.clip={self.clip:g}"
            )


@dataclass(frozen=True)
class StartConfig:
    """The weights that a training starts from."""

    path: str | None = None  # weights whose parts are taken over; null: none
    parts: tuple[str, ...] = ("unet", "vae", "text")  # those taken over, if `path` has them
    config: str | None = None  # YAML of ModelConfig for the part trained from scratch


@dataclass(frozen=True)
class RunConfig:
    """One training run: the content of a file in configs/."""

    train: TrainConfig = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: StartConfig = field(default_factory=StartConfig)
    method: dict[str, Any] = field(default_factory=dict)  # the method's own options


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A training run; without `train.out` it lives in runs/<name of the config file>."""
    run = load_config(RunConfig, path, overrides)
    check_range(1, "train", run.train, "steps", "batch_size", "accumulate", "save_every")
    check_range(0, "train", run.train, "sample_every")
    check_range(1, "data", run.data, "phantoms", "size")
    if not run.train.clip > 0:
        raise ConfigError(f"train.clip must be a norm above 0, got {run.train.clip}; 1e9 is off")
    out = run.train.out or f"runs/{Path(path).stem}"
    return dataclasses.replace(run, train=dataclasses.replace(run.train, out=out))


def check_range(low: int, table: str, options: Any, *names: str, most: float = math.inf) -> None:
    """Raises ConfigError for an option below `low`, above `most`, or NaN."""
    for name in names:
        if not low <= (value := getattr(options, name)) <= most:
            allowed = f"{low} or more" if low else "0 (off) or more"
            if most < math.inf:
                allowed = f"from {low} to {most:g}"
            raise ConfigError(f"{table}.{name} must be {allowed}, got {value}")
