"""The processes of one run: torchrun starts several, and each takes its share."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

# others may draw or save for long; one that has ended is noticed at once
LONGEST_WAIT = timedelta(days=1)


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """The one that writes files and draws progress bars."""
        return self.rank == 0

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.size > 1:
            try:
                for tensor in tensors:
                    dist.all_reduce(tensor)
            except RuntimeError as error:
                raise self._lost(error) from error

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.size > 1:
            try:
                dist.barrier()
            except RuntimeError as error:
                raise self._lost(error) from error

    def _lost(self, error: RuntimeError) -> OSError:
        cause = (str(error).splitlines() or ["no reason given"])[0]
        return OSError(
            f"process {self.rank} of {self.size} lost the others ({cause}); if one of them has "
            "ended, see its message; the same command goes on from the last checkpoint"
        )


def join() -> Processes:
    """The world that torchrun made; without torchrun, this process alone."""
    if "RANK" not in os.environ or not dist.is_available():
        return Processes()
    if not dist.is_initialized():
        # of both, the one that fits a tensor's device is taken: train.device may be the CPU
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=LONGEST_WAIT)
    return Processes(dist.get_rank(), dist.get_world_size())


def leave() -> None:
    """Let the other processes go."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
