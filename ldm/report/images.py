"""evaluate.py images: how far a set of images is from another one, and how varied it is."""

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from ldm.data.image_sets import ImageSet, open_set, warn_of_shared_patients
from ldm.judging.extractors import Extractor, open_extractor
from ldm.metrics.estimate import Estimate
from ldm.report import Report, memorization, page, set_distances
from ldm.report.page import Block, Table
from ldm.report.set_distances import FRECHET, KEPT, PAIRS, SIDE, FeatureSet

TITLE = "How far apart are two sets of images?"


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any file is written, for sets that cannot be measured."""
    sets = [open_set(source) for source in (options.real, options.fake)]
    warn_of_shared_patients(*sets)
    extractors = [
        open_extractor(name, options.weights) for name in dict.fromkeys(options.extractors)
    ]
    for extractor in () if options.few else extractors:
        check_enough(extractor, sets, options.limit)
    real, fake = (
        set_distances.Seen(one, extractors, options.limit, options.skip_bad) for one in sets
    )
    values: dict[str, Any] = {
        "real": {"set": real.name, "n": real.n},
        "fake": {"set": fake.name, "n": fake.n},
        "shared": set_distances.shared(real, fake),
        "extractors": {},
    }
    tables: list[Block] = []
    for extractor in extractors:
        views = (real.views[extractor.name], fake.views[extractor.name])
        halves = views[0].halves()
        found, floor = (set_distances.distances(*pair, options.few) for pair in (views, halves))
        tables.append(table(extractor, views, found, halves, floor))
        values["extractors"][extractor.name] = {
            "shown": str(extractor),
            "features": views[0].features.shape[1],
            "fake to real": found,
            "floor": floor,
        }
        groups = set_distances.by_group(real, fake, extractor.name)
        values["extractors"][extractor.name]["groups"] = groups
        if groups:
            tables.append(group_table(extractor, groups))
    values["MS-SSIM"] = {
        "real": set_distances.diversity(real),
        "fake": set_distances.diversity(fake),
    }
    values["Vendi"] = {
        f"{name}, {extractor.name}": set_distances.vendi(seen.views[extractor.name])
        for extractor in extractors
        for name, seen in (("real", real), ("fake", fake))
    }
    tables += [variety(values["MS-SSIM"]), vendi_table(values["Vendi"])]
    limits = {"frechet": FRECHET, "kept": KEPT, "pairs": PAIRS}
    blocks: list[Block] = [
        *page.paragraphs("images", **values, **limits),
        *tables,
        page.read_from(sets),
    ]
    if audited := memorization.beside(options, sets[1]):
        values["memorization"] = audited.values
        blocks += audited.blocks
        tables += audited.blocks[:2]
    return page.report("images", TITLE, blocks, values, summary=[blocks[0], *tables])


def check_enough(extractor: Extractor, sets: Sequence[ImageSet], limit: int | None) -> None:
    """Raises ValueError, before hours of work, for no more images than features."""
    width = extractor([torch.zeros(1, extractor.size, extractor.size)]).shape[1]
    for asked in sets:
        n = min(len(asked), limit or len(asked))
        if n < (least := set_distances.enough(width)):
            raise ValueError(
                f"{asked.name}: {n} images are too few for a Fréchet distance of the {width} "
                f"features of {extractor.name}, which needs {least}; --few gives it nevertheless"
            )


def table(
    extractor: Extractor,
    views: tuple[FeatureSet, FeatureSet],
    found: dict[str, Estimate],
    halves: tuple[FeatureSet, FeatureSet],
    floor: dict[str, Estimate],
) -> Table:
    """views: the real set and the fake one, which `found` compares;  halves: what `floor` does"""

    def n(name: str, pair: tuple[FeatureSet, FeatureSet]) -> str:
        return f"{pair[1].counted(name)} against {pair[0].counted(name)}"

    caption = (
        f"{extractor}, {views[0].features.shape[1]} features; floor: every other image of the real "
        "set against the rest."
    )
    floors = {name: value.show() for name, value in floor.items()}
    rows = [
        (name, value.show(), n(name, views), floors.get(name, "too few images"), n(name, halves))
        for name, value in found.items()
    ]
    return Table(caption, ("figure", "fake to real", "n", "floor", "n"), rows)


def group_table(extractor: Extractor, groups: dict[str, dict[str, object]]) -> Table:
    caption = page.passage("image_groups", extractor=extractor.name)
    rows = [
        (name, *(e.show() if isinstance(e, Estimate) else str(e) for e in each.values()))
        for name, each in groups.items()
    ]
    return Table(caption, ("group of the real set", *next(iter(groups.values()))), rows)


def vendi_table(found: dict[str, Estimate]) -> Table:
    caption = "Vendi score (arXiv:2210.02410): how many different images a set is worth, of n."
    rows = [(name, value.show(), str(value.n)) for name, value in found.items()]
    return Table(caption, ("set", "Vendi score", "n"), rows)


def variety(found: dict[str, Estimate]) -> Table:
    caption = f"MS-SSIM of disjoint pairs, grey, {SIDE} px: the higher, the more alike."
    rows = [(name, value.show(), str(value.n)) for name, value in found.items()]
    return Table(caption, ("set", "MS-SSIM", "pairs"), rows)
