"""evaluate.py word-maps: does the map of a finding's words lie on the finding? Phantoms tell."""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from tqdm import tqdm

from ldm import rng
from ldm.config import ConfigError
from ldm.data import phantom
from ldm.data.image_sets import UNSEEN
from ldm.data.phantom.captions import readable
from ldm.drawing.word_maps import grid_of, recorded, take_maps, word_map, word_places
from ldm.metrics import estimate
from ldm.metrics.classification import Array, wilson
from ldm.metrics.estimate import Estimate
from ldm.metrics.localization import Cells, cell_auc, overlap, pointing
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion
from ldm.report import Report, image_sheets, page
from ldm.report.page import Block, Heading, Picture, Table
from ldm.report.plots import as_png
from ldm.weights import loading

TITLE = "Where the model looks for the words of a finding"
FIRST = UNSEEN + 60_000_000  # nothing else is measured on these
LEVELS = (0.2, 0.4, 0.6, 0.8)  # of the schedule's steps
QUICK, SHOWN = 8, 3  # phantoms
WORDS, LUNG = "the finding's words", 'the word "lung"'
SHARE = "their share among all words"
START, END = "the start token", "the tokens after the words"
END_TWIN = "the tokens after, on the chest without it"
OTHER, TWIN = '"findings" of a caption without it', "the words, on the chest without it"
BRIGHT, USUAL, CHANCE = "brightness of the image", "mean mask of the others", "chance"


class Located(NamedTuple):
    """n phantoms with one finding. maps: {which: [n, h, w]};  masks: [n, h, w]

    images: [n, 1, H, W];  left_out: phantoms that do not show it
    """

    caption: str
    maps: dict[str, Array]
    masks: Cells
    images: Tensor
    left_out: int


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any file is written, for what cannot be measured."""
    pipe = loading.load(options.model)
    side, count = pipe.config.image_size, QUICK if options.quick else options.n
    grid = grid_of(pipe.config, side, side, options.cells or 0)
    seeds, names = range(FIRST, FIRST + count), dict.fromkeys(options.findings)
    found = {name: locate(pipe, name, seeds, grid, options.seed) for name in names}
    about = {"options": options, "size": side, "times": times(pipe), "grid": grid}
    blocks: list[Block] = [*page.paragraphs("word_maps", found=found, **about)]
    values: dict[str, Any] = {"cells": grid, "timesteps": times(pipe)}
    for name, one in found.items():
        values[name] = {"n": len(one.masks), **compare(one)}
        blocks += [Heading(name.capitalize()), verdict(values[name]), table(one, values[name])]
    return page.report("word_maps", TITLE, [*blocks, Heading("Examples"), sheet(found)], values)


def times(pipe: LatentDiffusion) -> list[int]:
    return [round(level * pipe.schedule.steps) for level in LEVELS]


def locate(
    pipe: LatentDiffusion, finding: str, seeds: Sequence[int], grid: tuple[int, int], seed: int
) -> Located:
    """Maps of phantoms with the finding; of each also on its twin, the same body without it."""
    sick, well = (
        phantom.render(phantom.sample_phantoms(seeds, names), pipe.config.image_size)
        for names in ([finding], [])
    )
    # wordings 0 and 3: "phantom lung xray with FINDING" and "phantom lung xray without findings"
    prompts = [
        phantom.caption_from_labels(labels, "", "", None, wording, phantom=True)
        for labels, wording in (([finding], 0), ([], 3))
    ]
    with_it, without = ([places for _, places in word_places(pipe.text, p)] for p in prompts)
    named = [place for places in with_it[-len(readable(finding).split()) :] for place in places]
    lung = with_it[prompts[0].split().index("lung")]
    context = pipe.encode_each(prompts)
    shares = adaptive_avg_pool2d(sick.masks[finding].float(), grid)
    # a cell is inside if half of it is; where none is, as of a nodule, the one with most of it
    masks = shares >= shares.amax(dim=(1, 2), keepdim=True).clamp(max=0.5)
    shown = [i for i, mask in enumerate(masks) if shares[i].any() and not mask.all()]
    if len(shown) < 2:
        raise ConfigError(f"{len(shown)} phantoms show {finding}; an interval needs 2 or more")
    maps = defaultdict[str, list[Tensor]](list)
    for i in tqdm(shown, finding, disable=None):
        images = torch.stack([sick.images[i], sick.images[i], well.images[i]])
        own, other, twin = look(pipe, images, context[[0, 1, 0]], grid, seed, seeds[i])
        maps[WORDS].append(word_map(own, named))
        maps[SHARE].append(word_map(own, named) / own[1 : named[-1] + 1].sum(dim=0))
        maps[TWIN].append(word_map(twin, named))
        maps[OTHER].append(word_map(other, without[-1]))
        maps[LUNG].append(word_map(own, lung))
        maps[START].append(own[0])
        maps[END].append(own[named[-1] + 1 :].mean(dim=0))
        maps[END_TWIN].append(twin[named[-1] + 1 :].mean(dim=0))
    shares = shares[shown]
    drawn = {
        **{which: torch.stack(each) for which, each in maps.items()},
        BRIGHT: adaptive_avg_pool2d(sick.images[shown, 0], grid),
        USUAL: (shares.sum(dim=0) - shares) / (len(shown) - 1),
        CHANCE: torch.ones_like(shares),
    }
    arrays = {which: each.double().numpy() for which, each in drawn.items()}
    left_out = len(seeds) - len(shown)
    return Located(prompts[0], arrays, masks[shown].numpy(), sick.images[shown], left_out)


@torch.inference_mode()
def look(
    pipe: LatentDiffusion,
    images: Tensor,
    context: Tensor,
    grid: tuple[int, int],
    *key: int,
) -> Tensor:
    """The map of each token, [B, S, h, w], the mean over LEVELS; all images have one noise.

    images: [B, 1, H, W];  context: [B, S, D];  key: of the noise
    """
    z = pipe.encode_images(image_files.to_channels(images, pipe.config.vae.image_channels))
    noise = [
        torch.randn(z.shape[1:], generator=rng.generator(key[0], "word maps", *key[1:], time))
        for time in times(pipe)
    ]
    B, T = len(z), len(noise)
    t = torch.tensor(times(pipe)).repeat(B)
    eps = repeat(torch.stack(noise).to(z), "T C h w -> (B T) C h w", B=B)
    x_t = pipe.schedule.add_noise(repeat(z, "B C h w -> (B T) C h w", T=T), eps, t)
    with recorded(pipe.unet) as found:
        pipe.unet(x_t, t.to(z.device), repeat(context, "B S D -> (B T) S D", T=T))
    maps = take_maps(found, grid, B * T).cpu()
    return rearrange(maps, "(B T) S h w -> B T S h w", T=T).mean(dim=1)


def compare(found: Located) -> dict[str, dict[str, Estimate]]:
    """{map: its figures}; gain: by how much the AUC of the words' map is above it, in pairs."""
    hits, overlaps, aucs = (
        {which: np.array(list(map(f, maps, found.masks))) for which, maps in found.maps.items()}
        for f in (pointing, overlap, cell_auc)
    )
    return {
        which: {
            "pointing": wilson(hits[which].sum(), len(found.masks)),
            "IoU": estimate.mean(overlaps[which]),
            "AUC": estimate.mean(aucs[which]),
            "gain": estimate.mean(aucs[WORDS] - aucs[which]),
        }
        for which in found.maps
    }


def table(found: Located, figures: Mapping[str, Any]) -> Table:
    header = ("map", "pointing game", "IoU", "AUC", "AUC, the words' minus this")
    rows = [(which, *(x.show(".3f") for x in figures[which].values())) for which in found.maps]
    rows[0] = (*rows[0][:-1], "")
    return Table(page.passage("word_map_table", found=found), header, rows)


def verdict(figures: Mapping[str, Any]) -> str:
    """A paragraph: which maps the words' map beats by AUC, and which beat it."""
    gains = {which: one["gain"] for which, one in figures.items() if which not in ("n", WORDS)}
    worse = [which for which, gain in gains.items() if gain.low > 0]
    better = [which for which, gain in gains.items() if gain.high < 0]
    like = [which for which in gains if which not in worse + better]
    return page.passage("word_map_verdict", worse=worse, better=better, like=like)


def sheet(found: Mapping[str, Located]) -> Picture:
    """The first phantoms of each finding: image, mask, and maps, each on its own scale."""
    shown = (WORDS, TWIN, LUNG, END, BRIGHT, USUAL)
    lines = [(name, one, i) for name, one in found.items() for i in range(len(one.masks))[:SHOWN]]
    caption = page.passage("word_map_picture")
    size = (1.45 * (2 + len(shown)), 1.6 * len(lines) + 0.4)
    figure, axes = image_sheets.frameless(len(lines), 2 + len(shown), size, caption, 7)
    for row, (name, one, i) in zip(axes, lines, strict=True):
        row[0].set_ylabel(name, fontsize=8)
        pictures = [
            one.images[i, 0].numpy(),
            one.masks[i],
            *(one.maps[which][i] for which in shown),
        ]
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture, cmap="gray")
    for axis, title in zip(axes[0], ("phantom", "its mask", *shown), strict=True):
        axis.set_title(title, fontsize=6)
    return Picture("word_maps.png", as_png(figure, caption), caption)
