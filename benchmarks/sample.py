"""A whole guided image: our default, 20 steps of DPM-Solver++, against diffusers', 50 of PNDM.

These are two pictures: what is found equal before is one pass of each network. Text is left out of
both, which are handed random contexts, and so is diffusers' safety checker.
"""

from __future__ import annotations

import time
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks import unet
from benchmarks.measure import (
    NOT_INSTALLED,
    SWITCHES,
    Row,
    Setting,
    agree,
    gflop,
    random_part,
    timed,
    turns,
    twin,
)
from ldm.clip import TextEncoder
from ldm.config import ModelConfig
from ldm.fast import switches
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.vae import VAE

FEW = 5  # of their 50 steps are taken, the others are as long
NOTE = f"20 steps of DPM-Solver++, {SWITCHES[True]}; without text"
THEIRS = f"the other: 50 steps of PNDM, extrapolated from {FEW}"


def their_pipeline(ours: LatentDiffusion) -> Any:
    """Diffusers' default pipeline without text, or None."""
    networks = {part: twin(part, ours.config, getattr(ours, part)) for part in ("unet", "vae")}
    if None in networks.values():
        return None
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    steps = ours.config.schedule
    scheduler = PNDMScheduler(
        steps.steps,
        steps.beta_start,
        steps.beta_end,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    )
    rest = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    pipe = StableDiffusionPipeline(
        **networks, **rest, scheduler=scheduler, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def extrapolated(pipe: Any, context: Tensor, negative: Tensor, sampling: Sampling) -> float:
    """Seconds of their 50 steps: the first few, the others as long as these, and the decoder."""
    clock = [time.perf_counter()]

    def after(pipe: Any, i: int, t: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        clock.append(time.perf_counter())
        pipe._interrupt = i + 1 >= FEW  # their way to leave out the rest
        return tensors

    pipe(
        prompt_embeds=context,
        negative_prompt_embeds=negative,
        num_inference_steps=50,
        guidance_scale=sampling.guidance,
        height=sampling.height,
        width=sampling.width,
        output_type="np",
        callback_on_step_end=after,
    )
    clock.append(time.perf_counter())
    first, *steps, last = [after - before for before, after in pairwise(clock)]
    return first + (len(pipe.scheduler.timesteps) - 1) * median(steps) + last


@torch.no_grad()
def rows(name: str, setting: Setting) -> list[Row]:
    config: ModelConfig = setting.config
    with torch.device("meta"):
        text = TextEncoder(config.text)  # is not asked
    pipe = LatentDiffusion(config, random_part("unet", config), random_part("vae", config), text)
    theirs = their_pipeline(pipe)
    size = config.image_size
    sampling = Sampling(guidance=config.guidance, height=size, width=size)
    x, t, contexts = unet.inputs(config, 2, size // config.vae.factor)
    negative, context = contexts.split(1)
    switches.choose(pipe, winograd=True)
    difference = None
    if theirs is not None:
        pairs = [
            (pipe.unet(x, t, contexts), theirs.unet(x, t, contexts, return_dict=False)[0]),
            (pipe.vae.decode(x[:1]), theirs.vae.decode(x[:1], return_dict=False)[0]),
        ]
        difference = max(agree(ours, other, name) for ours, other in pairs)

    def draw() -> None:
        pipe.decode(pipe.sample_latents(context, negative, [0], sampling))

    ways = {"ours": lambda: timed(draw)}
    if theirs is not None:
        ways["other"] = lambda: extrapolated(theirs, context, negative, sampling)
    taken = turns(ways, setting.rounds)
    work = sampling.steps * gflop("unet", config, unet.forward, x, t, contexts)
    work += gflop("vae", config, VAE.decode, x[:1])
    note = f"{NOTE}; {NOT_INSTALLED if theirs is None else THEIRS}"
    other = taken.get("other", [])
    return [Row(name, taken["ours"], other, taken["sgemm"], work, difference, note)]
