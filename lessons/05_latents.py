# %% [markdown]
# # 5. The latent space
#
# Nothing in lessons 1 to 4 needs pixels; 3 and 4 drew latents already. Latent diffusion
# (arXiv:2112.10752, section 3.1) first learns an autoencoder, and then diffuses its small code z in
# the place of the picture:
#
#     z = E(x),   x~ = D(z)         x: [C, H, W],   z: [C_z, H/8, W/8]
#
# Its loss asks for x~ near x and, a little, for z near a unit Gaussian, so that z does not grow
# without limit (`Posterior.kl` in [ldm/vae.py](../ldm/vae.py)). What the encoder drops is not in
# the latents that a diffusion model learns from. So this lesson asks what the autoencoder keeps.

# %%
import dataclasses
from itertools import pairwise

import matplotlib.pyplot as plt
import torch
from showing import MODEL, save, show

import ldm
from ldm.config import ModelConfig
from ldm.data.phantom import Probe, render, sample_phantoms
from ldm.metrics.estimate import mean

pipe = ldm.load(MODEL)
SEEDS = range(900_000_000, 900_000_012)  # phantoms that nothing was trained on
films = render(sample_phantoms(SEEDS)).images
latents = pipe.encode_images(films)
copies = pipe.decode(latents)
error = (127.5 * (copies - films)).square().mean(dim=(1, 2, 3))
print(f"a film {list(films.shape[1:])}, its latent {list(latents.shape[1:])}")
print(f"{films[0].numel() / latents[0].numel():.0f} times fewer numbers")
print(f"mean {latents.mean():.2f}, standard deviation {latents.std():.2f} of the latents")
psnr = mean(10 * torch.log10(255**2 / error))  # of 255 and the RMS error: 40 is a hundredth
print(f"PSNR {psnr.show('.1f')} dB, n = {psnr.n}")
print(f"their factor: {pipe.scale_factor:.4f}; that of SD v1.4: {ModelConfig().scale_factor}")
channels = latents[0, :3, None] / latents[0, :3].abs().amax(dim=(1, 2))[:, None, None, None]
show(
    "05_copies",
    torch.cat([films[:1], copies[:1], channels.repeat_interleave(8, 2).repeat_interleave(8, 3)]),
    ["a film", "its copy", "latent channel 0", "channel 1", "channel 2"],
)
# > a film [1, 128, 128], its latent [8, 16, 16]
# > 8 times fewer numbers
# > mean 0.02, standard deviation 1.06 of the latents
# > PSNR 35.1 (34.1 to 36.1) dB, n = 12
# > their factor: 0.6646; that of SD v1.4: 0.18215
# > runs/lessons/05_copies.png

# %% [markdown]
# ## Which detail survives: the modulation transfer function
#
# Radiology measures detectors by the share of amplitude that they keep of a wave, by its frequency.
# We do so for the autoencoder: a Fourier transform of film and copy, and, in rings of equal
# frequency, the part of the copy's amplitude that agrees with the film. A window fades out the
# border, whose jump from one side to the other would fill all frequencies.

# %%
window = torch.hann_window(128)[:, None] * torch.hann_window(128)
spectra = [torch.fft.rfft2(window * (y[:, 0] - y.mean())) for y in (films, copies)]
f = torch.hypot(torch.fft.fftfreq(128)[:, None], torch.fft.rfftfreq(128)[None])  # cycles a pixel
shared = (spectra[1] * spectra[0].conj()).real.sum(dim=0)
power = spectra[0].abs().square().sum(dim=0)
edges = torch.linspace(0, 0.5, 26)
rings = [(f > low) & (f <= high) for low, high in pairwise(edges)]
kept = [float(shared[ring].sum() / power[ring].sum()) for ring in rings]
for i in (0, 6, 12, 18, 24):
    print(f"{edges[i]:.2f} to {edges[i + 1]:.2f} cycles a pixel: {kept[i]:.2f} of the amplitude")
figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
axis.plot(edges[1:], kept)
axis.axvline(1 / 16, color="gray", linestyle=":", label="half a wave fills a latent cell")
axis.set(xlabel="cycles a pixel", ylabel="share kept", ylim=(0, 1.05))
axis.legend()
save("05_transfer", figure)
# > 0.00 to 0.02 cycles a pixel: 1.00 of the amplitude
# > 0.12 to 0.14 cycles a pixel: 0.97 of the amplitude
# > 0.24 to 0.26 cycles a pixel: 0.48 of the amplitude
# > 0.36 to 0.38 cycles a pixel: 0.19 of the amplitude
# > 0.48 to 0.50 cycles a pixel: 0.06 of the amplitude
# > runs/lessons/05_transfer.png

# %% [markdown]
# A latent cell is 8 pixels wide, but has 8 channels, so waves shorter than two cells are kept as
# well, down to half of the amplitude at four pixels a wave; the finest are lost. This is an average
# by power, for these films. Look at the letter in the picture above: of such fine edges a smear is
# left.
#
# ## The smallest nodule
#
# A phantom has a twin that differs by one nodule, a round spot in a lung, of known size; a pixel is
# about 3 mm of the body. How much of the difference is still there after the autoencoder? At 8 mm
# it is half: the copy shows a fainter or blurred nodule.

# %%
healthy = sample_phantoms(SEEDS[:6], findings=[])
without = render(healthy).images
plain = pipe.decode(pipe.encode_images(without))
for size in (3, 5, 8, 12, 18):  # mm
    people = [dataclasses.replace(p, probe=Probe("nodule", size / 10)) for p in healthy]
    films = render(people).images
    added, copied = films - without, pipe.decode(pipe.encode_images(films)) - plain
    shares = (added * copied).sum(dim=(1, 2, 3)) / added.square().sum(dim=(1, 2, 3))
    print(f"{size} mm: {mean(shares).show('.2f')} of it, n = {len(shares)}")
# > 3 mm: 0.20 (0.15 to 0.25) of it, n = 6
# > 5 mm: 0.36 (0.23 to 0.49) of it, n = 6
# > 8 mm: 0.48 (0.41 to 0.55) of it, n = 6
# > 12 mm: 0.71 (0.66 to 0.77) of it, n = 6
# > 18 mm: 0.92 (0.89 to 0.94) of it, n = 6

# %% [markdown]
# ## Questions
#
# **Q1** SD draws 512 x 512 x 3 pixels through latents of 64 x 64 x 4. What does that save? **Q2** A
# model draws no nodules of 3 mm. Is its U-Net too small? **Q3** Why must latents have a standard
# deviation near 1?
#
# **A1** 48 times fewer numbers; and attention, which compares all places with all others, does
# 4,096 times less: (512 / 64) to the power of 4.
#
# **A2** Look at the table first: what the encoder drops or the decoder cannot draw, no larger U-Net
# brings back. `evaluate.py reconstruction` has more phantoms, wires and letters; at n = 6 the
# intervals, of two standard errors, are a quarter too narrow.
#
# **A3** The schedule mixes them with noise of variance 1 (lesson 1). SD's latents are multiplied by
# 0.18215 for that; forget it, and "t = 500" means another amount of noise than in training.
#
# **Go further**: `python evaluate.py reconstruction phantoms:20 --model weights`
