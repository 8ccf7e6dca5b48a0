"""Commands that die in the middle lose nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(sys.platform != "linux", reason="the ways to die are those of Linux")
@pytest.mark.slow
def test_commands_that_die_in_the_middle_lose_nothing() -> None:
    """benchmarks/kills.py, one death of each kind; more than half come in the middle of the run."""
    command = [sys.executable, "benchmarks/kills.py", "--kills", "15"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    total = next(row for row in done.stdout.splitlines() if row.startswith("| all |"))
    n, middle, *bad = (int(cell) for cell in total.split("|")[3:-1])
    assert n == 15
    assert middle > 7
    assert bad == [0, 0, 0, 0]
