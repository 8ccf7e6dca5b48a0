"""python -m benchmarks: what a row says, and when there is none."""

import json
import runpy
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SIZES, assert_one_line
from torch import Tensor, nn

import ldm
from benchmarks import conv, fid, measure, sample, startup, train_step
from benchmarks.__main__ import main
from benchmarks.measure import Row, Setting, contest
from ldm.config import ConfigError, ModelConfig, from_dict
from ldm.fast import winograd
from ldm.system import cli
from ldm.vae import VAE
from ldm.weights import tensor_names
from ldm.weights.export import export
from ldm.weights.loading import build

KEYS = ["name", "ours_s", "other_s", "ratio", "sgemm_gflops"]
VAE_ONLY = {"vae": {"image_channels": 1, "channels": [32], "res_blocks": 1, "groups": 4}}
TINY = from_dict(ModelConfig, {**SIZES, **VAE_ONLY})


@pytest.fixture
def compiled() -> int:
    try:
        return winograd.build()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture
def without_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)


class Fake(nn.Module):
    """Diffusers' autoencoder: tensors under its names, the result ours times `factor`."""

    factor = 1.0

    @classmethod
    def from_config(cls, settings: dict[str, Any]) -> "Fake":
        assert tuple(settings["block_out_channels"]) == TINY.vae.channels
        return cls()

    def state_dict(self) -> dict[str, Tensor]:
        """Only names and shapes; theirs has linear layers where ours has 1 x 1 convolutions."""
        with torch.device("meta"):
            state = VAE(TINY.vae).state_dict()
        linear = (".attn.0.q.weight", ".attn.0.k.weight", ".attn.0.v.weight", ".attn.0.out.weight")
        return {
            theirs.removeprefix("vae/"): x[:, :, 0, 0] if name.endswith(linear) else x
            for name, x in state.items()
            for theirs in tensor_names.names(TINY, "diffusers")[f"vae.{name}"]
        }

    def load_state_dict(self, state: dict[str, Tensor], assign: bool) -> None:
        assert assign
        assert {name: x.shape for name, x in state.items()} == {
            name: x.shape for name, x in self.state_dict().items()
        }
        self.state = state

    def decode(self, z: Tensor, return_dict: bool) -> tuple[Tensor]:
        assert not return_dict
        names = tensor_names.names(TINY, "diffusers")
        ours = {
            name: self.state[names[f"vae.{name}"][0].removeprefix("vae/")].reshape(x.shape)
            for name, x in VAE(TINY.vae).state_dict().items()
        }
        return (self.factor * build("vae", TINY, ours).decode(z),)


@pytest.fixture
def diffusers(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    module = types.ModuleType("diffusers")
    module.AutoencoderKL = type("AutoencoderKL", (Fake,), {})
    monkeypatch.setitem(sys.modules, "diffusers", module)
    return module.AutoencoderKL


@pytest.fixture
def rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    """The JSON rows of `python -m benchmarks NAME`, which succeeds, for a tiny autoencoder."""

    def run(*names: str) -> list[dict[str, Any]]:
        (tmp_path / "tiny.yaml").write_text(json.dumps(SIZES | VAE_ONLY))
        given = [*names, "--rounds", "2", "--json", "--config", str(tmp_path / "tiny.yaml")]
        assert cli.run(lambda: main(given), "benchmarks") == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


# --- rows ---


def test_a_row_is_medians_and_ours_over_the_other() -> None:
    """The keys that others rely on come first; ratio = ours / other, of medians."""
    found = Row("x", [9.0, 4.0, 3.0], [8.0, 16.0, 1.0], [50.0, 60.0, 40.0], gflop=100).record()
    assert list(found)[:5] == KEYS
    assert [found[key] for key in KEYS] == ["x", 4.0, 8.0, 0.5, 50.0]
    assert found["ratio_range"] == [0.25, 3.0]
    assert found["ours_range"] == [3.0, 9.0]
    assert found["share_of_sgemm"] == 100 / 4 / 50
    assert found["rounds"] == 3


def test_ways_take_turns() -> None:
    """A B A B: a machine that slows down slows both."""
    order: list[str] = []
    ours, other = (lambda name=name: order.append(name) or 1.0 for name in "AB")
    contest({"x": (ours, "")}, other, rounds=3)
    assert order == ["B", "A", *"ABABAB"]  # first, unmeasured, the outputs


@pytest.mark.parametrize("wrong", [1.001, float("nan")])
def test_outputs_that_differ_are_not_timed(wrong: float) -> None:
    """Whoever computes something else is faster for nothing: an error, and no second run."""
    calls: list[str] = []

    def run(value: float) -> Tensor:
        calls.append("run")
        return torch.full((3,), value)

    ways = {"good": (lambda: run(1.00001), ""), "bad": (lambda: run(wrong), "")}
    with pytest.raises(ValueError, match="bad is not timed: its output differs"):
        contest(ways, lambda: run(1.0), rounds=5)
    assert len(calls) == 3


# --- against diffusers ---


def test_without_diffusers_the_row_says_so(compiled, without_diffusers, rows) -> None:
    """Ours is timed all the same; there is no ratio, and the exit status is 0."""
    found = rows("vae_512")
    assert [row["name"] for row in found] == ["vae_512", "vae_512_plain"]
    for row, switches in zip(found, ("Winograd", "no switch"), strict=True):
        assert list(row)[:5] == KEYS
        assert row["ours_s"] > 0
        assert row["sgemm_gflops"] > 0
        assert row["other_s"] is row["ratio"] is row["difference"] is None
        assert switches in row["note"]
        assert "diffusers is not installed" in row["note"]


@pytest.mark.slow
def test_compiling_says_what_the_first_call_takes(
    rows: Callable[..., list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row for each way, beside the network as it is; the second process finds results."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    found = rows("compile")
    assert [row["name"] for row in found] == ["compile_whole", "compile_regions"]
    for row in found:
        assert row["ratio"] == row["ours_s"] / row["other_s"]
        assert 0 < row["difference"] < 1e-5
        assert row["first_call_s_cold"] > row["first_call_s_warm"] > row["ours_s"]


def test_the_twin_has_our_tensors(diffusers: type[Fake]) -> None:
    """Diffusers' network is given the memory of ours, tensor by tensor, and not a copy."""
    ours = measure.random_part("vae", TINY)
    state = measure.twin("vae", TINY, ours).state
    places = sorted(tensor.data_ptr() for tensor in ours.state_dict().values())
    assert sorted(tensor.data_ptr() for tensor in state.values()) == places


def test_equal_outputs_are_compared(compiled, diffusers: type[Fake], rows) -> None:
    """With diffusers both rows have a ratio and the difference, that of Winograd's not zero."""
    fast, plain = rows("vae_512")
    for row in (fast, plain):
        assert row["ratio"] == row["ours_s"] / row["other_s"]
        assert "not installed" not in row["note"]
    assert 0 < fast["difference"] < 1e-4
    assert plain["difference"] == 0


def test_another_result_is_one_line(
    compiled, diffusers: type[Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A twin that is off by a thousandth: exit status 2, no row."""
    diffusers.factor = 1.001
    (tmp_path / "tiny.yaml").write_text(json.dumps(SIZES | VAE_ONLY))
    given = ["vae_512", "--json", "--config", str(tmp_path / "tiny.yaml")]
    assert cli.run(lambda: main(given), "benchmarks") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert_one_line(err, "vae_512 is not timed", "differs")


def test_an_unknown_name_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, before anything is measured."""
    with pytest.raises(SystemExit, match="2"):
        main(["unet_b2_64", "unet_b2_16"])
    assert_one_line(capsys.readouterr().err, "unknown benchmark 'unet_b2_16'")


# --- single benchmarks ---


def test_operations_are_counted() -> None:
    """Of a 3 x 3 convolution: two for each weight and output pixel."""
    x = torch.empty(2, TINY.unet.in_channels, 8, 8)
    found = measure.gflop("unet", TINY, lambda network, x: network.conv_in(x), x)
    assert found == pytest.approx(2 * 2 * 9 * 64 * TINY.unet.in_channels * 16 / 1e9)


def test_a_training_step_gives_the_first_gradient_and_keeps_none() -> None:
    """Of the mean square of the output; what was not asked for is let go."""
    unet = measure.random_part("unet", TINY)
    given = train_step.inputs(TINY, 1, 8)
    loss = unet(*given).square().mean()
    (wanted,) = torch.autograd.grad(loss, [unet.conv_in.weight])
    torch.testing.assert_close(train_step.step(unet, *given), wanted)
    assert all(parameter.grad is None for parameter in unet.parameters())


def test_a_step_that_lets_gradients_go_computes_the_same() -> None:
    """Of the gradients of a backward pass the first convolution's alone is kept, with its bits."""
    plain, freed = (measure.random_part("unet", TINY) for _ in range(2))
    given = train_step.inputs(TINY, 1, 8)
    train_step.let_go(freed)
    freed(*given).square().mean().backward()
    assert [n for n, p in freed.named_parameters() if p.grad is not None] == ["conv_in.weight"]
    assert torch.equal(freed.conv_in.weight.grad, train_step.step(plain, *given))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="wants Linux's /proc")
def test_memory_is_measured_in_another_process(without_diffusers) -> None:
    """A process of its own says how much it held at most; without diffusers theirs is unknown."""
    mine = train_step.peak(TINY, 8, "ours", checkpointing=True)
    assert mine is not None
    assert 0.05 < mine < 5  # PyTorch alone is a fifth of a GB
    assert train_step.peak(TINY, 8, "ours", checkpointing=True, in_backward=True) is not None
    how = {"config": SIZES | VAE_ONLY, "side": 8, "whose": "other", "checkpointing": False}
    assert train_step.main(json.dumps(how)) is None


def test_the_rest_of_their_steps_is_extrapolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """51 steps, of which 5 are taken: 3 s for the first, 2 s for each other, then 7 s."""
    now, taken = [0.0], []
    monkeypatch.setattr(sample.time, "perf_counter", lambda: now[0])

    class Pipe:
        scheduler = types.SimpleNamespace(timesteps=range(51))
        _interrupt = False

        def __call__(self, callback_on_step_end: Callable[..., object], **settings: object) -> None:
            for i in self.scheduler.timesteps:
                if not self._interrupt:
                    taken.append(i)
                    now[0] += 2 if i else 3
                    callback_on_step_end(self, i, 0, {})
            now[0] += 7

    context = torch.zeros(1, 77, 16)
    assert sample.extrapolated(Pipe(), context, context, sample.Sampling()) == 3 + 50 * 2 + 7
    assert taken == [0, 1, 2, 3, 4]


def test_a_picture_is_drawn_without_text(compiled, without_diffusers) -> None:
    """The row of a whole image: ours runs, with as many operations as 20 steps and a decoder."""
    (row,) = sample.rows("sample", Setting(TINY, rounds=1))
    assert row.ours[0] > 0
    assert "not installed" in row.note
    x, t, context = sample.unet.inputs(TINY, 2, TINY.image_size // TINY.vae.factor)
    step = measure.gflop("unet", TINY, lambda network, *given: network(*given), x, t, context)
    assert row.gflop == pytest.approx(20 * step + measure.gflop("vae", TINY, VAE.decode, x[:1]))


def test_convolutions_are_those_of_stable_diffusion(compiled: int) -> None:
    """Every layer of U-Net and decoder that fits is counted once, at the size it has at 512 px."""
    found = conv.shapes(ModelConfig(), compiled)
    with torch.device("meta"):
        unet, vae = (measure.PARTS[part](ModelConfig()) for part in ("unet", "vae"))
    layers = [*unet.modules(), *vae.decoder.modules()]
    fitting = [m for m in layers if isinstance(m, nn.Conv2d) and winograd.fits(m, compiled)]
    assert sum(found.values()) == len(fitting)
    assert (2, 320, 320, 64, 64) in found
    assert (1, 128, 128, 512, 512) in found


def test_convolutions_are_near_float64(compiled: int) -> None:
    """A row for each tile and shape, with the errors of both; F(2x2)'s is the smaller."""
    found = list(conv.rows("conv", Setting(TINY, rounds=1)))
    assert len(found) == 2 * len(conv.shapes(TINY, compiled)) > 0
    for four, two in zip(found[::2], found[1::2], strict=True):
        assert two.more["error"] < four.more["error"] < 1e-5
        assert four.more["error_other"] == two.more["error_other"] < 1e-6
        assert four.more["gflops"] == four.gflop / four.ours[0]


def test_a_frechet_distance_is_the_same_without_a_root() -> None:
    """From features to the distance, both ways; n > width, as for 10,000 images."""
    row, from_moments = fid.rows("fid", Setting(rounds=1), n=60, width=8)
    assert from_moments.name == "fid_moments"
    assert row.difference < 1e-6
    assert len(row.ours) == len(row.other) == 1


@pytest.mark.slow
def test_a_small_model_starts(tmp_path: Path) -> None:
    """The program of a cold start opens the folder and says what this process computes."""
    config = from_dict(ModelConfig, startup.SMALL)
    parts = {part: measure.random_part(part, config).state_dict() for part in measure.PARTS}
    export("diffusers", tmp_path / "model", config, parts)
    pipe = ldm.load(tmp_path / "model")
    with torch.inference_mode():
        text = pipe.text(torch.arange(77)[None])
        latent = pipe.unet(torch.ones(1, 4, 32, 32), torch.tensor([500]), text)
        wanted = float(pipe.vae.decode(latent).norm())
    found = startup.run(startup.OURS, tmp_path / "model")
    assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("captions", ["nothing.csv", "val"]),
        ("reconstruction", ["--model", "nothing"]),
        ("built_in", ["nothing.csv"]),
        ("adaptation", ["--judge", "nothing"]),
        ("projection", ["nothing", "--data", "nothing.csv"]),
        ("guidance", ["nothing.csv"]),
        ("steps", ["--model", "nothing"]),
        ("edits", ["--model", "nothing"]),
    ],
)
def test_a_script_that_cannot_go_on_says_why_in_one_line(
    name: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Exit status 2 and one line, no traceback, for a file that is not there."""
    script = Path(__file__).parent.parent / "benchmarks" / f"{name}.py"
    monkeypatch.syspath_prepend(str(script.parent))  # as Python does for a script
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").symlink_to(script.parent.parent / "weights")
    monkeypatch.setattr(sys, "argv", [script.name, *arguments])
    with torch.enable_grad(), pytest.raises(SystemExit) as stopped:  # some turn gradients off
        runpy.run_path(str(script), run_name="__main__")
    assert stopped.value.code == 2
    assert_one_line(capsys.readouterr().err, "nothing")
