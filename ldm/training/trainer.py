"""The training loop. It knows nothing of diffusion: it is handed a Method.

Every draw is a function of (seed, step), so a checkpoint needs no random state, and a run that was
cut off goes on, with the same command, to the same bits (a GPU may add up in another order).
"""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from torch import Tensor, nn
from tqdm import tqdm

from ldm import rng
from ldm.config import ConfigError, to_dict
from ldm.data.datasets import Batch
from ldm.pictures import image_files
from ldm.system import atomic
from ldm.system.devices import Processes
from ldm.training import checkpoint, update_in_backward
from ldm.training.checkpoint import refuse_other_settings
from ldm.training.ema import EMA
from ldm.training.run_config import RunConfig
from ldm.training.run_log import Log

log = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"


class Method(Protocol):
    """What is learned, from what, and by which loss."""

    @property
    def module(self) -> nn.Module:
        """Its parameters are trained, its state is kept in checkpoints."""

    def settings(self) -> dict[str, Any]:
        """What decides the result besides train, data and model of the RunConfig.

        The options with their defaults as "method", sizes, frozen weights, the data's key.
        """

    def draw(self, size: int, generator: torch.Generator) -> Batch:
        """A batch of `size` images."""

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss, a scalar, and figures for the log."""

    def preview(self) -> tuple[Tensor, str] | None:
        """A picture [C, H, W] of what was learned so far, and what it shows."""

    def save(self, path: Path) -> None:
        """Write the weights, which others open without knowing how they were trained."""

    def summary(self) -> str:
        """What was learned and how to use it, in one line."""


class Trainer:
    """Owns optimizer, average, log and checkpoints of one run folder.

    A step is `accumulate` batches. Each has its own draws, so it does not matter which of the
    processes in `world` computes it: their number changes the result by rounding alone.
    """

    def __init__(self, config: RunConfig, method: Method, world: Processes | None = None) -> None:
        self.config, self.settings, self.method = config, config.train, method
        self.world = world or Processes()
        if config.train.accumulate < 1 or config.train.accumulate % self.world.size:
            raise ConfigError(
                f"train.accumulate is {config.train.accumulate}; with {self.world.size} processes "
                f"it wants {self.world.size} or a multiple: as many batches for each of them"
            )
        self.folder = Path(config.train.out)
        self.parameters = [p for p in method.module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=self.settings.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=self.settings.weight_decay,
            fused=self.parameters[0].device.type != "mps",
        )
        self.ema = EMA(self.parameters, self.settings.ema)

    def fit(self) -> Path:
        """Train from where the folder stands to the last step; returns the path of the weights."""
        self.folder.mkdir(parents=True, exist_ok=True)
        weights, start, steps = self.folder / WEIGHTS, self._resume(), self.settings.steps
        self.world.wait()  # all have read the checkpoint before a newer one is written
        if not self.world.leads:
            for step in range(start, steps):
                self._step(step)
            self.world.wait()
            return weights
        atomic.remove_leftovers(self.folder)
        if start >= steps:  # to be ended early
            self._finish(weights)
            self.world.wait()
            return weights
        with atomic.whole_file(self.folder / "config.yaml") as path:
            path.write_text(yaml.safe_dump(to_dict(self.config)))
        journal = Log(self.folder, start)
        bar = tqdm(range(start, steps), self.folder.name, steps, initial=start, unit="step")
        try:
            for step in bar:
                row = self._step(step)
                journal.write(row)
                bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
                done, last = step + 1, step + 1 == steps
                if last:  # all before the checkpoint, after which none of it is done again
                    self._finish(weights)
                every = self.settings.sample_every
                if every and (last or done % every == 0):
                    self._preview(done)
                if last or done % self.settings.save_every == 0:
                    journal.draw()
                    self._save(done)
        except KeyboardInterrupt:
            log.warning("stopped; the same command goes on from the last checkpoint, if any")
            raise
        finally:
            journal.close()
        self.world.wait()
        log.info("learned: %s", self.method.summary())
        return weights

    def _step(self, step: int) -> dict[str, float]:
        began, settings = time.perf_counter(), self.settings
        rate = settings.learning_rate * learning_rate_factor(step, settings.warmup, settings.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        rows, ids = [], []
        for part in range(self.world.rank, settings.accumulate, self.world.size):
            figures, names = self._accumulate(step, part)
            rows.append(figures)
            ids += names
        figures = self._mean(rows)
        if not settings.update_in_backward:
            self._update(step, figures["loss"], ids)
        self.ema.update(step)
        seconds = round(time.perf_counter() - began, 4)
        return {"step": step, **figures, "lr": rate, "seconds": seconds}

    def _accumulate(self, step: int, part: int) -> tuple[dict[str, float], list[str]]:
        """Add the gradient of one batch to the step's, or use it; returns figures and ids."""
        settings, device = self.settings, self.parameters[0].device
        key = (step, part) if part else (step,)
        batch = self.method.draw(settings.batch_size, rng.generator(settings.seed, "batch", *key))
        batch = batch._replace(images=batch.images.to(device))
        half = settings.precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss, figures = self.method.loss(batch, rng.generator(settings.seed, "loss", *key))
        if settings.update_in_backward:
            self._update_in_backward(step, loss, batch.ids)
        else:
            (loss / settings.accumulate).backward()
        return {"loss": loss.item(), **figures}, batch.ids

    def _update(self, step: int, loss: float, ids: list[str]) -> None:
        """Change the weights by the gradients of all batches of the step."""
        gradients = []
        for parameter in self.parameters:
            if parameter.grad is None:  # on this process alone, perhaps
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        self.world.add(gradients)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        if not (math.isfinite(loss) and norm.isfinite()):
            self._refuse(step, loss, f"{norm.item()}", ids)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _update_in_backward(self, step: int, loss: Tensor, ids: list[str]) -> None:
        """The same for the only batch of a step, with one gradient held at a time.

        One that is not finite does not reach its weight; others have changed by then, in memory.
        """

        def check(gradient: Tensor) -> None:
            if not (norm := gradient.norm()).isfinite():
                self._refuse(step, loss.item(), f"{norm.item()}", ids)

        if not loss.isfinite():
            self._refuse(step, loss.item(), "unknown", ids)
        update_in_backward.update(loss, self.parameters, self.optimizer, check)

    def _mean(self, rows: list[dict[str, float]]) -> dict[str, float]:
        """Over the batches of all processes."""
        sums = torch.tensor([sum(row[name] for row in rows) for name in rows[0]]).double()
        sums = sums.to(self.parameters[0].device) if self.world.size > 1 else sums
        self.world.add([sums])
        return dict(zip(rows[0], (sums / self.settings.accumulate).tolist(), strict=True))

    def _refuse(self, step: int, loss: float, norm: str, ids: list[str]) -> None:
        report = self.folder / f"not_finite_{self.world.rank}.json"
        facts = {"step": step, "loss": str(loss), "gradient_norm": norm, "samples": ids}
        with atomic.whole_file(report) as path:
            path.write_text(json.dumps(facts) + "\n")
        raise FloatingPointError(
            f"step {step} has loss {loss} and gradient norm {norm}; samples: {', '.join(ids)} "
            f"(kept in {report}). Look at these samples, or go on from the last checkpoint, which "
            "is kept, with a lower train.learning_rate"
        )

    def _finish(self, weights: Path) -> None:
        with self.ema.swapped():
            self.method.save(weights)

    def _save(self, step: int) -> None:
        state = {
            "step": step,
            "config": to_dict(self.config),
            "settings": self.method.settings(),
            "module": self.method.module.state_dict(),
            "ema": self.ema.shadow,
            "optimizer": self.optimizer.state_dict(),
        }
        checkpoint.save(self.folder, state)

    def _resume(self) -> int:
        state = checkpoint.load(self.folder)
        if state is None:
            return 0
        before, now = _common(state["config"]), _common(to_dict(self.config))
        refuse_other_settings(self.folder, before, now)
        refuse_other_settings(self.folder, state["settings"], self.method.settings())
        self.method.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        # in the layout of its weight, which train.unfold changes: Adam reads both in one order
        for weight, kept in self.optimizer.state.items():
            for name, value in kept.items():
                if value.shape == weight.shape:
                    kept[name] = torch.empty_like(weight).copy_(value)
        for shadow, saved in zip(self.ema.shadow, state["ema"], strict=True):
            shadow.copy_(saved)
        return int(state["step"])

    def _preview(self, step: int) -> None:
        with self.ema.swapped():
            drawn = self.method.preview()
        if drawn is not None:
            sheet, what = drawn
            folder = self.folder / "samples"
            folder.mkdir(exist_ok=True)
            image_files.save(sheet, folder / f"{step:06d}.png", {"shows": what, "step": str(step)})


def finished(config: RunConfig) -> Path | None:
    """The weights of the run if it is finished: known before any data or model is read."""
    folder = Path(config.train.out)
    state = checkpoint.load(folder)
    if state is None:
        return None
    before, now = state["config"], to_dict(config)
    refuse_other_settings(folder, _common(before), _common(now))
    weights = folder / WEIGHTS
    spelled_otherwise = before["method"] != now["method"]  # the method knows if it is the same
    moved = [before[table]["path"] != now[table]["path"] for table in ("data", "model")]
    # stopped short of what was asked for then, the weights are of an earlier time
    cut_off = state["step"] < max(config.train.steps, before["train"]["steps"])
    if cut_off or spelled_otherwise or any(moved) or not weights.exists():
        return None
    log.info("%s is finished: %d steps, weights in %s", folder, state["step"], weights)
    return weights


def _common(config: dict[str, Any]) -> dict[str, Any]:
    """Without the method's options, of which a default may be left out or spelled out."""
    return {table: values for table, values in config.items() if table != "method"}


def learning_rate_factor(step: int, warmup: int, steps: int) -> float:
    """Rises linearly over `warmup` steps, then falls as a half cosine to zero at `steps`."""
    fraction = min(1.0, step / max(1, steps))
    return min(1.0, (step + 1) / max(1, warmup)) * 0.5 * (1 + math.cos(math.pi * fraction))
