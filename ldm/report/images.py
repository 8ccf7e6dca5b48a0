"""evaluate.py images: how far a set of images is from another one, and how varied it is."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ldm.report import Report
from ldm.system import cli

if TYPE_CHECKING:
    from ldm.data.image_sets import ImageSet
    from ldm.judging.extractors import Extractor
    from ldm.metrics.estimate import Estimate
    from ldm.report.page import Block, Table
    from ldm.report.set_distances import View

ABOUT = "How far are two sets of images apart? Fréchet, KID, CMMD, precision, recall, MS-SSIM."
TITLE = "How far apart are two sets of images?"
SETS = "a folder, a CSV, CSV@SPLIT, or phantoms:N[:FIRST_SEED]"


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("real", metavar="REAL", help=SETS)
    add("fake", metavar="FAKE", help="the same")
    what = "judge, inception, densenet121-res224-all, clip:MODEL/PRETRAINED (judge)"
    add("--extractors", nargs="+", default=["judge"], metavar="NAME", help=what)
    what = "give Fréchet distances of fewer images than features, too"
    add("--few", action="store_true", help=what)
    options_of_sets(parser)


def options_of_sets(parser: argparse.ArgumentParser) -> None:
    """What every subcommand that reads images knows."""
    add = parser.add_argument
    add("--weights", default="weights", metavar="FOLDER", help="of the extractors (weights)")
    add("--limit", type=cli.whole(2), metavar="N", help="images of each set at most, the first")
    add("--skip-bad", action="store_true", help="go on without files that cannot be read")


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any file is written, for sets that cannot be measured."""
    from ldm.data.image_sets import open_set, warn_of_shared_patients
    from ldm.judging.extractors import open_extractor
    from ldm.report import memorization, page, set_distances

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
            "fake to real": as_json(found),
            "floor": as_json(floor),
        }
    varied = {"real": set_distances.diversity(real), "fake": set_distances.diversity(fake)}
    values["MS-SSIM"] = as_json(varied)
    tables.append(variety(varied, set_distances.SIDE))
    blocks: list[Block] = [*about(values), *tables]
    if audited := memorization.beside(options, sets[1]):
        values["memorization"] = audited.values
        blocks += audited.blocks
        tables += audited.blocks[:2]
    files = page.files("images", TITLE, blocks, values)
    return Report(page.text(TITLE, [blocks[0], *tables]), values, files)


def check_enough(extractor: Extractor, sets: Sequence[ImageSet], limit: int | None) -> None:
    """Before hours of work: are there more images than features?"""
    import torch

    from ldm.report.set_distances import enough

    width = extractor([torch.zeros(1, extractor.size, extractor.size)]).shape[1]
    for asked in sets:
        n = min(len(asked), limit or len(asked))
        if n < enough(width):
            raise ValueError(
                f"{asked.name}: {n} images are too few for a Fréchet distance of the {width} "
                f"features of {extractor.name}, which wants {enough(width)}; --few gives it even so"
            )


def table(
    extractor: Extractor,
    views: tuple[View, View],
    found: dict[str, Estimate],
    halves: tuple[View, View],
    floor: dict[str, Estimate],
) -> Table:
    """views: the real set and the fake one, which `found` compares;  halves: what `floor` does"""
    from ldm.report.page import Table

    def n(name: str, pair: tuple[View, View]) -> str:
        return f"{pair[1].counted(name)} against {pair[0].counted(name)}"

    caption = (
        f"{extractor}, {views[0].features.shape[1]} features; floor: every other image of the real "
        "set against the rest."
    )
    rows = [
        (name, show(value), n(name, views), show(floor.get(name)), n(name, halves))
        for name, value in found.items()
    ]
    return Table(caption, ("figure", "fake to real", "n", "floor", "n"), rows)


def variety(found: dict[str, Estimate], side: int) -> Table:
    from ldm.report.page import Table

    caption = f"MS-SSIM of disjoint pairs, grey, {side} px: the higher, the more alike."
    rows = [(name, show(value), str(value.n)) for name, value in found.items()]
    return Table(caption, ("set", "MS-SSIM", "pairs"), rows)


def show(estimate: Estimate | None) -> str:
    """Four significant digits, the interval in brackets."""
    if estimate is None:
        return "too few images"
    return f"{estimate.value:.4g} ({estimate.low:.4g} to {estimate.high:.4g})"


def as_json(estimates: dict[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: estimate._asdict() for name, estimate in estimates.items()}


def about(values: dict[str, Any]) -> list[Block]:
    from ldm.report.set_distances import FRECHET, KEPT, PAIRS

    real, fake = values["real"], values["fake"]
    return [
        f"Fake: {fake['set']}, n = {fake['n']}. Real: {real['set']}, n = {real['n']}. "
        f"{values['shared']} images are in both, pixel by pixel. Intervals are of 95 % and leave "
        "out a tenth of both sets in turn.",
        f"Each row has its n. All but the {FRECHET} is of {KEPT} images of a set at most, MS-SSIM "
        f"of {PAIRS} pairs; of larger sets they are drawn at random.",
        "A Fréchet distance falls as n rises: compare it at equal n, and with the floor, which has "
        "half of it. It is the FID of the papers with the extractor inception alone; others have "
        "scales of their own, and so has every resize. KID does not depend on n; CMMD does, as its "
        "estimate is biased by about 1 / n. It is taken of unit vectors, and is that of its paper "
        "with clip:ViT-L-14-336/openai.",
    ]
