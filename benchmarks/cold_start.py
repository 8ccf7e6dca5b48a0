"""From a cold start to four radiographs: how the seconds split.

    python benchmarks/cold_start.py [--runs 5] [any options of sample.py]

Each run is a new process, as a user's is. Prints the median and the range of every part.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAMPLE = Path(__file__).resolve().parent.parent / "sample.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    options, rest = parser.parse_known_args()
    prompt = [] if "--prompt" in rest else ["--prompt", "lung xray with pleural effusion"]
    parts: dict[str, list[float]] = {}
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, str(SAMPLE), *prompt, *rest, "--json", "--out", out]
            began = time.perf_counter()
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            whole = time.perf_counter() - began
        seconds = json.loads(done.stdout)["seconds"]
        seconds["start and end of Python"] = whole - sum(seconds.values())
        for part, value in {**seconds, "whole": whole}.items():
            parts.setdefault(part, []).append(value)
    report = {
        part: {
            "median": round(statistics.median(values), 2),
            "range": [round(min(values), 2), round(max(values), 2)],
        }
        for part, values in parts.items()
    }
    print(json.dumps({"runs": options.runs, "seconds": report}, indent=1))


if __name__ == "__main__":
    main()
