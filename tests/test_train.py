"""The training loop: the same bits after an interruption, and nothing lost to a bad checkpoint."""

import dataclasses
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ldm import rng
from ldm.config import ConfigError
from ldm.data import DataConfig
from ldm.data.datasets import Batch
from ldm.system import atomic
from ldm.training import training_run
from ldm.training.trainer import EMA, Trainer, learning_rate_factor
from ldm.training.training_run import (
    WEIGHTS,
    RunConfig,
    TrainConfig,
    finished,
    load_checkpoint,
    save_checkpoint,
)
from ldm.weights.export import write_safetensors


class Line:
    """Fits y = a x + b to y = 2x + 1; a Method small enough to check by hand."""

    def __init__(self, gamma: int = 0) -> None:
        torch.manual_seed(0)
        self.module = nn.Linear(1, 1)
        self.gamma, self.slope = gamma, 2
        self.stop_at: int | None = None
        self.steps = 0

    def settings(self):
        return {"method": {"gamma": self.gamma}, "sizes": {"slope": self.slope}}

    def draw_batch(self, size, generator):
        if self.steps == self.stop_at:
            raise KeyboardInterrupt
        self.steps += 1
        x = torch.randn(size, 1, generator=generator)
        return Batch(x, ["line"] * size, [f"point-{i}" for i in range(size)])

    def loss(self, batch, generator):
        noise = 0.1 * torch.randn(batch.images.shape, generator=generator)
        error = self.module(batch.images) - (self.slope * batch.images + 1 + noise)
        return error.square().mean(), {"largest": error.abs().max().item()}

    def preview(self):
        return None

    def summary(self) -> str:
        return "a line"

    def save(self, path: Path) -> None:
        write_safetensors(path, self.module.state_dict(), {})


def run_config(out: Path, **train) -> RunConfig:
    settings = {"steps": 12, "save_every": 4, "learning_rate": 0.1, "warmup": 2, "ema": 0.5}
    return RunConfig(train=TrainConfig(out=str(out), **{**settings, **train}))


def state(steps: int) -> dict:
    """The least that is a checkpoint."""
    return {"step": steps, "config": {"train": {"steps": 12}}}


def fit(config: RunConfig, stop_at: int | None = None) -> Line:
    method = Line(**config.method)
    method.stop_at = stop_at
    trainer = Trainer(config, method)
    if stop_at is None:
        trainer.fit()
    else:
        with pytest.raises(KeyboardInterrupt):
            trainer.fit()
    return method


class Slope(Line):
    """A gradient of 3 for the weight and 4 for the bias, both 1 at first; draws are noted."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.ones_(self.module.weight)
        nn.init.ones_(self.module.bias)
        self.drawn, self.noise, self.shown, self.scales = [], [], [], [1.0] * 9

    def draw_batch(self, size, generator):
        self.drawn.append(torch.rand((), generator=generator).item())
        return super().draw_batch(size, generator)

    def loss(self, batch, generator):
        self.noise.append(torch.rand((), generator=generator).item())
        scale = self.scales[len(self.noise) - 1]
        return scale * (3 * self.module.weight.sum() + 4 * self.module.bias.sum()), {}

    def preview(self):
        self.shown.append(self.module.weight.item())
        return torch.zeros(1, 8, 8), "nothing"


def taken(folder: Path, scales: tuple[float, ...] = (1.0,) * 9, **train) -> Slope:
    """Steps at a rate of 0.1, without average and clipping unless told otherwise."""
    method, off = Slope(), {"warmup": 1, "ema": 0.0, "clip": 1e9, "sample_every": 0}
    method.scales = scales
    Trainer(run_config(folder, **off | {"weight_decay": 0.0} | train), method).fit()
    return method


def adamw(gradients: list[float], decay: float = 0.0) -> float:
    """AdamW (arXiv:1711.05101, algorithm 2) from 1, betas 0.9 and 0.99.

    Two steps at rates of 0.1 and 0.05, which a cosine and no ramp give.
    """
    weight, m, v = 1.0, 0.0, 0.0
    for n, (g, rate) in enumerate(zip(gradients, (0.1, 0.05), strict=True), start=1):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        weight -= rate * decay * weight
        weight -= rate * (m / (1 - 0.9**n)) / (math.sqrt(v / (1 - 0.99**n)) + 1e-8)
    return weight


def test_gradients_are_clipped_to_the_norm_of_all(tmp_path, monkeypatch) -> None:
    """The norm is |3, 4| = 5: at train.clip = 0.5 each is divided by ten. Of batches, the mean."""
    seen, step = [], torch.optim.AdamW.step

    def watched(self) -> None:
        seen.append([p.grad.item() for group in self.param_groups for p in group["params"]])
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    taken(tmp_path / "a", steps=1, clip=0.5)
    taken(tmp_path / "b", (1.0, 3.0), steps=1, accumulate=2)
    taken(tmp_path / "c", steps=2)
    assert seen[0] == pytest.approx([0.3, 0.4]), "gradients clipped"
    assert seen[1] == pytest.approx([6, 8]), "accumulate: the mean of the batches"
    assert seen[2:] == [pytest.approx([3, 4])] * 2, "gradients zeroed after a step"


def test_two_steps_of_adamw_by_hand(tmp_path) -> None:
    """The rate halves by the cosine; matrices decay, biases do not; betas are 0.9 and 0.99."""
    layer = taken(tmp_path / "a", steps=2, weight_decay=0.5).module
    assert layer.bias.item() == pytest.approx(adamw([4, 4])), "rate by cosine, no decay of a bias"
    assert layer.weight.item() == pytest.approx(adamw([3, 3], 0.5)), "weight decay of a matrix"
    layer = taken(tmp_path / "b", (1.0, 0.1), steps=2).module
    assert layer.bias.item() == pytest.approx(adamw([4, 0.4])), "beta_1 0.9, beta_2 0.99"


def test_the_average_warms_up() -> None:
    """shadow <- d shadow + (1 - d) weight, d = min(decay, (1 + n) / (10 + n)), by hand."""
    weight = nn.Parameter(torch.zeros(1))
    ema, expected = EMA([weight], 0.2), 0.0
    for n in range(4):
        weight.data.fill_(n + 1.0)
        ema.update(n)
        decay = min(0.2, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * (n + 1)
    assert ema.shadow[0].item() == pytest.approx(expected), "warm-up of the decay"


def test_the_average_has_the_weights_after_the_step_and_is_what_is_kept(tmp_path) -> None:
    """After a step from 1 to 0.9, d = 1/10: 0.1 + 0.9 * 0.9. It is saved, and previews show it;
    training goes on with the weights themselves.
    """
    method = taken(tmp_path, steps=1, ema=0.9, sample_every=1)
    saved = load_file(tmp_path / WEIGHTS)["weight"].item()
    assert saved == pytest.approx(0.1 + 0.9 * 0.9), "the average after the step is saved"
    assert method.shown == [pytest.approx(saved)], "a preview shows the average"
    assert method.module.weight.item() == pytest.approx(0.9), "training goes on with the weights"


def test_every_batch_and_every_loss_has_random_numbers_of_its_own(tmp_path) -> None:
    """Two steps of two batches: four draws and four noises; the same for the same seed."""
    first, again = (taken(tmp_path / name, steps=2, accumulate=2) for name in "ab")
    for what in ("drawn", "noise"):
        numbers = getattr(first, what)
        assert len(set(numbers)) == 4, f"{what}: each step and batch has its own random numbers"
        assert numbers == getattr(again, what), "the same seed, the same numbers"


@pytest.mark.parametrize("stop_at", [3, 4, 7, 11])
def test_an_interrupted_run_ends_in_the_same_bits(tmp_path, stop_at: int) -> None:
    """Stopped around a checkpoint, the same command goes on to the same weights and log."""
    fit(run_config(tmp_path / "whole"))
    fit(run_config(tmp_path / "cut"), stop_at=stop_at)
    fit(run_config(tmp_path / "cut"))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert (whole / WEIGHTS).read_bytes() == (cut / WEIGHTS).read_bytes()

    def without_time(folder: Path) -> list[dict[str, float]]:
        return [{**row, "seconds": 0} for row in training_run.read_log(folder / "log.jsonl")]

    assert without_time(whole) == without_time(cut)


def test_what_a_kill_left_half_written_is_removed(tmp_path) -> None:
    """A checkpoint can be gigabytes: those of killed writers do not pile up."""
    fit(run_config(tmp_path), stop_at=9)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = atomic.unfinished().replace(str(os.getpid()), str(gone.pid), 1)
    (tmp_path / f".{training_run.NAME}{left}").write_bytes(b"half a checkpoint")
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / f".000004.png{left}").write_bytes(b"half a preview")
    fit(run_config(tmp_path))
    assert list(tmp_path.rglob(".*")) == []


def test_a_finished_run_changes_nothing(tmp_path) -> None:
    """Running a finished run again takes no step and touches no file."""
    config = run_config(tmp_path)
    assert finished(config) is None
    fit(config)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file()}
    assert finished(config) == tmp_path / WEIGHTS
    assert before == {
        p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file()
    }


def test_a_truncated_checkpoint_falls_back_to_the_one_before(tmp_path, caplog) -> None:
    """The previous checkpoint is used, with a warning, and the run still ends in the same bits."""
    fit(run_config(tmp_path / "whole"))
    fit(run_config(tmp_path / "cut"), stop_at=10)
    newest = tmp_path / "cut" / training_run.NAME
    newest.write_bytes(newest.read_bytes()[:500])
    fit(run_config(tmp_path / "cut"))
    assert "damaged" in caplog.text
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() == (tmp_path / "cut" / WEIGHTS).read_bytes()


def test_checkpoints_that_are_all_damaged_are_an_error_not_a_restart(tmp_path) -> None:
    """Hours of work are never silently begun again."""
    (tmp_path / training_run.NAME).write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="delete the folder to start again"):
        load_checkpoint(tmp_path)


def test_a_flipped_bit_of_a_checkpoint_is_noticed(tmp_path, caplog) -> None:
    """The one before is taken, and one line says so; or it was one that nothing depends on."""
    fit(run_config(tmp_path), stop_at=10)
    newest, whole = tmp_path / training_run.NAME, (tmp_path / training_run.NAME).read_bytes()
    expected, noticed = load_checkpoint(tmp_path), 0
    config = expected.pop("config")
    for bit in torch.randint(8 * len(whole), (400,), generator=rng.generator(0, "bits")).tolist():
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        newest.write_bytes(changed)
        os.utime(newest, ns=(bit, bit))  # a clock may not tell two writes apart
        caplog.clear()
        if (found := load_checkpoint(tmp_path))["step"] == 8:
            assert found.pop("config") == config
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
            assert not caplog.records
        else:
            noticed += 1
            assert len(caplog.records) == 1
            assert re.search(r"checkpoint\.pt is damaged .*the one before$", caplog.messages[0])
    assert noticed > 40


OTHER_CONTENT = {
    "a list": lambda s: [s],
    "nothing": lambda s: {},
    "no steps": lambda s: s | {"step": "8"},
    "settings of a list": lambda s: s | {"config": [1]},
    "no optimizer": lambda s: {n: v for n, v in s.items() if n != "optimizer"},
    "no moments": lambda s: s | {"optimizer": {**s["optimizer"], "state": {}}},
    "moments of another weight": lambda s: (
        s["optimizer"]["state"][0].update(exp_avg=torch.ones(3)) or s
    ),
    "a weight less": lambda s: s | {"module": {"weight": s["module"]["weight"]}},
    "a larger weight": lambda s: s | {"module": s["module"] | {"weight": torch.ones(9, 9)}},
    "a smaller average": lambda s: s | {"ema": [torch.ones(()), *s["ema"][1:]]},
    "no number": lambda s: s | {"ema": [t * math.nan for t in s["ema"]]},
}


@pytest.mark.parametrize("case", OTHER_CONTENT)
def test_a_checkpoint_of_other_content_is_not_taken(tmp_path, caplog, case: str) -> None:
    """The one before is; the run ends in the same bits, and one line says so. Without one before,
    that line is the error, and the file stays."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    fit(run_config(whole))
    fit(run_config(cut), stop_at=10)
    newest = cut / training_run.NAME
    torch.save(OTHER_CONTENT[case](load_checkpoint(cut)), newest)
    shutil.copytree(cut, tmp_path / "alone")
    (tmp_path / "alone" / training_run.PREVIOUS).unlink()
    with pytest.raises(ValueError, match=r"^[^\n]*is damaged[^\n]*delete the folder[^\n]*$"):
        fit(run_config(tmp_path / "alone"))
    assert (tmp_path / "alone" / training_run.NAME).read_bytes() == newest.read_bytes()
    caplog.clear()
    finished(run_config(cut))
    fit(run_config(cut))
    assert [r.getMessage().count("is damaged") for r in caplog.records] == [1]
    assert (whole / WEIGHTS).read_bytes() == (cut / WEIGHTS).read_bytes()


def test_a_second_training_in_a_folder_is_refused(tmp_path) -> None:
    """As long as the first goes on, which ends as if nobody had disturbed it."""
    fit(run_config(tmp_path / "alone"))
    method = Line()

    def draw_batch(size, generator):
        if method.steps == 5:
            with pytest.raises(OSError, match=r"another process is at work in .*both"):
                fit(run_config(tmp_path / "both"))
        return Line.draw_batch(method, size, generator)

    method.draw_batch = draw_batch
    Trainer(run_config(tmp_path / "both"), method).fit()
    alone, both = ((tmp_path / name / WEIGHTS).read_bytes() for name in ("alone", "both"))
    assert alone == both


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path) -> None:
    """Nobody writes to it; the checkpoint before is taken, and the log is an error."""
    fit(run_config(tmp_path), stop_at=10)
    for name in (training_run.NAME, "log.jsonl"):
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
    assert load_checkpoint(tmp_path)["step"] == 4
    with pytest.raises(OSError, match="it is no regular file"):
        training_run.read_log(tmp_path / "log.jsonl")
    os.mkfifo(tmp_path / "below")
    (tmp_path / "below").rename(tmp_path / "lock")
    with atomic.locked(tmp_path):
        pass


def test_too_little_memory_tells_nothing_against_a_checkpoint(tmp_path) -> None:
    """The error is passed on, and the checkpoint stays the newest."""
    fit(run_config(tmp_path), stop_at=10)

    def take(state: dict) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(RuntimeError, match="allocate memory"):
        load_checkpoint(tmp_path, take)
    assert load_checkpoint(tmp_path)["step"] == 8


@pytest.mark.parametrize("content", ["", "half", "a bit"])
def test_damaged_weights_of_a_finished_run_are_written_again(tmp_path, caplog, content) -> None:
    """Empty, cut short or changed, they do not count; the checkpoint still has them."""
    fit(run_config(tmp_path))
    weights, whole = tmp_path / WEIGHTS, (tmp_path / WEIGHTS).read_bytes()
    turned = bytes([*whole[:-1], whole[-1] ^ 1])
    weights.write_bytes({"half": whole[: len(whole) // 2], "a bit": turned}.get(content, b""))
    assert finished(run_config(tmp_path)) is None
    assert "; it is written again" in caplog.text
    assert fit(run_config(tmp_path)).steps == 0
    assert weights.read_bytes() == whole


@pytest.mark.parametrize("ema", [0.0, 0.5])
@pytest.mark.parametrize("kind", [{}, {"update_in_backward": True, "clip": 1e9}])
@pytest.mark.parametrize("steps", [1, 12])
def test_weights_that_are_not_finite_are_never_saved(tmp_path, kind, steps, ema) -> None:
    """Not in a checkpoint nor as weights; the message tells the step and blames no sample."""
    config = run_config(tmp_path, steps=steps, learning_rate=1e300, ema=ema, **kind)
    with pytest.raises(FloatingPointError, match=r"after 1 steps .*not saved; lower train.learn"):
        fit(config)
    assert {path.name for path in tmp_path.iterdir()} <= {"config.yaml", "log.jsonl", "lock"}
    lower = dataclasses.replace(config, train=dataclasses.replace(config.train, learning_rate=0.1))
    fit(lower)  # as the message says
    assert load_file(tmp_path / WEIGHTS)["weight"].isfinite().all()


@pytest.mark.parametrize("name", ["''", "' '"])
def test_a_run_without_a_name_is_called_as_its_config(tmp_path, name: str) -> None:
    """Spaces are no name: a folder of that name would hardly be found again."""
    (tmp_path / "mine.yaml").write_text(f"train: {{out: {name}}}")
    assert training_run.load_run(tmp_path / "mine.yaml").train.out == "runs/mine"


def test_equal_states_are_equal_bytes(tmp_path, monkeypatch) -> None:
    """Whichever process saves them."""
    for process in (1, 2):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        (tmp_path / str(process)).mkdir()
        save_checkpoint(tmp_path / str(process), {"step": 1, "x": torch.ones(3)})
    one, other = (path.read_bytes() for path in tmp_path.rglob(training_run.NAME))
    assert one == other


def test_a_failed_write_keeps_the_checkpoint_before(tmp_path, monkeypatch) -> None:
    """When the disk fills up, the error says so and the older checkpoint can still be read."""
    save_checkpoint(tmp_path, state(1))

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"No space left.* MB are free there.*earlier ones are kept"):
        save_checkpoint(tmp_path, state(2))
    assert load_checkpoint(tmp_path) == state(1)
    assert [p.name for p in tmp_path.iterdir()] == [training_run.NAME]


def test_other_settings_are_refused_but_more_steps_are_not(tmp_path) -> None:
    """A run goes on only with the settings it was begun with; its length may change,
    how it attends, which changes rounding alone, and what it keeps for the gradient.
    """
    fit(run_config(tmp_path))
    with pytest.raises(ConfigError, match=r"train\.seed=0, not 1"):
        fit(run_config(tmp_path, seed=1))
    other_data = dataclasses.replace(run_config(tmp_path), data=DataConfig(phantoms=7))
    with pytest.raises(ConfigError, match=r"data\.phantoms"):
        fit(other_data)
    longer = run_config(tmp_path, steps=14, attention="reference", checkpointing=True)
    assert fit(longer).steps == 2


def test_settings_that_are_gone_or_lie_deeper_are_refused(tmp_path) -> None:
    """An option that was given and no longer is, or sizes and data behind a path, change weights
    too.
    """
    config = dataclasses.replace(run_config(tmp_path), method={"gamma": 5})
    fit(config, stop_at=6)
    with pytest.raises(ConfigError, match=r"method\.gamma=5, not 0"):
        fit(run_config(tmp_path))
    method = Line(gamma=5)
    method.slope = 3
    with pytest.raises(ConfigError, match=r"sizes\.slope=2, not 3"):
        Trainer(config, method).fit()


def test_a_default_may_be_spelled_out(tmp_path) -> None:
    """A run goes on with equal options in other words; its method decides if it is finished."""
    plain = run_config(tmp_path)
    said = dataclasses.replace(plain, method={"gamma": 0})
    fit(plain, stop_at=6)
    assert fit(said).steps == 8
    assert finished(said) is not None
    assert finished(plain) is None
    assert fit(plain).steps == 0
    other = dataclasses.replace(plain, method={"gamma": 5})
    assert finished(other) is None
    with pytest.raises(ConfigError, match=r"method\.gamma=0, not 5"):
        fit(other)


def test_a_run_made_longer_and_cut_off_is_not_finished(tmp_path, monkeypatch) -> None:
    """The weights of the shorter run are not taken for those of the longer one."""
    fit(run_config(tmp_path))
    before = (tmp_path / WEIGHTS).read_bytes()
    monkeypatch.setattr(Line, "save", lambda self, path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fit(run_config(tmp_path, steps=16))
    monkeypatch.undo()
    assert finished(run_config(tmp_path, steps=16)) is None
    fit(run_config(tmp_path, steps=16))
    assert (tmp_path / WEIGHTS).read_bytes() != before
    assert finished(run_config(tmp_path, steps=16)) is not None


def test_weights_of_an_earlier_end_are_not_taken_for_later_ones(tmp_path) -> None:
    """Finished, made longer, killed, and ended early: the weights are those of the last step
    taken, not of the first end.
    """
    fit(run_config(tmp_path))
    before = (tmp_path / WEIGHTS).read_bytes()
    fit(run_config(tmp_path, steps=40), stop_at=10)
    assert load_checkpoint(tmp_path)["step"] == 20
    shorter = run_config(tmp_path, steps=15)
    assert finished(shorter) is None
    fit(shorter)
    assert (tmp_path / WEIGHTS).read_bytes() != before


def test_a_damaged_checkpoint_never_pushes_out_the_good_one(tmp_path) -> None:
    """After a fall back to the one before, the next save keeps that, and sets the other aside."""
    save_checkpoint(tmp_path, state(1))
    save_checkpoint(tmp_path, state(2))
    (tmp_path / training_run.NAME).write_bytes(b"damaged")
    assert load_checkpoint(tmp_path) == state(1)
    save_checkpoint(tmp_path, state(3))
    (tmp_path / training_run.NAME).write_bytes(b"damaged again")
    assert load_checkpoint(tmp_path) == state(1)


def test_data_that_moved_are_no_obstacle(tmp_path) -> None:
    """Another data.path goes on, because what lies there is compared; it is not called finished."""
    moved = dataclasses.replace(run_config(tmp_path), data=DataConfig(path="elsewhere"))
    fit(run_config(tmp_path), stop_at=6)
    assert fit(moved).steps == 8
    assert finished(moved) is not None
    assert finished(run_config(tmp_path)) is None


def test_a_run_made_shorter_ends_with_what_it_has(tmp_path) -> None:
    """Fewer steps than were taken: the weights are written, no step and no checkpoint is."""
    fit(run_config(tmp_path), stop_at=9)
    before = (tmp_path / training_run.NAME).read_bytes()
    assert fit(run_config(tmp_path, steps=5)).steps == 0
    assert (tmp_path / WEIGHTS).exists()
    assert (tmp_path / training_run.NAME).read_bytes() == before


IN_BACKWARD = {"update_in_backward": True, "clip": 1e9}


def test_an_update_in_the_backward_pass_changes_no_bit(tmp_path) -> None:
    """Weights, average and optimizer are those of a run that keeps all gradients."""
    fit(run_config(tmp_path / "plain", clip=1e9))
    fit(run_config(tmp_path / "at_once", **IN_BACKWARD))
    plain, at_once = (load_checkpoint(tmp_path / name) for name in ("plain", "at_once"))
    for state in (plain, at_once):
        del state["config"]
    torch.testing.assert_close(at_once, plain, rtol=0, atol=0)
    weights = [(tmp_path / name / WEIGHTS).read_bytes() for name in ("plain", "at_once")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("first", [False, True])
def test_a_run_may_go_on_with_the_other_kind_of_update(tmp_path, first: bool) -> None:
    """A checkpoint of either kind is read by the other, and the bits are the same."""
    fit(run_config(tmp_path / "whole", clip=1e9))
    fit(run_config(tmp_path / "cut", **IN_BACKWARD | {"update_in_backward": first}), stop_at=7)
    fit(run_config(tmp_path / "cut", **IN_BACKWARD | {"update_in_backward": not first}))
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() == (tmp_path / "cut" / WEIGHTS).read_bytes()


def test_a_weight_that_the_loss_forgets_is_treated_alike(tmp_path) -> None:
    """Without a gradient it decays as with a gradient of zero, in both kinds of update."""
    found = []
    for name, kind in (("plain", {"clip": 1e9}), ("at_once", IN_BACKWARD)):
        method = Line()
        method.module.register_parameter("forgotten", nn.Parameter(torch.ones(3, 1)))
        Trainer(run_config(tmp_path / name, **kind), method).fit()
        found.append(method.module.forgotten.detach())
    assert torch.equal(*found)
    assert (found[0] < 1).all()


def test_one_gradient_is_held_at_a_time(tmp_path, monkeypatch) -> None:
    """Whenever the optimizer steps in the backward pass, a single weight has a gradient."""
    method, held = Line(), []
    trainer = Trainer(run_config(tmp_path, steps=3, **IN_BACKWARD), method)
    step = trainer.optimizer.step
    monkeypatch.setattr(
        trainer.optimizer,
        "step",
        lambda: (held.append([p.grad is not None for p in trainer.parameters]), step()),
    )
    trainer.fit()
    assert sorted(held) == 3 * [[False, True]] + 3 * [[True, False]]
    assert all(p.grad is None for p in trainer.parameters)


def test_what_an_update_in_the_backward_pass_cannot_do_is_refused(tmp_path) -> None:
    """The norm of all gradients and a sum over batches need gradients that are kept."""
    for other in ({"clip": 1.0}, {"accumulate": 2}):
        with pytest.raises(ConfigError, match=r"accumulate=1 and train\.clip=1e9 \(off\), got"):
            run_config(tmp_path, **IN_BACKWARD | other)


@pytest.mark.parametrize("kind", [{}, IN_BACKWARD])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_samples(tmp_path, kind) -> None:
    """No weight sees its gradients, finite or not; the message says which samples to look at."""
    method = Line()
    before = method.module.weight.item()
    method.loss = lambda batch, generator: (method.module.weight.sum() + math.inf, {})
    with pytest.raises(
        FloatingPointError, match=r"loss inf .*its samples, which are in \S*not_fin"
    ):
        Trainer(run_config(tmp_path, batch_size=2, **kind), method).fit()
    kept = json.loads((tmp_path / "not_finite_0.json").read_text())
    assert kept["samples"] == ["point-0", "point-1"]
    assert not (tmp_path / training_run.NAME).exists()
    assert method.module.weight.item() == before


@pytest.mark.parametrize("kind", [{"clip": 1e9}, IN_BACKWARD])
def test_a_gradient_that_is_not_finite_does_not_reach_its_weight(tmp_path, kind) -> None:
    """sqrt has an infinite slope at 0. In the backward pass other weights may have changed; the
    checkpoint has not.
    """
    config = run_config(tmp_path, **kind)
    fit(config, stop_at=6)
    kept = (tmp_path / training_run.NAME).read_bytes()
    method = Line()

    def loss(batch, generator):
        weight, bias = method.module.weight, method.module.bias
        return (weight * 0).abs().sqrt().sum() + bias.sum(), {}

    method.loss = loss
    with pytest.raises(FloatingPointError, match=r"norm nan; .*on from the last checkpoint"):
        Trainer(config, method).fit()
    state = load_checkpoint(tmp_path)
    assert torch.equal(method.module.weight, state["module"]["weight"])
    assert (tmp_path / training_run.NAME).read_bytes() == kept
    again = fit(config)
    assert again.steps == 8
    assert again.module.weight.isfinite().all()


def test_the_learning_rate_is_a_ramp_times_a_half_cosine() -> None:
    """(step + 1) / warmup, at most 1, times a cosine that falls from step 0 to `steps`."""
    for step in (0, 5, 9, 10, 50, 100):
        expected = min(1, (step + 1) / 10) * (1 + math.cos(math.pi * step / 100)) / 2
        assert learning_rate_factor(step, 10, 100) == pytest.approx(expected)
    assert learning_rate_factor(100, 10, 100) == 0


def test_a_log_line_cut_off_by_a_crash_is_dropped(tmp_path) -> None:
    """A half-written line does not stop the next run."""
    (tmp_path / "log.jsonl").write_text('{"step": 0, "loss": 1.0}\n{"step": 1, "lo')
    journal = training_run.Log(tmp_path, start=5)
    journal.write({"step": 5, "loss": 0.5})
    journal.close()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 5]


@pytest.mark.parametrize(
    "line",
    [
        *(b"[1]", b"7", b'{"step": "3"}', b'{"step": 3, "loss": "low"}', b'{"loss": 1.0}'),
        *(b"\xff\x00\x80", 10**5 * b"[", b'{"step": 3, "loss": %s}' % (b"9" * 400)),
        *(b'{"step": 3, "loss": %s}' % (b"9" * 5000), b'{"step": 3, "loss": {"a": 1}}'),
    ],
    ids=lambda line: repr(line[:24]),
)
def test_a_line_that_no_run_wrote_is_left_out_of_the_log(tmp_path, caplog, line: bytes) -> None:
    """The run goes on, the lines around it stay, and one line says so."""
    fit(run_config(tmp_path), stop_at=10)
    log = tmp_path / "log.jsonl"
    first, *others = log.read_bytes().splitlines()
    log.write_bytes(b"\n".join([first, line, *others, b""]))
    caplog.clear()
    fit(run_config(tmp_path))
    assert [row["step"] for row in training_run.read_log(log)] == list(range(12))
    assert [r.getMessage().count("left out are 1 lines") for r in caplog.records] == [1]


def test_figures_that_cannot_be_drawn_stop_no_run(tmp_path) -> None:
    """An infinite one is in the log, and the curve is drawn without it."""
    method = Line()
    method.loss = lambda batch, generator: (
        Line.loss(method, batch, generator)[0],
        {"psnr": math.inf, "huge": 1e308},
    )
    Trainer(run_config(tmp_path), method).fit()
    assert (tmp_path / "curve.png").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_names_the_log(tmp_path) -> None:
    """An error of writing has no name of its own."""
    journal = training_run.Log(tmp_path, 0)
    journal.file = open("/dev/full", "a", buffering=1)  # noqa: SIM115 - closed by the log
    for act in (lambda: journal.write({"step": 0}), journal.close):
        with pytest.raises(OSError, match=r"No space left.*log\.jsonl"):
            act()


def test_the_loss_curve_shows_the_losses(tmp_path) -> None:
    """curve.png is a picture, and another one for a run of other losses."""
    curves = []
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        fit(run_config(tmp_path / name, seed=seed))
        curves.append((tmp_path / name / "curve.png").read_bytes())
    assert curves[0] == curves[1] != curves[2]
    assert curves[0].startswith(b"\x89PNG")


def test_after_the_last_checkpoint_nothing_is_left_to_do(tmp_path, monkeypatch) -> None:
    """Killed right after it, a run has the curve and the pictures of one that was not."""
    monkeypatch.setattr(Line, "preview", lambda _: (torch.zeros(1, 8, 8), "nothing"))
    fit(run_config(tmp_path / "whole"))
    save = Trainer._save_checkpoint

    def save_and_stop(self, step):
        save(self, step)
        if step == 12:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_save_checkpoint", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        fit(run_config(tmp_path / "cut"))
    assert finished(run_config(tmp_path / "cut")) is not None
    for name in ("curve.png", "samples/000012.png"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_previews_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With train.sample_every=0 none is drawn, not even at the end."""
    monkeypatch.setattr(Line, "preview", lambda _: pytest.fail("drawn"))
    run = RunConfig(TrainConfig(out=str(tmp_path), steps=3, sample_every=0))
    Trainer(run, Line()).fit()
    assert (tmp_path / "model.safetensors").exists()
