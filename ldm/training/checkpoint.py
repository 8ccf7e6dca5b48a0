"""Checkpoints that are whole or absent: written beside, synced, then renamed.

And the settings with which a run may go on from one.
"""

from __future__ import annotations

import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from ldm.config import ConfigError
from ldm.system import atomic

log = logging.getLogger(__name__)

NAME, PREVIOUS, DAMAGED = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.damaged.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write the state of a run; the checkpoint before it is kept as a second chance.

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


def load(folder: Path) -> dict[str, Any] | None:
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


# what may change when a run goes on
FREE = {"data.cache", "data.path", "model.path"}  # what lies at the paths is compared itself
# changes rounding alone
FREE |= {f"train.{n}" for n in ("device", "attention", "compile", "unfold")}
FREE |= {"train.update_in_backward", "train.checkpointing"}  # change memory alone
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
