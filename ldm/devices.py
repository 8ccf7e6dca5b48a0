"""Where to compute, chosen once, and in which precision."""

from __future__ import annotations

import torch

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose(name: str | None = None) -> torch.device:
    """The device of that name, or the best one here. Raises ValueError if it is not to be had."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    here = [kind for kind, available in found.items() if available] + ["cpu"]
    if name is None:
        return torch.device(here[0])
    kind, _, number = name.partition(":")
    if kind not in ("cpu", *found) or (number and not number.isdecimal()):
        raise ValueError(f"unknown device {name!r}; here there is {' and '.join(here)}")
    if kind not in here or (kind == "cuda" and int(number or 0) >= torch.cuda.device_count()):
        raise ValueError(f"device {name} is not available; here there is {' and '.join(here)}")
    return torch.device(name)
