"""evaluate.py edits: what is painted into erased boxes, beyond a border, and back from noise."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ldm.report import Report
from ldm.report.images import SETS, show
from ldm.report.reconstruction import PATIENTS
from ldm.system import cli

if TYPE_CHECKING:
    from ldm.metrics.estimate import Estimate
    from ldm.metrics.fid import Array
    from ldm.report.inpainting_trials import Repainted
    from ldm.report.outpainting_trials import Extended, Inverted
    from ldm.report.page import Block, Table

ABOUT = "How near is what is painted into erased boxes? (Adams et al., figures 3 and 4)"
TITLE = "Erased and painted again"


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("set", metavar="SET", help=SETS)
    add("--model", default="weights", metavar="PATH", help="weights of any layout (weights)")
    add("--n", type=cli.whole(2), default=20, metavar="N", help="images, the first (20)")
    add("--extended", type=cli.whole(0), default=50, metavar="N", help="half phantoms (50)")
    add("--inverted", type=cli.whole(0), default=20, metavar="N", help="phantoms to noise (20)")
    add("--prompt", type=cli.line, metavar="TEXT", help="for every image (each one's caption)")
    add("--steps", type=cli.whole(1), default=20, metavar="N", help="for painting (20)")
    add("--seed", type=cli.whole(), default=0, metavar="N", help="of the noise (0)")
    add("--skip-bad", action="store_true", help="go on without files that cannot be read")


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any file is written, for a set that cannot be measured."""
    from ldm.config import ConfigError
    from ldm.data.image_sets import PhantomSet, open_set
    from ldm.pipeline import Sampling
    from ldm.report import image_sheets, inpainting_trials, outpainting_trials, page
    from ldm.weights import loading

    if 1 in (options.extended, options.inverted):
        raise ConfigError("2 or more phantoms make an interval, 0: none are measured")
    pipe = loading.load(options.model)
    side, guidance = pipe.config.image_size, pipe.config.guidance
    asked = open_set(options.set, side)
    how = Sampling(options.seed, options.steps, guidance=guidance, height=side, width=side)
    there = inpainting_trials.measure(pipe, asked, how, options.n, options.prompt, options.skip_bad)
    blocks: list[Block] = [
        f"{asked.name}, n = {len(there.ids)}, {side} px, {options.model}, seed {options.seed}, "
        f"{options.steps} steps, guidance {guidance:g}. Pixels outside the boxes that differ: "
        f"{there.changed} of {there.outside}. Intervals are of 95 % (1.96 standard errors; shares: "
        "Wilson's) and were not corrected for the number of comparisons. Image to image sees what "
        "is under the box, the others do not.",
        inpainting_table(there),
    ]
    values: dict[str, Any] = {
        "set": asked.name,
        "n": len(there.ids),
        "changed outside": there.changed,
        "inpainting": {
            f"{place}, {method}, {name}": as_json(figures)
            for place, methods in there.figures.items()
            for method, each in methods.items()
            for name, figures in each.items()
        },
    }
    rows = there.panels()
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
        values["inversion"] = {name: as_json(x) for name, x in found._asdict().items()}
    warning = "The originals are phantoms." if isinstance(asked, PhantomSet) else PATIENTS
    blocks.append(image_sheets.edits(rows, warning))
    files = page.files("edits", TITLE, blocks, values)
    return Report(page.text(TITLE, blocks), values, files)


def estimate(values: Array) -> Estimate:
    """The mean of those that are numbers."""
    import numpy as np

    from ldm.metrics.estimate import mean

    return mean(values[~np.isnan(values)])


def as_json(values: Array) -> dict[str, float]:
    return estimate(values)._asdict()


def inpainting_table(there: Repainted) -> Table:
    from ldm.report.inpainting_trials import METHODS, MODEL
    from ldm.report.page import Table

    rows = []
    for place, methods in there.figures.items():
        for method in METHODS:
            each = methods[method]
            cells = [show(estimate(figures)) for figures in each.values()]
            for name in ("PSNR", "SSIM"):
                gain = estimate(methods[MODEL][name] - each[name])
                worth = "model" if gain.low > 0 else method if gain.high < 0 else "not told apart"
                cells.append("" if method == MODEL else f"{show(gain)}: {worth}")
            rows.append((f"{place}, {method}", *cells))
    caption = (
        f"Inside the box, beside the original, n = {len(there.ids)} each. Gain: the model's "
        "figure minus this fill's, in pairs, and who wins. Seam: mean step across the box's edge, "
        "the original's being 1."
    )
    header = ("box and fill", "PSNR, dB", "SSIM", "seam", "gain, dB", "gain, SSIM")
    return Table(caption, header, rows)


def outpainting(found: Extended) -> tuple[Table, dict[str, Any]]:
    """Only by estimates that passed their trial."""
    from ldm.metrics.classification import wilson
    from ldm.report import anatomy_survey
    from ldm.report.page import Table

    believed = anatomy_survey.trial().believed
    columns: dict[str, dict[str, Estimate]] = {}
    for whose, chests in found.chests.items():
        both = [one for one in chests if one.lungs == 2]
        figures: dict[str, Estimate] = {}
        if anatomy_survey.LUNGS in believed:
            figures["two lungs"] = wilson(len(both), len(chests))
        if anatomy_survey.LUNGS in believed and len(both) > 1:
            figures["ratio of widths, mean"] = estimate(found.halves[whose])
            figures["error of that ratio"] = estimate(abs(found.halves[whose] - found.truth))
        if anatomy_survey.HEART in believed and both:
            right = sum(one.shift is not None and one.shift > 0 for one in both)
            figures["heart at the image's right, of two-lunged"] = wilson(right, len(both))
        columns[whose] = figures
    names = list(dict.fromkeys(name for figures in columns.values() for name in figures))
    rows = [
        (name, *(str(one[name]) if name in one else "" for one in columns.values()))
        for name in names
    ]
    caption = (
        f"The left half of healthy phantoms drawn on to the right, n = {len(found.truth)}; "
        f"{found.changed} pixels of the given halves differ. Ratio: how far the lung reaches from "
        f"the middle in the new half, to the given one; by the phantoms' masks it is "
        f"{show(estimate(found.truth))}."
    )
    values = {w: {name: e._asdict() for name, e in one.items()} for w, one in columns.items()}
    return Table(caption, ("figure", *columns), rows), {"changed": found.changed, **values}


def inversion_table(found: Inverted) -> Table:
    from ldm.report.page import Table

    names = {
        "own": "autoencoder to phantom, dB",
        "back": "same words to autoencoder, dB",
        "back_to_phantom": "same words to phantom, dB",
        "outside": "change outside the fluid's mask, share",
        "truly": "the same, where the fluid is truly gone",
        "area": "area outside the mask, share",
        "nearer": "no findings nearer to the truth than same words, dB",
    }
    rows = [(names[name], str(estimate(values))) for name, values in found._asdict().items()]
    return Table("Phantoms with fluid to noise and back, 50 steps of DDIM.", ("", "mean"), rows)
