"""Winograd's convolutions are convolutions: near float64, in every shape, and never stale."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import cpp_extension

from ldm import rng
from ldm.config import ConfigError, ModelConfig
from ldm.fast import winograd
from ldm.system.cli import load_config
from ldm.unet import UNet
from ldm.vae import VAE

ROOT = Path(__file__).parent.parent
ERROR = {4: 1e-5, 2: 2e-6}  # relative L2 to float64
# the other matrices of arXiv:1509.09308, section 4, which winograd.cpp writes out
B = {
    2: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
    4: [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
}
A = {
    2: [[1, 1, 1, 0], [0, 1, -1, -1]],
    4: [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
}


@pytest.fixture(scope="module")
def panel() -> int:
    try:
        return winograd.build()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_any_name_of_a_processor_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler is told the extension's name, and some processors are called "NO AVX"."""
    names: list[str] = []
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "NO AVX")
    monkeypatch.setattr(winograd.shutil, "which", lambda tool: tool)

    def load(name: str, *_: object, **__: object) -> None:
        names.append(name)
        raise OSError("enough")

    monkeypatch.setattr(cpp_extension, "load", load)
    with pytest.raises(ConfigError):
        winograd.build.__wrapped__()
    assert names == ["ldm_winograd_no_avx"]


def noise(*shape: int) -> Tensor:
    return rng.gaussian(0, [0], 0, shape)[0]


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("m", [2, 4])
def test_the_equation_is_a_convolution(m: int) -> None:
    """y = A^T [(G g G^T) * (B^T d B)] A, in float64, with the matrices of the paper."""
    d, g = noise(3, m + 2, m + 2).double(), noise(5, 3, 3, 3).double()
    a, b = (torch.tensor(x[m], dtype=torch.float64) for x in (A, B))
    u = winograd.transform(g, m).unflatten(0, (m + 2, m + 2))
    tile = torch.einsum("ijcn,cij->nij", u, b @ d @ b.mT)
    torch.testing.assert_close(a @ tile @ a.mT, F.conv2d(d[None], g)[0])


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize(
    ("shape", "outputs"),
    [
        ((1, 32, 1, 1), 32),
        ((2, 32, 7, 5), 96),
        ((1, 96, 64, 64), 32),
        ((3, 320, 9, 16), 64),
        ((1, 64, 2, 50), 32),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 1e5])
def test_it_is_near_float64(
    panel: int, m: int, shape: tuple[int, ...], outputs: int, scale: float
) -> None:
    """Odd sizes, one tile and many, large activations: results are float64's to ERROR."""
    x = noise(*shape) * scale
    weight, bias = noise(outputs, shape[1], 3, 3), noise(outputs) * scale
    found = torch.ops.ldm.winograd(x, winograd.pack(weight, m, panel), bias)
    assert found.is_contiguous(memory_format=torch.channels_last)
    wanted = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    assert error(found, wanted) < ERROR[m]


def test_threads_and_memory_format_do_not_change_a_bit(panel: int) -> None:
    """One thread and two, channels first and last: the same bits."""
    x, u = noise(2, 64, 20, 20), winograd.pack(noise(64, 64, 3, 3), 4, panel)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for given in (x, x.to(memory_format=torch.channels_last)):
            found.append(torch.ops.ldm.winograd(given, u, torch.zeros(64)))
    torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found)


def test_compilers_can_trace_it(panel: int) -> None:
    """The operator's schema and its fake, which computes shapes, pass PyTorch's checks."""
    u = winograd.pack(noise(32, 32, 3, 3), 4, panel)
    args = (noise(1, 32, 8, 8), u, torch.zeros(32))
    torch.library.opcheck(
        torch.ops.ldm.winograd.default, args, test_utils=("test_schema", "test_faketensor")
    )


# --- in networks ---


@pytest.mark.parametrize("part", ["unet", "decoder"])
def test_networks_compute_the_same(panel: int, part: str) -> None:
    """The built-in sizes with random weights: relative L2 below 1e-5, and most layers changed."""
    torch.manual_seed(0)
    config = load_config(ModelConfig, ROOT / "configs/small.yaml")
    if part == "unet":
        network: nn.Module = UNet(config.unet)
        given = (noise(2, config.unet.in_channels, 16, 16), torch.tensor([5, 900]))
        given += (noise(2, 77, config.unet.context_dim),)
    else:
        network = VAE(config.vae).decoder
        given = (noise(1, config.vae.latent_channels, 16, 16),)
    for weight in network.parameters():
        weight.copy_(weight + 0.02 * torch.randn_like(weight))  # last layers begin at 0
    wanted = network(*given)
    assert winograd.use(network) > 3
    found = network(*given)
    assert not torch.equal(found, wanted)
    assert error(found, wanted.double()) < 1e-5


def layers() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "fits": nn.Conv2d(64, 64, 3, padding=1),
            "stride": nn.Conv2d(64, 64, 3, padding=1, stride=2),
            "no padding": nn.Conv2d(64, 64, 3),
            "channels": nn.Conv2d(64, 3, 3, padding=1),
            "groups": nn.Conv2d(64, 64, 3, padding=1, groups=2),
            "dilation": nn.Conv2d(64, 64, 3, padding=2, dilation=2),
            "1 x 1": nn.Conv2d(64, 64, 1),
        }
    )


def test_only_layers_that_fit_are_changed(panel: int) -> None:
    """All others compute the same bits as before."""
    kinds, x = layers(), noise(1, 64, 8, 8).to(memory_format=torch.channels_last)
    kinds.to(memory_format=torch.channels_last)
    before = {name: layer(x) for name, layer in kinds.items()}
    assert winograd.use(kinds) == 1
    changed = [name for name, layer in kinds.items() if not torch.equal(layer(x), before[name])]
    assert changed == ["fits"]


@pytest.mark.parametrize("side", [4, 8, 12])
def test_few_tiles_are_convolved_plainly(panel: int, side: int) -> None:
    """Below FEWEST tiles of 4 x 4 the layer is PyTorch's bit for bit, and holds nothing more."""
    layer = nn.Conv2d(panel, panel, 3, padding=1)
    x = noise(1, panel, side, side)
    winograd.use(layer)
    plain = F.conv2d(x, layer.weight, layer.bias, padding=1)
    few = (side // 4) ** 2 < winograd.FEWEST
    assert torch.equal(layer(x), plain) == few
    assert (layer._conv_forward.u.numel() == 0) == few


def test_gradients_are_those_of_the_plain_layer(panel: int) -> None:
    """With gradients the layer is the plain one."""
    layer, x = layers()["fits"].to(memory_format=torch.channels_last), noise(1, 64, 8, 8)
    with torch.enable_grad():
        wanted = layer(x)
        winograd.use(layer)
        assert torch.equal(layer(x), wanted)
        layer(x).sum().backward()
    assert layer.weight.grad is not None


def test_changed_weights_are_seen(panel: int) -> None:
    """A layer whose weights change after its first use, in place or as a whole, uses the new."""
    layer, x = layers()["fits"], noise(1, 64, 8, 8)
    winograd.use(layer)
    for change in (
        lambda: layer.weight.mul_(2),
        lambda: setattr(layer, "weight", nn.Parameter(-layer.weight)),
    ):
        layer(x)
        change()
        assert error(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1).double()) < 1e-5


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without c++ and ninja one line names both."""
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"no c\+\+ and no ninja here: install it"):
        winograd.build.__wrapped__()
