"""evaluate.py edits: what is painted into erased boxes, beyond a border, and back from noise."""

import argparse
from typing import Any

import numpy as np

from ldm.config import ConfigError
from ldm.data.image_sets import PhantomSet, open_set
from ldm.metrics import estimate
from ldm.metrics.classification import wilson
from ldm.metrics.estimate import Estimate
from ldm.metrics.fid import Array
from ldm.pipeline import Sampling
from ldm.report import (
    Report,
    anatomy_survey,
    image_sheets,
    inpainting_trials,
    outpainting_trials,
    page,
)
from ldm.report.inpainting_trials import METHODS, MODEL, Repainted
from ldm.report.outpainting_trials import Extended, Inverted
from ldm.report.page import Block, Table
from ldm.weights import loading

TITLE = "Erased and painted again"


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any file is written, for a set that cannot be measured."""
    if 1 in (options.extended, options.inverted):
        raise ConfigError(
            "--extended and --inverted must be 0 or at least 2: an interval needs two phantoms"
        )
    pipe = loading.load(options.model)
    side, guidance = pipe.config.image_size, pipe.config.guidance
    asked = open_set(options.set, side)
    how = Sampling(options.seed, options.steps, guidance=guidance, height=side, width=side)
    repainted = inpainting_trials.measure(
        pipe, asked, how, options.n, options.prompt, options.skip_bad
    )
    about = page.passage("edits", asked=asked, found=repainted, options=options, config=pipe.config)
    blocks: list[Block] = [about, page.read_from([asked]), inpainting_table(repainted)]
    values: dict[str, Any] = {
        "set": asked.name,
        "n": len(repainted.ids),
        "changed outside": repainted.changed,
        "inpainting": {
            f"{place}, {method}, {name}": average(figures)
            for place, methods in repainted.figures.items()
            for method, each in methods.items()
            for name, figures in each.items()
        },
    }
    rows = repainted.panels()
    if options.extended:
        more = outpainting_trials.extend(pipe, how, options.extended)
        rows.append(more.panels())
        table, values["outpainting"] = outpainting(more)
        blocks.append(table)
    if options.inverted:
        slow = Sampling(options.seed, 50, "ddim", 1.0, height=side, width=side)
        found, shown = outpainting_trials.invert(pipe, slow, options.inverted)
        rows.append([image_sheets.Panel(*panel) for panel in shown.items()])
        blocks.append(inversion_table(found))
        values["inversion"] = {name: average(x) for name, x in found._asdict().items()}
    phantoms = isinstance(asked, PhantomSet)
    warning = "The originals are phantoms." if phantoms else page.passage("patients")
    blocks.append(image_sheets.edits(rows, warning))
    return page.report("edits", TITLE, blocks, values)


def average(values: Array) -> Estimate:
    """The mean of those that are numbers."""
    return estimate.mean(values[~np.isnan(values)])


def inpainting_table(repainted: Repainted) -> Table:
    rows = []
    for place, methods in repainted.figures.items():
        for method in METHODS:
            each = methods[method]
            cells = [average(figures).show() for figures in each.values()]
            for name in ("PSNR", "SSIM"):
                gain = average(methods[MODEL][name] - each[name])
                worth = "model" if gain.low > 0 else method if gain.high < 0 else "not told apart"
                cells.append("" if method == MODEL else f"{gain.show()}: {worth}")
            rows.append((f"{place}, {method}", *cells))
    caption = page.passage("inpainting", n=len(repainted.ids))
    header = ("box and fill", "PSNR, dB", "SSIM", "seam", "gain, dB", "gain, SSIM")
    return Table(caption, header, rows)


def outpainting(found: Extended) -> tuple[Table, dict[str, Any]]:
    """Figures of the estimates that passed their trial, as a table and for JSON."""
    believed = anatomy_survey.trial().believed
    columns: dict[str, dict[str, Estimate]] = {}
    for whose, chests in found.chests.items():
        both = [one for one in chests if one.lungs == 2]
        figures: dict[str, Estimate] = {}
        if anatomy_survey.LUNGS in believed:
            figures["two lungs"] = wilson(len(both), len(chests))
        if anatomy_survey.LUNGS in believed and len(both) > 1:
            figures["ratio of widths, mean"] = average(found.halves[whose])
            figures["error of that ratio"] = average(abs(found.halves[whose] - found.truth))
        if anatomy_survey.HEART in believed and both:
            right = sum(one.shift is not None and one.shift > 0 for one in both)
            figures["heart at the image's right, of two-lunged"] = wilson(right, len(both))
        columns[whose] = figures
    truth = average(found.truth).show()
    caption = page.passage("outpainting", n=len(found.truth), changed=found.changed, truth=truth)
    return Table.of(caption, "figure", columns), {"changed": found.changed, **columns}


def inversion_table(found: Inverted) -> Table:
    names = {
        "own": "autoencoder to phantom, dB",
        "back": "same words to autoencoder, dB",
        "back_to_phantom": "same words to phantom, dB",
        "outside": "change outside the fluid's mask, share",
        "truly": "the same, where the fluid is truly gone",
        "area": "area outside the mask, share",
        "nearer": "no findings nearer to the truth than same words, dB",
    }
    means = {names[name]: average(values) for name, values in found._asdict().items()}
    return Table.of("Phantoms with fluid to noise and back, 50 steps of DDIM.", "", {"mean": means})
