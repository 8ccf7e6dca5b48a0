"""NoiseSchedule against the reference's tables, closed forms and its own inverses."""

from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch

from ldm.config import ScheduleConfig
from ldm.samplers import SAMPLERS as SAMPLER_CLASSES
from ldm.samplers import sample
from ldm.schedule import NoiseSchedule, scaled

GOLDENS = Path(__file__).parent / "goldens"
TABLES = np.load(GOLDENS / "schedule.npz")
LEVELS = torch.tensor([0, 1, 250, 999])


def tensors(count: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(len(LEVELS), 4, 8, 8, generator=g, dtype=dtype) for _ in range(count)]


def test_the_square_root_of_beta_is_linear():
    """SD's "scaled linear": sqrt(beta) rises in equal steps from sqrt(0.00085) to sqrt(0.012)."""
    root = NoiseSchedule().beta.sqrt()
    np.testing.assert_allclose(root, np.linspace(sqrt(0.00085), sqrt(0.012), 1000), rtol=1e-6)


def test_alpha_bar_is_the_product_so_far():
    """alpha_bar[t] = (1 - beta_0) ... (1 - beta_t), beta_t among them (DDPM, section 2)."""
    alpha = 1 - NoiseSchedule().beta.numpy()
    found = NoiseSchedule().alpha_bar[[0, 1, 500]]
    expected = [alpha[0], alpha[0] * alpha[1], alpha[:501].prod()]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_noised_picture_is_signal_and_noise_by_hand():
    """DDPM, eq. 4: the picture times sqrt(alpha_bar), the noise times sqrt(1 - alpha_bar)."""
    ab, t = NoiseSchedule().alpha_bar[700].item(), torch.tensor([700])
    x_t = NoiseSchedule().add_noise(torch.full((1, 1), 3.0), torch.full((1, 1), -2.0), t)
    assert x_t.item() == pytest.approx(3 * sqrt(ab) - 2 * sqrt(1 - ab), rel=1e-4)


def test_trap_7_alpha_bar_is_made_in_float64_then_cast():
    """The float32 cast has the bits of the reference's table; a float32 product does not."""
    schedule = NoiseSchedule()
    np.testing.assert_array_equal(schedule.beta.float(), TABLES["betas"])
    np.testing.assert_array_equal(schedule.alpha_bar.float(), TABLES["alphas_cumprod"])
    assert not np.array_equal((1 - schedule.beta.float()).cumprod(0), TABLES["alphas_cumprod"])


def test_trap_7_factors_of_x_are_made_in_float64_then_cast():
    """sqrt(1 - ab) in a float32 picture is right to the last digit, though 1 - 0.99915 is not."""
    x0, eps = torch.zeros(1000, 1), torch.ones(1000, 1)
    noise = NoiseSchedule().add_noise(x0, eps, torch.arange(1000))
    np.testing.assert_array_equal(noise[:, 0], TABLES["sqrt_one_minus_alphas_cumprod"])
    signal = NoiseSchedule().add_noise(eps, x0, torch.arange(1000))
    np.testing.assert_array_equal(signal[:, 0], TABLES["sqrt_alphas_cumprod"])


def test_trap_7_the_noisiest_picture_still_holds_signal():
    """alpha_bar[999] is 0.0047: 7 % of x0's amplitude is left in x_T."""
    assert NoiseSchedule().alpha_bar[-1].item() == pytest.approx(0.0047, abs=5e-5)


def test_trap_5_fifty_steps_go_from_981_to_1():
    """Leading spacing is SD v1's: offset 1, stride 20."""
    assert NoiseSchedule().timesteps(50).tolist() == list(range(981, 0, -20))


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_trap_5_any_number_of_steps_is_exactly_that_number(spacing):
    """For each n of 1 ... 1000, dividing 1000 or not: n int64 timesteps, strictly descending, all
    of them levels that exist, spread over the whole range."""
    schedule = NoiseSchedule()
    for n in range(1, 1001):
        t = schedule.timesteps(n, spacing)
        assert (t.shape, t.dtype) == ((n,), torch.int64)
        assert (t.diff() < 0).all()
        assert t[-1] >= 0
        assert 1000 - 1000 / n - 1 <= t[0] <= 999


def test_trap_5_a_thousand_steps_visit_every_level():
    """n = T has no room for the offset (the reference asks for t = 1000 and breaks)."""
    for spacing in ("leading", "trailing"):
        assert NoiseSchedule().timesteps(1000, spacing).tolist() == list(range(999, -1, -1))


def test_trailing_steps_start_at_the_noisiest_level():
    """arXiv:2305.08891, table 2."""
    assert NoiseSchedule().timesteps(5, "trailing").tolist() == [999, 799, 599, 399, 199]
    assert NoiseSchedule().timesteps(3, "trailing").tolist() == [999, 666, 332]


def test_trap_5_the_end_is_alpha_bar_0_unless_the_schedule_says_one():
    """Where t = -1 lies is explicit."""
    end = torch.tensor([-1])
    assert NoiseSchedule().at(end) == NoiseSchedule().alpha_bar[0]
    assert NoiseSchedule(final_alpha_bar="one").at(end) == 1


def test_snr_is_signal_power_over_noise_power():
    """0.99915 / 0.00085 at t = 0, and no end to it for a clean picture."""
    snr = NoiseSchedule().snr(torch.tensor([0, -1]))
    assert snr.tolist() == [pytest.approx(0.99915 / 0.00085), float("inf")]


def test_v_is_the_velocity_along_the_circle():
    """v = dx_t / dphi with signal = cos(phi), noise = sin(phi) (arXiv:2202.00512, appendix D)."""
    x0, eps = tensors(2)
    phi = NoiseSchedule().at(LEVELS).sqrt().acos().requires_grad_()
    x_t = scaled(phi.cos(), x0) + scaled(phi.sin(), eps)
    (slope,) = torch.autograd.grad(x_t[:, 0, 0, 0].sum(), phi)
    torch.testing.assert_close(NoiseSchedule().velocity(x0, eps, LEVELS)[:, 0, 0, 0], slope)


def test_each_of_x0_eps_and_v_gives_the_others():
    """With x_t known, every conversion inverts the one that made it (arXiv:2202.00512, s. 4)."""
    schedule = NoiseSchedule()
    x0, eps = tensors(2)
    x_t = schedule.add_noise(x0, eps, LEVELS)
    v = schedule.velocity(x0, eps, LEVELS)
    assert torch.allclose(schedule.predict_x0(x_t, eps, LEVELS), x0), "predict_x0"
    assert torch.allclose(schedule.predict_eps(x_t, x0, LEVELS), eps), "predict_eps"
    assert torch.allclose(schedule.v_to_eps(v, x_t, LEVELS), eps), "v_to_eps"


def test_zero_terminal_snr_ends_in_noise_and_keeps_the_first_level():
    """sqrt(alpha_bar) is an affine map of the old one (arXiv:2305.08891, algorithm 1)."""
    old, new = NoiseSchedule(prediction="v"), NoiseSchedule(prediction="v", zero_terminal_snr=True)
    a, b = old.alpha_bar.sqrt(), new.alpha_bar.sqrt()
    slope = (b[0] - b[998]) / (a[0] - a[998])
    torch.testing.assert_close(b[:999], b[0] + slope * (a[:999] - a[0]), rtol=0, atol=1e-12)
    assert b[0] == pytest.approx(a[0].item())
    assert new.alpha_bar[-1] == 2**-24
    torch.testing.assert_close((1 - new.beta).cumprod(0), new.alpha_bar)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_perfect_network_gives_back_the_noise(prediction):
    """to_eps undoes target, whichever the network predicts."""
    schedule = NoiseSchedule(prediction=prediction)
    x0, eps = tensors(2)
    output = schedule.target(x0, eps, LEVELS)
    x_t = schedule.add_noise(x0, eps, LEVELS)
    torch.testing.assert_close(schedule.to_eps(output, x_t, LEVELS), eps)


@pytest.mark.parametrize("name", sorted(SAMPLER_CLASSES))
def test_every_sampler_draws_from_zero_terminal_snr(name):
    """A network that knows the one picture: all samplers arrive there from pure noise, float32."""
    schedule = NoiseSchedule(prediction="v", final_alpha_bar="one", zero_terminal_snr=True)
    picture, noise = tensors(2, torch.float32)

    def denoise(x_t, t):  # as the pipeline: v, then eps
        eps = schedule.predict_eps(x_t, picture, t)
        return schedule.to_eps(schedule.velocity(picture, eps, t), x_t, t)

    t = schedule.timesteps(10, "trailing")
    *_, last = sample(SAMPLER_CLASSES[name](schedule), denoise, noise, t, lambda i: noise)
    torch.testing.assert_close(last.x, picture, rtol=0, atol=0.05)  # PLMS enlarges rounding


@pytest.mark.parametrize("final", ["first", "one"])
def test_at_minus_one_a_picture_is_clean(final):
    """Adding noise at t = -1 and taking it away again change no bit, wherever samplers end."""
    x0, eps = tensors(2, torch.float32)
    schedule, end = NoiseSchedule(final_alpha_bar=final), torch.full((len(LEVELS),), -1)
    assert torch.equal(schedule.add_noise(x0, eps, end), x0)
    assert torch.equal(schedule.predict_x0(x0, eps, end), x0)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_min_snr_weighs_the_error_of_x0_by_the_clipped_snr(prediction):
    """w |error of the target|^2 = min(SNR, 5) |error of x0|^2 (arXiv:2303.09556, section 3.4)."""
    schedule = NoiseSchedule(prediction=prediction)
    x0, eps, wrong_x0 = tensors(3)
    x_t = schedule.add_noise(x0, eps, LEVELS)
    wrong_eps = schedule.predict_eps(x_t, wrong_x0, LEVELS)
    error = schedule.target(wrong_x0, wrong_eps, LEVELS) - schedule.target(x0, eps, LEVELS)
    loss = schedule.min_snr_weight(LEVELS) * error.square().sum((1, 2, 3))
    expected = schedule.snr(LEVELS).clamp(max=5) * (wrong_x0 - x0).square().sum((1, 2, 3))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)  # the weight is float32


def test_half_precision_keeps_its_noise():
    """In bfloat16 alpha_bar[0] rounds to 1, but the factor of eps is still sqrt(0.00085)."""
    x0, eps = torch.zeros(1, 1, dtype=torch.bfloat16), torch.ones(1, 1, dtype=torch.bfloat16)
    x_t = NoiseSchedule().add_noise(x0, eps, torch.tensor([0]))
    assert x_t.dtype == torch.bfloat16
    assert x_t.item() == pytest.approx(sqrt(0.00085), rel=2**-8)


def test_at_fits_the_tensor_it_is_for():
    """`like` decides dtype and number of axes."""
    ab = NoiseSchedule().at(LEVELS, like=torch.zeros(4, 3, 2, 2))
    assert (ab.shape, ab.dtype) == ((4, 1, 1, 1), torch.float32)
    torch.testing.assert_close(ab.flatten().double(), NoiseSchedule().at(LEVELS), rtol=1e-7, atol=0)


def test_the_settings_are_the_arguments():
    """A schedule takes the fields of ScheduleConfig, by name and with the same defaults."""
    plain, config = NoiseSchedule(), NoiseSchedule(**vars(ScheduleConfig()))
    assert torch.equal(plain.alpha_bar, config.alpha_bar)
    assert (plain.prediction, plain.final) == (config.prediction, config.final)


@pytest.mark.parametrize("t", [-2, 1000])
def test_a_level_that_does_not_exist_is_an_error(t):
    """t = 1000 is refused: it must not pass for the end (-1) or for 999."""
    with pytest.raises(ValueError, match=r"-1 \.\.\. 999"):
        NoiseSchedule().at(torch.tensor([t]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NoiseSchedule(prediction="x0"), "unknown prediction 'x0'"),
        (lambda: NoiseSchedule(final_alpha_bar="zero"), "unknown final_alpha_bar 'zero'"),
        (lambda: NoiseSchedule(zero_terminal_snr=True), "needs the prediction v, got eps"),
        (lambda: NoiseSchedule(beta_end=2.0), "0 < beta_start <= beta_end < 1"),
        (lambda: NoiseSchedule().timesteps(0), "cannot take 0 of 1000"),
        (lambda: NoiseSchedule().timesteps(1001), "cannot take 1001 of 1000"),
        (lambda: NoiseSchedule().timesteps(5, "linspace"), "unknown spacing 'linspace'"),
    ],
)
def test_wrong_settings_are_named(make, message):
    """The message says which value, what it was and what may stand there."""
    with pytest.raises(ValueError, match=message):
        make()
