"""A real process, killed at random moments, loses nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import adaptation

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_kills_at_moments_uniform_over_the_run_cost_no_bit(tmp_path: Path, start: Path) -> None:
    """benchmarks/kills.py, which does it 100 times, with four kills of a small model's training."""
    config = adaptation(tmp_path, start, "finetune", {"prior_weight": 1.0, "prior_images": 4})
    command = [sys.executable, "benchmarks/kills.py", "--config", str(config), "--kills", "4"]
    result = subprocess.run(
        [*command, "--steps", "30", "--save-every", "2"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["kills"] >= 4  # how many came after a checkpoint is up to chance
    assert report["differing bytes"] == 0
