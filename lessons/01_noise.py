# %% [markdown]
# # 1. Noise
#
# A diffusion model learns a single task: to guess the noise in a noisy picture. This lesson makes
# the noisy pictures. With noise eps drawn from a unit Gaussian,
#
#     x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps     (DDPM, arXiv:2006.11239, eq. 4)
#
# t = 0 is nearly clean, t = 999 is nearly noise. `alpha_bar` falls from nearly 1 to nearly 0: of a
# picture of variance 1 it is the share of the variance that is still picture; the signal-to-noise
# ratio is alpha_bar / (1 - alpha_bar). The code is `NoiseSchedule.add_noise` in
# [ldm/schedule.py](../ldm/schedule.py). Our picture is a phantom: a chest film computed from solids
# whose size and place are known, here with a finding (something abnormal), a pleural effusion:
# fluid below a lung, white on a film. It shows no patient.

# %%
import torch
import torch.nn.functional as F
from showing import show

from ldm import rng
from ldm.data.image_sets import open_set
from ldm.schedule import NoiseSchedule

schedule = NoiseSchedule()  # of Stable Diffusion v1
x0 = open_set("phantoms:1:900000003").load(0)[None]  # [1, 1, 128, 128] in [-1, 1]
eps = rng.gaussian(seed=0, indices=[0], step=-1, shape=x0.shape[1:])
times = torch.tensor([0, 200, 400, 600, 800, 999])
noisy = schedule.add_noise(x0.expand(6, -1, -1, -1), eps.expand(6, -1, -1, -1), times)
for t, alpha_bar, snr in zip(times, schedule.at(times), schedule.snr(times), strict=True):
    print(f"t = {t:3d}: alpha_bar {alpha_bar:.4f}, signal to noise {snr:.4f}")
show("01_noise", noisy.clamp(-1, 1), [f"t = {t}" for t in times])
# > t =   0: alpha_bar 0.9991, signal to noise 1175.4706
# > t = 200: alpha_bar 0.7537, signal to noise 3.0600
# > t = 400: alpha_bar 0.4245, signal to noise 0.7376
# > t = 600: alpha_bar 0.1608, signal to noise 0.1916
# > t = 800: alpha_bar 0.0369, signal to noise 0.0383
# > t = 999: alpha_bar 0.0047, signal to noise 0.0047
# > runs/lessons/01_noise.png

# %% [markdown]
# ## One jump is as good as many steps
#
# The paper defines noise step by step: x_t = sqrt(1 - beta_t) x_(t-1) + sqrt(beta_t) eps (eq. 2).
# Each step shrinks the picture a little and adds a little noise. Gaussians add up to a Gaussian, so
# t steps are one jump with alpha_bar_t = (1 - beta_1) ... (1 - beta_t); the code counts from 0.
# Training needs only the jump. We take 501 steps of fresh noise, and compare both factors with
# those of the jump.

# %%
x, factor, variance = x0, 1.0, 0.0
for i, beta in enumerate(schedule.beta[:501]):
    noise = rng.gaussian(seed=0, indices=[0], step=i, shape=x0.shape[1:])
    x = (1 - beta).sqrt() * x + beta.sqrt() * noise
    factor, variance = factor * (1 - beta).sqrt(), (1 - beta) * variance + beta
alpha_bar = schedule.alpha_bar[500]
print(f"501 steps: picture times {factor:.6f}, noise of standard deviation {variance.sqrt():.6f}")
print(f"one jump:  picture times {alpha_bar.sqrt():.6f}, noise of {(1 - alpha_bar).sqrt():.6f}")
print(f"measured:  noise of {(x - factor * x0).std():.3f} in the picture of 501 steps")
# > 501 steps: picture times 0.525674, noise of standard deviation 0.850686
# > one jump:  picture times 0.525674, noise of 0.850686
# > measured:  noise of 0.845 in the picture of 501 steps

# %% [markdown]
# ## What a step destroys
#
# Noise is equally strong at all frequencies (white), a radiograph has most of its power in the low
# ones: means over an area keep the picture and lose the noise. So detail drowns first. We split
# picture and noise into detail (what lies above a mean of 5 x 5 pixels) and shape (a mean of 16 x
# 16 pixels), and ask when the noise is as strong as the picture. Detail is lost at once, the large
# shapes at t = 800. These are averages: a sharp rib lasts longer than the mean of the detail. Read
# backwards, this is how a picture appears when a model draws: first the shape, then the detail.


# %%
def detail(y: torch.Tensor) -> torch.Tensor:
    return y - F.avg_pool2d(y, 5, 1, 2, count_include_pad=False)


def shape(y: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(y, 16)


for name, part in (("detail", detail), ("shape", shape)):
    ratio = part(x0).std() / part(eps).std()  # of picture to noise, before either is scaled
    drowned = schedule.snr(torch.arange(1000)).sqrt() * ratio < 1
    first = int(drowned.nonzero()[0])
    print(f"{name}: {ratio:.2f} times the noise; drowned from t = {first}")
# > detail: 0.06 times the noise; drowned from t = 3
# > shape: 5.11 times the noise; drowned from t = 800

# %% [markdown]
# ## Questions
#
# **Q1** Why square roots? **Q2** What is left of the picture at t = 999, and does it matter? **Q3**
# Does the schedule know whether it adds noise to pixels or to latents, the small codes of pictures
# (lesson 5)?
#
# **A1** Variances add up, standard deviations do not. With the roots, a picture of variance 1 stays
# at variance 1: alpha_bar + (1 - alpha_bar). Without them the network sees another range at each t.
#
# **A2** Its factor is the root of the last alpha_bar, 0.0047: 7 % of the amplitude. Sampling starts
# from pure noise, which training has therefore never seen: pictures of SD come out with a grey mean
# (arXiv:2305.08891 mends that; here it is `zero_terminal_snr`).
#
# **A3** No. It multiplies and adds numbers. SD scales its latents to a variance near 1 (lesson 5).
#
# **Go further**: `python sample.py --prompt "lung xray" --trajectory` writes x0 as predicted on the
# way back, from a blurred chest to a sharper one, as `samples/trajectory.png`.
