# %% [markdown]
# # 3. Samplers
#
# The network says where the noise is; a sampler decides how far to go. DDPM adds fresh noise in
# each step, DDIM adds none:
#
#     x_prev = sqrt(alpha_bar_prev) x0 + sqrt(1 - alpha_bar_prev - std^2) eps + std noise
#                                                     (DDIM, arXiv:2010.02502, eq. 12)
#
# with std = 0 for DDIM and eq. 16 (eta = 1) for DDPM; x0 is the clean picture that eps implies.
# Without noise a path from noise to picture is the solution of an ordinary differential equation,
# and a sampler is a numerical method for it: five of the seven in
# [ldm/samplers.py](../ldm/samplers.py) are. One of order p makes 2^p times smaller errors in twice
# as many steps. We measure p where the truth is known.

# %%
import math
from itertools import islice

import matplotlib.pyplot as plt
import torch
from showing import MODEL, save, show
from torch import Tensor

import ldm
from ldm.pipeline import Sampling
from ldm.samplers import SAMPLERS, sample
from ldm.schedule import NoiseSchedule

# the same curve as Stable Diffusion's in 64,000 levels, so that steps can be halved often
schedule = NoiseSchedule(64_000, 0.00085 / 64, 0.012 / 64)
middles, width = torch.tensor([[-1.5, 0.5]]).double(), 0.4  # data: two Gaussians on a line


def denoise(x: Tensor, t: Tensor) -> Tensor:
    """The exact eps = -sqrt(1 - alpha_bar) d/dx log p_t(x) of these data; x: [B, 1]"""
    alpha_bar = schedule.at(t[:1], like=x)
    away, variance = x - alpha_bar.sqrt() * middles, alpha_bar * width**2 + 1 - alpha_bar
    of_each = (-(away**2) / (2 * variance)).softmax(dim=1)
    return (1 - alpha_bar).sqrt() * (of_each * away / variance).sum(dim=1, keepdim=True)


def solve(name: str, n: int) -> Tensor:
    """From t = 57,600 to t = 12,800 in n steps; the last one, to the end, is of order 1."""
    x = torch.linspace(-1.5, 1.5, 41, dtype=torch.float64)[:, None]
    times = torch.linspace(57_600, 12_800, n + 1).long()
    steps = sample(SAMPLERS[name](schedule), denoise, x, times)
    return [step.x for step in islice(steps, n)][-1]


truth, counts, errors = solve("heun", 800), (10, 20, 40, 80), {}
for name in ("ddim", "heun", "dpm++"):
    errors[name] = [(solve(name, n) - truth).square().mean().sqrt().item() for n in counts]
    order = math.log2(errors[name][-2] / errors[name][-1])
    print(f"{name}: error in 10 steps {errors[name][0]:.4f}, in 80 {errors[name][-1]:.6f}")
    print(f"{name}: order {order:.1f}")
# > ddim: error in 10 steps 0.0495, in 80 0.006126
# > ddim: order 1.0
# > heun: error in 10 steps 0.0082, in 80 0.000116
# > heun: order 2.0
# > dpm++: error in 10 steps 0.0052, in 80 0.000070
# > dpm++: order 2.0

# %%
figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
for name, values in errors.items():
    axis.loglog(counts, values, "o-", label=name)
axis.set(xlabel="steps", ylabel="error", title="a straight line of slope -p is order p")
axis.legend()
save("03_order", figure)
# > runs/lessons/03_order.png

# %% [markdown]
# Heun asks the network twice in a step, so 10 of its steps cost as much as 20 of DPM-Solver++,
# which remembers its last answer instead. That is why `dpm++` is the default of `sample.py`.
#
# ## The same on a radiograph
#
# Here the truth is unknown. We take 40 steps of Heun for it, and print the mean difference from
# there, in grey levels of 255, over two pictures. All samplers start from the same noise. DDPM goes
# somewhere else: a second DDPM, with the same start and other noise on the way, is as far from the
# first as pictures of unrelated noise are (lesson 4).

# %%
pipe = ldm.load(MODEL)
prompts = ["lung xray with pleural effusion", "lung xray, no findings"]


def draw(name: str, steps: int, seed: int = 0) -> Tensor:
    sampling = Sampling(seed, steps, name, guidance=1.0, height=128, width=128)
    with torch.inference_mode():
        noise_at = pipe.noise_source(sampling, indices=[0, 1])
        start = pipe.noise_source(Sampling(height=128, width=128), indices=[0, 1])(-1)  # of seed 0
        eps = pipe.denoiser(pipe.encode_text(prompts), None, sampling)
        return pipe.decode(pipe.sample_from(start, eps, sampling, noise_at))


reference = draw("heun", 40)
ways = [("ddim", 5), ("ddim", 20), ("dpm++", 5), ("dpm++", 20), ("ddpm", 20)]
pictures = {f"{name}, {steps} steps": draw(name, steps) for name, steps in ways}
pictures["ddpm, other noise"] = draw("ddpm", 20, seed=1)
for title, picture in pictures.items():
    print(f"{title}: {127.5 * (picture - reference).abs().mean():.1f} grey levels away")
between = pictures["ddpm, 20 steps"] - pictures["ddpm, other noise"]
print(f"between the two of ddpm: {127.5 * between.abs().mean():.1f}")
show("03_samplers", torch.stack([p[0] for p in pictures.values()]), list(pictures))
# > ddim, 5 steps: 14.8 grey levels away
# > ddim, 20 steps: 4.2 grey levels away
# > dpm++, 5 steps: 8.5 grey levels away
# > dpm++, 20 steps: 0.7 grey levels away
# > ddpm, 20 steps: 54.4 grey levels away
# > ddpm, other noise: 53.4 grey levels away
# > between the two of ddpm: 39.5
# > runs/lessons/03_samplers.png

# %% [markdown]
# ## Questions
#
# **Q1** Where can the measured order be wrong? **Q2** DDPM's paper takes 1,000 steps, DDIM 50. Is
# DDPM wrong in 20? **Q3** When is noise on the way of use?
#
# **A1** It is the slope for ever smaller steps; 80 are not many, DPM-Solver++ begins with one step
# of order 1, and our truth is itself computed, by Heun's method in 800 steps.
#
# **A2** It takes the way back for a Gaussian step, which holds for small steps only. In 20 long
# steps its pictures follow another distribution: both are farther from Heun's than two pictures of
# unrelated noise are (lesson 4).
#
# **A3** It corrects: fresh noise makes later steps repair errors of earlier ones. With many steps
# stochastic samplers can give the better Fréchet distances (lesson 9; arXiv:2206.00364, section 4).
#
# **Go further**: `python sample.py --prompt "lung xray" --sampler ddpm --steps 200`
