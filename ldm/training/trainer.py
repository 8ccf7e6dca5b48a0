"""The training loop. It knows nothing of diffusion: it is handed a Method.

Every random number is a function of (seed, step), so a checkpoint holds no random state, and an
interrupted run goes on, with the same command, to the same bits (a GPU may add in another order).
"""

import dataclasses
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from torch import Tensor, nn
from tqdm import tqdm

from ldm import rng
from ldm.config import ConfigError, to_dict
from ldm.data.datasets import Batch
from ldm.fast import half_norms
from ldm.pictures import image_files
from ldm.system import atomic
from ldm.system.devices import Processes
from ldm.training import throughput, training_run, update_in_backward
from ldm.training.training_run import RunConfig

log = logging.getLogger(__name__)

ADVICE = "lower train.learning_rate: the same command goes on from the last checkpoint"


class Method(Protocol):
    """A thing that can be trained: its weights, its data and its loss."""

    module: nn.Module  # its parameters are trained, its state is kept in checkpoints

    def settings(self) -> dict[str, Any]:
        """All that decides the result besides train, data and model of the RunConfig.

        The options with their defaults as "method", sizes, frozen weights, the data's key.
        """

    def draw_batch(self, size: int, generator: torch.Generator) -> Batch:
        """A batch of `size` images."""

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss, a scalar, and figures for the log."""

    def preview(self) -> tuple[Tensor, str] | None:
        """A picture [C, H, W] of what was learned so far, and what it shows."""
        return None

    def save(self, path: Path) -> None:
        """Write the weights, which others open without knowing how they were trained."""

    def summary(self) -> str:
        """One line: what was learned and how to use it."""


class EMA:
    """shadow <- decay shadow + (1 - decay) weight, after every step (DDPM, arXiv:2006.11239, B).

    The average draws better than the last step's weights. decay rises as (1 + n) / (10 + n) at
    first, so that the random start is soon forgotten; DDPM has no such warm-up.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"train.ema must be a decay from 0 (off) to below 1, got {decay}")
        self.parameters, self.decay = list(parameters), decay
        # off: the average is the parameters, and no second copy of them is kept
        self.shadow = [p.detach().clone() if decay else p.detach() for p in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        if self.decay:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.shadow, self.parameters, 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the parameters hold the average."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for parameter, shadow in zip(self.parameters, self.shadow, strict=True):
            parameter.data, shadow.data = shadow.data, parameter.data


class Trainer:
    """Owns optimizer, average, log and checkpoints of one run folder.

    A step is `accumulate` batches. Each has its own random numbers, so any of the processes may
    compute it: the number of processes changes the result by rounding alone.
    """

    def __init__(
        self, config: RunConfig, method: Method, processes: Processes | None = None
    ) -> None:
        self.config, self.settings, self.method = config, config.train, method
        self.processes = processes or Processes()
        count = self.processes.size
        if self.settings.accumulate < 1 or self.settings.accumulate % count:
            raise ConfigError(
                f"train.accumulate is {self.settings.accumulate}; with {count} processes it must "
                f"be {count} or a multiple: as many batches for each of them"
            )
        self.folder = Path(self.settings.out)
        self.parameters = [p for p in method.module.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        if self.settings.precision == "auto":
            self._settle_precision()
        self.half = self.settings.precision == "bfloat16"
        if self.half and self.device.type == "cpu":
            half_norms.use(method.module)
        # the weights of norms and biases have one axis: decay would take away what they scale
        matrices = [p for p in self.parameters if p.ndim >= 2]
        self._make_optimizer(matrices, [p for p in self.parameters if p.ndim < 2])
        self.ema = EMA(self.parameters, self.settings.ema)
        self.pace: throughput.Pace | None = None  # of runs that are long enough

    def _make_optimizer(self, decayed: list[nn.Parameter], others: list[nn.Parameter]) -> None:
        groups: list[dict[str, Any]] = [{"params": decayed}]
        groups += [{"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=self.settings.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=self.settings.weight_decay,
            fused=self.device.type != "mps",
        )

    def _settle_precision(self) -> None:
        """Replace train.precision=auto by the run's own, or for a new run by the faster one."""
        state = training_run.load_checkpoint(self.folder)
        if state is None:
            batch = self._batch(key := ("measure",))

            def step(half: bool) -> None:
                self._loss(batch, key, half)[0].backward()
                self.method.module.zero_grad()

            precision: Any = throughput.faster(step, self.device, self.processes)
        else:
            precision = state["config"]["train"].get("precision", "float32")
        self.settings = dataclasses.replace(self.settings, precision=precision)
        self.config = dataclasses.replace(self.config, train=self.settings)

    def fit(self) -> Path:
        """Train from where the folder stands to the last step; returns the path of the weights."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic.locked(self.folder) if self.processes.leads else nullcontext():
            start = self._resume()
            self.processes.wait()  # all have read the checkpoint before a newer one is written
            if self.processes.leads:
                self._lead(start)
            else:
                for step in range(start, self.settings.steps):
                    self._step(step)
            self.processes.wait()
        return self.folder / training_run.WEIGHTS

    def _lead(self, start: int) -> None:
        """Take the steps and write the files of the folder."""
        settings, steps = self.settings, self.settings.steps
        for folder in (self.folder, self.folder / "samples"):
            atomic.remove_leftovers(folder)
        if start >= steps:  # train.steps was lowered
            self._save_weights(start)
            return
        with atomic.whole_file(self.folder / "config.yaml") as path:
            path.write_text(yaml.safe_dump(to_dict(self.config)))
        journal = training_run.Log(self.folder, start)
        if steps - start > throughput.FIRST:
            samples = settings.batch_size * settings.accumulate
            self.pace = throughput.Pace(samples, steps - start)
        bar = tqdm(range(start, steps), self.folder.name, steps, initial=start, unit="step")
        try:
            for step in bar:
                with self.pace.step() if self.pace else nullcontext():
                    row = self._step(step)
                journal.write(row)
                bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
                done, last = step + 1, step + 1 == steps
                if last:  # all before the checkpoint, after which none of it is done again
                    self._save_weights(done)
                if settings.sample_every and (last or done % settings.sample_every == 0):
                    self._save_preview(done)
                if last or done % settings.save_every == 0:
                    journal.draw_curve()
                    self._save_checkpoint(done)
        except KeyboardInterrupt:
            log.warning("stopped; the same command goes on from the last checkpoint, if any")
            raise
        finally:
            journal.close()
        waited = f"; {self.pace.waited}" if self.pace else ""
        log.info("learned: %s%s", self.method.summary(), waited)

    def _step(self, step: int) -> dict[str, float]:
        began, settings = time.perf_counter(), self.settings
        rate = settings.learning_rate * learning_rate_factor(step, settings.warmup, settings.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        rows, ids = [], []
        for part in range(self.processes.rank, settings.accumulate, self.processes.size):
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
        settings = self.settings
        key = (step, part) if part else (step,)
        with self.pace.data() if self.pace else nullcontext():
            batch = self._batch(key)
        loss, figures = self._loss(batch, key, self.half)
        if settings.update_in_backward:
            refuse = partial(self._refuse, step, loss.item(), ids=batch.ids)
            update_in_backward.update(loss, self.parameters, self.optimizer, refuse)
        else:
            (loss / settings.accumulate).backward()
        return {"loss": loss.item(), **figures}, batch.ids

    def _batch(self, key: tuple[Any, ...]) -> Batch:
        generator = rng.generator(self.settings.seed, "batch", *key)
        batch = self.method.draw_batch(self.settings.batch_size, generator)
        masks = None if batch.masks is None else batch.masks.to(self.device)
        return batch._replace(images=batch.images.to(self.device), masks=masks)

    def _loss(
        self, batch: Batch, key: tuple[Any, ...], half: bool
    ) -> tuple[Tensor, dict[str, float]]:
        """half: layers compute in bfloat16; the methods take their outputs' losses in float32"""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            return self.method.loss(batch, rng.generator(self.settings.seed, "loss", *key))

    def _update(self, step: int, loss: float, ids: list[str]) -> None:
        """Change the weights by the gradients of all batches of the step."""
        gradients = []
        for parameter in self.parameters:
            if parameter.grad is None:  # on this process alone, perhaps
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        self.processes.add(gradients)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        if not (math.isfinite(loss) and norm.isfinite()):
            self._refuse(step, loss, norm.item(), ids)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _mean(self, rows: list[dict[str, float]]) -> dict[str, float]:
        """Over the batches of all processes."""
        sums = torch.tensor([sum(row[name] for row in rows) for name in rows[0]]).double()
        sums = sums.to(self.parameters[0].device) if self.processes.size > 1 else sums
        self.processes.add([sums])
        return dict(zip(rows[0], (sums / self.settings.accumulate).tolist(), strict=True))

    def _refuse(self, step: int, loss: float, norm: float | str, ids: list[str]) -> None:
        self._check_state(step)  # or the samples would be blamed for it
        report = self.folder / f"not_finite_{self.processes.rank}.json"
        facts = {"step": step, "loss": str(loss), "gradient_norm": str(norm), "samples": ids}
        with atomic.whole_file(report) as path:
            path.write_text(json.dumps(facts) + "\n")
        raise FloatingPointError(
            f"step {step} has loss {loss} and gradient norm {norm}; look at its samples, which are "
            f"in {report}, or {ADVICE}"
        )

    def _check_state(self, steps: int) -> None:
        """Raise FloatingPointError unless weights and average, soon to be saved, are finite.

        The last loss was, but that is the one before the last step.
        """
        for tensor in (*self.method.module.state_dict().values(), *self.ema.shadow):
            if tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
                what = f"after {steps} steps the weights are not finite, and are not saved"
                raise FloatingPointError(f"{what}; {ADVICE}")

    def _save_weights(self, steps: int) -> None:
        self._check_state(steps)
        with self.ema.swapped():
            self.method.save(self.folder / training_run.WEIGHTS)

    def _save_checkpoint(self, step: int) -> None:
        self._check_state(step)
        state = {
            "step": step,
            "config": to_dict(self.config),
            "settings": self.method.settings(),
            "module": self.method.module.state_dict(),
            "ema": self.ema.shadow,
            "optimizer": self.optimizer.state_dict(),
        }
        training_run.save_checkpoint(self.folder, state)

    def _resume(self) -> int:
        """The number of steps that were taken, with their state loaded."""
        state = training_run.load_checkpoint(self.folder, self._take)
        return 0 if state is None else int(state["step"])

    def _take(self, state: dict[str, Any]) -> None:
        """Load a state; raises an error if it is not one of this training."""
        training_run.refuse_other_config(self.folder, state["config"], to_dict(self.config))
        training_run.refuse_other_settings(self.folder, state["settings"], self.method.settings())
        self.method.module.load_state_dict(state["module"])
        if len(state["optimizer"]["param_groups"]) < len(self.optimizer.param_groups):
            self._make_optimizer(self.parameters, [])  # begun when decay reached all weights
        own = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": own})
        averages = zip(self.parameters, self.ema.shadow, state["ema"], strict=True)
        for weight, shadow, saved in averages:
            kept = self.optimizer.state[weight]
            found = [t.shape for t in (saved, kept["exp_avg"], kept["exp_avg_sq"], kept["step"])]
            if found != [*3 * [weight.shape], ()]:
                raise ValueError("the averages are of other weights")
            shadow.copy_(saved)
            for name in ("exp_avg", "exp_avg_sq"):
                # the layout of its weight, which train.unfold changes: Adam reads both in one order
                kept[name] = torch.empty_like(weight).copy_(kept[name])
        self._check_state(state["step"])

    def _save_preview(self, step: int) -> None:
        self._check_state(step)
        with self.ema.swapped():
            preview = self.method.preview()
        if preview is not None:
            sheet, shows = preview
            folder = self.folder / "samples"
            folder.mkdir(exist_ok=True)
            image_files.save(sheet, folder / f"{step:06d}.png", {"shows": shows, "step": str(step)})


def learning_rate_factor(step: int, warmup: int, steps: int) -> float:
    """The product of a ramp and a half cosine.

    min(1, (step + 1) / warmup) * (1 + cos(pi step / steps)) / 2

    The cosine falls from the first step on, to zero at `steps`.
    """
    fraction = min(1.0, step / max(1, steps))
    return min(1.0, (step + 1) / max(1, warmup)) * 0.5 * (1 + math.cos(math.pi * fraction))
