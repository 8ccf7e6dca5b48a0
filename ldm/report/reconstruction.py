"""evaluate.py reconstruction: how much of a radiograph survives the autoencoder?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ldm.report import Report
from ldm.report.images import SETS, options_of_sets, show
from ldm.system import cli

if TYPE_CHECKING:
    from ldm.data.image_sets import ImageSet
    from ldm.judging.extractors import Extractor
    from ldm.metrics.estimate import Estimate
    from ldm.metrics.fid import Array
    from ldm.report.page import Block, Picture, Table
    from ldm.report.roundtrip import Copier, Copies

ABOUT = "How much of a radiograph survives the autoencoder? (arXiv:2210.04133, section 3.2)"
TITLE = "How much of a radiograph survives the autoencoder?"
UNITS = {"RMSE": "RMSE, of a range of 2048", "PSNR": "PSNR, dB", "SSIM": "SSIM"}
PAPER = (
    "The paper's RMSE is on torchxrayvision's range of 2048 as well: Stable Diffusion v1.4 has "
    "31.8 ± 6.5 (mean ± standard deviation), PSNR 35.1 ± 1.6 dB, SSIM 0.93 ± 0.02 on 1,000 images "
    "of MIMIC-CXR at 512 px, 47.8, 31.5 dB and 0.85 on CheXpert. Its PSNR fits a range near 1,800, "
    "which costs it about 1 dB against ours. Compare RMSE, at one size."
)
PATIENTS = (
    "This folder holds images of the set that was measured, which may be patients: keep it where "
    "that set may be kept."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("set", metavar="SET", help=SETS)
    what = "weights of any layout that hold a VAE (weights)"
    add("--model", default="weights", metavar="PATH", help=what)
    add("--config", metavar="YAML", help="sizes of a CompVis file that is not SD v1.4")
    add("--size", type=cli.whole(32), metavar="PIXELS", help="of the central square (model's)")
    what = "judge, inception, densenet121-res224-all, clip:MODEL/PRETRAINED (judge)"
    add("--extractors", nargs="+", default=["judge"], metavar="NAME", help=what)
    what = "phantoms with a thing of known size, for each size; 0: none (40)"
    add("--survival", type=cli.whole(0), default=40, metavar="N", help=what)
    add("--seed", type=cli.whole(), default=0, metavar="N", help="the posterior's noise (0)")
    add("--device", metavar="D", help="of the VAE: cpu, cuda, cuda:1 or mps (the best one here)")
    options_of_sets(parser)


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any file is written, for a set or a VAE that cannot be measured."""
    from ldm.config import ModelConfig, load_config
    from ldm.data.image_sets import open_set
    from ldm.judging.extractors import open_extractor
    from ldm.report import page, probe_survival, roundtrip
    from ldm.system import devices

    extractors = [
        open_extractor(name, options.weights) for name in dict.fromkeys(options.extractors)
    ]
    config = load_config(ModelConfig, options.config) if options.config else None
    device = devices.choose(options.device)
    copier = roundtrip.open_copier(options.model, config, options.size, options.seed, device)
    asked = open_set(options.set, copier.size)
    found = roundtrip.measure(asked, copier, extractors, options.limit, options.skip_bad)
    values: dict[str, Any] = {
        "set": asked.name,
        "n": found.n,
        "size": copier.size,
        "model": str(options.model),
        "weights": copier.weights,
        "seed": options.seed,
        "enlarged": found.enlarged,
        "figures": {how: roundtrip.summaries(each) for how, each in found.figures.items()},
        "extractors": {},
    }
    tables: list[Block] = [figures_table(found)]
    for extractor in extractors:
        blocks, values["extractors"][extractor.name] = of_extractor(extractor, found)
        tables += blocks
    pictures: list[Block] = [distributions(found, extractors), triples(asked, copier, found)]
    if options.survival:
        series = probe_survival.measure(copier, options.survival)
        values["survival"] = probe_survival.summary(series)
        tables += probe_survival.tables(series, copier.size)
        pictures.append(probe_survival.picture(series, copier.size))
    blocks = [*about(values), *tables, *pictures]
    files = page.files("reconstruction", TITLE, blocks, values)
    files["reconstruction.csv"] = found.as_csv()
    return Report(page.text(TITLE, [blocks[0], *tables]), values, files)


def of_extractor(extractor: Extractor, found: Copies) -> tuple[list[Block], dict[str, Any]]:
    """What one extractor sees: distances, similar embeddings, and verdicts if it gives any."""
    from ldm.report import classifier_rereading, roundtrip

    features = found.features[extractor.name]
    original = features[roundtrip.ORIGINAL]
    apart = {how: frechet(original, features[how]) for how in roundtrip.HOW}
    apart["floor"] = frechet(original[::2], original[1::2])
    cosines = {how: found.similarity(extractor.name, how) for how in roundtrip.HOW}
    cosines["other image"] = found.strangers(extractor.name)
    blocks: list[Block] = [distance_table(extractor, apart, *original.shape)]
    blocks.append(
        roundtrip.quantile_table(
            f"{extractor.name}: cosine of the embeddings of an original and its reconstruction, "
            "and, for comparison, of the original before it in the set.",
            cosines,
        )
    )
    values: dict[str, Any] = {
        "shown": str(extractor),
        "features": original.shape[1],
        "Fréchet distance": {name: one and one._asdict() for name, one in apart.items()},
        "cosine": roundtrip.summaries(cosines),
    }
    if extractor.findings:
        said = classifier_rereading.measure(extractor, features, found.labels)
        blocks += classifier_rereading.tables(extractor.name, said)
        values |= said.values()
    return blocks, values


def frechet(x: Array, y: Array) -> Estimate | None:
    """Of features [n, d], with its jackknife interval, for which fewer than 10 are too few."""
    from ldm.metrics import fid

    return fid.jackknife(fid.frechet, x, y) if min(len(x), len(y)) >= 10 else None


def distance_table(
    extractor: Extractor, apart: dict[str, Estimate | None], n: int, width: int
) -> Table:
    from ldm.report.page import Table

    few = "" if n // 2 > width else " (more than images: compare with the floor alone)"
    caption = (
        f"{extractor}: Fréchet distance of the n = {n} reconstructions to their own originals, "
        f"{width} features{few}; floor: the odd originals against the even ones, which share no "
        "image and so lie farther apart."
    )
    row = ("Fréchet distance", *map(show, apart.values()))
    return Table(caption, ("figure", *apart), [row])


def figures_table(found: Copies) -> Table:
    from ldm.report.roundtrip import quantile_table

    caption = f"Each reconstruction beside its original, n = {found.n}."
    rows = {
        f"{UNITS[name]}, {how}": found.figures[how][name] for name in UNITS for how in found.figures
    }
    return quantile_table(caption, rows)


def distributions(found: Copies, extractors: Sequence[Extractor]) -> Picture:
    from ldm.report import measurement_plots
    from ldm.report.page import Picture
    from ldm.report.roundtrip import HOW

    panels = {
        label: {how: found.figures[how][name] for how in HOW} for name, label in UNITS.items()
    }
    for extractor in extractors:
        panels[f"cosine, {extractor.name}"] = {
            how: found.similarity(extractor.name, how) for how in HOW
        }
    caption = f"Distributions over n = {found.n} images; dotted: medians."
    return Picture("distributions.png", measurement_plots.histograms(panels), caption)


def triples(asked: ImageSet, copier: Copier, found: Copies) -> Picture:
    """The images whose sample has the lowest, the middle and the highest PSNR."""
    import numpy as np

    from ldm.data.image_sets import PhantomSet
    from ldm.report import image_sheets
    from ldm.report.page import Picture

    order = np.argsort(found.figures["sample"]["PSNR"], kind="stable")
    shown = []
    for name, place in (
        ("worst", order[0]),
        ("median", order[len(order) // 2]),
        ("best", order[-1]),
    ):
        index = found.indices[place]
        original = copier.fit(asked.load(index))
        copy = copier(original[None], [index])["sample"][0]
        worth = found.figures["sample"]["PSNR"][place]
        shown.append(
            image_sheets.Triple(f"{name}: {found.ids[place]}\nPSNR {worth:.1f} dB", original, copy)
        )
    drawn = isinstance(asked, PhantomSet)
    whose = "phantom (synthetic)" if drawn else "original"
    warning = "Phantoms: all synthetic." if drawn else PATIENTS
    caption = (
        "By the PSNR of the posterior sample: the worst, the median and the best. Left the "
        f"{whose}, in the middle its reconstruction, which is synthetic, right what was added "
        f"(red) and lost (blue). {warning}"
    )
    png = image_sheets.triples(shown, (whose, "reconstruction (synthetic)"), caption)
    return Picture("triples.png", png, caption)


def about(values: dict[str, Any]) -> list[Block]:
    size, enlarged = values["size"], values["enlarged"]
    smaller = f" {enlarged} of them were smaller and were enlarged." if enlarged else ""
    return [
        f"{values['set']}, n = {values['n']}: the central square of each image, grey, {size} px, "
        f"through the VAE of {values['model']} ({values['weights']}) and back. Sample: a draw from "
        f"the posterior (seed {values['seed']}), as in the paper; mean: the posterior's mean."
        f"{smaller} "
        "Intervals are of 95 % and take the images as independent, which films of one patient are "
        "not.",
        "RMSE is on a range of 2048, torchxrayvision's: an eighth of it is in grey levels of 255. "
        f"PSNR has the whole range as its span. {PAPER}",
        "Labels: what the set names is there (a CSV that names uncertain findings makes them "
        "positive, as the paper does); what it does not name is absent if its collection names "
        "that finding in any film, and unknown otherwise, where the paper takes every missing "
        "value as absent. Images without labels have no AUC. The findings were not corrected for "
        "their number.",
        "A distance to reconstructions of the same images has no sampling noise of its own; the "
        "floor has. It says how large a distance this many images cannot tell from none.",
        PATIENTS if not values["set"].startswith("phantoms:") else "All images are synthetic.",
    ]
