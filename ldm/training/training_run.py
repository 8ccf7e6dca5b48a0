"""A training run: its YAML file, the method that this names, and its folder.

The YAML file has the tables `train`, `data`, `model` and `method`. The folder holds checkpoints, a
log and a loss curve; a run goes on from it unless a setting that decides the weights has changed.
"""

import dataclasses
import json
import logging
import math
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from ldm.config import ConfigError, to_dict
from ldm.data import DataConfig
from ldm.system import atomic
from ldm.system.cli import SPENT, load_config, regular

log = logging.getLogger(__name__)

METHODS = {  # {train.method: file and class in ldm.training.methods}, imported when chosen
    "vae": "pretraining.TrainVAE",
    "text": "pretraining.TrainText",
    "unet": "pretraining.TrainUNet",
    "judge": "judge_training.TrainJudge",
    "bert": "bert_pretraining.TrainBert",
    "textual_inversion": "textual_inversion.TextualInversion",
    "finetune": "adaptation.FineTune",
    "projection": "projection_training.TrainProjection",
}
WITH_UNET = ("unet", "textual_inversion", "finetune")
FROM_NOTHING = ("judge", "bert")
WEIGHTS = "model.safetensors"
NAME, PREVIOUS, DAMAGED = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.damaged.pt"


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast, for every method."""

    method: str = "unet"  # a key of METHODS
    out: str = ""  # the run folder; empty: runs/<name of the config file>
    seed: int = 0
    device: str = ""  # cpu, cuda, cuda:1 or mps; empty: the best one here
    steps: int = 1000
    batch_size: int = 16
    accumulate: int = 1  # batches in a step, shared out among the processes of torchrun
    # of the layers (autocast); weights, averages and losses are float32; auto: the faster one
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    checkpointing: bool = False  # compute the U-Net's blocks twice rather than keep them: memory
    attention: Literal["sdpa", "reference", "fused"] = "sdpa"  # the U-Net's; fused needs CUDA
    unfold: bool = False  # small maps convolved by products of matrices: faster, CPU only
    compile: Literal["", "whole", "regions"] = ""  # the U-Net, which takes minutes
    learning_rate: float = 1e-4
    warmup: int = 100  # steps of a linear rise, times a cosine that falls to zero at `steps`
    weight_decay: float = 0.01  # of matrices and kernels, not of norms and biases
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
    fitting: bool = False  # of that part take over the tensors of equal shape, if sizes differ


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
    method = run.train.method
    if method not in METHODS:
        raise ConfigError(f"unknown train.method {method!r}; known: {', '.join(METHODS)}")
    for switch in ("checkpointing", "attention", "unfold", "compile"):
        if method not in WITH_UNET and getattr(run.train, switch) != getattr(TrainConfig(), switch):
            raise ConfigError(
                f"train.{switch} is about the U-Net, and train.method={method} has none"
            )
    if method in FROM_NOTHING and run.model.path is not None:
        raise ConfigError(f"model.path is set, but method {method} starts from random weights")
    if run.data.long_captions == "chunks" and method not in ("unet", "finetune"):
        raise ConfigError("data.long_captions=chunks is for train.method=unet and finetune alone")
    check_range(1, "train", run.train, "steps", "batch_size", "accumulate", "save_every")
    check_range(0, "train", run.train, "sample_every")
    check_range(1, "data", run.data, "phantoms", "size")
    if not run.train.clip > 0:
        raise ConfigError(f"train.clip must be a norm above 0, got {run.train.clip}; 1e9 is off")
    out = run.train.out if run.train.out.strip() else f"runs/{Path(path).stem}"
    return dataclasses.replace(run, train=dataclasses.replace(run.train, out=out))


def check_range(low: int, table: str, options: Any, *names: str, most: float = math.inf) -> None:
    """Raises ConfigError for an option below `low`, above `most`, or NaN."""
    for name in names:
        if not low <= (value := getattr(options, name)) <= most:
            allowed = f"{low} or more" if low else "0 (off) or more"
            if most < math.inf:
                allowed = f"from {low} to {most:g}"
            raise ConfigError(f"{table}.{name} must be {allowed}, got {value}")


def build_method(run: RunConfig) -> Any:
    """The trainer.Method that `train.method` names, with its data and its model."""
    module, name = METHODS[run.train.method].split(".")
    method = getattr(import_module(f"ldm.training.methods.{module}"), name)(run)
    if run.train.compile:
        from ldm.fast import compilation

        compilation.use(method.unet, run.train.compile)
    return method


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write the state of a run, whole or not at all; the checkpoint before it is kept.

    state: tensors, numbers, strings, lists and dicts only, so that reading runs no code
    """
    import torch  # takes seconds

    path = folder / NAME
    try:
        with atomic.whole_file(path) as unfinished:
            with unfinished.open("wb") as file:  # of a path it would write the name, too
                torch.save(state, file)
            atomic.sync(unfinished)  # before the older one gives up its name
            if path.exists():
                path.replace(folder / PREVIOUS)
    except (OSError, RuntimeError) as e:  # torch reports a full disk as RuntimeError
        free = shutil.disk_usage(folder).free / 1e6
        raise OSError(
            f"cannot write the checkpoint {path}: {e} ({free:.0f} MB are free there); "
            "earlier ones are kept"
        ) from e


def load_checkpoint(
    folder: Path, take: Callable[[dict[str, Any]], object] = lambda state: None
) -> dict[str, Any] | None:
    """The newest state in a run folder that is as it was saved; None if there is no checkpoint.

    take: is given a state and raises an error if it cannot be used: then the one before is tried;
        ConfigError, for one of other settings, ends the search
    """
    import torch

    from ldm.weights.checksums import compare_zip

    found, damage = [p for p in (folder / NAME, folder / PREVIOUS) if p.exists()], []
    for path in found:
        try:
            compare_zip(regular(path), path.stat().st_mtime_ns)  # which mapping does not
            state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
            steps = state["step"], state["config"]["train"]["steps"]
            if not all(isinstance(number, int) and number >= 0 for number in steps):
                raise ValueError(f"it counts {steps} steps")
            take(state)
        except (ConfigError, PermissionError, MemoryError, torch.OutOfMemoryError):
            raise  # which tell nothing against the file
        except FileNotFoundError:  # its run is saving just now
            continue
        except Exception as error:  # whatever lies there may raise any
            if re.search(f"{SPENT}|CUDA error", str(error)):
                raise  # which tells nothing against it, either
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:120]
            damage.append(f"{path} is damaged ({reason})")
            continue
        if damage:
            log.warning("%s; going on from the one before", damage[0])
            with suppress(FileNotFoundError):  # another process of this run has done it
                found[0].replace(folder / DAMAGED)  # or the next save would push out the good one
        return state
    if damage:
        raise ValueError(f"{'; '.join(damage)}; delete the folder to start again")
    return None


# settings that may change when a run goes on
# the content of the paths is compared instead
FREE = {"data.cache", "data.path", "data.root", "data.sources.path", "model.path"}
# these change rounding alone
FREE |= {f"train.{n}" for n in ("device", "attention", "compile", "unfold")}
FREE |= {"train.update_in_backward", "train.checkpointing"}  # these change memory alone
FREE |= {f"train.{n}" for n in ("steps", "save_every", "sample_every", "out", "learning_rate")}
FREE |= {"method.detail", "method.adversary"}  # pulls, as the learning rate, are tuned on the way


def refuse_other_settings(folder: Path, before: Any, now: Any, where: str = "") -> None:
    """Raise ConfigError if a run folder was begun with settings that would change its weights."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            place = f"{where}.{key}" if where else key
            if place not in FREE:
                refuse_other_settings(folder, before.get(key), now.get(key), place)
    elif [type(v) for v in (before, now)] == [list] * 2 and len(before) == len(now) > 0:
        for one, other in zip(before, now, strict=True):
            refuse_other_settings(folder, one, other, where)
    elif before != now and not (before is None and now == []):  # a list younger than the folder
        raise ConfigError(
            f"{folder} was begun with {where}={before!r}, not {now!r}; "
            "give the old value, another train.out, or delete the folder"
        )


def refuse_other_config(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ConfigError if two RunConfigs differ in more than the method's options.

    Of these a default may be left out or spelled out; the method's own settings have them all.
    A setting that is younger than the folder has its default there; precision "auto" is settled.
    """
    defaults = to_dict(RunConfig())
    before = {name: {**defaults[name], **before[name]} for name in defaults}
    if now["train"]["precision"] == "auto":
        now = {**now, "train": {**now["train"], "precision": before["train"]["precision"]}}
    refuse_other_settings(folder, before | {"method": None}, now | {"method": None})


def finished(config: RunConfig) -> Path | None:
    """The weights of the run if it is finished: known before any data or model is read."""
    from ldm.weights.checksums import compare  # imports torch

    folder = Path(config.train.out)
    now, weights = to_dict(config), folder / WEIGHTS
    state = load_checkpoint(folder, lambda s: refuse_other_config(folder, s["config"], now))
    if state is None:
        return None
    before = state["config"]
    spelled_otherwise = before["method"] != now["method"]  # the method knows if it is the same
    moved = [before[table].get("path") != now[table]["path"] for table in ("data", "model")]
    moved.append(before["data"].get("sources", []) != now["data"]["sources"])
    # stopped short of what was asked for then, the weights are of an earlier time
    cut_off = state["step"] < max(config.train.steps, before["train"]["steps"])
    if cut_off or spelled_otherwise or any(moved) or not weights.exists():
        return None
    try:
        compare(weights)
    except ValueError as error:
        log.warning("%s; it is written again", error)
        return None
    log.info("%s is finished: %d steps, weights in %s", folder, state["step"], weights)
    return weights


class Log:
    """JSON lines, one a step, in `folder/log.jsonl`; a resumed run cuts what it will repeat."""

    def __init__(self, folder: Path, start: int) -> None:
        self.path, self.curve = folder / "log.jsonl", folder / "curve.png"
        kept = [row for row in read_log(self.path) if row["step"] < start]
        with atomic.whole_file(self.path) as path:
            path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self.file = self.path.open("a", encoding="utf-8", buffering=1)

    def write(self, row: dict[str, float]) -> None:
        with atomic.named(self.path):
            self.file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        with atomic.named(self.path):
            self.file.close()

    def draw_curve(self) -> None:
        """The loss curve: every step pale, a running mean over 2 % of the run dark."""
        import matplotlib as mpl
        import numpy as np

        mpl.use("Agg")
        from matplotlib import pyplot as plt

        rows = read_log(self.path)
        names = [key for key in rows[-1] if key not in ("step", "lr", "seconds")] if rows else []
        if not names:
            return
        figure, axes = plt.subplots(len(names), 1, figsize=(7, 2.2 * len(names)), squeeze=False)
        for axis, name in zip(axes[:, 0], names, strict=True):
            points = np.array([(row["step"], row[name]) for row in rows if name in row])
            points = points[(abs(points) < 1e38).all(axis=1)]  # no NaN, and what can be drawn
            if not len(points):
                continue
            width = max(1, len(points) // 50)
            sums = np.cumsum([0, *points[:, 1]])
            mean = (sums[width:] - sums[:-width]) / width
            axis.plot(*points.T, color="0.8", linewidth=0.8)
            axis.plot(points[width - 1 :, 0], mean, color="C0")
            low, high = np.quantile(points[:, 1], [0, 0.98])
            axis.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low) + 1e-9)
            axis.set_ylabel(name)
        axes[-1, 0].set_xlabel("step")
        figure.tight_layout()
        with atomic.whole_file(self.curve) as path:
            figure.savefig(path, dpi=110, format="png")
        plt.close(figure)


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a log; lines that are none, as one cut off by a crash, are left out."""
    rows: list[dict[str, float]] = []
    text = regular(path).read_text("utf-8", "replace") if path.exists() else ""
    for line in (lines := text.splitlines()):
        with suppress(ValueError, RecursionError):
            if _is_row(row := json.loads(line)):
                rows.append(row)
    if len(rows) < len(lines):
        log.warning("%s: left out are %d lines that are not whole", path, len(lines) - len(rows))
    return rows


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return False
    numbers = row.values()
    return all(isinstance(n, float) or (isinstance(n, int) and abs(n) < 1 << 53) for n in numbers)
