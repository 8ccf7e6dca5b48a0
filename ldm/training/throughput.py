"""How fast a run trains: bfloat16 where it is faster here, and the lines that say so."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

from ldm.system.devices import Processes

log = logging.getLogger(__name__)

FIRST = 6  # steps: the first warms up, the others are timed


def seconds(work: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """The shortest time of `work`, after one that warms up."""
    times = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - began)
    return min(times[1:])


def faster(step: Callable[[bool], object], device: torch.device, processes: Processes) -> str:
    """The precision in which `step(half)` takes less time, on all processes together."""
    found = [seconds(partial(step, half), device, 2) for half in (False, True)]
    times = torch.tensor(found)
    processes.add([times])
    plain, half = (times / processes.size).tolist()
    chosen = "bfloat16" if half < plain else "float32"
    said = "train.precision: %s (a step takes %.3g s in bfloat16, %.3g s in float32)"
    log.info(said, chosen, half, plain)
    return chosen


class Pace:
    """Times the steps of a run and says once what they make of the machine."""

    def __init__(self, samples: int, left: int) -> None:
        """samples: of a step on all processes;  left: steps to take"""
        self.samples, self.left = samples, left
        self.steps, self.working, self.waiting = 0, 0.0, 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around a step."""
        began = time.perf_counter()
        yield
        self.steps += 1
        if self.steps == 1:  # slower than the others
            self.waiting = 0.0
        else:
            self.working += time.perf_counter() - began
        if self.steps == FIRST:
            log.info("%s", self)

    @contextmanager
    def data(self) -> Iterator[None]:
        """Around the making of a batch, inside a step."""
        began = time.perf_counter()
        yield
        self.waiting += time.perf_counter() - began

    @property
    def waited(self) -> str:
        return f"{100 * self.waiting / max(self.working, 1e-9):.1f} % of the time waits for data"

    def __str__(self) -> str:
        each = self.working / (self.steps - 1)
        minutes = (self.left - self.steps) * each / 60
        return (
            f"{self.samples / each:.3g} samples/s; {self.waited}; about {minutes:.0f} minutes to go"
        )


def _wait(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
