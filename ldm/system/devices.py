"""Where to compute: the device, the precision, and the processes that share the work."""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from ldm.config import VAEConfig

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
NUMBERS = ("RANK", "WORLD_SIZE", "MASTER_PORT", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # torchrun's
# others may draw or save for long; one that has ended is noticed at once
LONGEST_WAIT = timedelta(days=1)


def choose(name: str | None = None) -> torch.device:
    """The device of that name, or the best available. Raises ValueError if it is not available.

    Of several processes that torchrun started, each takes a GPU of its own.
    """
    mps = int(torch.backends.mps.is_available())
    count = {"cuda": torch.cuda.device_count(), "mps": mps, "cpu": 1}
    kinds = [kind for kind in count if count[kind]]
    name = name or kinds[0]
    match = re.fullmatch(r"(cuda|mps|cpu)(?::(0|[1-9][0-9]?))?", name)
    if not match:
        raise ValueError(f"unknown device {name!r}; available: {', '.join(kinds)}")
    if int(match[2] or 0) >= count[match[1]]:
        raise ValueError(f"device {name} is not available; this machine has {', '.join(kinds)}")
    device = torch.device(name)
    return _own_gpu(device, count["cuda"]) if device.type == "cuda" else device


def _own_gpu(device: torch.device, count: int) -> torch.device:
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if processes > 1 and (device.index is not None or processes > count):
        raise ValueError(
            f"each of {processes} processes needs a GPU of its own, and there "
            f"{'is 1' if count == 1 else f'are {count}'}; start as many at most and name cuda "
            "without a number, or name the cpu"
        )
    own = device.index or int(os.environ.get("LOCAL_RANK", 0))
    torch.cuda.set_device(own)  # Triton's kernels start on the current one, whatever they are given
    return torch.device("cuda", own)


def available(device: torch.device) -> int:
    """Bytes that this process may fill: what is free, and what it holds already."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    held = psutil.Process().memory_info()
    # pages of mapped files, as weights are, count as available already
    return psutil.virtual_memory().available + held.rss - getattr(held, "shared", 0)


def codec_bytes(config: VAEConfig, height: int, width: int) -> int:
    """Bytes that the autoencoder needs for one image.

    Six tensors of its widest layer at full size, while it encodes; hardly more while it decodes,
    where four of twice the width are alive at once (measured with SD v1.4's at 512 px: 0.80 and
    1.04 GB, where this says 0.81).
    """
    return 6 * config.channels[0] * (height // config.patch) * (width // config.patch) * 4


@dataclass(frozen=True)
class Processes:
    """This process among those of a run: torchrun starts several, and each takes its share."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and draws progress bars."""
        return self.rank == 0

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        for tensor in tensors:
            self._together(dist.all_reduce, tensor)

    def wait(self) -> None:
        """Return when all processes have called this."""
        self._together(dist.barrier)

    def _together(self, collective: Callable[..., object], *tensors: Tensor) -> None:
        if self.size == 1:
            return
        try:
            collective(*tensors)
        except RuntimeError as error:
            cause = (str(error).splitlines() or ["no reason given"])[0]
            raise OSError(
                f"process {self.rank} of {self.size} lost the others ({cause}); if one of them has "
                "ended, see its message; the same command goes on from the last checkpoint"
            ) from error


def join_processes() -> Processes:
    """The processes that torchrun started; without torchrun, this one alone."""
    if "RANK" not in os.environ or not dist.is_available():
        return Processes()
    if not dist.is_initialized():
        said = {name: os.environ.get(name, "0") for name in NUMBERS}
        wrong = [f"{name} is {text[:40]!r}" for name, text in said.items() if not text.isdecimal()]
        if not wrong and int(said["RANK"]) >= int(said["WORLD_SIZE"]):
            wrong = ["RANK is not below WORLD_SIZE"]
        if wrong:
            raise ValueError(f"{wrong[0]}: let torchrun set these variables, or unset RANK")
        # of both, the one that fits a tensor's device is taken: train.device may be the CPU
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=LONGEST_WAIT)
    return Processes(dist.get_rank(), dist.get_world_size())


def leave_processes() -> None:
    """Let the other processes go."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
