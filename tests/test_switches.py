"""Speed switches: the same pictures but for rounding, recorded, refused where they cannot be."""

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from conftest import SIZES, relative_l2

import ldm
import sample
from ldm.attention import Attention
from ldm.config import ConfigError, ModelConfig
from ldm.fast import switches, winograd
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.system.cli import load_config
from ldm.weights.export import save
from ldm.weights.loading import PARTS

PROMPT = "lung xray"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model whose channels fill the vectors of any machine."""
    try:
        winograd.build()
    except ConfigError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("wide")
    unet = {**SIZES["unet"], "channels": [64, 64]}
    vae = {**SIZES["vae"], "channels": [64], "patch": 2}
    sizes = {**SIZES, "unet": unet, "vae": vae, "guidance": 2.0}
    (folder / "sizes.yaml").write_text(yaml.safe_dump(sizes))
    config = load_config(ModelConfig, folder / "sizes.yaml")
    torch.manual_seed(0)
    parts = {name: build(config).state_dict() for name, build in PARTS.items()}
    return save(folder / "wide.safetensors", config, parts)


def convolving(pipe: LatentDiffusion) -> set[str]:
    """Which networks have layers that convolve by Winograd's algorithm."""
    return {
        name
        for name in ("unet", "vae", "text")
        for layer in getattr(pipe, name).modules()
        if isinstance(getattr(layer, "_conv_forward", None), winograd.Winograd)
    }


@pytest.mark.parametrize("in_tiles", [False, True])
def test_winograd_draws_the_same_picture(wide: Path, in_tiles: bool) -> None:
    """U-Net and VAE convolve by Winograd, in tiles too, and the picture is the same to 1e-4."""
    pipe, sampling = ldm.load(wide), Sampling(steps=3, height=32, width=32)
    wanted = pipe.draw([PROMPT], [0], sampling)
    assert convolving(pipe) == set()
    switches.choose(pipe, winograd=True, in_tiles=in_tiles)
    assert convolving(pipe) == {"unet", "vae"}
    found = pipe.draw([PROMPT], [0], sampling)
    assert not torch.equal(found, wanted)
    assert relative_l2(found, wanted) < 1e-4  # guided steps add up what 3e-6 a layer is


@pytest.mark.parametrize(("device", "dtype"), [("cpu", "bfloat16"), ("meta", "float32")])
def test_other_devices_and_dtypes_are_refused(
    tiny: LatentDiffusion, device: str, dtype: str
) -> None:
    """Winograd's convolutions are float32's on a CPU; elsewhere nothing is changed."""
    pipe = copy.deepcopy(tiny).to(device, getattr(torch, dtype))
    with pytest.raises(ConfigError, match=f"float32, not {device} and {dtype}; leave out"):
        switches.choose(pipe, "reference", winograd=True)
    assert convolving(pipe) == set()


def test_winograds_weights_must_fit(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are four times the plain ones; where memory is short, one line says so first."""
    pipe = ldm.load(wide)
    before = sum(p.nbytes for part in PARTS for p in getattr(pipe, part).parameters())
    more = sum(winograd.more_bytes(network) for network in (pipe.unet, pipe.vae))
    monkeypatch.setattr(switches, "available", lambda device: before + more - 1)
    with pytest.raises(ConfigError, match="GB are free in all; leave out --winograd"):
        switches.choose(pipe, winograd=True)
    assert convolving(pipe) == set()
    monkeypatch.setattr(switches, "available", lambda device: before + more)
    switches.choose(pipe, winograd=True)
    pipe.draw([PROMPT], [0], Sampling(steps=1, height=32, width=32))
    kept = [
        layer._conv_forward.u.nbytes
        for network in (pipe.unet, pipe.vae)
        for layer in network.modules()
        if isinstance(getattr(layer, "_conv_forward", None), winograd.Winograd)
    ]
    assert 0 < sum(kept) <= more  # the encoder has not run


def attends_plainly(pipe: LatentDiffusion) -> bool:
    layers = [m for m in pipe.unet.modules() if isinstance(m, Attention)]
    return {layer.implementation for layer in layers} == {"reference"}


@pytest.mark.parametrize(
    ("key", "option", "off", "is_on"),
    [
        ("attention", ("--attention", "reference"), ("--attention", "sdpa"), attends_plainly),
        ("winograd", ("--winograd",), ("--no-winograd",), convolving),
        ("tiled", ("--tiled",), None, lambda pipe: isinstance(pipe.vae.decoder.forward, partial)),
    ],
)
def test_a_picture_says_by_which_switch_it_was_drawn(
    key: str, option, off, is_on, request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option reaches the model and the PNG; --from draws by it again, and without it if told.

    The picture differs by a grey level at most.
    """
    pipes, choose = [], switches.choose
    monkeypatch.setattr(
        switches, "choose", lambda pipe, *ways: pipes.append(pipe) or choose(pipe, *ways)
    )
    model = request.getfixturevalue("wide" if key == "winograd" else "model")

    def draw(out: str, *arguments: object) -> Path:
        given = ("--model", model, "--out", tmp_path / out, "--device", "cpu", *arguments)
        assert sample.main([str(argument) for argument in given]) == 0
        return tmp_path / out / "00000.png"

    plain = draw("plain", "--prompt", PROMPT, "--n", 1, "--steps", 1)
    fast = draw("fast", "--from", plain, *option)
    before, after = (image_files.read_text(path) for path in (plain, fast))
    assert {name for name in before if before[name] != after[name]} == {key}
    assert draw("again", "--from", fast).read_bytes() == fast.read_bytes()
    assert len(pipes) == 2
    assert all(map(is_on, pipes))
    levels = [image_files.load(path) for path in (plain, fast)]
    torch.testing.assert_close(*levels, rtol=0, atol=2 / 255)
    if off:
        assert draw("back", "--from", fast, *off).read_bytes() == plain.read_bytes()
