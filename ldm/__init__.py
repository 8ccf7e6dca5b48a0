"""Latent diffusion for radiology, written from scratch in PyTorch.

The files beside this one are a book. In reading order:

    config      settings as dataclasses, and the sizes of a model
    rng         every random number is a function of (seed, purpose)
    schedule    the forward process: alpha_bar, adding noise, what the network predicts
    guidance    classifier-free guidance: a function around the network
    samplers    from noise to a picture: steps, and the one loop
    blocks      residual block, upsampling, the embedding of time
    attention   softmax(Q K^T / sqrt(d)) V and the transformer block
    unet        the denoiser
    vae         the autoencoder: images <-> latents
    clip        the text tower
    pipeline    text -> latent -> image
    loss        what each part is trained on
    lora        W + B A: a small change of a large matrix

The folders are rooms; none of the files above imports one. Lowest first: system, pictures, weights,
text, data, fast, drawing, metrics, judging, training, report.
"""

from pathlib import Path
from typing import Any

__version__ = "0.1.0"


def load(path: str | Path, *options: Any, **more: Any) -> Any:
    """The LatentDiffusion in a file or folder of any layout; options as of ldm.weights.load."""
    from ldm.weights import load as load_weights  # PyTorch takes seconds

    return load_weights(path, *options, **more)
