# %% [markdown]
# # 2. A denoiser in two dimensions
#
# The whole idea. A "picture" here is a point with two numbers, so that data and way can be drawn.
# The points lie in a phantom's lungs, some of which the liver hides; the "prompt" says which lung
# (on a film the right one is left). The network is trained to guess the noise:
#
#     L = E |eps - eps_theta(x_t, t, prompt)|^2        (DDPM, arXiv:2006.11239, eq. 14; LDM, eq. 3)
#
# The code of loss, schedule, guidance and sampler draws radiographs, too; the network is smaller.

# %%
import matplotlib.pyplot as plt
import torch
from showing import save
from torch import Tensor, nn

from ldm import guidance, rng
from ldm.blocks import timestep_embedding
from ldm.data import phantom
from ldm.data.image_sets import named_phantoms
from ldm.loss import diffusion_loss
from ldm.samplers import DDIM, sample
from ldm.schedule import NoiseSchedule

torch.manual_seed(0)
drawn = phantom.render(named_phantoms("phantoms:1:900000003"))
lungs = torch.stack([drawn.masks["right lung"][0], drawn.masks["left lung"][0]])  # [2, 128, 128]
which, rows, columns = lungs.nonzero().T
points = torch.stack([columns, 127 - rows], dim=1) / 32 - 2.0  # [n, 2], from -2 to 2
prompts = torch.eye(3)[:, None]  # [3, 1, 3]: right, left, and the empty prompt


# %%
class Denoiser(nn.Sequential):
    """eps of a point [B, 2, 1, 1] at t [B], with a prompt [B, 1, 3]: the form of the U-Net."""

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        seen = [x.flatten(1), timestep_embedding(t, 32), context[:, 0]]
        return super().forward(torch.cat(seen, dim=1))[:, :, None, None]


hidden = [layer for _ in range(2) for layer in (nn.Linear(128, 128), nn.SiLU())]
network = Denoiser(nn.Linear(2 + 32 + 3, 128), nn.SiLU(), *hidden, nn.Linear(128, 2))
schedule, steps, losses = NoiseSchedule(), 2000, []
optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
for step in range(steps):
    g = rng.generator(0, "lesson", step)
    chosen = torch.randint(len(points), (256,), generator=g)
    prompt = which[chosen].where(torch.rand(256, generator=g) > 0.1, 2)  # 10 % learn without text
    x0 = points[chosen] + torch.rand(256, 2, generator=g) / 32  # anywhere in its pixel
    eps = torch.randn(256, 2, 1, 1, generator=g)
    t = torch.randint(1000, (256,), generator=g)
    loss = diffusion_loss(network, schedule, x0[..., None, None], eps, t, prompts[prompt]).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    decay.step()
    losses.append(loss.item())
print(f"{sum(p.numel() for p in network.parameters())} weights")
print(f"loss: first 50 steps {sum(losses[:50]) / 50:.2f}, last 500 {sum(losses[-500:]) / 500:.2f}")
# > 38146 weights
# > loss: first 50 steps 0.44, last 500 0.23

# %% [markdown]
# The loss does not go to 0. Many clean points, each with its own noise, lead to the same noisy
# point; the best guess is the mean of their noises, and what is left is what cannot be known.
#
# ## From noise to lungs
#
# A step guesses the noise, removes it, and adds a little less of it again. `sample`, the loop of
# [ldm/samplers.py](../ldm/samplers.py), also draws the radiographs. We ask for each lung, from the
# same noise: what share of the points lies in it, before and after?


# %%
@torch.no_grad()
def draw(side: int, scale: float, n: int = 500) -> list[Tensor]:
    """The points [n, 2] after each of 50 steps."""
    context, empty = (prompts[i].expand(n, -1, -1) for i in (side, 2))
    denoise = guidance.guide(network, context, empty, scale)
    x = rng.gaussian(seed=1, indices=range(n), step=-1, shape=(2, 1, 1))
    way = sample(DDIM(schedule), denoise, x, schedule.timesteps(50, "trailing"))
    return [x.flatten(1), *(step.x.flatten(1) for step in way)]


def share(x: Tensor, inside: Tensor) -> float:
    column, row = ((x + 2) * 32).long().clamp(0, 127).T
    return inside[127 - row, column].float().mean().item()


ways = [draw(side, scale=1.0) for side in (0, 1)]
for name, way, lung in zip(("right", "left"), ways, lungs, strict=True):
    print(f"{name}: {share(way[0], lung):.2f} of the noise in it, {share(way[-1], lung):.2f} drawn")
# > right: 0.26 of the noise in it, 0.90 drawn
# > left: 0.26 of the noise in it, 0.90 drawn

# %%
figure, axes = plt.subplots(1, 5, figsize=(12, 2.8), layout="constrained")
for axis, i in zip(axes, (0, 20, 35, 44, 50), strict=True):
    axis.imshow(drawn.images[0, 0].numpy(), cmap="gray", extent=(-2, 2, -2, 2))
    for way, color, label in zip(ways, ("orange", "cyan"), ("right", "left"), strict=True):
        axis.scatter(*way[i].T, s=2, c=color, label=label)
    axis.set(xlim=(-2, 2), ylim=(-2, 2), xticks=[], yticks=[], title=f"after {i} of 50 steps")
axes[-1].legend(fontsize=7, loc="lower right")
save("02_denoiser", figure)
# > runs/lessons/02_denoiser.png

# %% [markdown]
# ## Questions
#
# **Q1** What does the network return for a point far from both lungs? **Q2** Why does it learn
# without a prompt one time in ten? **Q3** What changes from here to a radiograph?
#
# **A1** The ideal answer points away from the data, so that removing it leads there: at large t to
# the middle of the asked lung, at small t to its edge. Far points at small t it never saw: a guess.
#
# **A2** Guidance (lesson 4) needs the guess without a prompt. Draw with `scale=3` and look: the
# points crowd together, away from the other lung.
#
# **A3** A point has 2 numbers, a latent of the built-in model 2,048; the network becomes a U-Net
# (convolutions that halve the picture and double it again), the prompt text (lesson 7).
#
# **Go further**: `python -m lessons.bugs` lists mistakes; plant one, see what it draws, find it.
