# %% [markdown]
# # 11. The real thing
#
# The lessons used a model of 13 million weights. Stable Diffusion v1.4 has 1,066 million, and the
# same code: a config holds sizes and a few choices (what is predicted, the schedule). It learns by
#
#     L = E |eps - eps_theta(z_t, t, tau_theta(y))|^2     (LDM, arXiv:2112.10752, eq. 3)
#
# z is a latent (lesson 5), tau_theta the text tower (lesson 7), y the prompt. This lesson builds it
# without its weights, to see how large it is, where each part is, and how we know that it is right.

# %%
import torch
from showing import MODEL, ROOT, show
from torch.utils.flop_counter import FlopCounterMode

import ldm
from ldm.clip import TextEncoder
from ldm.config import ModelConfig
from ldm.schedule import NoiseSchedule
from ldm.unet import UNet
from ldm.vae import VAE
from ldm.weights.tensor_names import names

config = ModelConfig()  # the sizes of SD v1.4 are the default
with torch.device("meta"):  # shapes without numbers: needs no memory
    parts = {
        "unet": UNet(config.unet),
        "vae": VAE(config.vae),
        "text": TextEncoder(config.text),
    }
for name, module in parts.items():
    print(f"{name}: {sum(p.numel() for p in module.parameters()) / 1e6:.1f} million weights")
print(f"latents of 512 x 512 pixels: {[config.unet.in_channels, 512 // config.vae.factor, 64]}")
print(f"text: {config.text.context_length} tokens of {config.text.width} numbers")
# > unet: 859.5 million weights
# > vae: 83.7 million weights
# > text: 123.1 million weights
# > latents of 512 x 512 pixels: [4, 64, 64]
# > text: 77 tokens of 768 numbers

# %% [markdown]
# ## How much more work is it?
#
# PyTorch counts products without doing them. Two operations (times, plus) for each weight and
# place, and those of attention: one pass of each U-Net, of which a guided picture in 20 steps needs
# 40.

# %%
small = ldm.load(MODEL)
work = {}
for name, sizes, cells in (("SD v1.4", config, 64), ("built-in", small.config, 16)):
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        x = torch.zeros(1, sizes.unet.in_channels, cells, cells)
        t, context = torch.zeros(1, dtype=torch.int64), torch.zeros(1, 77, sizes.text.width)
        UNet(sizes.unet)(x, t, context)
    work[name] = counter.get_total_flops() / 1e9
    print(f"{name}: {work[name]:.1f} GFLOP a pass")
minutes = work["SD v1.4"] / work["built-in"] / 60
print(f"at the same speed one second here would be {minutes:.0f} minutes there")
# > SD v1.4: 803.3 GFLOP a pass
# > built-in: 0.7 GFLOP a pass
# > at the same speed one second here would be 19 minutes there

# %% [markdown]
# ## Where is what?
#
# The published file has other names for the same tensors. One table translates them, in both
# directions, and loading is strict: a tensor too many, too few or of another shape is an error. So
# a name in a paper, a blog or another program leads to a line of the book.

# %%
table = names(config, "compvis")
shapes = {f"{a}.{b}": p.shape for a, part in parts.items() for b, p in part.named_parameters()}
for ours in (
    "unet.down.0.attn.0.blocks.0.cross_attn.k.weight",
    "unet.time_embed.0.weight",
    "vae.decoder.conv_out.weight",
):
    print(table[ours][0])
    print(f"  is {ours} {list(shapes[ours])}")
print(f"{len(table)} names here, {len(shapes.keys() - table.keys())} of our weights without one")
print(f"{sum(map(len, table.values()))} names there, of which some of our tensors stack several")
# > model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight
# >   is unet.down.0.attn.0.blocks.0.cross_attn.k.weight [320, 768]
# > model.diffusion_model.time_embed.0.weight
# >   is unet.time_embed.0.weight [1280, 320]
# > first_stage_model.decoder.conv_out.weight
# >   is vae.decoder.conv_out.weight [3, 128, 3, 3]
# > 1082 names here, 0 of our weights without one
# > 1130 names there, of which some of our tensors stack several

# %% [markdown]
# ## How do we know that it is right?
#
# The weights are not in this repository. The tests fill all tensors with pseudo-random numbers and
# compare with what the published code (CompVis) computed from the same numbers: each part and each
# sampler agrees to five digits (docs/weights.md). A check for a few lines of NumPy: the constants
# of the schedule, and the first and last timestep of 50 DDIM steps as SD v1.4 takes them.

# %%
schedule = NoiseSchedule(**vars(config.schedule))
times = schedule.timesteps(50)
print(f"alpha_bar: first {schedule.alpha_bar[0]:.5f}, last {schedule.alpha_bar[-1]:.6f}")
print(f"timesteps: {times[:3].tolist()} ... {times[-2:].tolist()}")
checkpoint = ROOT / "sd-v1-4.ckpt"
if checkpoint.exists():  # beside README.md: then this draws with it, in minutes on two cores
    sampling = ldm.pipeline.Sampling(steps=20, guidance=7.5)
    picture = ldm.load(checkpoint).draw(["a chest x-ray"], [0], sampling)
    show("11_the_real_thing", picture.mean(dim=1, keepdim=True), ["SD v1.4: a chest x-ray"])
# > alpha_bar: first 0.99915, last 0.004660
# > timesteps: [981, 961, 941] ... [21, 1]

# %% [markdown]
# ## Questions
#
# **Q1** Why does the first timestep of 50 say 981 and not 999? **Q2** What was verified without the
# weights, and what was not? **Q3** How would you teach this model radiographs?
#
# **A1** SD v1 strides from 1 in steps of 20. So it starts from pure noise at a level that, in
# training, still showed a trace of the picture, its mean above all. Lesson 1, A2, is the same: the
# network takes the noise's grey mean for the picture's.
#
# **A2** Verified: names, shapes, and that our code computes what the reference computes, to five
# digits, for the pseudo-random numbers of the tests. Not verified: pictures of the real weights,
# and anything on a GPU. A claim about pictures needs the weights, and then the measures of lesson
# 9.
#
# **A3** As in lesson 8, with `model.path=sd-v1-4.ckpt` and your own table of films: docs/films.md
# and docs/adaptation.md have the commands. Chambon et al. did it with ten films (arXiv:2210.04133),
# and then with thousands (arXiv:2211.12737).
#
# **Go further**: `python sample.py --model sd-v1-4.ckpt --prompt "a chest x-ray"`
