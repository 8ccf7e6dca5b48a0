"""evaluate.py inpainting: what is painted into erased boxes, and back from noise."""

import argparse
from typing import Any

import numpy as np

from ldm.config import ConfigError
from ldm.data.image_sets import PhantomSet, open_set
from ldm.judging.judge import load_judge
from ldm.metrics import estimate
from ldm.metrics.estimate import Estimate
from ldm.metrics.fid import Array
from ldm.pipeline import Sampling
from ldm.report import (
    Report,
    image_sheets,
    inpainting_trials,
    outpainting_trials,
    page,
    painted_findings,
)
from ldm.report.inpainting_trials import MODEL, ORIGINAL
from ldm.report.outpainting_trials import Inverted
from ldm.report.page import Block, Table
from ldm.report.painted_findings import Painted
from ldm.weights import loading

TITLE = "Erased and painted again"
QUICK = 4  # of each
QUICK_STEPS = 10


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any file is written, for a set that cannot be measured."""
    if 1 in (options.findings, options.inverted):
        raise ConfigError(
            "--findings and --inverted must be 0 or at least 2: an interval needs two phantoms"
        )
    if options.quick:
        most = {"n": QUICK, "findings": QUICK, "inverted": QUICK, "steps": QUICK_STEPS}
        least = {name: min(getattr(options, name), value) for name, value in most.items()}
        options = argparse.Namespace(**{**vars(options), **least})
    pipe, judge = loading.load(options.model), load_judge(options.judge)
    side, guidance = pipe.config.image_size, pipe.config.guidance
    asked = open_set(options.set, side)
    how = Sampling(options.seed, options.steps, guidance=guidance, height=side, width=side)
    repainted = inpainting_trials.measure(
        pipe, asked, how, options.n, options.prompt, options.skip_bad
    )
    telea = any(inpainting_trials.TELEA in shown for shown in repainted.shown.values())
    about = page.paragraphs(
        "inpainting",
        asked=asked,
        found=repainted,
        options=options,
        config=pipe.config,
        telea=telea,
    )
    blocks: list[Block] = [*about, page.read_from([asked])]
    blocks += [inpainting_table(region, each) for region, each in repainted.figures.items()]
    values: dict[str, Any] = {
        "set": asked.name,
        "left out": repainted.left_out,
        "changed outside": repainted.changed,
        "inpainting": {
            f"{place}, {method}, {name}": average(figures)
            for places in repainted.figures.values()
            for place, methods in places.items()
            for method, each in methods.items()
            for name, figures in each.items()
        },
    }
    rows = repainted.panels()
    if options.findings:
        trials = {
            finding: painted_findings.paint(
                pipe, how, judge, finding, list(repainted.figures), options.findings
            )
            for finding in painted_findings.FINDINGS
        }
        painted = {finding: trial for finding, trial in trials.items() if trial}
        rows += [trial.shown for trial in painted.values()]
        values["findings"] = {finding: findings_of(trial) for finding, trial in painted.items()}
        caption = page.passage("painted_findings", options=options, painted=painted)
        blocks.append(Table.of(caption, "", values["findings"]))
    if options.inverted:
        slow = Sampling(options.seed, 50, "ddim", 1.0, height=side, width=side)
        found, pictures = outpainting_trials.invert(pipe, slow, options.inverted)
        rows.append([image_sheets.Panel(*panel) for panel in pictures.items()])
        blocks.append(inversion_table(found))
        values["inversion"] = {name: average(x) for name, x in found._asdict().items()}
    phantoms = isinstance(asked, PhantomSet)
    warning = "The originals are phantoms." if phantoms else page.passage("patients")
    blocks.append(image_sheets.edits(rows, warning))
    return page.report("inpainting", TITLE, blocks, values)


def average(values: Array) -> Estimate:
    """The mean of those that are numbers."""
    return estimate.mean(values[~np.isnan(values)])


def inpainting_table(region: str, places: dict[str, dict[str, dict[str, Array]]]) -> Table:
    rows = []
    for place, methods in places.items():
        for method, each in methods.items():
            cells = [average(figures).show() for figures in each.values()]
            for name in ("PSNR", "SSIM"):
                if method in (MODEL, ORIGINAL):
                    cells.append("")
                    continue
                gain = average(methods[MODEL][name] - each[name])
                worth = "model" if gain.low > 0 else method if gain.high < 0 else "not told apart"
                cells.append(f"{gain.show()}: {worth}")
            rows.append((f"{place}, {method}", *cells))
    count = max(len(x) for place in places.values() for x in place[MODEL].values())
    caption = page.passage("inpainted_boxes", n=count, region=region)
    header = ("box and fill", "PSNR, dB", "SSIM", "seam", "distance", "gain, dB", "gain, SSIM")
    return Table(caption, header, rows)


def findings_of(trial: Painted) -> dict[str, Estimate]:
    """The figures of a finding; those of the judge only where it knows the finding."""
    figures = {}
    for whose, scores in (("painted", trial.drawn), ("phantoms", trial.true)):
        if scores is not None:
            figures[f"{whose}: AUC, with against without"] = painted_findings.told_apart(scores)
    name = "correlation of the painted difference with the phantoms'"
    return {**figures, name: estimate.mean(trial.likeness)}


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
