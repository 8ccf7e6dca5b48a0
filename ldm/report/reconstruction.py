"""evaluate.py reconstruction: how much of a radiograph survives the autoencoder?"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from ldm.config import ModelConfig
from ldm.data.image_sets import ImageSet, PhantomSet, open_set
from ldm.judging.extractors import Extractor, open_extractor
from ldm.metrics import fid
from ldm.metrics.estimate import Estimate
from ldm.metrics.fid import Array
from ldm.report import (
    Report,
    image_sheets,
    page,
    plots,
    probe_survival,
    reconstruction_verdicts,
    roundtrip,
)
from ldm.report.options import own
from ldm.report.page import Block, Picture, Table
from ldm.report.roundtrip import HOW, ORIGINAL, Copier, Copies
from ldm.system import devices
from ldm.system.cli import load_config

TITLE = "How much of a radiograph survives the autoencoder?"
FEW = "too few images"
UNITS = {"RMSE": "RMSE, of a range of 2048", "PSNR": "PSNR, dB", "SSIM": "SSIM"}


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
    caption = f"Each reconstruction beside its original, n = {found.n}."
    figures = {f"{UNITS[f]}, {how}": found.figures[how][f] for f in UNITS for how in found.figures}
    tables: list[Block] = [roundtrip.quantile_table(caption, figures)]
    for extractor in seen_by:
        blocks, values["extractors"][extractor.name] = measure_by(extractor, found)
        tables += blocks
    pictures: list[Block] = [distributions(found, seen_by), triples(images, copier, found)]
    if survival:
        series = probe_survival.measure(copier, survival)
        values["survival"] = probe_survival.summary(series)
        tables += probe_survival.tables(series, copier.size)
        pictures.append(probe_survival.picture(series, copier.size))
    sentences = page.paragraphs("reconstruction", **values)
    written = [*sentences, page.read_from([images]), *tables, *pictures]
    more = {"reconstruction.csv": found.as_csv()}
    shown = [sentences[0], *tables]
    return page.report("reconstruction", TITLE, written, values, summary=shown, more=more)


def measure_by(extractor: Extractor, found: Copies) -> tuple[list[Block], dict[str, Any]]:
    """Distances and similarities by one extractor, and verdicts if it gives any."""
    features = found.features[extractor.name]
    original = features[ORIGINAL]
    apart = {how: frechet(original, features[how]) for how in HOW}
    apart["floor"] = frechet(original[::2], original[1::2])
    cosines = {how: found.similarity(extractor.name, how) for how in HOW}
    cosines["other image"] = found.strangers(extractor.name)
    n, width = original.shape
    caption = page.passage("reconstruction_distances", extractor=extractor, n=n, width=width)
    shown = {how: {"Fréchet distance": x.show() if x else FEW} for how, x in apart.items()}
    more = page.passage("reconstruction_cosines", extractor=extractor.name)
    blocks: list[Block] = [
        Table.of(caption, "figure", shown),
        roundtrip.quantile_table(more, cosines),
    ]
    values: dict[str, Any] = {
        "shown": str(extractor),
        "features": width,
        "Fréchet distance": apart,
        "cosine": roundtrip.summaries(cosines),
    }
    if extractor.findings:
        verdicts = reconstruction_verdicts.measure(extractor, features, found.labels)
        blocks += reconstruction_verdicts.tables(extractor.name, verdicts)
        values |= verdicts.values()
    return blocks, values


def frechet(x: Array, y: Array) -> Estimate | None:
    """Of features [n, d], with its jackknife interval; None for fewer than 10 of a set."""
    return fid.jackknife(fid.frechet, x, y) if min(len(x), len(y)) >= 10 else None


def distributions(found: Copies, extractors: Sequence[Extractor]) -> Picture:
    panels = {
        label: {how: found.figures[how][name] for how in HOW} for name, label in UNITS.items()
    }
    for extractor in extractors:
        panels[f"cosine, {extractor.name}"] = {
            how: found.similarity(extractor.name, how) for how in HOW
        }
    caption = f"Distributions over n = {found.n} images; dotted: medians."
    return Picture("distributions.png", plots.histograms(panels), caption)


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
    warning = "Phantoms: all synthetic." if drawn else page.passage("patients")
    caption = page.passage("reconstruction_triples", whose=whose, warning=warning)
    png = image_sheets.triples(shown, (whose, "reconstruction (synthetic)"), caption)
    return Picture("triples.png", png, caption)
