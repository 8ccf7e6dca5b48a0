"""evaluate.py outpainting: from a knee to the whole body of a phantom, beside its truth.

Adams et al. (arXiv:2209.13696, figure 4) drew it with DALL-E 2 and looked at it.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from ldm.config import ConfigError
from ldm.data import phantom
from ldm.data.image_sets import UNSEEN
from ldm.data.phantom import Phantom, selection
from ldm.drawing import outpainting
from ldm.drawing.compositing import Box, Levels
from ldm.drawing.latent_editing import PictureBatch
from ldm.metrics import estimate
from ldm.metrics.classification import wilson_of_groups
from ldm.metrics.estimate import Estimate
from ldm.metrics.fid import Array
from ldm.metrics.image_quality import edge_steps
from ldm.pictures import image_files
from ldm.pipeline import Sampling
from ldm.report import Report, image_sheets, outpainting_trials, page
from ldm.report.image_sheets import Panel
from ldm.report.inpainting_trials import mask_of
from ldm.report.page import Block, Heading, Table
from ldm.weights import loading

FIRST, LEAST = UNSEEN + 80_000_000, 12  # phantoms of this page alone; how many make a mean
WINDOW, ROWS, COLUMNS = 400, 10, 3  # mm; halves of it: a canvas of 2,000 x 600 mm
LOWER = 100  # mm, the canvas's middle below the region's
WHOLE = f"region=body,view=frontal,finding=none,width={ROWS * WINDOW // 2},at=0:{LOWER}:0"
KNEES = "knees"
# top and left of the given window, in halves of it
STARTS = {KNEES: (6, 0.5), "hand and wrist": (4, 0), "pelvis": (4, 0.5), "chest": (2, 0.5)}
STARTS |= {"abdomen and spine": (3, 0.5)}
BANDS = {"to 20 cm": (0, 20), "20 to 40 cm": (20, 40), "40 to 80 cm": (40, 80)}
BANDS |= {"over 80 cm": (80, 1000)}
BARE = 0.05  # grey levels: the detail of bare film, of which no share can be had
REPEATS = 2  # of each step: see `latent_editing.inpaint`
MODEL, SHUFFLED = "model", "model, prompts of other parts"
TRUTH, OTHER, MEAN = "the truth itself", "another person", "mean body"
PART = "right part named"
Paint = Callable[[Levels, int, Box, str], Levels]  # truth, number, given window, MODEL or SHUFFLED
Figures = Mapping[str, Mapping[str, Array]]  # whose, figure: [n]; of PART [n, windows]


def run(options: argparse.Namespace) -> Report:
    """What was drawn is kept in OUT.partial, from which a stopped run goes on."""
    if options.quick:
        options.n, options.others, options.halves, options.steps = 4, 2, 0, 8
    if 1 in (options.others, options.halves):
        raise ConfigError("--others and --halves must be 0 or at least 2: an interval needs two")
    pipe = loading.load(options.model)
    side, guidance = pipe.config.image_size, pipe.config.guidance
    how = Sampling(options.seed, options.steps, guidance=guidance, height=side, width=side)
    partial = Path(f"{options.out}.partial")
    changed = Path(options.model).stat().st_mtime_ns  # a file written again is another model
    key = {"settings": str(how), "model": f"{options.model} of {changed}, {phantom.BODY_VERSION}"}

    def paint(truth: Levels, index: int, given: Box, whose: str) -> Levels:
        canvas, known, boxes = windows(truth, given)
        words = prompts(boxes, whose == SHUFFLED)
        batch = PictureBatch(pipe, words, [index], how)
        folder = partial / f"{whose} {given.top} {given.left}"
        return outpainting.outpaint_resumably(batch, canvas, known, boxes, REPEATS, folder, key)

    bodies = truths(side, max(options.n, options.others, LEAST))
    about = {"options": options, "side": side, "config": pipe.config, "repeats": REPEATS}
    blocks: list[Block] = [*page.paragraphs("outpainted_bodies", means=len(bodies) - 1, **about)]
    values: dict[str, Any] = {"quick": options.quick}
    rows: list[list[Panel]] = []
    for start in (KNEES, "pelvis") if options.quick else STARTS:
        if count := options.n if start == KNEES else options.others:
            given = box_at(start, side)
            figures, drawn = travel(paint, bodies, count, given, options.shuffled)
            values[start] = {"n": count, **{k: summary(each) for k, each in figures.items()}}
            kept = (drawn[MODEL] == drawn[TRUTH])[(slice(None), *given.inside)]
            values[start]["changed"] = int((~kept).sum())
            caption = page.passage("journey_table", start=start, found=values[start])
            blocks += [Heading(f"From the {start}"), table(figures, caption)]
            for whose in (MODEL, TRUTH):
                rows.append([Panel(whose, body, given) for body in drawn[whose][:10]])
    if options.halves:
        more = outpainting_trials.extend(pipe, how, options.halves)
        halves, values["halves"] = outpainting_trials.half_table(more)
        rows.append(more.panels())
        blocks += [Heading("From half a chest"), halves]
    blocks += [Heading("Pictures"), image_sheets.edits(rows, "The originals are phantoms.", 5.4)]
    return page.report("outpainted_bodies", "From one part to the whole body", blocks, values)


def truths(side: int, count: int) -> Levels:
    """[n, H, W, 1] whole bodies; a window of `side` pixels is 400 mm wide."""
    size, edge = ROWS * side // 2, (ROWS - COLUMNS) * side // 4
    phantoms = selection.select(range(FIRST, FIRST + count), selection.parse(WHOLE))
    drawn = [phantom.render([one], size).images[0] for one in tqdm(phantoms, "truth", disable=None)]
    return np.stack([image_files.to_integers(image[:, :, edge : size - edge]) for image in drawn])


def box_at(start: str, side: int) -> Box:
    top, left = STARTS[start]
    return Box(top * side // 2, int(left * side / 2), side, side)


def windows(truth: Levels, given: Box) -> tuple[Levels, Any, list[Box]]:
    """The given window alone on the canvas, where it lies, and the windows to draw."""
    size = (truth.shape[1], truth.shape[0])
    canvas, known = outpainting.place(truth[given.inside], size, (given.left, given.top))
    return canvas, known, outpainting.plan(known, given.width)


def prompts(boxes: Sequence[Box], shuffled: bool = False) -> list[str]:
    """Captions by height, "phantom x-ray of the body at the knees"; shuffled: half a body away."""
    halves = [box.top // (box.height // 2) for box in boxes]
    halves = [(half + ROWS // 2) % (ROWS - 1) if shuffled else half for half in halves]
    places = [(0.0, LOWER + WINDOW * (half + 1 - ROWS / 2) / 2, 0.0) for half in halves]
    part = Phantom(0, "frontal", "F", 50, region="body", width=WINDOW)
    return [phantom.caption(replace(part, at=at), 2) for at in places]


def travel(
    paint: Paint, bodies: Levels, count: int, given: Box, shuffled: bool
) -> tuple[Figures, dict[str, Levels]]:
    """Figures and canvases [n, H, W, 1] of the first `count` of the bodies."""
    rows: dict[str, list[dict[str, Any]]] = {}
    drawn: dict[str, list[Levels]] = {}
    for i in tqdm(range(count), "outpainting", disable=None):
        truth, drawers = bodies[i], (MODEL, SHUFFLED)[: 1 + shuffled]
        canvases = {whose: paint(truth, i, given, whose) for whose in drawers}
        canvases[TRUTH] = truth
        canvases[OTHER] = aligned(bodies[(i + 1) % len(bodies)], truth, given)
        usual = aligned(np.delete(bodies, i, axis=0).mean(axis=0), truth, given)
        canvases[MEAN] = usual
        for whose, canvas in canvases.items():
            rows.setdefault(whose, []).append(score(canvas, truth, usual, given))
            drawn.setdefault(whose, []).append(canvas)
    figures = {w: {k: np.array([row[k] for row in e]) for k in e[0]} for w, e in rows.items()}
    return figures, {whose: np.stack(each) for whose, each in drawn.items()}


def aligned(other: Any, truth: Levels, given: Box) -> Levels:
    """`other` moved, and made lighter or darker, to agree best with the given window."""
    height, width, _ = truth.shape
    reach, step = given.width * 3 // 16, max(1, given.width // 64)
    wide = np.pad(other[..., 0].astype(float), reach, mode="edge")
    moves, target = range(0, 2 * reach + 1, step), truth[..., 0][given.inside]
    moved = (wide[i : i + height, j : j + width] for i in moves for j in moves)
    best = max(moved, key=lambda one: likeness(one[given.inside], target))
    gain, offset = np.polyfit(best[given.inside].ravel(), target.ravel(), 1)
    return (gain * best + offset).clip(0, 255).round().astype(np.uint8)[..., None]


def likeness(a: Any, b: Any) -> float:
    """Pearson's correlation; 0 where one is of one value."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 0 else 0.0


def score(canvas: Levels, original: Levels, usual: Levels, given: Box) -> dict[str, Any]:
    """Figures of a canvas by distance from the given window; NaN where the truth has no detail.

    usual: the mean body
    """
    drawn, truth, mean = (x[..., 0].astype(float) for x in (canvas, original, usual))
    _, known, boxes = windows(original, given)
    away = ndimage.distance_transform_edt(~known) * (WINDOW / 10 / given.width)  # cm
    fine, true_fine = (x - ndimage.uniform_filter(x, 5) for x in (drawn, truth))
    figures: dict[str, Any] = {}
    for name, (low, high) in BANDS.items():
        band = (away > low) & (away <= high)
        figures[f"error {name}"] = float(np.sqrt(np.square(drawn - truth)[band].mean()))
        figures[f"correlation {name}"] = figures[f"sharpness {name}"] = float("nan")
        if (detail := float(true_fine[band].std())) > BARE:
            figures[f"correlation {name}"] = likeness(drawn[band], truth[band])
            figures[f"sharpness {name}"] = float(fine[band].std()) / detail
    figures["drift"] = float(np.polyfit(away[~known] / 10, (drawn - truth)[~known], 1)[0])
    steps: list[Array] = []
    for box in boxes:
        hole = mask_of(box, original) & ~known
        steps.append(np.stack([edge_steps(x, hole)[0] for x in (drawn, truth)]))
        known |= hole
    after, before = np.concatenate(steps, axis=1).mean(axis=1)
    figures["seam"] = float(after / before)
    side, left = given.width, (COLUMNS - 2) * given.width // 4
    column = [Box(half * side // 2, left, side, side) for half in range(ROWS - 1)]
    figures[PART] = [
        max(column, key=lambda one: likeness(drawn[box.inside], mean[one.inside])) == box
        for box in column
        if abs(box.top - given.top) >= side
    ]
    return figures


def summary(figures: Mapping[str, Array]) -> dict[str, Estimate]:
    """Of those that are numbers; a figure that fewer than two persons have is left out."""
    known = {k: v if k == PART else v[~np.isnan(v)] for k, v in figures.items()}
    return {
        k: wilson_of_groups(v.T) if k == PART else estimate.mean(v)
        for k, v in known.items()
        if len(v) > 1
    }


def table(figures: Figures, caption: str) -> Table:
    """Beside each error of another body: is the model's smaller, in pairs?"""
    columns: dict[str, dict[str, str]] = {}
    for whose, each in figures.items():
        columns[whose] = {name: one.show(".3g") for name, one in summary(each).items()}
        for name in each:
            if whose in (OTHER, MEAN) and name.startswith("error"):
                gain = estimate.mean(each[name] - figures[MODEL][name])
                told = "worse" if gain.low > 0 else "better" if gain.high < 0 else "not told apart"
                columns[whose][name] += f": {told}"
    return Table.of(caption, "figure", columns)
