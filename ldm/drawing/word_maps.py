"""Where each word of a prompt is looked at: the U-Net's cross-attention, recorded as it runs.

Maps of words as in DAAM (arXiv:2210.04885): the scores of a word's tokens over all positions, put
together over time steps, heads and layers. DAAM adds up the layers of all resolutions, upscaled;
here a map is the mean of the layers of one. Attention as it runs does not hold its weights, so
that recording computes softmax(Q K^T / sqrt(d)) beside it, by the reference formula.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from ldm.attention import Attention, TransformerBlock, attention_weights
from ldm.clip import TextEncoder, tokenizer
from ldm.config import ConfigError, ModelConfig
from ldm.drawing.drawing_settings import DrawingSettings
from ldm.drawing.latent_editing import OnStep
from ldm.drawing.picture_folder import Painter, Texts
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion
from ldm.samplers import Step
from ldm.unet import UNet

SMALLEST_TILE = 128  # pixels across, for the words below it


@contextmanager
def recorded(unet: UNet) -> Iterator[dict[str, list[Tensor]]]:
    """{layer: weights [B, N, L, S] of each pass}, of the cross-attention layers, first to last.

    A row of S = 77 tokens sums to 1; L = h w positions, row by row. With guidance the batch is
    [negative, prompt]: the prompt's weights are the second half. The pictures stay the same.
    """
    found: dict[str, list[Tensor]] = {}

    def noting(kept: list[Tensor]) -> Callable[[Attention, tuple[Tensor, Tensor]], None]:
        def note(layer: Attention, inputs: tuple[Tensor, Tensor]) -> None:
            x, context = inputs
            q, k = (
                rearrange(y, "B L (N d) -> B N L d", N=layer.heads)
                for y in (layer.q(x), layer.k(context))
            )
            kept.append(attention_weights(q, k))

        return note

    handles = [
        module.cross_attn.register_forward_pre_hook(noting(found.setdefault(name, [])))
        for name, module in unet.named_modules()
        if isinstance(module, TransformerBlock)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def grid_of(config: ModelConfig, height: int, width: int, across: int) -> tuple[int, int]:
    """(h, w) cells of the cross-attention of pictures of height x width pixels.

    across: which w; 0: the finest. ConfigError where no layer has it.
    """
    # the middle of the U-Net, at the last level, always attends
    levels = [i for i, there in enumerate((*config.unet.attention[:-1], True)) if there]
    cells = [config.vae.factor * config.unet.patch << i for i in levels]  # pixels a side
    known = {width // cell: height // cell for cell in cells}
    if across and across not in known:
        raise ConfigError(
            f"of {width} pixels this model has cross-attention at {', '.join(map(str, known))} "
            f"cells across, not at {across}"
        )
    return known[across or max(known)], across or max(known)


def take_maps(found: Mapping[str, list[Tensor]], grid: tuple[int, int], count: int) -> Tensor:
    """[B, S, h, w] of what `recorded` has found, which is empty then.

    The mean over heads, the layers of the grid (h, w) and their passes. count: B prompts, the last
    B of a guided batch.
    """
    height, width = grid
    passes = [
        weights[-count:].float().mean(dim=1)
        for kept in found.values()
        for weights in kept
        if weights.shape[2] == height * width
    ]
    for kept in found.values():
        kept.clear()
    return rearrange(torch.stack(passes).mean(dim=0), "B (h w) S -> B S h w", h=height)


def word_places(text: TextEncoder, prompt: str) -> list[tuple[str, list[int]]]:
    """Each word between spaces, and the places of its tokens among the S; place 0 is the start.

    Tokens without a letter or digit, as hyphens and commas, count only in words that have no
    others. Words that do not fit into the S tokens are left out.
    """
    ids, found = list[int](), list[tuple[str, list[int]]]()
    for word in prompt.split():
        own = text._encode(word)
        # a new word of textual inversion is not in the vocabulary
        pieces = [tokenizer().decoder.get(i, "new").removesuffix("</w>") for i in own]
        places = range(1 + len(ids), 1 + len(ids) + len(own))
        spoken = [p for p, piece in zip(places, pieces, strict=True) if re.search(r"\w", piece)]
        inside = [p for p in spoken or places if p < text.config.context_length - 1]
        found += [(word.rstrip(",.;:") or word, inside)] if inside else []
        ids += own
    if ids != text._encode(prompt):
        raise ConfigError(f"cannot tell which tokens are of which word in {prompt!r}")
    return found


def word_map(maps: Tensor, places: Sequence[int]) -> Tensor:
    """[..., S, h, w] -> [..., h, w], the mean of the tokens at the places."""
    return maps[..., list(places), :, :].mean(dim=-3)


def check_options(options: Mapping[str, Any], settings: DrawingSettings) -> None:
    """ConfigError, by name, for options of sample.py that word maps do not go with."""
    clashes = {
        "--init": options["init"] is not None,
        "--text-encoder": options["text_encoder"] is not None,
        "--prompt-syntax": settings.prompt_syntax is not None,
        "--long-prompts chunks": (settings.long_prompts or "cut") != "cut",
        "--compile": settings.compile != "no",  # what is compiled may leave hooks out
    }
    if names := [name for name, there in clashes.items() if there]:
        raise ConfigError(f"--word-maps does not go with {' and '.join(names)}; leave it out")


def sheet(picture: np.ndarray, words: Sequence[tuple[str, Tensor]]) -> Tensor:
    """[3, H', W']: a picture [H, W, C], then each word's map [h, w] in red over it, named below.

    Each map is shown from its least to its highest value: the reds of two words do not compare.
    """
    image = image_files.to_channels(image_files.from_integers(picture), 3)
    larger = -(-SMALLEST_TILE // image.shape[2])
    image = image.repeat_interleave(larger, 1).repeat_interleave(larger, 2)
    red = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    tiles = [image_files.label(image, "synthetic")]
    for word, weights in words:
        heat = functional.interpolate(weights.cpu()[None, None], image.shape[1:])[0]
        heat = (heat - heat.min()) / (heat.max() - heat.min()).clamp(min=1e-12)
        tiles.append(image_files.label(image + 0.6 * heat * (red - image), word))
    return image_files.grid(tiles)


def with_maps(
    painter: Painter, pipe: LatentDiffusion, settings: DrawingSettings, folder: Path, across: int
) -> Painter:
    """The painter, which then also writes the sheets NAME_words.png of its pictures.

    across: as of `grid_of`
    """
    sampling = settings.sampling(pipe.config)
    grid = grid_of(pipe.config, sampling.height, sampling.width, across)
    words = {prompt: word_places(pipe.text, prompt) for prompt in settings.prompts}

    def path(index: int) -> Path:
        return folder / f"{index:05d}_words.png"

    def paint(batch: range, texts: Texts, on_step: OnStep) -> Sequence[np.ndarray]:
        total = torch.zeros(())

        def note(step: Step) -> None:
            nonlocal total
            total = total + take_maps(found, grid, len(batch)).cpu() / sampling.steps
            on_step(step)

        with recorded(pipe.unet) as found:
            pictures = painter.paint(batch, texts, note)
        folder.mkdir(parents=True, exist_ok=True)
        for i, picture, maps in zip(batch, pictures, total, strict=True):
            if i in texts:
                places = words[settings.prompts[settings.prompt(i)]]
                shown = [(word, word_map(maps, of_word)) for word, of_word in places]
                image_files.save(sheet(picture, shown), path(i), texts[i])
        return pictures

    return painter._replace(paint=paint, beside=lambda index: [path(index)])
