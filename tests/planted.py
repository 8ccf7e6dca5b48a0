"""Bugs that students and researchers make, planted one at a time: do the tests see them?

A bug of planted.json is text `new` in the place of `old`. It is caught if a test of its file fails
that passes without it, and names it: each word of `claim` is in its name, docstring or message.
`lesson`, which some have, is for lessons/bugs.py.
    python -m tests.planted [--only NAME] [--book]
"""

import argparse
import json
import multiprocessing
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
LEFT_OUT = {".git", ".venv", ".mypy_cache", "cache", "docs", "runs", "samples", "weights"}
WORKERS, LIMIT, LEAST = 2, 600, 0.98  # LIMIT: seconds for a test; LEAST: share to be caught
BUGS = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
FORK = multiprocessing.get_context("forkserver")  # of a process that has imported all but ldm
FORK.set_forkserver_preload(["einops", "open_clip", "pytest", "scipy.stats", "torch"])


class Outcome(NamedTuple):
    """Pytest's status; of the first test that failed its id, all it says, a line, its docstring."""

    status: int
    test: str = ""
    said: str = ""
    line: str = "all passed"
    claim: str = ""

    @property
    def message(self) -> str:
        return self.line.partition(": ")[2].partition(" + where ")[0]

    def names(self, claim: str) -> bool:
        words = claim.replace("_", " ").lower().split()
        return all(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", self.said) for word in words)


class Witness:
    """A pytest plugin that sees the first test fail: the fields of an Outcome."""

    seen: tuple[str, ...] = ()

    def pytest_exception_interact(self, node, report) -> None:
        errors = [line[1:] for line in report.longreprtext.splitlines() if line.startswith("E ")]
        said = " ".join([node.name, node.obj.__doc__ or "", *errors]).replace("_", " ").lower()
        line = f"{node.name}: {' '.join(''.join(errors[:3]).split())[:150]}"
        self.seen = (node.nodeid, said, line, node.obj.__doc__ or "")


def run_tests(folder: Path, test: str, answer: Connection) -> None:
    os.chdir(folder)
    os.environ |= {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    sys.path[:] = [str(folder), *(entry for entry in sys.path if Path(entry).resolve() != ROOT)]
    sys.dont_write_bytecode = True  # it would outlive a bug of equal length in the same second
    options, witness = ["-x", f"--basetemp={folder}/tmp", "-p", "no:terminal"], Witness()
    status = int(pytest.main([*options, "-p", "no:cacheprovider", test], [witness]))
    answer.send(Outcome(status, *witness.seen))


def outcome(folder: Path, test: str) -> Outcome:
    """What a test or a file of tests says of the copy in the folder."""
    answer, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=run_tests, args=(folder, test, sender))
    process.start()
    sender.close()
    found = Outcome(-1, line=f"no answer; {LIMIT} s are the limit")
    with suppress(EOFError):
        found = answer.recv() if answer.poll(LIMIT) else found
    process.join(10)  # else what it holds is not given back
    process.kill()
    return found


def copy(folder: Path) -> Path:
    """A copy of the project to plant bugs in, without data and results; the weights are linked."""
    shutil.copytree(ROOT, folder, ignore=lambda at, _: LEFT_OUT if at == str(ROOT) else ())
    (folder / "weights").symlink_to(ROOT / "weights")
    return folder


@contextmanager
def plant(bug: dict[str, str], folder: Path) -> Iterator[None]:
    """Inside, the copy in the folder has the bug."""
    whole = (path := folder / bug["file"]).read_text(encoding="utf-8")
    if whole.count(bug["old"]) != 1:
        raise ValueError(f"{bug['name']}: its old text is not once in {bug['file']}")
    path.write_text(whole.replace(bug["old"], bug["new"]), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(whole, encoding="utf-8")


def seconds_to_catch(bug: dict[str, str], folders: "SimpleQueue[Path]") -> float | None:
    folder, began = folders.get(), time.perf_counter()
    with plant(bug, folder):
        found = outcome(folder, bug["test"])
    named = found.names(bug["claim"])
    verdict = "NOT CAUGHT" if found.status != 1 else "caught" if named else "NOT NAMED"
    if verdict == "caught" and outcome(folder, found.test).status:
        verdict = "FAILS ANYWAY"
    folders.put(folder)
    seconds = time.perf_counter() - began
    print(f"{verdict}, {seconds:.1f} s: {bug['name']}: {found.line}", flush=True)  # noqa: T201
    return seconds if verdict == "caught" else None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.planted")
    parser.add_argument("--only", default="", metavar="NAME", help="what has this in its name")
    parser.add_argument("--book", action="store_true", help="bugs of the files in ldm/ itself")
    given = parser.parse_args()
    bugs = [bug for bug in BUGS if given.only in f"{bug['name']} {bug['file']} {bug['test']}"]
    bugs = [bug for bug in bugs if not given.book or bug["file"].count("/") == 1]
    if not bugs:
        parser.error("no bug has this in its name, its file or its test")
    began, folders = time.perf_counter(), SimpleQueue()
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(WORKERS) as pool:
        for i in range(WORKERS):
            folders.put(copy(Path(place, str(i))))
        found = list(pool.map(partial(seconds_to_catch, folders=folders), bugs))
    times = [seconds for seconds in found if seconds is not None]
    told = f"{len(times)} of {len(bugs)} caught, median {statistics.median(times or [0]):.1f} s"
    print(f"{told}, {time.perf_counter() - began:.0f} s in all")  # noqa: T201
    return int(len(times) < LEAST * len(bugs))


if __name__ == "__main__":
    sys.exit(main())
