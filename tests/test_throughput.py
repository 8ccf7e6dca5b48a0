"""Precision by measurement, and the figures of a run."""

import logging
import re
import time
from pathlib import Path

import pytest
import torch
from test_train import Line, run_config
from torch import nn

from ldm.config import ConfigError
from ldm.data.datasets import Batch
from ldm.system.devices import Processes
from ldm.training import throughput
from ldm.training.trainer import Trainer
from ldm.training.training_run import WEIGHTS, finished, load_checkpoint, save_checkpoint


class Layers(Line):
    """Fits two layers, large enough that bfloat16 shows, and notes in what they computed."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 8))
        self.seen: list[torch.dtype] = []

    def draw_batch(self, size, generator) -> Batch:
        batch = super().draw_batch(8 * size, generator)
        return batch._replace(images=batch.images.reshape(size, 8))

    def loss(self, batch, generator):
        y = self.module(batch.images)
        self.seen.append(y.dtype)
        return (y.float() - batch.images).square().mean(), {}


def train(out: Path, stop_at: int | None = None, **settings) -> Layers:
    method = Layers()
    method.stop_at = stop_at
    trainer = Trainer(run_config(out, **settings), method)
    if stop_at is None:
        trainer.fit()
    else:
        with pytest.raises(KeyboardInterrupt):
            trainer.fit()
    return method


def test_bfloat16_computes_so_and_keeps_float32_weights(tmp_path) -> None:
    """Layers compute in bfloat16; weights, averages and Adam's moments are float32."""
    method = train(tmp_path, precision="bfloat16")
    assert set(method.seen) == {torch.bfloat16}
    state = load_checkpoint(tmp_path)
    kept = [*state["module"].values(), *state["ema"]]
    kept += [x for of in state["optimizer"]["state"].values() for x in of.values()]
    assert {x.dtype for x in kept} == {torch.float32}


@pytest.mark.parametrize("chosen", ["bfloat16", "float32"])
def test_auto_takes_the_faster_and_stays_with_it(tmp_path, monkeypatch, chosen: str) -> None:
    """The measured choice is the run's: it is not measured again, and the bits stay the same."""
    times = {"float32": [1.0, 2.0], "bfloat16": [2.0, 1.0]}[chosen]
    monkeypatch.setattr(throughput, "seconds", lambda *_: times.pop(0))
    train(tmp_path / "cut", stop_at=7, precision="auto")
    assert not times
    cut = train(tmp_path / "cut", precision="auto")  # would raise IndexError if it measured
    assert set(cut.seen) == {getattr(torch, chosen)}
    train(tmp_path / "whole", precision=chosen)
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() == (tmp_path / "cut" / WEIGHTS).read_bytes()
    assert finished(run_config(tmp_path / "cut", precision="auto"))
    other = {"bfloat16": "float32", "float32": "bfloat16"}[chosen]
    with pytest.raises(ConfigError, match=rf"train\.precision='{chosen}', not '{other}'"):
        train(tmp_path / "cut", precision=other)


def test_the_measurement_changes_no_weight(tmp_path) -> None:
    """Before the first step, a method's weights are as they were, without gradients."""
    method, fresh = Layers(), Layers()
    Trainer(run_config(tmp_path, precision="auto"), method)
    for measured, built in zip(method.module.parameters(), fresh.module.parameters(), strict=True):
        assert torch.equal(measured, built)
        assert measured.grad is None
    assert set(method.seen) == {torch.float32, torch.bfloat16}


def test_decay_leaves_norms_and_biases_alone(tmp_path) -> None:
    """With a gradient of zero, matrices shrink by 1 - rate * decay a step, vectors not at all."""

    class Still(Layers):
        def loss(self, batch, generator):
            return 0 * super().loss(batch, generator)[0], {}

    before, method = Still().module.state_dict(), Still()
    trainer = Trainer(run_config(tmp_path, weight_decay=0.5, warmup=1), method)
    trainer._step(0)  # at the full rate of 0.1
    for name, after in method.module.state_dict().items():
        factor = 0.95 if after.ndim == 2 else 1
        torch.testing.assert_close(after, factor * before[name])


def test_a_run_begun_with_decay_of_all_weights_goes_on_so(tmp_path) -> None:
    """A checkpoint of one group of weights, without the younger settings, resumes as it was."""
    train(tmp_path, stop_at=5)
    state = load_checkpoint(tmp_path)
    parameters = list(Layers().module.parameters())
    old = torch.optim.AdamW(parameters, lr=0.1, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    sum(p.sum() for p in parameters).backward()
    old.step()
    state["optimizer"] = old.state_dict()
    del state["config"]["train"]["precision"]
    save_checkpoint(tmp_path, state)
    train(tmp_path)
    groups = load_checkpoint(tmp_path)["optimizer"]["param_groups"]
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(6, 0.01)]


def test_a_run_says_its_pace_once_and_changes_no_bit_by_it(tmp_path, caplog) -> None:
    """One line after six steps of a run that is long enough; stopped and resumed, the same bits."""
    with caplog.at_level(logging.INFO):
        train(tmp_path / "long", batch_size=4, save_every=1)
    lines = [r.getMessage() for r in caplog.records if "samples/s" in r.getMessage()]
    assert len(lines) == 1
    assert re.search(r"samples/s; .* % of the time waits for data; about \d+ min", lines[0])
    train(tmp_path / "cut", batch_size=4, save_every=1, stop_at=3)
    train(tmp_path / "cut", batch_size=4, save_every=1)
    assert (tmp_path / "cut" / WEIGHTS).read_bytes() == (tmp_path / "long" / WEIGHTS).read_bytes()


@pytest.mark.parametrize("slow", [False, True])
def test_the_faster_precision_is_chosen(slow: bool) -> None:
    """The shorter of the measured times wins, whichever it is."""
    cpu, waits = torch.device("cpu"), {slow: 0.02, not slow: 0.0}
    chosen = throughput.faster(lambda half: time.sleep(waits[half]), cpu, Processes())
    assert chosen == ("float32" if slow else "bfloat16")
