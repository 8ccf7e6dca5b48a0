"""Small maps by products of matrices: the same convolution, the same gradients, nowhere else."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import SIZES, adaptation, relative_l2
from safetensors.torch import load_file
from torch import Tensor, nn

from ldm.config import ConfigError, ModelConfig, from_dict
from ldm.fast import unfolded_convolution
from ldm.training.methods.model_parts import UNetTraining, activation_bytes
from ldm.training.trainer import Trainer
from ldm.training.training_run import build_method, load_run
from ldm.unet import UNet


def passes(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """What comes out, and the gradients of what goes in and of what is learned."""
    layer.zero_grad()
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (2, 1, 1)])
def test_it_is_a_convolution(shape: tuple[int, int, int], bias: bool, stride: int) -> None:
    """Output and gradients are those of PyTorch's, in float64 to 1e-12: odd sides, one pixel."""
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 4, 3, stride, padding=1, bias=bias).double()
    x = torch.randn(shape[0], 6, *shape[1:], dtype=torch.float64)
    expected = passes(layer, x)
    assert unfolded_convolution.use(layer) == 1
    for found, wanted in zip(passes(layer, x), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("side", "small"), [(8, True), (9, False)])
def test_large_maps_are_left_alone(side: int, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above MOST pixels the layer is PyTorch's own."""
    layer = nn.Conv2d(4, 4, 3, padding=1)
    unfolded_convolution.use(layer)
    calls: list[object] = []
    monkeypatch.setattr(torch, "addmm", lambda *a, f=torch.addmm: calls.append(a) or f(*a))
    layer(torch.zeros(1, 4, side, side))
    assert bool(calls) == small


def test_weights_that_were_channels_last_are_not_copied() -> None:
    """Of channels-last weights, as in training, no copy is kept for the backward pass."""
    layer = nn.Conv2d(16, 8, 3, padding=1).to(memory_format=torch.channels_last)
    unfolded_convolution.use(layer)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(torch.zeros(1, 16, 5, 5, requires_grad=True))
    weights = [t for t in kept if t.numel() == layer.weight.numel()]
    assert [t.data_ptr() for t in weights] == [layer.weight.data_ptr()]


def test_only_what_fits_is_changed() -> None:
    """1 x 1, grouped, dilated and unpadded convolutions stay as they are."""
    others = [
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2),
    ]
    assert unfolded_convolution.use(nn.ModuleList(others)) == 0
    assert not any("_conv_forward" in layer.__dict__ for layer in others)


@pytest.mark.parametrize("half", [False, True])
def test_a_network_learns_the_same(half: bool) -> None:
    """The gradients of a whole U-Net agree to 1e-5; by autocast to what bfloat16 can hold."""
    torch.manual_seed(0)
    unet = UNet(from_dict(ModelConfig, SIZES).unet)
    x, t, context = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, 77, 16)

    def gradients() -> Tensor:
        unet.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            unet(x, t, context).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in unet.parameters()])

    expected = gradients()
    assert unfolded_convolution.use(unet) > 5
    found = gradients()
    assert not torch.equal(found, expected)
    assert relative_l2(found, expected) < (3e-2 if half else 1e-5)


def test_other_devices_are_refused() -> None:
    """A module that is not on a CPU is refused."""
    with pytest.raises(ConfigError, match="on a CPU only, not meta; leave it off"):
        unfolded_convolution.use(nn.Conv2d(4, 4, 3, padding=1, device="meta"))


@pytest.mark.parametrize("method", ["finetune", "textual_inversion", "unet"])
def test_the_estimate_of_memory_knows(
    method: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimate of memory counts columns instead of maps for the backward pass."""
    sizes: list[int] = []
    monkeypatch.setattr(
        UNetTraining,
        "check_memory",
        lambda self, _: sizes.append(activation_bytes(self.pipe, 1, 32)),
    )
    for unfold in (False, True):
        config = adaptation(tmp_path / str(unfold), start, method, {}, unfold=unfold)
        run = load_run(config)
        build_method(replace(run, method={}) if method == "unet" else run)
    assert sizes[0] != sizes[1]


def test_a_run_may_go_on_unfolded(start: Path, tmp_path: Path) -> None:
    """train.unfold changes rounding alone: a run continues with it, to the same weights to 1e-4."""
    learned = []
    for last in (False, True):
        for steps, unfold in ((2, False), (3, last)):
            train = {"steps": steps, "unfold": unfold, "sample_every": 0}
            run = load_run(adaptation(tmp_path / str(last), start, "finetune", {}, **train))
            path = Trainer(run, build_method(run)).fit()
        learned.append(load_file(path))
    for name, tensor in learned[0].items():
        torch.testing.assert_close(learned[1][name], tensor, rtol=1e-4, atol=1e-5)
