"""The autoencoder's shortcut: a cosine transform to begin with, and no part of SD v1.4."""

import dataclasses
import math

import pytest
import torch

from ldm.config import ModelConfig, VAEConfig
from ldm.vae import VAE, cosine_waves
from ldm.weights.export import export
from ldm.weights.loading import load_parts

SMALL = VAEConfig(
    image_channels=1, latent_channels=8, channels=(16, 16), groups=4, patch=4, shortcut=True
)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_cosine_waves_are_an_orthonormal_basis(size: int) -> None:
    """The inner products of all size^2 waves are 1 with themselves, 0 with each other."""
    frequencies, waves = cosine_waves(size)
    products = torch.einsum("a y x, b y x -> a b", waves, waves)
    torch.testing.assert_close(products, torch.eye(size**2))
    assert (frequencies.diff() >= 0).all()


def test_a_fresh_shortcut_keeps_low_frequencies_exactly() -> None:
    """Before any training, what 8 waves in each 8 x 8 block can hold survives the autoencoder, and
    the 9th wave is lost: the networks begin at zero.
    """
    vae = VAE(SMALL).eval()
    waves = cosine_waves(8)[1]
    weights = torch.randn(9, 4, 5, generator=torch.Generator().manual_seed(0))

    def image(count: int) -> torch.Tensor:
        blocks = torch.einsum("k h w, k y x -> h y w x", weights[:count], waves[:count])
        return blocks.reshape(1, 1, 32, 40)

    with torch.no_grad():
        posterior = vae.encode(image(8))
        torch.testing.assert_close(vae.decode(posterior.mean), image(8))
        torch.testing.assert_close(vae.decode(vae.encode(image(9)).mean), image(8))
    assert (posterior.logvar == -6).all()


def test_a_fresh_shortcut_of_colour_keeps_grey() -> None:
    """Three equal channels go through one luminance and come back equal."""
    vae = VAE(dataclasses.replace(SMALL, image_channels=3)).eval()
    grey = torch.full((1, 3, 16, 16), 0.3)
    with torch.no_grad():
        posterior = vae.encode(grey)
        torch.testing.assert_close(vae.decode(posterior.mean), grey)
    # 64 pixels of 3 channels along a wave of norm 1
    torch.testing.assert_close(posterior.mean[0, 0], torch.full((2, 2), 0.3 * math.sqrt(192)))


def test_the_networks_beside_the_shortcut_learn() -> None:
    """Gradients reach the shortcut, and the last layers that begin at zero."""
    vae = VAE(SMALL)
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    (vae.decode(vae.encode(x).mean) - x).square().mean().backward()
    for module in (vae.shortcut.encode, vae.shortcut.decode, vae.quant, vae.decoder.conv_out):
        assert module.weight.grad.abs().max() > 0


def test_a_shortcut_survives_our_own_layout_and_has_no_place_in_diffusers(
    tmp_path, tiny_ckpt, tiny_config: ModelConfig
) -> None:
    """Our file keeps it bit for bit; a diffusers folder is refused, because it would be lost."""
    config = dataclasses.replace(
        tiny_config, vae=dataclasses.replace(tiny_config.vae, shortcut=True)
    )
    state = VAE(config.vae).state_dict()
    (path,) = export("ours", tmp_path / "x.safetensors", config, {"vae": state})
    found, parts = load_parts(path)
    assert found == config
    assert all(torch.equal(parts["vae"][name], tensor) for name, tensor in state.items())
    parts = load_parts(tiny_ckpt, tiny_config)[1] | {"vae": state}
    with pytest.raises(ValueError, match="a shortcut; keep our layout"):
        export("diffusers", tmp_path / "folder", config, parts)
