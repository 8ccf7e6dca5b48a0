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
from ldm.report.readers.remark_findings import known
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
    n, alone = options.n, bool(options.synthetic_only)
    names = named_sets(options)
    model = open_copier(options.model) if options.same_path else None
    sets = {label: open_set(name, options.size or 128) for label, name in names.items()}
    chosen = {label: trials.choose(a, n, options.seed, label) for label, a in sets.items()}
    sides = {
        label: [min(sets[label].load(index).shape[-2:]) for index in each]
        for label, each in chosen.items()
    }
    size = options.size or min(LARGEST, *map(min, sides.values()))
    offline_page.check_size(len(sets) * n + options.catch + options.repeats, size)
    items = []
    for label, asked in sets.items():
        truth, through = (SYNTHETIC, None) if label != REAL or alone else (REAL, model)
        for index in chosen[label]:
            pixels = prepare(asked.load(index), size, through)
            items.append(Item(truth, asked.sample_id(index), (pixels,), label, known(asked, index)))
    enlarged = {label: sum(side < size for side in each) for label, each in sides.items()}
    made = {
        **({SYNTHETIC: ", ".join(names.values())} if alone else names),
        "n of each": n,
        **settings(options, size),
        **{f"{label}, enlarged": count for label, count in enlarged.items()},
        "real through the autoencoder of": options.model if options.same_path else None,
    }
    facts: dict[str, Any] = {"n": n, "sets": sets, "enlarged": enlarged}
    first, found = next(iter(sets.values())), {}
    blocks: list[Block] = [page.read_from(sets.values())]
    if alone:
        texts = (sets[label].text(index) for label, each in chosen.items() for index in each)
        facts["say"] = sum("synthetic" in text for text in texts)
        told = about("study_synthetic_only", options, first, size, facts)
    else:
        told = about("study_authenticity", options, first, size, facts)
        found = giveaways.measure(*([i.pixels[0] for i in items if i.truth == t] for t in sets))
        blocks.append(giveaways.table(found))
    return finish("authenticity", items, options, made, [*told, *blocks], found)


def named_sets(options: argparse.Namespace) -> dict[str, str]:
    """{what its images are scored as: the set}: real and synthetic, or the name of each folder."""
    only, two = options.synthetic_only, {REAL: options.real, SYNTHETIC: options.synthetic}
    if only and (options.real or options.same_path):
        raise ConfigError("--synthetic-only SET takes no real set and no --same-path")
    if not (only or all(two.values())):
        raise ConfigError(
            "make needs two sets, REAL and SYNTHETIC, or --pairs ORIGINAL, or --synthetic-only SET"
        )
    names = {Path(name).name: name for name in only} if only else two
    if only and len(names) < len(only):
        raise ConfigError("two sets of --synthetic-only have one name; rename a folder")
    return names


def pairs(options: argparse.Namespace) -> Report:
    if options.real or options.same_path or options.synthetic_only:
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
