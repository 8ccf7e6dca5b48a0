"""Bugs that students and researchers make, planted one at a time: do the tests see them?

python -m tests.planted [--only NAME] [--book]

A bug of planted.json is caught if a test of its file fails and names it: every word of `claim` is
in the test's name, docstring or message; and without the bug that test passes. All happens in
copies of the tree, where the text `new` takes the place of `old`.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

import pytest

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(".*", "docs", "runs", "weights")
WORKERS, LIMIT, LEAST = 2, 600, 0.98  # LIMIT: seconds for a test; LEAST: share to be caught
FORK = multiprocessing.get_context("forkserver")  # of a process that has imported all but ldm
FORK.set_forkserver_preload(["einops", "open_clip", "safetensors.torch", "scipy.stats", "torch"])


class Witness:
    """A pytest plugin that sees the first test fail: its id, all it says, and one line of that."""

    seen = ("", "", "all passed")

    def pytest_exception_interact(self, node, report) -> None:
        errors = [line[1:] for line in report.longreprtext.splitlines() if line.startswith("E ")]
        said = " ".join([node.name, node.obj.__doc__ or "", *errors]).replace("_", " ").lower()
        self.seen = (
            node.nodeid,
            said,
            " ".join(f"{node.name}:{''.join(errors[:3])}".split())[:250],
        )


def run_tests(folder: Path, test: str, answer: Connection) -> None:
    os.chdir(folder)
    os.environ |= {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    sys.path[:] = [str(folder), *(entry for entry in sys.path if Path(entry).resolve() != ROOT)]
    sys.dont_write_bytecode = True  # it would outlive a bug of equal length in the same second
    witness, options = Witness(), ["-x", "-q", "--tb=short", "-p", "no:cacheprovider"]
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        status = int(pytest.main([*options, test], plugins=[witness]))
    answer.send((status, *witness.seen))


def outcome(folder: Path, test: str) -> tuple[int, str, str, str]:
    """Pytest's status, and what the witness saw, of a test or a file of tests."""
    answer, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=run_tests, args=(folder, test, sender))
    process.start()
    sender.close()
    found = (-1, "", "", f"no answer in {LIMIT} seconds")
    with suppress(EOFError):
        found = answer.recv() if answer.poll(LIMIT) else found
    process.kill()
    return found


def verdict_on(bug: dict[str, str], folder: Path) -> tuple[str, str]:
    path = folder / bug["file"]
    whole = path.read_text(encoding="utf-8")
    if whole.count(bug["old"]) != 1:
        return "NOT PLANTED", f"its old text is not once in {bug['file']}"
    path.write_text(whole.replace(bug["old"], bug["new"]), encoding="utf-8")
    status, test, said, line = outcome(folder, bug["test"])
    path.write_text(whole, encoding="utf-8")
    if status != 1:
        return "NOT CAUGHT", line
    if not all(word in said for word in bug["claim"].replace("_", " ").lower().split()):
        return "NOT NAMED", line
    return "FAILS ANYWAY" if outcome(folder, test)[0] else "caught", line


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.planted")
    parser.add_argument("--only", default="", metavar="NAME", help="what has this in its name")
    parser.add_argument("--book", action="store_true", help="bugs of the files in ldm/ itself")
    given = parser.parse_args()
    bugs = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    bugs = [bug for bug in bugs if given.only in f"{bug['name']} {bug['file']} {bug['test']}"]
    bugs = [bug for bug in bugs if not given.book or bug["file"].count("/") == 1]
    began, folders = time.perf_counter(), SimpleQueue()

    def attempt(bug: dict[str, str]) -> tuple[str, float]:
        folder, start = folders.get(), time.perf_counter()
        verdict, line = verdict_on(bug, folder)
        folders.put(folder)
        seconds = time.perf_counter() - start
        print(f"{verdict}, {seconds:.1f} s: {bug['name']}: {line}", flush=True)  # noqa: T201
        return verdict, seconds

    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(WORKERS) as pool:
        for i in range(WORKERS):
            folders.put(shutil.copytree(ROOT, Path(place, str(i)), ignore=LEFT_OUT))
            Path(place, str(i), "weights").symlink_to(ROOT / "weights")
        found = list(pool.map(attempt, bugs))
    times = [seconds for verdict, seconds in found if verdict == "caught"]
    middle, whole = statistics.median(times or [0]), time.perf_counter() - began
    print(f"{len(times)} of {len(found)} caught, median {middle:.1f} s, {whole:.0f} s in all")  # noqa: T201
    return int(len(times) < LEAST * len(found))


if __name__ == "__main__":
    sys.exit(main())
