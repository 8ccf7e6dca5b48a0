"""evaluate.py reader-study make: the page for the readers, and the key for who asks them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from ldm.config import ConfigError
from ldm.data.image_sets import ImageSet, PhantomSet, open_set
from ldm.pictures import image_files
from ldm.report import Report, page
from ldm.report.page import Block
from ldm.report.readers import giveaways, offline_page, trials
from ldm.report.readers.trials import CATCH, PAIR, REAL, SYNTHETIC, Item
from ldm.report.reconstruction import PATIENTS
from ldm.report.roundtrip import Copier, open_copier

TITLE = "A reader study was made"
LARGEST = 512  # pixels of a side, unless --size asks for more
WARNING = (
    "Give readers study.html alone. key.json says which image is which; made.html is not for them."
)


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any file is written, for a study that cannot be made."""
    made = pairs(options) if options.pairs else authenticity(options)
    check_place(options, json.loads(made.files["key.json"])["study"])
    return made


def authenticity(options: argparse.Namespace) -> Report:
    if not (options.real and options.synthetic):
        raise ConfigError("make wants two sets, REAL and SYNTHETIC, or --pairs ORIGINAL")
    n, seed = options.n, options.seed
    model = open_copier(options.model) if options.same_path else None
    sets = [open_set(name, options.size or 128) for name in (options.real, options.synthetic)]
    kinds = (REAL, SYNTHETIC)
    chosen = [trials.choose(a, n, seed, truth) for a, truth in zip(sets, kinds, strict=True)]
    sides = [
        [side(asked, index) for index in each] for asked, each in zip(sets, chosen, strict=True)
    ]
    size = options.size or min(LARGEST, *map(min, sides))
    offline_page.check_size(2 * n + options.catch + options.repeats, size)
    items = []
    for truth, asked, each in zip(kinds, sets, chosen, strict=True):
        through = model if truth == REAL else None
        for index in each:
            pixels = prepare(asked, index, size, through)
            items.append(Item(truth, asked.sample_id(index), (pixels,)))
    trials.check_apart(items)
    found = giveaways.measure(*([i.pixels[0] for i in items if i.truth == t] for t in kinds))
    for number in range(options.catch):
        spoiled = trials.spoil(items[number % (2 * n)].pixels[0], number, seed)
        items.append(Item(CATCH, trials.SPOILED[number % 2], (spoiled,)))
    enlarged = {
        truth: sum(one < size for one in each) for truth, each in zip(kinds, sides, strict=True)
    }
    made = {
        **{truth: asked.name for truth, asked in zip(kinds, sets, strict=True)},
        "n of each": n,
        **settings(options, size),
        **{f"{truth}, enlarged": count for truth, count in enlarged.items()},
        "real through the autoencoder of": options.model if options.same_path else None,
    }
    blocks: list[Block] = [
        f"{n} real images of {sets[0].name} ({trials.of_patients(sets[0])}) and {n} synthetic ones "
        f"of {sets[1].name}, {size} px: the central square, grey, 8 bits, the same path for all. "
        f"Smaller than that and enlarged: {enlarged[REAL]} real, {enlarged[SYNTHETIC]} synthetic.",
        same_path(options),
        *common(options, sets[0]),
        giveaways.table(found),
    ]
    return finish("authenticity", items, options, made, blocks, found)


def pairs(options: argparse.Namespace) -> Report:
    if options.real or options.same_path:
        raise ConfigError("--pairs ORIGINAL takes no other set and no --same-path")
    copier = open_copier(options.model, size=options.size)
    asked = open_set(options.pairs, copier.size)
    offline_page.check_size(2 * (options.n + options.catch + options.repeats), copier.size)
    items = []
    for index in trials.choose(asked, options.n, options.seed, PAIR):
        original = copier.fit(asked.load(index))
        both = (original, copier.means(original[None])[0])
        shown = tuple(trials.as_pixels(one) for one in both)
        items.append(Item(PAIR, asked.sample_id(index), shown))
    trials.check_apart(items)
    for number in range(options.catch):
        pixels = items[number % options.n].pixels[0]
        spoiled = trials.spoil(pixels, number, options.seed)
        items.append(Item(CATCH, trials.SPOILED[number % 2], (pixels, spoiled)))
    made = {
        "originals": asked.name,
        "n": options.n,
        **settings(options, copier.size),
        "model": options.model,
        "weights": copier.weights,
    }
    blocks: list[Block] = [
        f"{options.n} images of {asked.name} ({trials.of_patients(asked)}), each beside what the "
        f"autoencoder of {options.model} makes of it (the posterior's mean), {copier.size} px: the "
        "central square, grey, 8 bits. Readers know which is which and score the copy from 1 to 5, "
        "the scale of arXiv:2210.04133, section 2.3.",
        *common(options, asked),
    ]
    return finish("pairs", items, options, made, blocks, {})


def finish(
    mode: str,
    items: Sequence[Item],
    options: argparse.Namespace,
    made: dict[str, Any],
    blocks: list[Block],
    found: dict[str, Any],
) -> Report:
    study = trials.build(mode, items, options.repeats, options.seed, made)
    values = {
        "study": json.loads(study["key.json"])["study"],
        "mode": mode,
        "trials": len(items) + options.repeats,
        "made": made,
        "giveaways": {name: each._asdict() for name, each in found.items()},
    }
    written = page.files("made", TITLE, blocks, values)
    return Report(page.text(TITLE, blocks), values, written | study)


def settings(options: argparse.Namespace, size: int) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("repeats", "catch", "seed")} | {"size": size}


def side(asked: ImageSet, index: int) -> int:
    return min(asked.load(index).shape[-2:])


def prepare(asked: ImageSet, index: int, size: int, through: Copier | None) -> offline_page.Pixels:
    """The central square, grey, resized, with 8 bits: the one path of every image.

    through: an autoencoder that it passes first, at the model's own size
    """
    image = image_files.to_channels(asked.load(index), 1)
    if through:
        image = through.means(through.fit(image)[None])[0]
    return trials.as_pixels(image_files.fit_square(image, size))


def same_path(options: argparse.Namespace) -> str:
    if options.same_path:
        return (
            f"The real images went through the autoencoder of {options.model} first, so that its "
            "blur tells nothing: the study asks about the chest, not about the autoencoder. What "
            "readers call real is then a copy of a real film."
        )
    return (
        "The real images did not go through an autoencoder, and the synthetic ones came out of "
        "one, if a latent diffusion model drew them: its blur may give them away. --same-path "
        "sends the real ones through it, too."
    )


def common(options: argparse.Namespace, first: ImageSet) -> list[str]:
    shown = [
        f"{options.repeats} of them come again, half the study later or more; {options.catch} "
        f"catch trials ({' and '.join(trials.SPOILED)}) tell who attends. Seed {options.seed}. "
        + WARNING
    ]
    return shown if isinstance(first, PhantomSet) else [*shown, PATIENTS]


def check_place(options: argparse.Namespace, study: str) -> None:
    """ConfigError if another study's key would be lost."""
    path = options.out / "key.json"
    if not path.exists():
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))["study"]
    except (ValueError, KeyError, TypeError):
        there = "another"
    if there != study:
        raise ConfigError(f"{path} is the key of study {there}; name another --out, to keep it")
