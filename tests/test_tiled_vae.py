"""The autoencoder in tiles computes what it computes whole, with less alive at once."""

import copy
from collections.abc import Callable

import pytest
import torch
from pseudo import fill
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ldm import attention
from ldm.config import VAEConfig
from ldm.fast import tiled_vae
from ldm.vae import VAE

CONFIGS = {
    "as SD v1.4": VAEConfig(channels=(32, 32, 64, 64)),
    "as built in": VAEConfig(image_channels=1, channels=(16, 16), groups=4, patch=4, shortcut=True),
    "one level": VAEConfig(channels=(8,), groups=4),
}


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def pair(config: VAEConfig, dtype: torch.dtype = torch.float64) -> tuple[VAE, VAE]:
    """The same weights twice: whole, and in tiles."""
    vae = VAE(config).to(dtype).eval()
    for name, weight in vae.state_dict().items():
        weight.copy_(torch.from_numpy(fill(name, tuple(weight.shape))))
    in_tiles = copy.deepcopy(vae)
    tiled_vae.use(in_tiles)
    return vae, in_tiles


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("at_once", [1, 5000, 2**23])
def test_tiles_change_nothing(
    config: VAEConfig, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64 latents and images are those of the whole map: no seam, no other statistics."""
    monkeypatch.setattr(tiled_vae, "AT_ONCE", at_once)
    whole, in_tiles = pair(config)
    images = noise(2, config.image_channels, 88, 24)
    expected = whole.encode(images)
    found = in_tiles.encode(images)
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.logvar, expected.logvar)
    torch.testing.assert_close(in_tiles.decode(expected.mean), whole.decode(expected.mean))


def test_odd_heights_of_latents_are_tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents of 7 rows, whose last tile is a single row, decode to the same image."""
    monkeypatch.setattr(tiled_vae, "AT_ONCE", 1)
    whole, in_tiles = pair(CONFIGS["as SD v1.4"])
    z = noise(1, 4, 7, 5)
    torch.testing.assert_close(in_tiles.decode(z), whole.decode(z))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tiles_round_no_more_than_the_whole(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In short numbers tiles are as near to float64 as the whole map is."""
    monkeypatch.setattr(tiled_vae, "AT_ONCE", 500)
    small, z = VAEConfig(channels=(8, 16), groups=4), noise(1, 4, 16, 16)
    exact = pair(small)[0].decode(z)
    errors = [
        (vae.decode(z.to(dtype)) - exact).square().mean().sqrt() for vae in pair(small, dtype)
    ]
    assert 0 < errors[1] < 1.2 * errors[0]


def test_the_norm_of_tiles_has_the_mean_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of unequal height and of unlike content are normalised together, far from zero too."""
    norm = nn.GroupNorm(2, 6, eps=1e-6).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = noise(2, 6, 9, 4) + torch.linspace(-300, 900, 9)[:, None]
    tiles = list(x.split([4, 4, 1], dim=2))
    activate = tiled_vae.norm_silu(norm, tiles)
    found = torch.cat([activate(tile) for tile in tiles], dim=2)
    torch.testing.assert_close(found, nn.functional.silu(norm(x)))


class Alive(TorchDispatchMode):
    """Bytes of the tensors that operators returned and that are still there: the most of them."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[StorageWeakRef, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.storages = {ref: size for ref, size in self.storages.items() if not ref.expired()}
        for x in filter(torch.is_tensor, tree_leaves(result)):
            self.storages[StorageWeakRef(x.untyped_storage())] = x.untyped_storage().nbytes()
        self.most = max(self.most, sum(self.storages.values()))
        return result


def most(run: Callable[[Tensor], object], x: Tensor) -> int:
    with Alive() as alive:
        run(x)
    return alive.most


def test_a_third_of_the_memory_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of SD v1.4's autoencoder at 1024 px, in tensors without numbers.

    Attention would take its slow way there; its memory has a test of its own below.
    """
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", lambda q, k, v: v)
    with torch.device("meta"):
        whole, in_tiles = VAE(VAEConfig()), VAE(VAEConfig())
        z, image = torch.empty(1, 4, 128, 128), torch.empty(1, 3, 1024, 1024)
    tiled_vae.use(in_tiles)
    assert most(in_tiles.decode, z) < 0.4 * most(whole.decode, z)
    assert most(in_tiles.encode, image) < 0.5 * most(whole.encode, image)


def test_the_middle_holds_no_matrix_of_all_pairs() -> None:
    """Attention over 4,096 pixels returns no tensor of 4,096 x 4,096 numbers."""
    assert most(attention.PixelAttention(32, 32), torch.randn(1, 32, 64, 64)) < 4096**2
