"""From noise to a picture: pure steps, and the one loop that takes them.

A step is two questions. Which way? `direction` turns the predicted noise into the one to step with:
extrapolated from earlier predictions (PLMS, DPM-Solver++) or averaged with one at the other end of
the step (Heun). How far? `step` goes from t to t_prev along it. Neither keeps a counter, moves a
device or draws noise; what is remembered is a value that the loop passes along.

All deterministic samplers here solve one equation (DDIM, arXiv:2010.02502, eq. 14); while eps is
constant, x / sqrt(ab) is linear in sigma:

    d(x / sqrt(ab)) = eps d(sigma),     sigma = sqrt((1 - ab) / ab)

sigma means this ratio of noise to signal everywhere in this file.

t = -1 is the end, where ab is the schedule's `final_alpha_bar`. The network knows no t = -1, and
at ab = 1 log(1 / sigma) is infinite, so in the last step Heun and DPM-Solver++ are of first order.
Their second order (tests/test_convergence.py) holds between the ends; over the whole way the error
falls with order about 1, because of that last step.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ldm.guidance import Denoise
from ldm.schedule import NoiseSchedule, scaled

ADAMS_BASHFORTH = {  # how many are past: weights, newest first
    1: (3 / 2, -1 / 2),
    2: (23 / 12, -16 / 12, 5 / 12),
    3: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


class Prediction(NamedTuple):
    """One evaluation of the denoiser: eps at (x_t, t)."""

    x_t: Tensor  # [B, ...]
    eps: Tensor  # [B, ...]
    t: Tensor  # [B]


History = tuple[Prediction, ...]  # newest first, at most three


def needed(noise: Tensor | None) -> Tensor:
    if noise is None:
        raise ValueError("this sampler is stochastic: give step a noise tensor of the shape of x_t")
    return noise


class Sampler:
    """The deterministic step along a given eps, and what all samplers share."""

    stochastic = False  # does `step` need noise?

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule

    def direction(self, now: Prediction, t_prev: Tensor, past: History, denoise: Denoise) -> Tensor:
        """The eps to step with: the predicted one, unless the method knows better."""
        return now.eps

    def step(
        self, x_t: Tensor, eps: Tensor, t: Tensor, t_prev: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """x_prev = sqrt(ab_prev) x0 + sqrt(1 - ab_prev) eps

        DDIM (arXiv:2010.02502) eq. 12 without noise (their sigma_t is 0); their alpha_t is our
        alpha_bar[t].

        x_t, eps, noise: [B, ...];  t, t_prev: [B] integers, t > t_prev >= -1
        """
        ab_prev = self.schedule.at(t_prev)
        x0 = self.schedule.predict_x0(x_t, eps, t)
        return scaled(ab_prev.sqrt(), x0) + scaled((1 - ab_prev).sqrt(), eps)


class DDPM(Sampler):
    """Ancestral sampling with the variance beta_tilde (arXiv:2006.11239, eq. 6 and 7).

    Steps may be longer than one: beta is then 1 - ab_t / ab_prev. The paper's chain ends clean:
    final_alpha_bar "one". `clip_x0` keeps x0 in [-1, 1]: right for pixels, wrong for latents.
    """

    stochastic = True

    def __init__(self, schedule: NoiseSchedule, clip_x0: bool = False) -> None:
        super().__init__(schedule)
        self.clip_x0 = clip_x0

    def step(
        self, x_t: Tensor, eps: Tensor, t: Tensor, t_prev: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """x_prev = (sqrt(ab_prev) beta x0 + sqrt(1 - beta) (1 - ab_prev) x_t) / (1 - ab)
        + sqrt(beta (1 - ab_prev) / (1 - ab)) noise        (DDPM, arXiv:2006.11239, eq. 7)
        """
        ab, ab_prev = self.schedule.at(t), self.schedule.at(t_prev)
        beta = 1 - ab / ab_prev
        x0 = self.schedule.predict_x0(x_t, eps, t)
        if self.clip_x0:
            x0 = x0.clamp(-1, 1)
        to_x0, to_x_t = ab_prev.sqrt() * beta, (1 - beta).sqrt() * (1 - ab_prev)
        mean = scaled(to_x0 / (1 - ab), x0) + scaled(to_x_t / (1 - ab), x_t)
        return mean + scaled((beta * (1 - ab_prev) / (1 - ab)).sqrt(), needed(noise))


class DDIM(Sampler):
    """DDIM (arXiv:2010.02502): eta = 0 is `Sampler.step`, eta = 1 is DDPM."""

    def __init__(self, schedule: NoiseSchedule, eta: float = 0.0) -> None:
        super().__init__(schedule)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie from 0 (no noise) to 1 (DDPM), got {eta}")
        self.eta = eta
        self.stochastic = eta > 0

    def step(
        self, x_t: Tensor, eps: Tensor, t: Tensor, t_prev: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """x_prev = sqrt(ab_prev) x0 + sqrt(1 - ab_prev - std^2) eps + std noise    (eq. 12)
        std = eta sqrt((1 - ab_prev) / (1 - ab)) sqrt(1 - ab / ab_prev)             (eq. 16)

        std is the paper's sigma_t.
        """
        ab, ab_prev = self.schedule.at(t), self.schedule.at(t_prev)
        std = self.eta * ((1 - ab_prev) / (1 - ab) * (1 - ab / ab_prev)).sqrt()
        mean = scaled(ab_prev.sqrt(), self.schedule.predict_x0(x_t, eps, t))
        mean = mean + scaled((1 - ab_prev - std**2).sqrt(), eps)
        return mean + scaled(std, needed(noise)) if self.stochastic else mean


class Euler(Sampler):
    """Euler's method in sigma; but for rounding the same as DDIM with eta = 0."""

    def step(
        self, x_t: Tensor, eps: Tensor, t: Tensor, t_prev: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """x_prev / sqrt(ab_prev) = x_t / sqrt(ab) + (sigma_prev - sigma) eps

        DDIM (arXiv:2010.02502) eq. 13; EDM (arXiv:2206.00364) algorithm 1 without lines 6 to 8.
        """
        ab, ab_prev = self.schedule.at(t), self.schedule.at(t_prev)
        sigma, sigma_prev = ((1 - ab) / ab).sqrt(), ((1 - ab_prev) / ab_prev).sqrt()
        return scaled(ab_prev.sqrt(), scaled(1 / ab.sqrt(), x_t) + scaled(sigma_prev - sigma, eps))


class Heun(Sampler):
    """Heun's second-order method (EDM, arXiv:2206.00364, algorithm 1), two evaluations a step."""

    def direction(self, now: Prediction, t_prev: Tensor, past: History, denoise: Denoise) -> Tensor:
        """The mean of eps at both ends of the Euler step (lines 7 and 8)."""
        if t_prev.min() < 0:
            return now.eps
        x_prev = self.step(*now, t_prev)
        return (now.eps + denoise(x_prev, t_prev.to(x_prev.device))) / 2


class PLMS(Sampler):
    """Pseudo linear multistep (PNDM, arXiv:2202.09778, section 3.3), as in SD v1.

    Adams-Bashforth on the predicted noise, of the order that the past allows. SD v1 starts with
    Heun's step, the paper with three of Runge-Kutta.
    """

    def direction(self, now: Prediction, t_prev: Tensor, past: History, denoise: Denoise) -> Tensor:
        """(55 e_0 - 59 e_1 + 37 e_2 - 9 e_3) / 24, once there are four; e_k is k steps old"""
        if not past:
            return Heun(self.schedule).direction(now, t_prev, past, denoise)
        terms = zip(ADAMS_BASHFORTH[len(past)], (now, *past), strict=True)
        return torch.stack([weight * p.eps for weight, p in terms]).sum(dim=0)


class DPMSolverPP(Sampler):
    """DPM-Solver++(2M) (arXiv:2211.01095, algorithm 2): x0 extrapolated from two predictions.

    Their step along x0 is the deterministic step along the eps that belongs to it. The last step is
    the longest in log-SNR, infinite at ab = 1, and extrapolating over it amplifies the error: so it
    is of first order, as in the authors' code for few steps (their `lower_order_final`).
    """

    def direction(self, now: Prediction, t_prev: Tensor, past: History, denoise: Denoise) -> Tensor:
        """D = (1 + 1 / (2r)) x0_t - 1 / (2r) x0_before,    r = h_before / h

        D as in the paper; h is the length of a step in lambda = log(sqrt(ab) / sqrt(1 - ab)), half
        of log(SNR). Only the ratio r counts, so the code takes steps in log(SNR).
        """
        if not past or t_prev.min() < 0:
            return now.eps
        before = past[0]
        times = torch.stack([before.t, now.t, t_prev])
        step_before, step = self.schedule.snr(times).log().diff(dim=0)
        x0, x0_before = self.schedule.predict_x0(*now), self.schedule.predict_x0(*before)
        D = x0 + scaled(step / (2 * step_before), x0 - x0_before)
        return self.schedule.predict_eps(now.x_t, D, now.t)


class SDEDPMSolverPP(DPMSolverPP, DDPM):
    """SDE-DPM-Solver++(2M) (arXiv:2211.01095): its x0 extrapolated, noise added as in DDPM.

    The paper's step of length h in lambda along D, the extrapolated x0, has in our letters

        x_prev = sqrt((1 - ab_prev) / (1 - ab)) exp(-h) x_t + sqrt(ab_prev) (1 - exp(-2h)) D
                 + sqrt(1 - ab_prev) sqrt(1 - exp(-2h)) noise

    Because exp(-2h) = SNR / SNR_prev, this is DDPM's step along D: `direction` comes from
    DPMSolverPP, `step` from DDPM.
    """


SAMPLERS: dict[str, type[Sampler]] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "plms": PLMS,
    "dpm++": DPMSolverPP,
    "dpm++sde": SDEDPMSolverPP,
    "euler": Euler,
    "heun": Heun,
}


class Step(NamedTuple):
    """One step of `sample`, after it was taken."""

    i: int  # 0, 1 ...
    t: int  # where the step began
    t_prev: int  # where it ended, -1 at the last
    x: Tensor  # [B, ...] at t_prev
    x0: Tensor  # [B, ...] the picture as predicted on the way


def sample(
    sampler: Sampler,
    denoise: Denoise,
    x: Tensor,
    timesteps: Tensor,
    noise_at: Callable[[int], Tensor] | None = None,
    hook: Callable[[Step], Tensor] | None = None,
) -> Iterator[Step]:
    """The steps from x at timesteps[0] to the end, one by one; the last one's x is the picture.

    denoise: (x_t, t) -> eps, with text and guidance inside
    x: [B, ...], at the noise level of timesteps[0]
    timesteps: strictly descending integers, as from `NoiseSchedule.timesteps`
    noise_at: step index -> noise [B, ...], called once a step for stochastic samplers only
    hook: called after each step; what it returns takes the place of x (inpainting blends here)
    """
    times = [int(t) for t in timesteps]
    if not times or times[-1] < 0 or any(a <= b for a, b in pairwise(times)):
        raise ValueError(f"timesteps must descend strictly to 0 or more, got {times}")
    past: History = ()
    for i, (t_now, t_then) in enumerate(zip(times, [*times[1:], -1], strict=True)):
        t, t_prev = (torch.full((x.shape[0],), each) for each in (t_now, t_then))  # on the CPU
        now = Prediction(x, denoise(x, t.to(x.device)), t)
        eps = sampler.direction(now, t_prev, past, denoise)
        past = (now, *past[:2])
        x0 = sampler.schedule.predict_x0(x, eps, t)
        noise = noise_at(i) if noise_at is not None and sampler.stochastic else None
        done = Step(i, t_now, t_then, sampler.step(x, eps, t, t_prev, noise), x0)
        if hook is not None:
            done = done._replace(x=hook(done))
        x = done.x
        yield done
