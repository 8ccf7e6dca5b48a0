"""Editing of latents: SDEdit, DDIM inversion and RePaint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ldm import rng
from ldm.config import ConfigError
from ldm.guidance import Denoise
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.samplers import SAMPLERS, Prediction, Step
from ldm.schedule import NoiseSchedule, scaled

OnStep = Callable[[Step], None]
MAXIMUM_ROUNDS = 100


@dataclass(frozen=True)
class PictureBatch:
    """B pictures that are made together; each has a prompt, and an index, which keys its noise."""

    pipe: LatentDiffusion
    prompts: Sequence[str]
    indices: Sequence[int]
    sampling: Sampling
    on_step: OnStep = lambda step: None

    def noise_source(self, *purpose: str | int) -> Callable[[int], Tensor]:
        """step -> [B, C, h, w], as of LatentDiffusion; for a purpose, noise of its own."""
        sampling = reseeded(self.sampling, *purpose) if purpose else self.sampling
        return self.pipe.noise_source(sampling, self.indices)


def skipped(strength: float, steps: int) -> int:
    """The number of first timesteps to leave out: all but the last `strength` share."""
    if not 0 < strength <= 1:
        raise ConfigError(f"strength must be above 0 and at most 1, got {strength}")
    return steps - round(strength * steps)


def image_to_image(batch: PictureBatch, z: Tensor, denoise: Denoise, strength: float) -> Tensor:
    """z, noised to the first of the last `strength` share of the timesteps, and drawn from there.

    SDEdit (arXiv:2108.01073), whose t_0 is the strength, in its variance-preserving form: its
    algorithm 1 is the variance-exploding one. Strength 1 starts from noise alone, which is plain
    drawing; if no step is left, z comes back.

    z: [1 or B, C, h, w], scaled;  returns [B, C, h, w]
    """
    pipe, sampling, noise_at = batch.pipe, batch.sampling, batch.noise_source()
    skip, count = skipped(strength, sampling.steps), len(batch.indices)
    z = z.expand(count, -1, -1, -1)
    if skip == sampling.steps:
        return z
    t = pipe.timesteps(sampling.steps)[skip].expand(count)
    x = noise_at(-1) if skip == 0 else pipe.schedule.add_noise(z, noise_at(-1), t)
    return pipe.sample_from(x, denoise, sampling, noise_at, skip, None, batch.on_step)


def counterfactual(
    batch: PictureBatch, z: Tensor, up: Denoise, down: Denoise, strength: float, rounds: int
) -> Tensor:
    """z taken up to noise with the prompt of `up`, and down again with that of `down`.

    With the same prompt it comes back (DDIM, arXiv:2010.02502, section 5.4); with another it shows
    the same chest as that prompt describes it. Nothing is random.

    z: [B, C, h, w], scaled;  rounds: see `ascend`
    """
    pipe, sampling = batch.pipe, batch.sampling
    check_inversion(sampling)
    skip = skipped(strength, sampling.steps)
    if skip == sampling.steps:
        return z
    x = ascend(pipe.schedule, z, up, pipe.timesteps(sampling.steps)[skip:], rounds)
    return pipe.sample_from(x, down, sampling, batch.noise_source(), skip, None, batch.on_step)


def check_inversion(sampling: Sampling) -> None:
    """ConfigError for samplers other than DDIM, whose inversion is not implemented."""
    if sampling.sampler != "ddim":
        raise ConfigError(f"inversion needs the sampler ddim, got {sampling.sampler}")


@torch.inference_mode()
def ascend(
    schedule: NoiseSchedule, x: Tensor, denoise: Denoise, timesteps: Tensor, rounds: int = 2
) -> Tensor:
    """The x at timesteps[0] from which deterministic DDIM comes to the clean x, nearly.

        x_t = sqrt(ab_t) x0 + sqrt(1 - ab_t) eps,   x0 = (x - sqrt(1 - ab) eps) / sqrt(ab)

    DDIM's step (arXiv:2010.02502, eq. 13) solved for x_t, as in its section 4.3. It needs eps at
    (x_t, t), and x_t is unknown: a fixed-point iteration, started from x itself. The first round
    takes eps at (x, t), each further one at the x_t found so far. (Inversion as in arXiv:2105.05233
    has no rounds: it takes eps at x and the level that x has, not at the next level t.)

    x: [B, ...] at t = -1;  timesteps: those of the way down
    """
    if not 1 <= rounds <= MAXIMUM_ROUNDS:
        raise ConfigError(f"rounds must be 1 to {MAXIMUM_ROUNDS}, got {rounds}")
    t_prev = torch.full((len(x),), -1)
    for t in timesteps.flip(0)[:, None].expand(-1, len(x)):
        ab_prev, ab, x_t = schedule.at(t_prev), schedule.at(t), x
        for _ in range(rounds):
            eps = denoise(x_t, t.to(x.device))
            x0 = scaled(1 / ab_prev.sqrt(), x - scaled((1 - ab_prev).sqrt(), eps))
            x_t = scaled(ab.sqrt(), x0) + scaled((1 - ab).sqrt(), eps)
        x, t_prev = x_t, t
    return x


def inpaint(
    batch: PictureBatch, z: Tensor, mask: Tensor, denoise: Denoise, resample: int = 1
) -> Tensor:
    """z where the mask is 0; where it is 1, drawn to fit.

    After each step the known part is replaced by z noised to that level (RePaint, arXiv:2201.09865,
    section 4.1), always with the noise of x_T: samplers that use earlier steps then see a straight
    path. resample: how often each step is taken, with x noised back in between: their U of
    algorithm 1, with jumps of one step.

    z: [1 or B, C, h, w], scaled;  mask: [1, 1, h, w], 0 or 1;  returns [B, C, h, w]
    """
    sampling, schedule, count = batch.sampling, batch.pipe.schedule, len(batch.indices)
    sampler, noise_at = SAMPLERS[sampling.sampler](schedule), batch.noise_source()
    mask, start = mask.to(z), noise_at(-1)
    z = z.expand_as(start)

    def blend(x: Tensor, t: int) -> Tensor:
        known = schedule.add_noise(z, start, torch.full((count,), t))
        return mask * x + (1 - mask) * known

    def hook(step: Step) -> Tensor:
        x = blend(step.x, step.t_prev)
        if step.t_prev < 0:  # the last step is taken once: no later one has to agree with it
            return x
        t, t_prev = torch.full((count,), step.t), torch.full((count,), step.t_prev)
        for again in range(1, resample):
            fresh_at = batch.noise_source("resample", again)
            x_t = noise_further(schedule, x, fresh_at(step.i), t, t_prev)
            now = Prediction(x_t, denoise(x_t, t.to(x.device)), t)
            eps = sampler.direction(now, t_prev, (), denoise)
            x = sampler.step(x_t, eps, t, t_prev, fresh_at(sampling.steps + step.i))
            x = blend(x, step.t_prev)
        return x

    return batch.pipe.sample_from(start, denoise, sampling, noise_at, 0, hook, batch.on_step)


def noise_further(
    schedule: NoiseSchedule, x: Tensor, noise: Tensor, t: Tensor, t_prev: Tensor
) -> Tensor:
    """x_t = sqrt(1 - beta) x + sqrt(beta) noise,  beta = 1 - ab_t / ab_prev

    RePaint (arXiv:2201.09865), algorithm 1, its last line, for a step of any length.
    """
    kept = schedule.at(t) / schedule.at(t_prev)
    return scaled(kept.sqrt(), x) + scaled((1 - kept).sqrt(), noise)


def reseeded(sampling: Sampling, *purpose: str | int) -> Sampling:
    """`sampling` with a seed of its own for the purpose."""
    return replace(sampling, seed=rng.generator(sampling.seed, *purpose).initial_seed())
