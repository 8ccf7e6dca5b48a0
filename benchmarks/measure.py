"""What the benchmarks of speed share: turns, rows, the machine, and diffusers' twin of a network.

Ours and the other take turns, A B A B, after their outputs were found equal; each figure is a
median, and beside them, in every round, PyTorch multiplies two matrices: what the machine could do.
"""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ldm.config import ModelConfig
from ldm.weights import diffusers_configs, tensor_names
from ldm.weights.loading import PARTS

TOLERANCE = 1e-4  # relative L2: more is another result, and no faster way to the same
NOT_INSTALLED = "diffusers is not installed, see setup.cfg's `bench`"
SWITCHES = {True: "Winograd F(4x4)", False: "no switch"}
TWINS = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
Seconds = Sequence[float]  # one for each round


@dataclass(frozen=True)
class Setting:
    """How to measure."""

    config: ModelConfig = field(default_factory=ModelConfig)
    rounds: int = 5


@dataclass(frozen=True)
class Row:
    """What was measured of one thing.

    other: empty where there is nothing to compare with;  sgemm: GFLOP/s, one for each round
    gflop: 10^9 operations of the plain algorithm;  difference: relative L2 of the outputs
    """

    name: str
    ours: Seconds
    other: Seconds
    sgemm: Sequence[float]
    gflop: float | None = None
    difference: float | None = None
    note: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The row for JSON; ratio = ours / other, below one where ours is faster."""
        ours, sgemm = median(self.ours), median(self.sgemm)
        other = median(self.other) if self.other else None
        ratios = [a / b for a, b in zip(self.ours, self.other, strict=False)]
        return {
            "name": self.name,
            "ours_s": ours,
            "other_s": other,
            "ratio": None if other is None else ours / other,
            "sgemm_gflops": sgemm,
            "rounds": len(self.ours),
            "ours_range": [min(self.ours), max(self.ours)],
            "other_range": [min(self.other), max(self.other)] if self.other else None,
            "ratio_range": [min(ratios), max(ratios)] if ratios else None,
            "gflop": self.gflop,
            "share_of_sgemm": None if self.gflop is None else self.gflop / ours / sgemm,
            "difference": self.difference,
            "note": self.note,
            **self.more,
        }


def timed(run: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def sgemm(size: int = 1024) -> float:
    """GFLOP/s of a product of float32 matrices, the best of three."""
    a = torch.rand(size, size)
    return 2 * size**3 / min(timed(lambda: a @ a) for _ in range(3)) / 1e9


def turns(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each way returns, in every round once, and `sgemm` after them."""
    taken: dict[str, list[float]] = {name: [] for name in (*ways, "sgemm")}
    for _ in range(rounds):
        for name, way in {**ways, "sgemm": sgemm}.items():
            taken[name].append(way())
    return taken


def agree(ours: object, other: object, what: str) -> float:
    """The relative L2 difference of two outputs; ValueError if it is above TOLERANCE."""
    found, wanted = (torch.as_tensor(x, dtype=torch.float64) for x in (ours, other))
    difference = float((found - wanted).norm() / wanted.norm())
    if not difference <= TOLERANCE:  # nor nan
        raise ValueError(
            f"{what} is not timed: its output differs from the other's by {difference:.2g}, "
            f"more than {TOLERANCE:g}"
        )
    return difference


def contest(
    ours: Mapping[str, tuple[Callable[[], Any], str]],
    other: Callable[[], Any] | None,
    rounds: int,
    gflop: float | None = None,
    missing: str = NOT_INSTALLED,
    more: Mapping[str, Any] | None = None,
) -> list[Row]:
    """A row for each of ours, {its name: (what to run, note)}, against the other.

    Raises ValueError, before anything is timed, for outputs that are not the same.
    missing: said where there is no other
    """
    wanted = other() if other else None
    outputs = {name: run() for name, (run, _) in ours.items()}  # also warms up
    differences = {
        name: agree(output, wanted, name) if other else None for name, output in outputs.items()
    }
    del outputs, wanted
    ways = {name: lambda run=run: timed(run) for name, (run, _) in ours.items()}
    if other:
        ways["other"] = lambda: timed(other)
    taken = turns(ways, rounds)
    return [
        Row(
            name,
            taken[name],
            taken.get("other", []),
            taken["sgemm"],
            gflop,
            differences[name],
            note if other else f"{note}; {missing}",
            more or {},
        )
        for name, (_, note) in ours.items()
    ]


def machine() -> str:
    """The processor, what PyTorch makes of it, and its version."""
    file = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", file.read_text() if file.exists() else "")
    name = model[1] if model else platform.processor() or platform.machine()
    kind, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    return f"{name}, {kind}, {threads} thread(s), torch {torch.__version__}"


def random_part(part: str, config: ModelConfig) -> nn.Module:
    """A network with the values that PyTorch begins with."""
    torch.manual_seed(0)
    return PARTS[part](config).eval()


def gflop(part: str, config: ModelConfig, run: Callable[..., object], *inputs: Tensor) -> float:
    """10^9 operations of `run(network, *inputs)`, counted without computing anything."""
    with torch.device("meta"):
        network = PARTS[part](config)
    with FlopCounterMode(display=False) as counter:
        run(network, *(x.to("meta") for x in inputs))
    return counter.get_total_flops() / 1e9


def twin(part: str, config: ModelConfig, ours: nn.Module) -> nn.Module | None:
    """Diffusers' network, with the very tensors of ours; None where it is not installed."""
    try:
        import diffusers
    except ModuleNotFoundError:
        return None
    names = tensor_names.names(config, "diffusers")
    with torch.device("meta"):
        kind = getattr(diffusers, TWINS[part])
        network = kind.from_config(diffusers_configs.configs(config)[f"{part}/config.json"])
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    state = {}
    for name, tensor in ours.state_dict().items():
        theirs = names[f"{part}.{name}"][0].removeprefix(f"{part}/")
        state[theirs] = tensor.view(shapes[theirs])  # their VAE attends by linear layers
    network.load_state_dict(state, assign=True)
    return network.eval()
