"""Editing: strength, inversion and inpainting are what their papers say, in any batch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import ldm
from ldm import rng
from ldm.data import phantom
from ldm.data.image_sets import UNSEEN
from ldm.drawing import compositing, image_editing, latent_editing
from ldm.drawing.latent_editing import PictureBatch
from ldm.guidance import Denoise
from ldm.metrics.image_quality import psnr
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.samplers import DDIM, sample
from ldm.schedule import NoiseSchedule

ROOT = Path(__file__).parent.parent
SAMPLING = Sampling(seed=3, steps=5, sampler="dpm++", guidance=2.0, height=32, width=32)
PROMPT, OTHER = "lung xray with pleural effusion", "no findings"


def picture(
    height: int, width: int, channels: int = 1, bits: int = 8, seed: int = 0
) -> compositing.Levels:
    """Smooth, as images are, and nowhere black."""
    noise = rng.gaussian(seed, [0], 0, (channels, height // 8 + 1, width // 8 + 1))
    return image_files.to_integers(image_files.resize(noise[0] / 3, height, width), bits)


@pytest.fixture
def z(tiny: LatentDiffusion) -> Tensor:
    return image_editing.encode(tiny, picture(32, 32))


@pytest.fixture
def denoise(tiny: LatentDiffusion) -> Denoise:
    return image_editing.denoiser(tiny, [PROMPT], SAMPLING)


# --- image to image ---


@pytest.mark.parametrize("sampler", ["ddpm", "dpm++"])
def test_strength_1_is_plain_drawing(tiny: LatentDiffusion, z: Tensor, sampler: str) -> None:
    """Nothing of the image is left, bit for bit."""
    sampling = replace(SAMPLING, sampler=sampler)
    context, negative = tiny.encode_each([PROMPT]), tiny.encode_each([""])
    plain = tiny.sample_latents(context, negative, [4], sampling)
    denoise = image_editing.denoiser(tiny, [PROMPT], sampling)
    batch = PictureBatch(tiny, [PROMPT], [4], sampling)
    assert torch.equal(latent_editing.image_to_image(batch, z, denoise, 1.0), plain)


def test_strength_near_0_is_the_autoencoders_own_reconstruction(tiny: LatentDiffusion) -> None:
    """Where no step is left, the picture is what encoding and decoding make of it."""
    given = picture(32, 32, 3)
    mean = tiny.vae.encode(image_files.from_integers(given)[None]).mean
    expected = image_files.to_integers(tiny.vae.decode(mean)[0].detach())
    batch = PictureBatch(tiny, [PROMPT], [0], SAMPLING)
    (found,) = image_editing.image_to_image(batch, given, 0.05)
    assert np.abs(found.astype(int) - expected).max() <= 1  # scaled and back: 0.18215 rounds


def test_strength_is_the_share_of_the_timesteps_that_is_left(
    tiny: LatentDiffusion, z: Tensor, denoise: Denoise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.6 of 5 steps begins at the third timestep, from z noised to just that level."""
    begun, sample_from = [], tiny.sample_from
    monkeypatch.setattr(
        tiny, "sample_from", lambda x, *rest, **k: begun.append(x) or sample_from(x, *rest, **k)
    )
    seen: list[int] = []
    batch = PictureBatch(tiny, [PROMPT], [2], SAMPLING, lambda step: seen.append(step.t))
    latent_editing.image_to_image(batch, z, denoise, 0.6)
    timesteps = tiny.timesteps(5)
    assert seen == timesteps[2:].tolist()
    noise = rng.gaussian(3, [2], -1, z.shape[1:])
    assert torch.equal(begun[0], tiny.schedule.add_noise(z, noise, timesteps[2:3]))


def test_a_step_has_the_noise_of_plain_drawing_wherever_the_way_begins(
    tiny: LatentDiffusion, z: Tensor, denoise: Denoise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise is keyed by the number of the step on the whole way."""
    asked: list[int] = []
    noise = rng.gaussian
    monkeypatch.setattr(
        rng, "gaussian", lambda s, i, step, shape: asked.append(step) or noise(s, i, step, shape)
    )
    batch = PictureBatch(tiny, [PROMPT], [2], replace(SAMPLING, sampler="ddpm"))
    latent_editing.image_to_image(batch, z, denoise, 0.6)
    assert asked == [-1, 2, 3, 4]


# --- inversion ---


@pytest.mark.parametrize("final", ["first", "one"])
def test_inversion_is_exact_for_a_linear_denoiser(final: str) -> None:
    """With eps = A x + b, enough rounds find the x_T that leads back to x, to 1e-9.

    One round does not: its eps is that of another point.
    """
    schedule = NoiseSchedule(final_alpha_bar=final)
    g = torch.Generator().manual_seed(0)
    x, b = (torch.randn(2, 6, generator=g, dtype=torch.float64) for _ in range(2))
    A = torch.randn(6, 6, generator=g, dtype=torch.float64) * 0.1

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        return x_t @ A + b

    timesteps = schedule.timesteps(20, "trailing")

    def error(rounds: int) -> float:
        top = latent_editing.ascend(schedule, x, denoise, timesteps, rounds)
        *_, last = sample(DDIM(schedule), denoise, top, timesteps)
        return float((last.x - x).abs().max())

    assert error(60) < 1e-9
    assert error(1) > 1e-3


def test_one_round_is_enough_where_the_noise_is_the_same_everywhere() -> None:
    """With a constant eps the first guess is the solution."""
    schedule = NoiseSchedule(final_alpha_bar="one")
    x, eps = (rng.gaussian(0, [i], 0, (4,)).double() for i in (0, 1))
    timesteps = schedule.timesteps(10, "trailing")
    top = latent_editing.ascend(schedule, x, lambda x_t, t: eps, timesteps, 1)
    torch.testing.assert_close(top, schedule.add_noise(x, eps, timesteps[:1]))


# --- inpainting of latents ---


@pytest.mark.parametrize("resample", [1, 3])
def test_known_latents_stay_and_the_others_are_drawn(
    tiny: LatentDiffusion, z: Tensor, denoise: Denoise, resample: int
) -> None:
    """Where the mask is 0 the latents come back bit for bit."""
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:10, 2:15] = 1
    batch = PictureBatch(tiny, [PROMPT], [0], SAMPLING)
    found = latent_editing.inpaint(batch, z, mask, denoise, resample)
    kept = (mask == 0).expand_as(z)
    assert torch.equal(found[kept], z[kept])
    assert (found[~kept] != z[~kept]).all()


def test_known_latents_are_noised_to_the_level_where_a_step_ends(
    tiny: LatentDiffusion, z: Tensor, denoise: Denoise
) -> None:
    """RePaint, eq. 8a: what the network sees of them is z at this t, not clean, not a level off."""
    noise, seen = rng.gaussian(3, [0], -1, z.shape[1:]), []

    def watched(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append(torch.allclose(x_t, tiny.schedule.add_noise(z, noise, t), atol=1e-5))
        return denoise(x_t, t)

    batch = PictureBatch(tiny, [PROMPT], [0], SAMPLING)
    latent_editing.inpaint(batch, z, torch.zeros(1, 1, 16, 16), watched)
    assert seen[1:] == [True] * 4, "known latents are noised to t_prev, the next step's t"


def test_inpainting_everything_is_plain_drawing(
    tiny: LatentDiffusion, z: Tensor, denoise: Denoise
) -> None:
    """With a mask of ones nothing is known, and the hook changes nothing."""
    plain = tiny.sample_latents(tiny.encode_each([PROMPT]), tiny.encode_each([""]), [1], SAMPLING)
    ones = torch.ones(1, 1, 16, 16)
    batch = PictureBatch(tiny, [PROMPT], [1], SAMPLING)
    torch.testing.assert_close(latent_editing.inpaint(batch, z, ones, denoise), plain)


def test_resampling_takes_every_step_but_the_last_that_often(
    tiny: LatentDiffusion, z: Tensor, denoise: Denoise
) -> None:
    """U = 3: three evaluations a step and one at the end (algorithm 1: `u < U and t > 1`)."""
    seen: list[int] = []
    mask = torch.ones(1, 1, 16, 16)

    def count(x: Tensor, t: Tensor) -> Tensor:
        seen.append(int(t))
        return denoise(x, t)

    batch = PictureBatch(tiny, [PROMPT], [0], replace(SAMPLING, sampler="ddpm"))
    latent_editing.inpaint(batch, z, mask, count, 3)
    times = tiny.timesteps(5).tolist()
    assert seen == [t for t in times[:-1] for _ in range(3)] + times[-1:]


def test_noising_further_is_noising_at_once() -> None:
    """From x at t_prev with its own noise: signal sqrt(ab_t), variances that add up to 1 - ab_t."""
    schedule, one, zero = NoiseSchedule(), torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    t, t_prev = torch.tensor([601]), torch.tensor([401])
    x0 = schedule.add_noise(one, zero, t_prev)
    eps = schedule.add_noise(zero, one, t_prev)
    signal = latent_editing.noise_further(schedule, x0, zero, t, t_prev)
    old = latent_editing.noise_further(schedule, eps, zero, t, t_prev)
    new = latent_editing.noise_further(schedule, zero, one, t, t_prev)
    torch.testing.assert_close(signal, schedule.add_noise(one, zero, t))
    torch.testing.assert_close((old**2 + new**2).sqrt(), schedule.add_noise(zero, one, t))


def test_with_the_same_words_the_picture_comes_back_with_others_it_does_not() -> None:
    """The built-in model in 12 steps: 30 dB and more to what the autoencoder makes of a phantom.

    The words alone make the difference: there is no noise in it.
    """
    pipe = ldm.load(ROOT / "weights")
    drawn = phantom.render(phantom.sample_phantoms([UNSEEN], ["pleural effusion"]))
    given, few = image_files.to_integers(drawn.images[0]), Sampling(0, 12, "ddim", 1.0)
    words = "phantom lung xray with pleural effusion"
    batch = PictureBatch(pipe, [words, "phantom lung xray, no findings"], range(2), few)
    own, _ = image_editing.image_to_image(batch, given, 0.01)
    same, other = image_editing.counterfactual(batch, given, [words] * 2)
    assert psnr(same[..., 0], own[..., 0], span=255) > 30
    assert psnr(other[..., 0], own[..., 0], span=255) < 25
    changed = np.abs(other.astype(int) - own)[..., 0]
    mask = drawn.masks["pleural effusion"][0].numpy()
    assert changed[mask].mean() > 2 * changed[~mask].mean()
