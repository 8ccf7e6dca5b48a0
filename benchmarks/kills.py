"""Is anything lost? Commands die in the middle, are given again, and must come to the same bytes.

    python benchmarks/kills.py [--kills 200] [--seed 0]

The commands: a training, drawing, outpainting, evaluate.py and a conversion, with a small model.
The deaths: SIGKILL at a moment uniform over the run; a full disk, with room for a uniform share
of what the run writes (a tmpfs where it may be mounted, else a limit of the size of files); too
little memory, by a uniform share of what the run takes (RLIMIT_AS). One in eleven is a command
with a Python of its own; the others are forks of this process, which has imported everything.

At death every file that has its final name must be whole, and a command that ended by itself must
have left no .partial. Given again, the command must leave the files of an undisturbed run, byte for
byte, and no others; else the exit status is 1. Linux only.

Not compared: the seconds in log.jsonl. Checkpoints are compared by every number in them, as pickle
writes equal strings once or twice. Not asked to be whole at death: the last line of log.jsonl and
the caches, which are filled row by row; both are compared at the end. A process that has no byte
left and does not end (CPython can spin) is killed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # a process with threads cannot be forked
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  # after the number of threads
import torch  # noqa: E402
import yaml  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch.utils._pytree import tree_map_only  # noqa: E402
from tqdm import tqdm  # noqa: E402

from ldm.config import ModelConfig  # noqa: E402
from ldm.system.cli import load_config  # noqa: E402
from ldm.weights import export  # noqa: E402
from ldm.weights.loading import PARTS  # noqa: E402

DEATHS = ("SIGKILL", "full disk", "memory")
BAD = ("bytes differing", "half-written", "leftovers", "fail again")
SIZES = """
image_size: 32
vae: {image_channels: 1, channels: [8], res_blocks: 1, groups: 4, patch: 4}
text: {width: 16, layers: 1, heads: 2}
unet: {channels: [16, 32], attention: [false, true], context_dim: 16, heads: 2, groups: 4}
"""
RUN = """
train: {method: finetune, steps: 24, save_every: 8, sample_every: 12, batch_size: 2,
        precision: float32, device: cpu}
data: {phantoms: 12, size: 32}
method: {prior_images: 4, kinds: [{finding: no finding, images: 2}]}
"""
READERS: dict[str, Callable[[Path], Any]] = {
    ".png": lambda path: Image.open(path).load(),
    ".npz": lambda path: dict(np.load(path)),
    ".safetensors": load_file,
    ".pt": lambda path: torch.load(path, weights_only=True),
    ".ckpt": lambda path: torch.load(path, weights_only=True),
    ".yaml": lambda path: yaml.safe_load(path.read_text())["train"],
    ".jsonl": lambda path: [json.loads(row) for row in path.read_text().split("\n")[:-1]],
}


def commands(given: Path, out: Path) -> dict[str, list[str]]:
    """The commands; writes what they read into `given`. They write into `out`."""
    torch.manual_seed(0)
    model, film = given / "model.safetensors", given / "film.png"
    (given / "sizes.yaml").write_text(SIZES)
    config = load_config(ModelConfig, given / "sizes.yaml")
    export.save(model, config, {name: part(config).state_dict() for name, part in PARTS.items()})
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save(film)
    (given / "run.yaml").write_text(RUN)
    draw = ["sample.py", "--prompt", "lung xray", "--device", "cpu", "--out", str(out / "drawn")]
    measure = ["evaluate.py", "reconstruction", "phantoms:8", "--survival", "0", "--device", "cpu"]
    train = ["train.py", str(given / "run.yaml"), f"train.out={out / 'run'}"]
    paint = [*draw, "--init", str(film), "--outpaint", "16,0,16,0", "--steps", "4"]
    return {
        "train": [*train, f"data.cache={out / 'cache'}", f"model.path={model}"],
        "sample": [*draw, "--n", "40", "--steps", "8", "--model", str(model)],
        "outpaint": [*paint, "--model", str(model)],
        "evaluate": [*measure, "--model", str(model), "--out", str(out / "page")],
        "convert": ["-m", "ldm.weights", "convert", str(model), str(out / "model.ckpt")],
    }


class Trace(NamedTuple):
    """What is known of a run: its end, its seconds and the most memory that it took."""

    status: int  # negative: a signal
    seconds: float
    peak: int


def memory(process: int | str, what: str) -> int:
    """VmSize or VmPeak of a process, in bytes; 0 once it has ended."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def live(command: list[str], log: Path, alone: bool, seconds: float = 1e9, *limit: int) -> Trace:
    """Run a command until it ends, or is killed after so many seconds.

    alone: with a Python of its own;  limit: of a resource, which one and how much
    """
    began, peak = time.monotonic(), 0
    process = os.fork()
    if process == 0:
        _be(command, log, alone, *limit)
    while True:
        peak = max(peak, memory(process, "VmPeak"))
        ended, status = os.waitpid(process, os.WNOHANG)
        lived = time.monotonic() - began
        if ended:
            return Trace(os.waitstatus_to_exitcode(status), lived, peak)
        if lived > seconds:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.002)


def _be(command: list[str], log: Path, alone: bool, *limit: int) -> None:
    """Become the command; does not return."""
    status = 1
    try:
        sys.stdout.flush()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1), os.dup2(output, 2)
        os.chdir(ROOT)
        os.environ["PYTHONPATH"] = str(ROOT)
        if limit:
            resource.setrlimit(limit[0], (limit[1], limit[1]))
        if alone:
            os.execv(sys.executable, [sys.executable, *command])
        module = command[0] == "-m"
        sys.argv = command[module:]
        (runpy.run_module if module else runpy.run_path)(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            log.with_suffix(".modules").write_text("\n".join(sys.modules))
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


def contents(folder: Path) -> dict[str, bytes]:
    """{path inside the folder: what is compared of it}"""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "log.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = json.dumps([{**row, "seconds": 0} for row in rows]).encode()
        elif path.suffix == ".pt":
            state = torch.load(path, weights_only=True)
            found[name] = repr(tree_map_only(torch.Tensor, lambda x: x.tolist(), state)).encode()
        else:
            found[name] = path.read_bytes() if path.is_file() else b""
    return found


def differing(a: bytes, b: bytes) -> int:
    return a != b and abs(len(a) - len(b)) + sum(x != y for x, y in zip(a, b, strict=False))


def whole(path: Path, expected: bytes | None) -> bool:
    """Can all of a file be read? Where no reader would notice, is it the `expected` one?"""
    read = READERS.get(path.suffix, lambda path: path.read_bytes() == expected)
    with suppress(Exception):
        return path.parent.name == "cache" or read(path) is not False
    return False


class Killer:
    """Kills commands in a folder of its own, and counts."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng, self.work, self.log = random.Random(seed), folder / "work", folder / "log.txt"
        self.work.mkdir()
        self.commands = commands(folder, self.work)
        self.traces: dict[tuple[str, bool], Trace] = {}
        self.wholes: dict[str, dict[str, bytes]] = {}
        self.counts = {(name, death): Counter() for death in DEATHS for name in self.commands}
        self.tmpfs = self._mount("size=1m")
        self.clear()

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.work)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def clear(self) -> None:
        if self.work.is_mount():
            subprocess.run(["umount", self.work], check=True)
        shutil.rmtree(self.work)
        self.work.mkdir()

    def undisturbed(self, name: str, alone: bool) -> Trace:
        """The trace of a run that nobody disturbs; all such runs must write the same."""
        while (name, alone) not in self.traces:
            self.clear()
            trace, modules = live(self.commands[name], self.log, alone), self.log.with_name(name)
            found = contents(self.work)
            if trace.status or found != self.wholes.setdefault(name, found):
                raise SystemExit(f"{name}: undisturbed runs fail or differ\n{self.log.read_text()}")
            if alone or modules.exists():
                self.traces[name, alone] = trace
            else:  # once more, as later forks find what this one had to import
                self.log.with_suffix(".modules").rename(modules)
                for module in modules.read_text().split():
                    with suppress(Exception):
                        importlib.import_module(module)
        return self.traces[name, alone]

    def _limits(self, name: str, death: str, alone: bool) -> tuple[Any, ...]:
        """The last arguments of `live` for a death; a full disk is mounted."""
        trace, share = self.undisturbed(name, alone), self.rng.random()
        grown = self.undisturbed(name, False).peak - memory("self", "VmSize")
        sizes, patience = [*map(len, self.wholes[name].values())], 30 + 3 * trace.seconds
        self.clear()
        if death == "SIGKILL":
            return (share * trace.seconds,)
        if death == "memory":
            return patience, resource.RLIMIT_AS, trace.peak - int(share * grown)
        if self.tmpfs and self._mount(f"size={1 + int(share * sum(sizes))}"):  # 0 is no limit
            return (patience,)
        return patience, resource.RLIMIT_FSIZE, int(share * max(sizes))

    def kill(self, name: str, death: str, alone: bool) -> None:
        """Let a command die once, look at what is there, give it again and compare."""
        limits, command, count = self._limits(name, death, alone), self.commands[name], Counter(n=1)
        expected = self.wholes[name]
        died = live(command, self.log, alone, *limits)
        count["in the middle"] += died.status != 0
        for path in filter(Path.is_file, self.work.rglob("*")):
            inside = str(path.relative_to(self.work))
            if ".partial" not in inside:
                count["half-written"] += not whole(path, expected.get(inside))
            elif died.status >= 0:  # it ended by itself
                count["leftovers"] += 1
        self._mount("remount,size=1g")  # fails where nothing is mounted
        again = self.log.with_name("again.txt")
        count["fail again"] += live(command, again, alone).status != 0
        found = contents(self.work)
        for inside in expected.keys() | found.keys():
            a, b = found.get(inside), expected.get(inside)
            if b is None:
                count.update(["leftovers", f"left: {inside}"])
            elif a != b:
                count[f"differs: {inside}"] = differing(a or b"", b) or 1
                count["bytes differing"] += count[f"differs: {inside}"]
        if any(count[what] for what in BAD):
            logs = f"{self.log.read_text()}\n{again.read_text()}"
            tqdm.write(f"{name}, {death}, {died}, {dict(count)}\n{logs}", sys.stderr)
        self.counts[name, death].update(count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tqdm.monitor_interval = 0  # a process with threads cannot be forked
    with tempfile.TemporaryDirectory() as folder:
        killer = Killer(Path(folder), options.seed)
        kinds = list(killer.counts)
        try:
            for i in tqdm(range(options.kills), unit="kill"):
                killer.kill(*kinds[i % len(kinds)], alone=i % 11 == 10)
        finally:
            killer.clear()  # else the folder stays mounted
    total, titles = sum(killer.counts.values(), Counter()), ("n", "in the middle", *BAD)
    print(f"| command | death | {' | '.join(titles)} |\n|---|---|{'---|' * len(titles)}")
    for (name, death), count in [*killer.counts.items(), (("all", "all"), total)]:
        print(f"| {name} | {death} | {' | '.join(f'{count[what]:,}' for what in titles)} |")
    print(f"\nfull disk: {'a tmpfs' if killer.tmpfs else 'RLIMIT_FSIZE'}")
    return int(any(total[what] for what in BAD))


if __name__ == "__main__":
    sys.exit(main())
