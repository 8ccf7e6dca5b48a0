"""evaluate.py reconstruction: how much of a radiograph survives the autoencoder?"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ldm.config import ModelConfig, load_config
from ldm.data.image_sets import ImageSet, PhantomSet, open_set
from ldm.judging.extractors import Extractor, open_extractor
from ldm.metrics import fid
from ldm.metrics.estimate import Estimate
from ldm.metrics.fid import Array
from ldm.report import (
    Report,
    classifier_rereading,
    image_sheets,
    measurement_plots,
    page,
    probe_survival,
    roundtrip,
)
from ldm.report.options import own
from ldm.report.page import Block, Picture, Table
from ldm.report.roundtrip import HOW, ORIGINAL, Copier, Copies
from ldm.system import devices

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


def run(options: argparse.Namespace) -> Report:
    return measure(**own(options))


def measure(
    asked: str,
    model: str,
    *,
    config: str | None = None,
    size: int | None = None,
    extractors: Sequence[str],
    survival: int,
    seed: int,
    device: str | None,
    weights: str,
    limit: int | None,
    skip_bad: bool = False,
) -> Report:
    """Raises ValueError, before any file is written, for a set or a VAE that cannot be measured.

    Each argument is the option of its name, see ldm.report.options.
    """
    seen_by = [open_extractor(name, weights) for name in dict.fromkeys(extractors)]
    sizes = load_config(ModelConfig, config) if config else None
    copier = roundtrip.open_copier(model, sizes, size, seed, devices.choose(device))
    images = open_set(asked, copier.size)
    found = roundtrip.measure(images, copier, seen_by, limit, skip_bad)
    values: dict[str, Any] = {
        "set": images.name,
        "n": found.n,
        "size": copier.size,
        "model": model,
        "weights": copier.weights,
        "seed": seed,
        "enlarged": found.enlarged,
        "figures": {how: roundtrip.summaries(each) for how, each in found.figures.items()},
        "extractors": {},
    }
    tables: list[Block] = [figures_table(found)]
    for extractor in seen_by:
        blocks, values["extractors"][extractor.name] = measure_by(extractor, found)
        tables += blocks
    pictures: list[Block] = [distributions(found, seen_by), triples(images, copier, found)]
    if survival:
        series = probe_survival.measure(copier, survival)
        values["survival"] = probe_survival.summary(series)
        tables += probe_survival.tables(series, copier.size)
        pictures.append(probe_survival.picture(series, copier.size))
    blocks = [*about(values), *tables, *pictures]
    files = page.files("reconstruction", TITLE, blocks, values)
    files["reconstruction.csv"] = found.as_csv()
    return Report(page.text(TITLE, [blocks[0], *tables]), values, files)


def measure_by(extractor: Extractor, found: Copies) -> tuple[list[Block], dict[str, Any]]:
    """Distances and similarities by one extractor, and verdicts if it gives any."""
    features = found.features[extractor.name]
    original = features[ORIGINAL]
    apart = {how: frechet(original, features[how]) for how in HOW}
    apart["floor"] = frechet(original[::2], original[1::2])
    cosines = {how: found.similarity(extractor.name, how) for how in HOW}
    cosines["other image"] = found.strangers(extractor.name)
    caption = (
        f"{extractor.name}: cosine of the embeddings of an original and its reconstruction, and, "
        "for comparison, of the original before it in the set."
    )
    blocks: list[Block] = [
        distance_table(extractor, apart, *original.shape),
        roundtrip.quantile_table(caption, cosines),
    ]
    values: dict[str, Any] = {
        "shown": str(extractor),
        "features": original.shape[1],
        "Fréchet distance": apart,
        "cosine": roundtrip.summaries(cosines),
    }
    if extractor.findings:
        verdicts = classifier_rereading.measure(extractor, features, found.labels)
        blocks += classifier_rereading.tables(extractor.name, verdicts)
        values |= verdicts.values()
    return blocks, values


def frechet(x: Array, y: Array) -> Estimate | None:
    """Of features [n, d], with its jackknife interval; None for fewer than 10 of a set."""
    return fid.jackknife(fid.frechet, x, y) if min(len(x), len(y)) >= 10 else None


def distance_table(
    extractor: Extractor, apart: Mapping[str, Estimate | None], n: int, width: int
) -> Table:
    few = "" if n // 2 > width else " (more than images: compare with the floor alone)"
    caption = (
        f"{extractor}: Fréchet distance of the n = {n} reconstructions to their own originals, "
        f"{width} features{few}; floor: the odd originals against the even ones, which share no "
        "image and so lie farther apart."
    )
    cells = (one.show() if one else "too few images" for one in apart.values())
    return Table(caption, ("figure", *apart), [("Fréchet distance", *cells)])


def figures_table(found: Copies) -> Table:
    caption = f"Each reconstruction beside its original, n = {found.n}."
    rows = {
        f"{UNITS[name]}, {how}": found.figures[how][name] for name in UNITS for how in found.figures
    }
    return roundtrip.quantile_table(caption, rows)


def distributions(found: Copies, extractors: Sequence[Extractor]) -> Picture:
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
    psnr = found.figures["sample"]["PSNR"]
    order = np.argsort(psnr, kind="stable")
    shown = []
    for name, rank in (("worst", 0), ("median", len(order) // 2), ("best", -1)):
        place = order[rank]
        index = found.indices[place]
        original = copier.fit(asked.load(index))
        copy = copier(original[None], [index])["sample"][0]
        title = f"{name}: {found.ids[place]}\nPSNR {psnr[place]:.1f} dB"
        shown.append(image_sheets.Triple(title, original, copy))
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
        f"{smaller} Intervals are of 95 % and take the images as independent, which films of one "
        "patient are not.",
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
