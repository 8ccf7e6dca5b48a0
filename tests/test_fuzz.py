"""The fuzz sees each kind of fault, its cases are the same again, and a little of it finds none."""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.system import cli
from tests import fuzz

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is counted as Linux does")


def crash() -> int:
    raise TypeError("a mistake of the program")


def refuse(message: str) -> int:
    raise ValueError(message)


def says(text: str, status: int = 0) -> int:
    sys.stdout.write(f"{text}\n")
    return status


FAULTY: dict[str, Callable[[], object]] = {
    "fine": lambda: says("as it was"),
    "traceback": crash,
    "hang": lambda: time.sleep(9),
    "memory": lambda: says("as it was") * len(b"x" * (fuzz.BYTES + 1)),
    "control": lambda: sys.stdout.write("a name \x1b[31m\n") and refuse("no"),
    "line": lambda: sys.stderr.write("a warning of some library\n") and refuse("no"),
    "leftover": lambda: Path(".x.png.1.partial").write_text("half") and refuse("no"),
    "outside": lambda: Path("../../inputs/new").write_text("x") and refuse("no"),
    "silent": lambda: says("something else"),
}


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One input of one family, in the place of all."""
    one = tmp_path / "inputs" / "images" / "0"
    for folder in (one, tmp_path / "inputs" / "whole", *(tmp_path / n for n in ("tmp", "kept"))):
        folder.mkdir(parents=True)
    (one / "command.json").write_text(json.dumps(["*", "image", "big.png"]))
    Image.fromarray(np.eye(32, dtype=np.uint8)).save(one / "big.png")
    (tmp_path / "inputs" / "whole" / "big.txt").write_text("as it was\n")
    monkeypatch.setattr(fuzz, "prepare", lambda out: out / "inputs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("fault", FAULTY)
def test_each_fault_is_seen(inputs: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """A program that does one thing wrong shows that fault and no other, and its case is kept."""

    def main(arguments: list[str]) -> int:
        return cli.run(FAULTY[fault], "image")

    monkeypatch.setattr(fuzz, "main_of", lambda program: main)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # by pytest, so by its forks
    monkeypatch.setattr(fuzz, "BYTES", held + 5 * 10**8)
    limit = 1 if fault == "hang" else 60
    options = {"out": inputs, "family": ["images"], "seed": 0, "count": 1, "seconds": 60.0}
    [row] = fuzz.check(argparse.Namespace(**options, jobs=1, limit=limit)).values()
    wanted = [] if fault == "fine" else [fault]
    assert [name for name in fuzz.FAULTS if row[name]] == wanted
    kept = [path.name for path in (inputs / "kept").iterdir()]
    assert kept == ["images-0-0"] * len(wanted)
    if fault == "silent":
        command = (inputs / "kept/images-0-0/command.sh").read_text()
        assert "tests.fuzz image big.png" in command


def test_a_case_is_the_same_again(inputs: Path) -> None:
    """The same numbers write the same bytes; others write others."""
    seen = []
    for name, number in (("a", 3), ("b", 3), ("c", 4)):
        fuzz.make_case("images", 0, number, inputs / "inputs", inputs / name)
        seen.append([(p.name, p.is_file() and p.read_bytes()) for p in (inputs / name).iterdir()])
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.slow
def test_a_fuzz_of_every_family_finds_nothing(tmp_path: Path) -> None:
    """From a fixed seed; python -m tests.fuzz --count 10000 is for the rest."""
    command = [sys.executable, "-m", "tests.fuzz", "--count", "240", "--limit", "60"]
    done = subprocess.run(
        [*command, "--out", tmp_path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "240 cases, 0 faults" in done.stdout
