"""Samplers against the CompVis reference, against each other, and the loop's promises.

The goldens come from an analytic model, eps(x, t) = tanh(0.9 x + 0.5 t / 1000 + context), with
pseudo-random noise. Tolerances are relative L2: the reference works in float32 as we do.
"""

from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from pseudo import unit

from ldm.guidance import guide
from ldm.samplers import (
    DDIM,
    DDPM,
    PLMS,
    SAMPLERS,
    DPMSolverPP,
    Euler,
    Heun,
    Prediction,
    SDEDPMSolverPP,
    sample,
)
from ldm.schedule import NoiseSchedule

GOLDENS = np.load(Path(__file__).parent / "goldens" / "samplers.npz")
SHAPE = (2, 4, 8, 8)
X_T = torch.tensor(GOLDENS["x_T"])


def network(x_t, t, context):
    return torch.tanh(0.9 * x_t + 0.5 * t.reshape(-1, 1, 1, 1).to(x_t.dtype) / 1000 + context)


def denoise(x_t, t):
    return network(x_t, t, 0.0)


def noise_of(name):
    return lambda i: torch.tensor(unit(f"sampler.{name}.noise.{i}", SHAPE))


def randn(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def relative_l2(found, expected):
    return np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected)


def assert_like(steps, key, golden, tolerance=1e-5):
    """The tensors of these steps equal the golden to a relative L2 of `tolerance`."""
    found = torch.stack([getattr(step, key) for step in steps])
    assert relative_l2(found, GOLDENS[golden]) <= tolerance


@pytest.mark.parametrize("name", SAMPLERS)
def test_n_steps_are_n_steps(name):
    """Each yields once, in order, from x at timesteps[0] to -1; noise is asked for step by step
    by stochastic samplers alone; the denoiser runs once a step, but twice in all of Heun's steps
    except the last and in the first of PLMS."""
    calls, asked = [], []
    sampler = SAMPLERS[name](NoiseSchedule())
    timesteps = sampler.schedule.timesteps(7)

    def counted(x_t, t):
        calls.append(t.tolist())
        return denoise(x_t, t)

    def noise(i):
        asked.append(i)
        return noise_of("ddpm")(i)

    steps = list(sample(sampler, counted, X_T, timesteps, noise))
    times = timesteps.tolist()
    assert [s.i for s in steps] == list(range(7))
    assert [(s.t, s.t_prev) for s in steps] == list(pairwise([*times, -1]))
    assert calls[0] == [times[0]] * 2, "the denoiser sees the t at which a step begins"
    assert len(calls) == {"heun": 13, "plms": 8}.get(name, 7)
    assert asked == (list(range(7)) if name in ("ddpm", "dpm++sde") else [])


def test_a_hook_replaces_x():
    """What the hook returns is yielded, is what the denoiser sees next, and is the result: here
    the left half is kept from a known picture, which is exact at the end."""
    schedule, (known, eps) = NoiseSchedule(), randn(2, 2, 4, 8, 8)
    seen = []

    def watched(x_t, t):
        seen.append(x_t)
        return denoise(x_t, t)

    def keep_left(step):
        noised = schedule.add_noise(known, eps, torch.full((2,), step.t_prev))
        return torch.cat([noised[..., :4], step.x[..., 4:]], dim=-1)

    x, timesteps = X_T.double(), schedule.timesteps(5)
    steps = list(sample(DDIM(schedule), watched, x, timesteps, hook=keep_left))
    assert all(torch.equal(a.x, b) for a, b in zip(steps, seen[1:], strict=False))
    assert torch.equal(steps[-1].x[..., :4], known[..., :4])


@pytest.mark.parametrize(
    ("name", "sampler", "n"),
    [
        ("ddim_eta0", DDIM(NoiseSchedule()), 50),
        ("ddim_eta05", DDIM(NoiseSchedule(), eta=0.5), 10),
        ("ddim_eta1", DDIM(NoiseSchedule(), eta=1.0), 20),
        ("plms", PLMS(NoiseSchedule()), 50),
        ("plms_short", PLMS(NoiseSchedule()), 10),
    ],
)
def test_every_step_agrees_with_the_reference(name, sampler, n):
    """Timesteps are the reference's, and x and predicted x0 follow its path all the way down."""
    steps = list(sample(sampler, denoise, X_T, sampler.schedule.timesteps(n), noise_of(name)))
    assert [step.t for step in steps] == GOLDENS[f"{name}.t"].tolist()
    assert_like(steps, "x", f"{name}.x")
    assert_like(steps, "x0", f"{name}.pred_x0")


def test_dpm_solver_takes_the_step_of_its_paper():
    """direction and step together are line 8 of algorithm 2 (arXiv:2211.01095), in its letters."""
    schedule = NoiseSchedule()
    before, now = (
        Prediction(x, eps, torch.full((2,), t))
        for x, eps, t in ((*randn(2, 2, 4, 8, 8, seed=1), 981), (*randn(2, 2, 4, 8, 8), 941))
    )
    then = torch.full((2,), 921)
    like = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    abs_ = [schedule.at(t, like) for t in (before.t, now.t, then)]
    alpha, sigma = [ab.sqrt() for ab in abs_], [(1 - ab).sqrt() for ab in abs_]
    lam = [(a / s).log() for a, s in zip(alpha, sigma, strict=True)]
    h_before, h = lam[1] - lam[0], lam[2] - lam[1]
    r = h_before / h
    x0_before, x0 = schedule.predict_x0(*before), schedule.predict_x0(*now)
    D = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * x0_before
    expected = sigma[2] / sigma[1] * now.x_t - alpha[2] * (torch.exp(-h) - 1) * D

    solver = DPMSolverPP(schedule)
    eps = solver.direction(now, then, (before,), denoise)
    torch.testing.assert_close(solver.step(now.x_t, eps, now.t, then), expected)


def test_trap_5_ddim_ends_at_alpha_bar_0_as_the_reference():
    """Ending at 1 instead leaves the reference's path at the last step, and only there."""
    for final, same in (("first", True), ("one", False)):
        schedule = NoiseSchedule(final_alpha_bar=final)
        steps = list(sample(DDIM(schedule), denoise, X_T, schedule.timesteps(50)))
        for step, expected in zip(steps, GOLDENS["ddim_eta0.x"], strict=True):
            assert (relative_l2(step.x, expected) < 1e-5) == (same or step.t_prev >= 0)


@pytest.mark.parametrize(("name", "sampler"), [("ddim_cfg", DDIM), ("plms_cfg", PLMS)])
def test_trap_6_guided_steps_agree_with_the_reference(name, sampler):
    """Scale 7.5 between contexts 0.3 and -0.2: s = 1 + w, as in SD."""
    context, negative = torch.full((2, 1, 1, 1), 0.3), torch.full((1, 1, 1, 1), -0.2)
    schedule = NoiseSchedule()
    guided = guide(network, context, negative, 7.5)
    steps = sample(sampler(schedule), guided, X_T, schedule.timesteps(10))
    assert_like(steps, "x", f"{name}.x")


def test_image_to_image_agrees_with_the_reference():
    """SD's img2img noises to the level above the first it denoises: t = 741, then 721 ... 1."""
    schedule = NoiseSchedule()
    timesteps = schedule.timesteps(50)
    n = int(GOLDENS["img2img.t_enc"])
    x0, eps = (torch.tensor(unit(f"sampler.img2img.{k}", SHAPE)) for k in ("x0", "noise"))
    x = schedule.add_noise(x0, eps, timesteps[-n - 1].expand(2))
    np.testing.assert_allclose(x, GOLDENS["img2img.encoded"], rtol=1e-5, atol=1e-6)
    *_, last = sample(DDIM(schedule), denoise, x, timesteps[-n:])
    assert_like([last], "x", "img2img.decoded")


@pytest.mark.parametrize(
    # unclipped, a thousand float32 roundings add up, hence the wider tolerance
    ("name", "clip", "tolerance"),
    [("ddpm", False, 5e-5), ("ddpm_clip", True, 1e-5)],
)
def test_a_thousand_ddpm_steps_agree_with_the_reference(name, clip, tolerance):
    """Every 50th x of ancestral sampling, which ends clean, with and without clipped x0."""
    schedule = NoiseSchedule(final_alpha_bar="one")

    def noise(i):
        return noise_of("ddpm")(999 - i)  # the reference keys this noise by t

    steps = sample(DDPM(schedule, clip_x0=clip), denoise, X_T, schedule.timesteps(1000), noise)
    kept = [step for step in steps if step.t % 50 == 0]
    assert [step.t for step in kept] == GOLDENS[f"{name}.t"].tolist()
    assert_like(kept, "x", f"{name}.x", tolerance)


@pytest.mark.parametrize(("t", "t_prev"), [(981, 961), (21, 1), (1, -1)])
def test_ddim_with_eta_one_takes_the_ddpm_step(t, t_prev):
    """With eta = 1, DDIM eq. 12 and DDPM eq. 7 give the same x_{t-1} for the same noise."""
    x, eps, noise = randn(3, 2, 4, 8, 8)
    now, then = torch.full((2,), t), torch.full((2,), t_prev)
    a = DDIM(NoiseSchedule(), eta=1.0).step(x, eps, now, then, noise)
    b = DDPM(NoiseSchedule()).step(x, eps, now, then, noise)
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("final", ["first", "one"])
@pytest.mark.parametrize(("t", "t_prev"), [(981, 961), (21, 1), (1, -1)])
def test_euler_takes_the_ddim_step(t, t_prev, final):
    """Euler in sigma (DDIM eq. 13) and DDIM with eta = 0 (eq. 12) are one method."""
    schedule = NoiseSchedule(final_alpha_bar=final)
    x, eps = randn(2, 2, 4, 8, 8)
    now, then = torch.full((2,), t), torch.full((2,), t_prev)
    a, b = (cls(schedule).step(x, eps, now, then) for cls in (Euler, DDIM))
    torch.testing.assert_close(a, b)


def test_stochastic_dpm_solver_takes_the_step_of_its_paper():
    """SDE-DPM-Solver++(2M) (arXiv:2211.01095) in the paper's letters, not in those of DDPM."""
    schedule = NoiseSchedule()
    x, eps, x_before, eps_before, noise = randn(5, 2, 4, 8, 8)
    before, now, then = (torch.full((2,), t) for t in (981, 941, 921))
    like = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    abs_ = [schedule.at(t, like) for t in (before, now, then)]
    alpha, sigma = [ab.sqrt() for ab in abs_], [(1 - ab).sqrt() for ab in abs_]
    lam = [(a / s).log() for a, s in zip(alpha, sigma, strict=True)]
    h_before, h = lam[1] - lam[0], lam[2] - lam[1]
    x0 = (x - sigma[1] * eps) / alpha[1]
    x0_before = (x_before - sigma[0] * eps_before) / alpha[0]
    D = x0 + h / h_before * (x0 - x0_before) / 2
    share = 1 - torch.exp(-2 * h)
    expected = sigma[2] / sigma[1] * torch.exp(-h) * x + alpha[2] * share * D
    expected = expected + sigma[2] * share.sqrt() * noise

    solver = SDEDPMSolverPP(schedule)
    past = (Prediction(x_before, eps_before, before),)
    along = solver.direction(Prediction(x, eps, now), then, past, denoise)
    found = solver.step(x, along, now, then, noise)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("n", [1, 2, 7, 20])
def test_a_schedule_that_ends_clean_ends_at_the_predicted_picture(name, n):
    """At alpha_bar = 1 (sigma 0, infinite log-SNR) the last step returns its x0, finite."""
    schedule = NoiseSchedule(final_alpha_bar="one")
    timesteps = schedule.timesteps(n, "trailing")
    *_, last = sample(SAMPLERS[name](schedule), denoise, X_T, timesteps, noise_of("ddpm"))
    assert last.x.isfinite().all()
    # DDPM and Euler reach x0 by another formula; the others multiply it by exactly 1
    torch.testing.assert_close(last.x, last.x0, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_picture_does_not_depend_on_its_batch(name):
    """Alone or among others, the same bits, given the same noise."""
    sampler, timesteps = SAMPLERS[name](NoiseSchedule()), NoiseSchedule().timesteps(5)
    noise = noise_of("ddpm")
    *_, both = sample(sampler, denoise, X_T, timesteps, noise)
    *_, alone = sample(sampler, denoise, X_T[1:], timesteps, lambda i: noise(i)[1:])
    assert torch.equal(alone.x, both.x[1:])


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_keeps_nothing_between_runs(name):
    """The same sampler draws the same picture again, even after a run that was broken off."""
    sampler, timesteps = SAMPLERS[name](NoiseSchedule()), NoiseSchedule().timesteps(6)
    *_, first = sample(sampler, denoise, X_T, timesteps, noise_of("ddpm"))
    list(islice(sample(sampler, denoise, -X_T, timesteps, noise_of("ddpm")), 3))
    *_, again = sample(sampler, denoise, X_T, timesteps, noise_of("ddpm"))
    assert torch.equal(first.x, again.x)


def test_wrong_use_is_named():
    """Missing noise, timesteps that do not descend and an impossible eta: one sentence each."""
    schedule, t = NoiseSchedule(), torch.tensor([981, 981])
    with pytest.raises(ValueError, match="this sampler is stochastic"):
        next(sample(DDPM(schedule), denoise, X_T, t[:1]))
    with pytest.raises(ValueError, match="give step a noise tensor"):
        DDIM(schedule, eta=0.5).step(X_T, X_T, t, t - 20)
    for timesteps in (t, t.new_empty(0), torch.tensor([1, -1])):
        with pytest.raises(ValueError, match="descend strictly to 0 or more"):
            next(sample(Heun(schedule), denoise, X_T, timesteps))
    with pytest.raises(ValueError, match=r"eta must lie from 0 .* to 1 .*, got 1.5"):
        DDIM(schedule, eta=1.5)
