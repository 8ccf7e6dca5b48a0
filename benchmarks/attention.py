"""How fast is attention, and how much of the GPU's peak is that? Forward and backward.

    python benchmarks/attention.py [--dtype float16] [--rounds 50] [--peak 312]

The shapes are those of SD v1.4's U-Net at 512 px for one guided image (batch 2, 8 heads) and of
the built-in model. On a GPU: our kernels (fused) against PyTorch's (sdpa) and flex_attention, each
in its turn in every round; the median, the middle half, TFLOP/s and the share of --peak, the
TFLOP/s that the maker promises for the dtype. Without a GPU it says what was not measured, and
compares the two ways that a CPU has.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ldm.attention import IMPLEMENTATIONS
from ldm.system.devices import DTYPES

SHAPES = {  # B, N, L, S, d
    "SD, 64 x 64": (2, 8, 4096, 4096, 40),
    "SD, 32 x 32": (2, 8, 1024, 1024, 80),
    "SD, 16 x 16": (2, 8, 256, 256, 160),
    "SD, 8 x 8": (2, 8, 64, 64, 160),
    "SD, 64 x 64, text": (2, 8, 4096, 77, 40),
    "built-in, 8 x 8": (8, 4, 64, 64, 32),
    "built-in, 8 x 8, text": (8, 4, 64, 77, 32),
}
Way = Callable[[Tensor, Tensor, Tensor], Tensor]


def ways(device: str) -> dict[str, Way]:
    """What is compared on the device."""
    if device == "cuda":
        from ldm.fast import fused_attention  # noqa: F401 - adds itself to IMPLEMENTATIONS
    names = ("sdpa", "fused") if device == "cuda" else ("sdpa", "reference")
    chosen: dict[str, Way] = {name: IMPLEMENTATIONS[name] for name in names}
    if device == "cuda":
        from torch.nn.attention.flex_attention import flex_attention

        chosen["flex_attention"] = torch.compile(flex_attention, dynamic=False)
    return chosen


def seconds(run: Callable[[], object], device: str) -> float:
    """Of one call, by the clock of the device's own where it has one."""
    if device == "cpu":
        began = time.perf_counter()
        run()
        return time.perf_counter() - began
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def measure(shape: tuple[int, ...], dtype: str, device: str, rounds: int) -> dict[str, np.ndarray]:
    """Seconds [rounds] of each way, forward and backward apart."""
    B, N, L, S, d = shape
    kind = {"device": device, "dtype": DTYPES[dtype]}
    q, k, v = (torch.randn(B, n, N, d, **kind).transpose(1, 2) for n in (L, S, S))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    d_out = torch.randn(B, L, N, d, **kind).transpose(1, 2)
    compared, taken = ways(device), dict[str, list[float]]()
    for turn in range(rounds + 3):  # the first compile, tune and warm up
        for name, way in compared.items():
            with torch.no_grad():
                forward = seconds(lambda way=way: way(*inputs), device)
            out = way(*inputs)
            backward = seconds(lambda out=out: torch.autograd.grad(out, inputs, d_out), device)
            if turn >= 3:
                taken.setdefault(f"{name} forward", []).append(forward)
                taken.setdefault(f"{name} backward", []).append(backward)
    return {name: np.array(figures) for name, figures in taken.items()}


def row(name: str, taken: np.ndarray, shape: tuple[int, ...], peak: float | None) -> dict:
    """One line of the report."""
    B, N, L, S, d = shape
    # two products of 2 L S d operations; five in the backward pass (arXiv:2307.08691, section 4.1)
    work = (4 if name.endswith("forward") else 10) * B * N * L * S * d
    low, middle, high = np.quantile(taken, [0.25, 0.5, 0.75])
    rate = work / middle / 1e12
    return {
        "what": name,
        "milliseconds": round(1e3 * middle, 3),
        "middle half": [round(1e3 * low, 3), round(1e3 * high, 3)],
        "TFLOP/s": round(rate, 3),
        "share of peak": round(rate / peak, 3) if peak else None,
        "n": len(taken),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="50 on a GPU, 5 without")
    parser.add_argument("--dtype", choices=DTYPES, help="float16 on a GPU, float32 without")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the GPU with this dtype")
    parser.add_argument("--only", choices=SHAPES, action="append", help="one shape, not all")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = options.dtype or ("float16" if device == "cuda" else "float32")
    rounds = options.rounds or (50 if device == "cuda" else 5)
    if device == "cpu":
        print("fused and flex_attention: not measured on a GPU, there is none here")
    print(f"on {torch.cuda.get_device_name() if device == 'cuda' else 'the CPU'}, {dtype}")
    for name in options.only or SHAPES:
        for what, taken in measure(SHAPES[name], dtype, device, rounds).items():
            facts = {"shape": name} | row(what, taken, SHAPES[name], options.peak)
            print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
