"""Editing of pictures: integers [H, W, C], grey or RGB, 8 or 16 bits, of any size from 64 px.

For the model they are padded and made grey or RGB; results have the size, depth and channels of
what was given.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldm.drawing import compositing, latent_editing
from ldm.drawing.compositing import Floats, Levels
from ldm.drawing.latent_editing import PictureBatch
from ldm.guidance import Denoise
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling


def denoiser(pipe: LatentDiffusion, prompts: Sequence[str], sampling: Sampling) -> Denoise:
    """The network with the prompts, the negative prompt and the guidance inside."""
    with torch.inference_mode():
        context = pipe.encode_each(prompts)
        negative = None if sampling.guidance == 1 else pipe.encode_each([sampling.negative])
    return pipe.denoiser(context, negative, sampling)


def sized(pipe: LatentDiffusion, sampling: Sampling, height: int, width: int) -> Sampling:
    """`sampling` at the size that an image of height x width is padded to."""
    tall, wide = (side + -side % pipe.config.multiple for side in (height, width))
    return replace(sampling, height=tall, width=wide)


def fitted(batch: PictureBatch, height: int, width: int) -> PictureBatch:
    return replace(batch, sampling=sized(batch.pipe, batch.sampling, height, width))


def encode(pipe: LatentDiffusion, picture: Levels) -> Tensor:
    """[1, C, h, w], scaled"""
    image = image_files.from_integers(compositing.padded(picture, pipe.config.multiple))
    return pipe.encode_images(image_files.to_channels(image, pipe.config.vae.image_channels)[None])


def decode(pipe: LatentDiffusion, z: Tensor, like: Levels) -> list[Floats]:
    """[B, C, h, w] -> B pictures [H, W, C] of the size, levels and channels of `like`, unrounded"""
    height, width, channels = like.shape
    drawn = image_files.to_channels(pipe.decode(z), channels)[:, :, :height, :width]
    levels = (drawn.permute(0, 2, 3, 1).double().numpy() + 1) * (np.iinfo(like.dtype).max / 2)
    return list(levels)


def rounded(pictures: Sequence[Floats], like: Levels) -> list[Levels]:
    return [picture.round().astype(like.dtype) for picture in pictures]


def image_to_image(batch: PictureBatch, picture: Levels, strength: float) -> list[Levels]:
    """The picture changed to each prompt; the greater the strength, the less like before."""
    pipe, batch = batch.pipe, fitted(batch, *picture.shape[:2])
    denoise, z = denoiser(pipe, batch.prompts, batch.sampling), encode(pipe, picture)
    z = latent_editing.image_to_image(batch, z, denoise, strength)
    return rounded(decode(pipe, z, picture), picture)


def counterfactual(
    batch: PictureBatch,
    picture: Levels,
    described: Sequence[str],
    strength: float = 1.0,
    rounds: int = 2,
) -> list[Levels]:
    """The picture changed to each prompt, from the noise that gives it for its description.

    described: for each prompt, what the picture shows; if both are equal the picture comes back
    rounds: see `latent_editing.ascend`
    """
    pipe, batch = batch.pipe, fitted(batch, *picture.shape[:2])
    up, down = (denoiser(pipe, words, batch.sampling) for words in (described, batch.prompts))
    z = encode(pipe, picture).expand(len(batch.prompts), -1, -1, -1)
    z = latent_editing.counterfactual(batch, z, up, down, strength, rounds)
    return rounded(decode(pipe, z, picture), picture)


def inpaint(batch: PictureBatch, picture: Levels, alpha: Floats, resample: int = 1) -> list[Levels]:
    """The picture with the prompts' content where alpha [H, W] is above 0; elsewhere unchanged.

    Of a picture larger than the model's, only the window around the hole is drawn. The pixels
    under the mask are smoothed away first, so where alpha is 1 they leave no trace in the result.
    """
    pipe = batch.pipe
    box = compositing.window(alpha > 0, pipe.config.image_size)
    part, shown = picture[box.inside], alpha[box.inside]
    batch = fitted(batch, box.height, box.width)
    filled = compositing.harmonic(part.astype(np.float64), shown > 0).round().astype(part.dtype)
    multiple, factor = pipe.config.multiple, pipe.config.vae.factor
    mask = compositing.to_latents(compositing.padded(shown, multiple), factor)
    denoise, z = denoiser(pipe, batch.prompts, batch.sampling), encode(pipe, filled)
    unet: Any = pipe.unet
    if pipe.config.unet.beside:  # weights for inpainting see the mask, and a grey hole
        middle = np.iinfo(part.dtype).max // 2 + 1
        hole = np.where((shown > 0)[..., None], np.array(middle, part.dtype), part)
        unet.known = torch.cat([mask.to(z), encode(pipe, hole)], dim=1)
    z = latent_editing.inpaint(batch, z, mask, denoise, resample)
    if pipe.config.unet.beside:
        unet.known = None
    results = []
    for drawn in decode(pipe, z, part):
        result = picture.copy()
        result[box.inside] = compositing.paste(part, drawn, shown)
        results.append(result)
    return results
