"""Is anything lost? A training is killed at random moments, resumed, and compared bit for bit.

    python benchmarks/kills.py [--kills 100] [--steps 200] [--save-every 10] [key=value ...]

The run is killed by SIGKILL at moments uniform over what is left of it, started again each time
with the same command until it has been killed often enough and has ended; then a new run begins.
Prints how many kills came after a checkpoint, how many left a half-written file, how many starts
went on from a checkpoint, and how many bytes of the final weights differ from those of a run that
nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[1]


def start(config: str, out: Path, overrides: list[str]) -> subprocess.Popen:
    command = [sys.executable, "train.py", config, f"train.out={out}", *overrides]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet)


def finish(config: str, out: Path, overrides: list[str]) -> bytes:
    if start(config, out, overrides).wait() != 0:
        raise SystemExit(f"{config} failed; run it by hand to see why")
    return (out / "model.safetensors").read_bytes()


def differing(a: bytes, b: bytes) -> int:
    if a == b:  # at once, where counting takes seconds
        return 0
    return abs(len(a) - len(b)) + sum(x != y for x, y in zip(a, b, strict=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/lora.yaml")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save-every", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. data.phantoms=40")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    overrides = [f"train.steps={options.steps}", f"train.save_every={options.save_every}"]
    overrides += options.overrides
    report = {"kills": 0, "after a checkpoint": 0, "inside a write": 0, "resumed": 0, "runs": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        overrides.append(f"data.cache={folder / 'cache'}")
        whole = finish(options.config, folder / "whole", overrides)
        began = time.monotonic()
        finish(options.config, folder / "timed", overrides)
        seconds, different = time.monotonic() - began, 0
        bar = tqdm(total=options.kills, unit="kill")
        while report["kills"] < options.kills:
            out = folder / f"run{report['runs']}"
            for _ in range(5):  # then let it end, or it never would
                report["resumed"] += (out / "checkpoint.pt").exists()
                process = start(options.config, out, overrides)
                try:
                    process.wait(rng.uniform(0, seconds))
                    break  # it had ended before
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait()
                report["kills"] += 1
                report["after a checkpoint"] += (out / "checkpoint.pt").exists()
                report["inside a write"] += any(out.glob(".*.partial"))
                bar.update()
            report["resumed"] += (out / "checkpoint.pt").exists()
            different += differing(finish(options.config, out, overrides), whole)
            report["runs"] += 1
        bar.close()
    print(json.dumps({**report, "differing bytes": different}, indent=1))


if __name__ == "__main__":
    main()
