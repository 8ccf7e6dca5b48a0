"""Several processes give what one gives, and a lost one takes the run down with a message."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import adaptation

from ldm import rng
from ldm.config import ConfigError
from ldm.system.devices import Processes
from ldm.training.trainer import Trainer
from ldm.training.training_run import build_method, load_run
from ldm.weights import loading

ROOT = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_accumulated_batches_are_one_larger_batch(tmp_path: Path, start: Path) -> None:
    """The gradient of a step is the mean over its batches, each with its own draws."""
    run = load_run(adaptation(tmp_path, start, "finetune", {}, accumulate=3, batch_size=2))
    method = build_method(run)
    trainer = Trainer(run, method)
    figures = [trainer._accumulate(0, part)[0] for part in range(3)]
    found = [p.grad.clone() for p in trainer.parameters]
    expected = [torch.zeros_like(p) for p in trainer.parameters]
    for key in ((0,), (0, 1), (0, 2)):
        batch = method.draw_batch(2, rng.generator(0, "batch", *key))
        loss, _ = method.loss(batch, rng.generator(0, "loss", *key))
        for total, part in zip(
            expected, torch.autograd.grad(loss, trainer.parameters), strict=True
        ):
            total += part / 3
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    losses = [row["loss"] for row in figures]
    assert len(set(losses)) == 3
    assert trainer._mean(figures)["loss"] == pytest.approx(sum(losses) / 3)


def test_batches_that_do_not_go_round_are_refused(tmp_path: Path, start: Path) -> None:
    """Two processes need an even number of batches in a step, and the message says so."""
    run = load_run(adaptation(tmp_path, start, "finetune", {}, accumulate=3))
    with pytest.raises(ConfigError, match="with 2 processes it must be 2 or a multiple"):
        Trainer(run, build_method(run), Processes(0, 2))


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path: Path, start: Path) -> None:
    """Half the batches each: the same weights to 1e-5, and one log."""
    outs = []
    for name, command in (("one", [sys.executable]), ("two", TORCHRUN)):
        config = adaptation(tmp_path / name, start, "finetune", {}, accumulate=2, steps=6)
        subprocess.run([*command, "train.py", str(config)], cwd=ROOT, check=True, env=ONE_THREAD)
        outs.append(tmp_path / name / "run")
    one, two = (loading.load_parts(out)[1]["unet"] for out in outs)
    before = loading.load_parts(start)[1]["unet"]
    assert any(not torch.equal(one[name], before[name]) for name in one)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-5)
    rows = [[json.loads(line) for line in (out / "log.jsonl").open()] for out in outs]
    for a, b in zip(*rows, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


@pytest.mark.slow
def test_two_processes_draw_what_one_does(tmp_path: Path, start: Path) -> None:
    """The same files, bit for bit, sheet included."""
    (tmp_path / "prompts.txt").write_text("a lung\na heart\n")
    # the -- keeps torchrun from taking --n for an option of its own
    for name, command in (("one", [sys.executable]), ("two", [*TORCHRUN, "--"])):
        options = ["--prompts", str(tmp_path / "prompts.txt"), "--n", "300", "--steps", "2"]
        options += ["--model", str(start), "--out", str(tmp_path / name)]
        command = [*command, "sample.py", *options]
        subprocess.run(command, cwd=ROOT, check=True, env=ONE_THREAD)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 601
    for file in files:
        assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "one" / file).read_bytes()


@pytest.mark.slow
def test_a_lost_process_takes_the_run_down_and_it_resumes(tmp_path: Path, start: Path) -> None:
    """After one of two is killed the others end within a minute, with a reason; then it goes on."""
    config = adaptation(tmp_path, start, "finetune", {}, accumulate=2, steps=400, save_every=20)
    command, out = [*TORCHRUN, "train.py", str(config)], tmp_path / "run"
    process = subprocess.Popen(command, cwd=ROOT, env=ONE_THREAD, stderr=subprocess.PIPE, text=True)
    while not (out / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    error = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert "Signal 9 (SIGKILL)" in error
    assert not (out / "model.safetensors").exists()
    values = yaml.safe_load(config.read_text())
    values["train"]["steps"] = 60
    config.write_text(yaml.safe_dump(values))
    subprocess.run(command, cwd=ROOT, check=True, env=ONE_THREAD)
    assert (out / "model.safetensors").exists()
