"""Attention: three ways that compute one thing, and the switch between them."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from conftest import SIZES, assert_one_line, relative_l2
from torch import Tensor

import sample
from ldm.attention import IMPLEMENTATIONS, Attention, attention_weights
from ldm.config import ModelConfig, from_dict
from ldm.fast import switches
from ldm.fast.switches import ATTENTION
from ldm.system import cli
from ldm.training.training_run import TrainConfig, build_method, load_run
from ldm.unet import UNet

CPU = ("sdpa", "reference")


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.fixture
def unet() -> UNet:
    torch.manual_seed(0)
    return UNet(from_dict(ModelConfig, SIZES).unet)


@pytest.mark.parametrize("way", CPU)
def test_equal_keys_share_the_attention(way: str) -> None:
    """Where all keys are one, each query gets the mean of the values."""
    q, v = normal(1, 2, 5, 8), normal(1, 2, 7, 8)
    k = normal(8).expand(1, 2, 7, 8)
    expected = v.mean(dim=2, keepdim=True).expand_as(q)
    torch.testing.assert_close(IMPLEMENTATIONS[way](q, k, v), expected)


@pytest.mark.parametrize("way", CPU)
def test_two_keys_share_it_by_a_logistic_function(way: str) -> None:
    """Of two keys the first gets sigmoid((q k_1 - q k_2) / sqrt(d)), here of 3 / 2."""
    q = torch.tensor([[[[3.0, 0, 0, 0]]]])
    k = torch.tensor([[[[1.0, 5, 5, 5], [0.0, 7, 7, 7]]]])
    v = torch.tensor([[[[1.0, 0, 0, 0], [0.0, 0, 0, 0]]]])
    first = torch.tensor(1.5).sigmoid()
    torch.testing.assert_close(IMPLEMENTATIONS[way](q, k, v)[0, 0, 0, 0], first)
    torch.testing.assert_close(attention_weights(q, k)[0, 0, 0], torch.stack([first, 1 - first]))


def test_the_network_is_the_same_with_the_reference(unet: UNet) -> None:
    """A U-Net that attends as the paper writes it gives PyTorch's output, in every layer."""
    inputs = normal(2, 4, 8, 8), torch.tensor([3, 500]), normal(2, 77, 16)
    with torch.no_grad():
        plain = unet(*inputs)
        unet.set_attention("reference")
        assert {m.implementation for m in unet.modules() if isinstance(m, Attention)} == {
            "reference"
        }
        assert relative_l2(unet(*inputs), plain) < 1e-5


def test_other_networks_keep_their_way(unet: UNet) -> None:
    """The switch is the network's own."""
    unet.set_attention("reference")
    other = UNet(from_dict(ModelConfig, SIZES).unet)
    assert {m.implementation for m in other.modules() if isinstance(m, Attention)} == {"sdpa"}


def test_an_unknown_way_is_refused(unet: UNet) -> None:
    """The message names the ways."""
    with pytest.raises(ValueError, match="unknown attention 'flash'; known: sdpa, reference, fu"):
        switches.set_attention(unet, "flash")


def test_fused_attention_is_refused_on_a_cpu(unet: UNet) -> None:
    """It is never swapped for another one in silence."""
    pytest.importorskip("triton", reason="without triton another message says so")
    with pytest.raises(ValueError, match="needs CUDA, the device is cpu; use sdpa"):
        switches.set_attention(unet, "fused")
    assert {m.implementation for m in unet.modules() if isinstance(m, Attention)} == {"sdpa"}
    with pytest.raises(ValueError, match="needs CUDA"):
        IMPLEMENTATIONS["fused"](*normal(3, 1, 2, 5, 8))


def test_without_triton_the_rest_works(unet: UNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only fused attention needs triton, and says so."""
    monkeypatch.setitem(sys.modules, "triton", None)
    for name in ("ldm.fast.fused_attention", "ldm.fast.flash_attention"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr("ldm.fast.fused_attention", raising=False)
    unet.set_attention("reference")
    with pytest.raises(ValueError, match="fused attention needs triton"):
        switches.set_attention(unet, "fused")


def test_the_config_knows_the_same_ways() -> None:
    """What train.attention may be is what there is."""
    assert {way for way in ATTENTION if from_dict(TrainConfig, {"attention": way})} == set(
        ATTENTION
    )
    with pytest.raises(ValueError, match="choose one of 'sdpa', 'reference', 'fused'"):
        from_dict(TrainConfig, {"attention": "flash"})


@pytest.mark.parametrize("config", ["unet", "scratch_unet"])
def test_training_attends_as_its_config_says(config: str, start: Path, tmp_path: Path) -> None:
    """train.attention reaches the network that is trained, from scratch or adapted."""
    overrides = [f"model.path={start}", f"data.cache={tmp_path}", "data.phantoms=40"]
    overrides += ["data.size=32", "train.attention=reference", "method.variants=1"]
    run = load_run(f"{Path(__file__).parents[1]}/configs/{config}.yaml", overrides)
    run = dataclasses.replace(run, model=dataclasses.replace(run.model, config=None))
    module = build_method(run).module
    assert {m.implementation for m in module.modules() if isinstance(m, Attention)} == {"reference"}


@pytest.mark.parametrize("way", ["flash", "fused"])
def test_unusable_attention_is_one_line(way: str, model: Path, tmp_path: Path, capsys) -> None:
    """sample.py refuses it with exit status 2 and writes nothing."""
    given = ["--model", str(model), "--prompt", "x", "--attention", way, "--device", "cpu"]
    command = [*given, "--out", str(tmp_path / "out")]
    assert cli.run(lambda: sample.main(command), "sample.py") == 2
    assert_one_line(capsys.readouterr().err, "attention")
    assert not (tmp_path / "out").exists()
