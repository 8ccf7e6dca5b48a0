"""Where to compute, chosen once, and in which precision."""

from __future__ import annotations

import re

import psutil
import torch

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose(name: str | None = None) -> torch.device:
    """The device of that name, or the best one here. Raises ValueError if it is not to be had."""
    mps = int(torch.backends.mps.is_available())
    count = {"cuda": torch.cuda.device_count(), "mps": mps, "cpu": 1}
    here = [kind for kind in count if count[kind]]
    if name is None:
        return torch.device(here[0])
    match = re.fullmatch(r"(cuda|mps|cpu)(?::(0|[1-9][0-9]?))?", name)
    if not match:
        raise ValueError(f"unknown device {name!r}; here there is {' and '.join(here)}")
    if int(match[2] or 0) >= count[match[1]]:
        raise ValueError(f"device {name} is not available; here there is {' and '.join(here)}")
    return torch.device(name)


def available(device: torch.device) -> int:
    """Bytes that this process may fill: what is free, and what it holds already."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return psutil.virtual_memory().available + psutil.Process().memory_info().rss
