"""Is anything lost? Commands die in the middle, are given again, and must come to the same bytes.

    python benchmarks/kills.py [--kills 200] [--seed 0]

The commands: a training, drawing, outpainting, evaluate.py and a conversion, with a small model.
The deaths: SIGKILL at a moment uniform over the run; a full disk, with room for a uniform share
of what the run writes (a tmpfs where it may be mounted, else a limit of the size of files); too
little memory, by a uniform share of what the run takes (RLIMIT_AS). One in eleven is a command
with a Python of its own; the others are forks of this process, which has imported everything.

At death every file that has its final name must be whole, and a command that ended by itself must
have left no `.partial`. Given again, the command must leave the files of an undisturbed run, byte
for byte, and no others. Exit status 1 if it does not. Linux only.

Not compared: the seconds in log.jsonl. Not asked to be whole at death: the last line of log.jsonl
and the cache of phantoms, which is filled row by row; both are compared at the end.
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
from functools import partial
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
from tqdm import tqdm  # noqa: E402

from ldm.config import ModelConfig, from_dict  # noqa: E402
from ldm.weights import export, loading  # noqa: E402

DEATHS = ("SIGKILL", "full disk", "memory")
COUNTS = ("n", "in the middle", "bytes differing", "half-written", "leftovers")
SIZES: dict[str, Any] = {
    "image_size": 32,
    "vae": {"image_channels": 1, "channels": [8], "res_blocks": 1, "groups": 4, "patch": 4},
    "text": {"width": 16, "layers": 1, "heads": 2},
    "unet": {
        **{"channels": [16, 32], "attention": [False, True], "res_blocks": 1},
        **{"heads": 2, "context_dim": 16, "groups": 4},
    },
}
RUN: dict[str, Any] = {
    "train": {
        **{"method": "finetune", "steps": 24, "save_every": 8, "sample_every": 12},
        **{"batch_size": 2, "precision": "float32", "device": "cpu"},
    },
    "data": {"phantoms": 12, "size": 32},
    "method": {"kinds": [{"finding": "no finding", "images": 2}], "prior_images": 4},
}


def commands(given: Path, out: Path) -> dict[str, list[str]]:
    """The commands; writes what they read into `given`. They write into `out`."""
    torch.manual_seed(0)
    config, model = from_dict(ModelConfig, SIZES, "sizes"), given / "model.safetensors"
    parts = {name: build(config).state_dict() for name, build in loading.PARTS.items()}
    export.save(model, config, parts)
    film = given / "film.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save(film)
    (given / "run.yaml").write_text(yaml.safe_dump({**RUN, "model": {"path": str(model)}}))
    folders = [f"train.out={out / 'run'}", f"data.cache={out / 'cache'}"]
    draw = ["sample.py", "--prompt", "lung xray", "--model", str(model), "--device", "cpu"]
    draw += ["--out", str(out / "drawn")]
    measure = ["evaluate.py", "reconstruction", "phantoms:8", "--survival", "0", "--device", "cpu"]
    return {
        "train": ["train.py", str(given / "run.yaml"), *folders],
        "sample": [*draw, "--n", "40", "--steps", "8"],
        "outpaint": [*draw, "--init", str(film), "--outpaint", "16,0,16,0", "--steps", "4"],
        "evaluate": [*measure, "--model", str(model), "--out", str(out / "page")],
        "convert": ["-m", "ldm.weights", "convert", str(model), str(out / "model.ckpt")],
    }


class Trace(NamedTuple):
    """What is known of a run: its status, negative for a signal, seconds, and most memory."""

    status: int
    seconds: float
    peak: int


def memory(process: int | str, what: str) -> int:
    """VmSize or VmPeak of a process, in bytes; 0 once it has ended."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def live(
    command: list[str],
    log: Path,
    alone: bool,
    seconds: float = float("inf"),
    limits: Callable[[], None] = lambda: None,
) -> Trace:
    """Run a command until it ends, or is killed after so many seconds.

    alone: with a Python of its own;  limits: called in the process before the command
    """
    began, peak = time.monotonic(), 0
    process = os.fork()
    if process == 0:
        _be(command, log, alone, limits)
    while True:
        peak = max(peak, memory(process, "VmPeak"))
        ended, status = os.waitpid(process, os.WNOHANG)
        lived = time.monotonic() - began
        if ended:
            return Trace(os.waitstatus_to_exitcode(status), lived, peak)
        if lived > seconds:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.002)


def _be(command: list[str], log: Path, alone: bool, limits: Callable[[], None]) -> None:
    """Become the command; does not return."""
    status = 1
    try:
        sys.stdout.flush()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1), os.dup2(output, 2)
        os.chdir(ROOT)
        os.environ["PYTHONPATH"] = str(ROOT)
        limits()
        if alone:
            os.execv(sys.executable, [sys.executable, *command])
        sys.argv = command[command[0] == "-m" :]
        if command[0] == "-m":
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(command[0], run_name="__main__")
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
    """{path inside the folder: bytes}, of log.jsonl without the seconds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "log.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            plain = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
            found[name] = json.dumps(plain).encode()
        elif path.is_dir():
            found[f"{name}/"] = b""
        else:
            found[name] = path.read_bytes()
    return found


def differing(a: bytes, b: bytes) -> int:
    if a == b:  # at once, where counting takes seconds
        return 0
    return abs(len(a) - len(b)) + sum(x != y for x, y in zip(a, b, strict=False))


def whole(path: Path, expected: bytes | None) -> bool:
    """Can all of a file be read? Where no reader would notice, is it the `expected` one?"""
    try:
        if path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix in (".pt", ".ckpt"):
            torch.load(path, weights_only=True)
        elif path.suffix == ".npz":
            dict(np.load(path))
        elif path.name == "log.jsonl":
            [json.loads(line) for line in path.read_text().split("\n")[:-1]]
        elif path.name == "config.yaml":
            yaml.safe_load(path.read_text())["train"]["steps"]
        elif "cache" not in path.parts[-2]:
            return path.read_bytes() == expected
    except Exception:
        traceback.print_exc()
        return False
    return True


class Killer:
    """Kills commands in a folder of its own, and counts."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng, self.work, self.log = random.Random(seed), folder / "work", folder / "log.txt"
        (folder / "given").mkdir()
        self.commands = commands(folder / "given", self.work)
        self.traces: dict[tuple[str, bool], Trace] = {}
        self.wholes: dict[str, dict[str, bytes]] = {}
        self.counts = {(name, death): Counter() for name in self.commands for death in DEATHS}
        self.work.mkdir()
        mounted = subprocess.run(self._mount("size=1m"), capture_output=True).returncode == 0
        self.tmpfs = mounted and subprocess.run(["umount", self.work]).returncode == 0

    def _mount(self, options: str) -> list[str]:
        return ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.work)]

    def undisturbed(self, name: str, alone: bool) -> Trace:
        """The trace of a run that nobody disturbs; all such runs must write the same."""
        if (name, alone) not in self.traces:
            self._clear()
            trace = live(self.commands[name], self.log, alone)
            if trace.status != 0:
                raise SystemExit(f"{name} failed:\n{self.log.read_text()}")
            found = contents(self.work)
            if found != self.wholes.setdefault(name, found):
                raise SystemExit(f"{name}: two undisturbed runs differ")
            if not alone:  # so that later forks need not
                for module in self.log.with_suffix(".modules").read_text().split():
                    with suppress(Exception):
                        importlib.import_module(module)
                self._clear()
                trace = live(self.commands[name], self.log, alone)
            self.traces[name, alone] = trace
        return self.traces[name, alone]

    def _clear(self) -> None:
        if self.work.is_mount():
            subprocess.run(["umount", self.work], check=True)
        shutil.rmtree(self.work)
        self.work.mkdir()

    def kill(self, name: str, death: str, alone: bool) -> None:
        """Let a command die once, look at what is there, give it again and compare."""
        trace, share = self.undisturbed(name, alone), self.rng.random()
        expected, count = self.wholes[name], self.counts[name, death]
        self._clear()
        seconds, limits = float("inf"), lambda: None
        if death == "SIGKILL":
            seconds = share * trace.seconds
        elif death == "memory":
            grown = self.undisturbed(name, False).peak - memory("self", "VmSize")
            limits = partial(limit, resource.RLIMIT_AS, trace.peak - int(share * grown))
        elif self.tmpfs:
            room = int(share * sum(map(len, expected.values())))
            subprocess.run(self._mount(f"size={max(room, 1)}"), check=True)  # 0 is no limit
        else:
            room = int(share * max(map(len, expected.values())))
            limits = partial(limit, resource.RLIMIT_FSIZE, room)
        died = live(self.commands[name], self.log, alone, seconds, limits)
        count.update({"n": 1, "in the middle": died.status != 0})
        there = [path for path in self.work.rglob("*") if path.is_file()]
        partial_ones = [path for path in there if ".partial" in str(path.relative_to(self.work))]
        for path in set(there) - set(partial_ones):
            if not whole(path, expected.get(str(path.relative_to(self.work)))):
                self._tell(f"{name}, {death}: {path} is half-written; it ended with {died.status}")
                count["half-written"] += 1
        if died.status >= 0:
            count["leftovers"] += len(partial_ones)
        if self.work.is_mount():
            subprocess.run(self._mount("remount,size=1g"), check=True)
        again = live(self.commands[name], self.log, alone)
        found = contents(self.work)
        different = {n: differing(found.get(n, b""), expected[n]) for n in expected}
        strangers = sorted(found.keys() - expected.keys())
        if again.status or strangers or any(different.values()):
            bad = [n for n in different if different[n] or n not in found]
            self._tell(f"{name}, {death}: then {again.status}, {bad} differ, {strangers} are left")
        count["bytes differing"] += sum(different.values())
        count["leftovers"] += len(strangers)

    def _tell(self, what: str) -> None:
        tqdm.write(f"{what}\n{self.log.read_text()}", sys.stderr)


def limit(what: int, most: int) -> None:
    resource.setrlimit(what, (most, most))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="spread over all kinds (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    options = parser.parse_args()
    tqdm.monitor_interval = 0  # no thread: forks would not have it
    with tempfile.TemporaryDirectory() as folder:
        killer = Killer(Path(folder), options.seed)
        kinds = sorted(killer.counts, key=lambda kind: DEATHS.index(kind[1]))
        for i in tqdm(range(options.kills), unit="kill"):
            killer.kill(*kinds[i % len(kinds)], alone=i % 11 == 10)
        killer._clear()
    print(f"| command | death | {' | '.join(COUNTS)} |\n|---|---|{'---|' * len(COUNTS)}")
    total = sum(killer.counts.values(), Counter())
    for (name, death), count in [*killer.counts.items(), (("all", "all"), total)]:
        print(f"| {name} | {death} | {' | '.join(f'{count[what]:,}' for what in COUNTS)} |")
    print(f"\nfull disk: {'a tmpfs' if killer.tmpfs else 'RLIMIT_FSIZE'}")
    return int(any(total[what] for what in COUNTS[2:]))


if __name__ == "__main__":
    sys.exit(main())
