"""The training loop. It knows nothing of diffusion: it is handed a Method.

Every draw is a function of (seed, step), so a checkpoint needs no random state, and a run that was
cut off goes on, with the same command, to the same bits.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from torch import Tensor, nn
from tqdm import tqdm

from ldm import images, rng
from ldm.config import ConfigError, RunConfig, to_dict
from ldm.data.datasets import Batch
from ldm.train import checkpoint
from ldm.train.ema import EMA
from ldm.train.log import Log

log = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"


class Method(Protocol):
    """What is learned, and by which loss."""

    module: nn.Module  # its parameters are trained, its state is saved

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss, a scalar, and figures for the log."""

    def preview(self) -> Tensor | None:
        """A picture [C, H, W] of what was learned so far."""

    def save(self, path: Path) -> None:
        """Write the weights that others open with LatentDiffusion.load."""


class Trainer:
    """Owns optimizer, average, log and checkpoints of one run folder."""

    def __init__(
        self,
        config: RunConfig,
        method: Method,
        draw: Callable[[int, torch.Generator], Batch],
    ) -> None:
        """draw: (batch size, generator) -> a batch"""
        self.config, self.settings, self.method, self.draw = config, config.train, method, draw
        self.folder = Path(config.train.out)
        self.parameters = [p for p in method.module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=self.settings.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=self.settings.weight_decay,
        )
        self.ema = EMA(self.parameters, self.settings.ema)

    def fit(self) -> Path:
        """Train from where the folder stands to the last step; returns the path of the weights."""
        self.folder.mkdir(parents=True, exist_ok=True)
        weights, start = self.folder / WEIGHTS, self._resume()
        if start >= self.settings.steps and weights.exists():
            log.info("%s is finished: %d steps, weights in %s", self.folder, start, weights)
            return weights
        (self.folder / "config.yaml").write_text(yaml.safe_dump(to_dict(self.config)))
        journal = Log(self.folder, start)
        bar = tqdm(
            range(start, self.settings.steps),
            desc=self.folder.name,
            initial=start,
            total=self.settings.steps,
            unit="step",
        )
        step = start
        try:
            for step in bar:
                row = self._step(step)
                journal.write(row)
                bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
                if (step + 1) % self.settings.save_every == 0:
                    self._save(step + 1)
                    journal.draw()
                if (step + 1) % self.settings.sample_every == 0:
                    self._preview(step + 1)
        except KeyboardInterrupt:
            log.warning("stopped in step %d; the same command goes on from a checkpoint", step)
            raise
        finally:
            journal.close()
        self._save(self.settings.steps)
        journal.draw()
        self._preview(self.settings.steps)
        with self.ema.swapped():
            self.method.save(weights)
        return weights

    def _step(self, step: int) -> dict[str, float]:
        began, settings = time.perf_counter(), self.settings
        rate = settings.learning_rate * learning_rate_factor(step, settings.warmup, settings.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.draw(settings.batch_size, rng.generator(settings.seed, "batch", step))
        batch = batch._replace(images=batch.images.to(self.parameters[0].device))
        loss, figures = self.method.loss(batch, rng.generator(settings.seed, "loss", step))
        if not loss.isfinite():
            raise FloatingPointError(
                f"the loss of step {step} is {loss.item()}; samples: {', '.join(batch.ids)}. "
                "Lower train.learning_rate or look at these samples; earlier checkpoints are kept"
            )
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(step)
        seconds = round(time.perf_counter() - began, 4)
        return {"step": step, "loss": loss.item(), **figures, "lr": rate, "seconds": seconds}

    def _save(self, step: int) -> None:
        state = {
            "step": step,
            "config": to_dict(self.config),
            "module": self.method.module.state_dict(),
            "ema": self.ema.shadow,
            "optimizer": self.optimizer.state_dict(),
        }
        checkpoint.save(self.folder, state)

    def _resume(self) -> int:
        state = checkpoint.load(self.folder)
        if state is None:
            return 0
        refuse_other_settings(self.folder, state["config"], to_dict(self.config))
        self.method.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        for shadow, saved in zip(self.ema.shadow, state["ema"], strict=True):
            shadow.copy_(saved)
        return int(state["step"])

    def _preview(self, step: int) -> None:
        with self.ema.swapped():
            sheet = self.method.preview()
        if sheet is not None:
            folder = self.folder / "samples"
            folder.mkdir(exist_ok=True)
            note = {"synthetic": "drawn by a model in training", "step": str(step)}
            images.save(sheet, folder / f"{step:06d}.png", note)


def learning_rate_factor(step: int, warmup: int, steps: int) -> float:
    """Rises linearly over `warmup` steps, then falls as a half cosine to zero at `steps`."""
    fraction = min(1.0, step / max(1, steps))
    return min(1.0, (step + 1) / max(1, warmup)) * 0.5 * (1 + math.cos(math.pi * fraction))


FREE = {
    "steps",
    "save_every",
    "sample_every",
    "out",
    "device",
}  # what may change when a run goes on


def refuse_other_settings(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ConfigError if a run folder was begun with settings that would change its weights."""
    for table, values in now.items():
        for key, value in values.items():
            old = before.get(table, {}).get(key)
            if old != value and not (table == "train" and key in FREE):
                raise ConfigError(
                    f"{folder} was begun with {table}.{key}={old!r}, not {value!r}; "
                    "give the old value, another train.out, or delete the folder"
                )
