"""Where to compute, chosen once, and in which precision."""

from __future__ import annotations

import os
import re

import psutil
import torch

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose(name: str | None = None) -> torch.device:
    """The device of that name, or the best one here. Raises ValueError if it is not to be had.

    Of several processes that torchrun started, each takes a GPU of its own.
    """
    mps = int(torch.backends.mps.is_available())
    count = {"cuda": torch.cuda.device_count(), "mps": mps, "cpu": 1}
    here = [kind for kind in count if count[kind]]
    name = name or here[0]
    match = re.fullmatch(r"(cuda|mps|cpu)(?::(0|[1-9][0-9]?))?", name)
    if not match:
        raise ValueError(f"unknown device {name!r}; here there is {' and '.join(here)}")
    if int(match[2] or 0) >= count[match[1]]:
        raise ValueError(f"device {name} is not available; here there is {' and '.join(here)}")
    device = torch.device(name)
    return _own_gpu(device, count["cuda"]) if device.type == "cuda" else device


def _own_gpu(device: torch.device, count: int) -> torch.device:
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if processes > 1 and (device.index is not None or processes > count):
        raise ValueError(
            f"each of {processes} processes wants a GPU of its own, and there "
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
