"""The autoencoder's shortcut: a cosine transform to begin with, and no part of SD v1.4."""

import dataclasses
import math

import pytest
import torch
from torch.distributions import Normal

from ldm.config import ModelConfig, VAEConfig
from ldm.vae import VAE, Posterior, cosine_waves
from ldm.weights.export import export
from ldm.weights.loading import load_parts

SMALL = VAEConfig(
    image_channels=1, latent_channels=8, channels=(16, 16), groups=4, patch=4, shortcut=True
)


def test_a_sample_of_the_posterior_has_its_std() -> None:
    """std = exp(logvar / 2), the root of the variance: 1 + 3 * 2 for a variance of 9."""
    one = torch.ones(1, 1, 1, 1)
    found = Posterior(one, one * math.log(9)).sample(2 * one).item()
    assert found == pytest.approx(7), "mean + exp(logvar / 2) noise"


def test_the_kl_is_the_integral_of_its_definition() -> None:
    """KL(q || N(0, 1)) = integral of q log(q / p), in nats, summed over the latent numbers."""
    mean, logvar = torch.tensor([0.7, -1.2]), torch.tensor([math.log(0.3), math.log(2.0)])
    x = torch.linspace(-12, 12, 20_001, dtype=torch.float64)[:, None]
    q, p = Normal(mean.double(), (logvar / 2).exp().double()), Normal(0.0, 1.0)
    log_ratio = q.log_prob(x) - p.log_prob(x)
    expected = torch.trapezoid(q.log_prob(x).exp() * log_ratio, x, dim=0).sum().item()
    found = Posterior(*(y.reshape(1, 1, 1, 2) for y in (mean, logvar))).kl()
    assert found.tolist() == [pytest.approx(expected, rel=1e-4)], "KL, summed over the latent"


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
