"""Order of convergence and moments, on data whose denoiser and flow are known exactly.

The data are a mixture of three Gaussians on a line. Its noise is predicted without error, and the
exact flow is known too: on a line it cannot change the order of points, so a point keeps its
quantile, F_t_prev(x_prev) = F_t(x_t).
"""

from itertools import islice, pairwise

import numpy as np
import pytest
import torch

from ldm.samplers import DDPM, SAMPLERS, DPMSolverPP, sample
from ldm.schedule import NoiseSchedule

WEIGHT, MEAN, STD = torch.tensor([[0.5, 0.3, 0.2], [-1.5, 0.3, 2.0], [0.3, 0.2, 0.5]]).double()

# The same curve of alpha_bar as SD's in 64,000 levels instead of 1,000, so that halving a step
# never rounds a timestep. The interval leaves out both ends: near t = 0 log-SNR runs to infinity,
# so that no number of equal steps in t is many, and what is measured there is not the order.
FINE = NoiseSchedule(64_000, 0.00085 / 64, 0.012 / 64)
START, STOP = 57_600, 12_800
STEPS = [28, 56, 112, 224]


def at(schedule, x, t):
    """Offsets from the means and the variances of the three components at t, [B, K]."""
    ab = schedule.at(torch.full((len(x),), int(t)), like=x)
    return x - ab.sqrt() * MEAN, ab * STD**2 + 1 - ab, ab


def exact_denoiser(schedule):
    """eps = -sqrt(1 - ab) d/dx log p_t(x)"""

    def denoise(x, t):
        offset, variance, ab = at(schedule, x, t[0])
        log_p = WEIGHT.log() - variance.log() / 2 - offset**2 / (2 * variance)
        return (1 - ab).sqrt() * (log_p.softmax(1) * offset / variance).sum(1, keepdim=True)

    return denoise


def quantile(schedule, x, t):
    offset, variance, _ = at(schedule, x, t)
    return (WEIGHT * torch.special.ndtr(offset / variance.sqrt())).sum(1, keepdim=True)


def exact_flow(schedule, x, t, t_prev):
    """The point at t_prev with the quantile of x at t, by bisection to the last bit."""
    wanted = quantile(schedule, x, t)
    low, high = torch.full_like(x, -20), torch.full_like(x, 20)
    for _ in range(60):
        middle = (low + high) / 2
        below = quantile(schedule, middle, t_prev) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def rms(error):
    return error.square().mean().sqrt().item()


@pytest.fixture
def points():
    return torch.linspace(-1.5, 1.5, 41, dtype=torch.float64).reshape(-1, 1)


@pytest.mark.parametrize(
    ("name", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("plms", 2), ("dpm++", 2)]
)
def test_the_error_falls_with_the_order_of_the_method(points, name, order):
    """log(error) against log(step) has slope 1 or 2, within 0.2. PLMS weighs its predictions as if
    equal steps in t were equal in sigma, and has order 2 though it looks back four."""
    expected = exact_flow(FINE, points, START, STOP)
    errors = []
    for n in STEPS:
        timesteps = torch.linspace(START, STOP, n + 1, dtype=torch.float64).long()
        assert timesteps.diff().unique().numel() == 1
        steps = sample(SAMPLERS[name](FINE), exact_denoiser(FINE), points, timesteps)
        *_, last = islice(steps, n)  # the loop would go on from STOP to the end
        errors.append(rms(last.x - expected))
    slope, _ = np.polyfit(np.log(STEPS), np.log(errors), 1)
    assert -slope == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(("name", "order"), [("ddpm", 1), ("dpm++sde", 2)])
def test_the_variance_of_a_stochastic_method_converges_with_its_order(name, order):
    """For one Gaussian a picture is affine in x_T and in every noise, so that a chain for each of
    them alone gives the variance of all together, without drawing anything."""
    mean, std, errors = 1.3, 0.5, []

    def moments(t):
        ab = FINE.alpha_bar[t]
        return ab.sqrt() * mean, ab * std**2 + 1 - ab

    def denoise(x, t):
        (m, v), ab = moments(t[0]), FINE.alpha_bar[t[0]]
        return (1 - ab).sqrt() * (x - m) / v

    for n in STEPS:
        timesteps = torch.linspace(START, STOP, n + 1, dtype=torch.float64).long()
        # chain 0 has neither, chain 1 an x_T of 1, chain i + 2 a noise of 1 in step i
        _, x_T, *noise = torch.eye(n + 2, dtype=torch.float64)[..., None]
        steps = sample(SAMPLERS[name](FINE), denoise, x_T, timesteps, noise.__getitem__)
        *_, last = islice(steps, n)
        slope = last.x[1:] - last.x[0]
        m, v = moments(START)
        expected_mean, expected = moments(STOP)
        torch.testing.assert_close(last.x[0] + slope[0] * m, expected_mean[None])
        variance = slope[0] ** 2 * v + (slope[1:] ** 2).sum()
        errors.append(abs(variance / expected - 1).item())
    rate, _ = np.polyfit(np.log(STEPS), np.log(errors), 1)
    assert -rate == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("n", [5, 8, 10, 14, 20])
def test_dpm_solver_ends_in_first_order_for_good_reason(points, n):
    """With few steps, extrapolating over the last one too would be further from the exact flow."""
    schedule = NoiseSchedule()
    timesteps = schedule.timesteps(n, "trailing")

    class Extrapolating(DPMSolverPP):
        def direction(self, now, t_prev, past, denoise):
            # t = 0 has the alpha_bar that this schedule ends at, and is not taken for the end
            return super().direction(now, t_prev.clamp(min=0), past, denoise)

    expected = exact_flow(schedule, points, timesteps[0], -1)
    errors = []
    for solver in (DPMSolverPP(schedule), Extrapolating(schedule)):
        *_, last = sample(solver, exact_denoiser(schedule), points, timesteps)
        errors.append(rms(last.x - expected))
    assert errors[0] < 0.5 * errors[1]


def test_ddpm_draws_the_mixture():
    """From the true x_T, mean, variance and the weight of each mode agree with the data's within
    four standard errors."""
    count, schedule = 4000, NoiseSchedule(final_alpha_bar="one")
    g = torch.Generator().manual_seed(0)

    def noise(i):
        return torch.randn(count, 1, generator=g, dtype=torch.float64)

    mode = torch.multinomial(WEIGHT, count, replacement=True, generator=g)
    x0 = (MEAN[mode] + STD[mode] * noise(-1)[:, 0]).reshape(-1, 1)
    timesteps = schedule.timesteps(500)
    x_T = schedule.add_noise(x0, noise(-1), timesteps[:1].expand(count))
    *_, last = sample(DDPM(schedule), exact_denoiser(schedule), x_T, timesteps, noise)

    def within(values, expected):
        assert abs(values.mean() - expected) < 4 * values.std() / count**0.5

    mean = (WEIGHT * MEAN).sum()
    within(last.x, mean)
    within((last.x - mean) ** 2, (WEIGHT * (STD**2 + (MEAN - mean) ** 2)).sum())
    for border in (-0.5, 1.0):
        below = quantile(schedule, torch.tensor([[border]]).double(), -1).item()
        within((last.x < border).double(), below)


def test_ddpm_moments_converge_to_those_of_a_gaussian():
    """For one Gaussian a step is affine in x and noise, so the moments of the chain are known
    without drawing anything: the mean is right, the variance by 2 % at n = 1000 and 6 % at 250."""
    mean, std = 1.3, 0.5
    schedule = NoiseSchedule(final_alpha_bar="one")
    x, noise = torch.tensor([[0, 1, 0], [0, 0, 1]]).double().unsqueeze(-1)
    errors = []
    for n in (250, 1000):
        times = schedule.timesteps(n, "trailing").tolist()
        ab = schedule.alpha_bar[-1]
        m, v = ab.sqrt() * mean, ab * std**2 + 1 - ab  # of the true x_T
        for pair in pairwise([*times, -1]):
            t, t_prev = (torch.tensor([i] * 3) for i in pair)
            ab = schedule.at(t, like=x)
            eps = (1 - ab).sqrt() * (x - ab.sqrt() * mean) / (ab * std**2 + 1 - ab)
            shift, at_one, with_noise = DDPM(schedule).step(x, eps, t, t_prev, noise)
            slope, spread = at_one - shift, with_noise - shift
            m, v = slope * m + shift, slope**2 * v + spread**2
        assert m.item() == pytest.approx(mean, rel=1e-3)
        errors.append(abs(v.item() / std**2 - 1))
    assert errors[0] < 0.06
    assert errors[1] < 0.02
