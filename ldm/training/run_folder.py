"""A run folder: its checkpoints, its log and loss curve, and whether a run may go on from it."""

import json
import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from ldm.config import ConfigError, to_dict
from ldm.system import atomic
from ldm.training.run_config import RunConfig

log = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
NAME, PREVIOUS, DAMAGED = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.damaged.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write the state of a run, whole or not at all; the checkpoint before it is kept.

    state: tensors, numbers, strings, lists and dicts only, so that reading runs no code
    """
    path = folder / NAME
    try:
        with atomic.whole_file(path) as unfinished:
            torch.save(state, unfinished)
            atomic.sync(unfinished)  # before the older one gives up its name
            if path.exists():
                path.replace(folder / PREVIOUS)
    except (OSError, RuntimeError) as e:  # torch reports a full disk as RuntimeError
        free = shutil.disk_usage(folder).free / 1e6
        raise OSError(
            f"cannot write the checkpoint {path}: {e} ({free:.0f} MB are free there); "
            "earlier ones are kept"
        ) from e


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest readable state in a run folder; None if there is no checkpoint at all."""
    found = [p for p in (folder / NAME, folder / PREVIOUS) if p.exists()]
    for path in found:
        try:
            state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as e:
            log.warning("%s is damaged (%s); trying the one before", path, type(e).__name__)
            continue
        if path != found[0]:  # or the next checkpoint would push the good one out
            found[0].replace(folder / DAMAGED)
        return state
    if found:
        raise ValueError(f"no checkpoint in {folder} can be read; delete the folder to start again")
    return None


# settings that may change when a run goes on
FREE = {"data.cache", "data.path", "model.path"}  # the content of the paths is compared instead
# these change rounding alone
FREE |= {f"train.{n}" for n in ("device", "attention", "compile", "unfold")}
FREE |= {"train.update_in_backward", "train.checkpointing"}  # these change memory alone
FREE |= {f"train.{n}" for n in ("steps", "save_every", "sample_every", "out", "learning_rate")}


def refuse_other_settings(folder: Path, before: Any, now: Any, where: str = "") -> None:
    """Raise ConfigError if a run folder was begun with settings that would change its weights."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            place = f"{where}.{key}" if where else key
            if place not in FREE:
                refuse_other_settings(folder, before.get(key), now.get(key), place)
    elif before != now:
        raise ConfigError(
            f"{folder} was begun with {where}={before!r}, not {now!r}; "
            "give the old value, another train.out, or delete the folder"
        )


def refuse_other_config(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ConfigError if two RunConfigs differ in more than the method's options.

    Of these a default may be left out or spelled out; the method's own settings have them all.
    """
    refuse_other_settings(folder, before | {"method": None}, now | {"method": None})


def finished(config: RunConfig) -> Path | None:
    """The weights of the run if it is finished: known before any data or model is read."""
    folder = Path(config.train.out)
    state = load_checkpoint(folder)
    if state is None:
        return None
    before, now = state["config"], to_dict(config)
    refuse_other_config(folder, before, now)
    weights = folder / WEIGHTS
    spelled_otherwise = before["method"] != now["method"]  # the method knows if it is the same
    moved = [before[table]["path"] != now[table]["path"] for table in ("data", "model")]
    # stopped short of what was asked for then, the weights are of an earlier time
    cut_off = state["step"] < max(config.train.steps, before["train"]["steps"])
    if cut_off or spelled_otherwise or any(moved) or not weights.exists():
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
        self.file.write(json.dumps(row) + "\n")

    def close(self) -> None:
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
    """The rows of a log; a last line cut off by a crash is dropped."""
    rows: list[dict[str, float]] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows
