"""evaluate.py reader-study make: the page for the readers, and the key to its images."""

import argparse
from pathlib import Path
from typing import Any

from torch import Tensor

from ldm.config import ConfigError
from ldm.data.image_sets import ImageSet, PhantomSet, open_set, patients
from ldm.metrics.estimate import Estimate
from ldm.pictures import image_files
from ldm.report import Report, page
from ldm.report.page import Block
from ldm.report.readers import giveaways, offline_page, trials
from ldm.report.readers.trials import PAIR, REAL, SYNTHETIC, Item
from ldm.report.roundtrip import Copier, open_copier
from ldm.system import cli

TITLE = "A reader study was made"
LARGEST = 512  # pixels of a side, unless --size asks for more


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any file is written, for a study that cannot be made."""
    made = pairs(options) if options.pairs else authenticity(options)
    check_key(options.out / "key.json", made.values["study"])
    return made


def authenticity(options: argparse.Namespace) -> Report:
    if not (options.real and options.synthetic):
        raise ConfigError("make needs two sets, REAL and SYNTHETIC, or --pairs ORIGINAL")
    n = options.n
    model = open_copier(options.model) if options.same_path else None
    names = {REAL: options.real, SYNTHETIC: options.synthetic}
    sets = {truth: open_set(name, options.size or 128) for truth, name in names.items()}
    chosen = {truth: trials.choose(a, n, options.seed, truth) for truth, a in sets.items()}
    sides = {
        truth: [min(sets[truth].load(index).shape[-2:]) for index in each]
        for truth, each in chosen.items()
    }
    size = options.size or min(LARGEST, *map(min, sides.values()))
    offline_page.check_size(2 * n + options.catch + options.repeats, size)
    items = [
        Item(truth, asked.sample_id(index), (prepare(asked.load(index), size, through),))
        for (truth, asked), through in zip(sets.items(), (model, None), strict=True)
        for index in chosen[truth]
    ]
    found = giveaways.measure(*([i.pixels[0] for i in items if i.truth == t] for t in sets))
    enlarged = {truth: sum(side < size for side in each) for truth, each in sides.items()}
    made = {
        **{truth: asked.name for truth, asked in sets.items()},
        "n of each": n,
        **settings(options, size),
        **{f"{truth}, enlarged": count for truth, count in enlarged.items()},
        "real through the autoencoder of": options.model if options.same_path else None,
    }
    real, synthetic = sets.values()
    facts = {"n": n, "synthetic": synthetic, "enlarged": enlarged}
    blocks = [
        *about("study_authenticity", options, real, size, facts),
        page.read_from(sets.values()),
    ]
    blocks.append(giveaways.table(found))
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
        items.append(Item(PAIR, asked.sample_id(index), tuple(map(trials.as_pixels, both))))
    made = {
        "originals": asked.name,
        "n": options.n,
        **settings(options, copier.size),
        "model": options.model,
        "weights": copier.weights,
    }
    blocks = about("study_pairs", options, asked, copier.size, {})
    blocks.append(page.read_from([asked]))
    return finish("pairs", items, options, made, blocks, {})


def finish(
    mode: str,
    items: list[Item],
    options: argparse.Namespace,
    made: dict[str, Any],
    blocks: list[Block],
    found: dict[str, Estimate],
) -> Report:
    """Add the catch trials, and put page, key and report together."""
    trials.check_apart(items)
    items = [*items, *trials.catch_trials(items, options.catch, options.seed)]
    study, written = trials.build(mode, items, options.repeats, options.seed, made)
    values = {
        "study": study,
        "mode": mode,
        "trials": len(items) + options.repeats,
        "made": made,
        "giveaways": found,
    }
    return page.report("made", TITLE, blocks, values, more=written)


def settings(options: argparse.Namespace, size: int) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("repeats", "catch", "seed")} | {"size": size}


def prepare(image: Tensor, size: int, through: Copier | None) -> offline_page.Pixels:
    """The central square, grey, resized, with 8 bits: the one path of every image.

    through: an autoencoder that it passes first, at the model's own size
    """
    image = image_files.to_channels(image, 1)
    if through:
        image = through.means(through.fit(image)[None])[0]
    return trials.as_pixels(image_files.fit_square(image, size))


def about(
    name: str, options: argparse.Namespace, real: ImageSet, size: int, facts: dict[str, Any]
) -> list[Block]:
    """The paragraphs of a block of passages.md;  real: the set that may show patients"""
    _, unknown = patients(real, range(len(real)))
    known = {"options": options, "real": real, "size": size, "unknown": unknown}
    more = {"spoiled": trials.SPOILED, "phantoms": isinstance(real, PhantomSet)}
    return [*page.paragraphs(name, **known, **more, **facts)]


def check_key(path: Path, study: str) -> None:
    """ConfigError if another study's key would be lost."""
    if not path.exists():
        return
    try:
        existing = cli.parse_json(path.read_bytes())["study"]
    except (ValueError, KeyError, TypeError):
        existing = "another"
    if existing != study:
        raise ConfigError(f"{path} is the key of study {existing}; name another --out, to keep it")
