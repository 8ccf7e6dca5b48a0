"""Boxes of healthy phantoms painted with a finding's words and without: does the finding appear?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from ldm.data import phantom
from ldm.data.image_sets import UNSEEN
from ldm.data.phantom.selection import parse, possible, select
from ldm.drawing import image_editing
from ldm.drawing.compositing import Box, Levels, Mask
from ldm.drawing.edited_pictures import RESAMPLE
from ldm.drawing.latent_editing import PictureBatch
from ldm.judging.judge import Judge
from ldm.metrics.classification import auc
from ldm.metrics.estimate import Estimate
from ldm.metrics.fid import Array
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.report.image_sheets import Panel

FIRST = UNSEEN + 50_000_000  # phantoms of no other page
FINDINGS = ("pleural effusion", "fracture")


class Painted(NamedTuple):
    """drawn, true: [n, 2] the judge's logits with the finding and without, painted and of phantoms;
    None where the judge does not know it

    likeness: [n] correlation, over the box, of the painted difference with the true one
    hidden: phantoms whose picture does not show the finding;  shown: of the first
    """

    drawn: Array | None
    true: Array | None
    likeness: Array
    hidden: int
    shown: list[Panel]


def paint(
    pipe: LatentDiffusion,
    sampling: Sampling,
    judge: Judge,
    finding: str,
    regions: Sequence[str],
    count: int,
) -> Painted | None:
    """Paints the box around a finding of `count` frontal phantoms into the same body without it.

    Both words have the same noise, so that only the words differ. None if no region can show the
    finding, or fewer than two phantoms do.
    """
    names = [{"hand": "wrist"}.get(region, region) for region in regions]
    if not (names := [name for name in names if finding in possible(name, "xray")]):
        return None
    where = parse(f"region={'+'.join(names)},modality=xray,view=frontal,finding={finding}")
    side, pictures, likeness = pipe.config.image_size, [], []
    shown: list[Panel] = []
    for p in tqdm(select(range(FIRST, FIRST + count), where), f"painting {finding}", disable=None):
        both = [p, replace(p, findings=())]
        sick, well = (phantom.render([one], side) for one in both)
        mask = sick.masks[finding][0].numpy()
        if not mask.any():
            continue
        truth, given = (image_files.to_integers(one.images[0]) for one in (sick, well))
        box = around(mask)
        hole = np.zeros(mask.shape)
        hole[box.inside] = 1
        batch = PictureBatch(pipe, [*map(phantom.caption, both)], [p.seed, p.seed], sampling)
        present, absent = image_editing.inpaint(batch, given, hole, RESAMPLE)
        pictures.append([present, absent, truth, given])
        likeness.append(correlation(present, absent, truth, given, box))
        titles = (f"with {finding}", "without", f"phantom with {finding}", "phantom without")
        shown = shown or [Panel(*each, box) for each in zip(titles, pictures[0], strict=True)]
    if len(likeness) < 2:
        return None
    scores = verdicts(judge, finding, pictures) if finding in judge.config.findings else None
    drawn, true = (None, None) if scores is None else (scores[:, :2], scores[:, 2:])
    return Painted(drawn, true, np.array(likeness), count - len(likeness), shown)


def around(mask: Mask, margin: int = 6) -> Box:
    """The box around the mask and `margin` pixels more, cut at the border."""
    spans = []
    for axis in (0, 1):
        seen, side = np.flatnonzero(mask.any(axis=1 - axis)), mask.shape[axis]
        start = max(int(seen[0]) - margin, 0)
        spans.append((start, min(int(seen[-1]) + 1 + margin, side) - start))
    (top, height), (left, width) = spans
    return Box(top, left, height, width)


def correlation(a: Levels, b: Levels, c: Levels, d: Levels, box: Box) -> float:
    """Pearson's r of a - b with c - d over the box; 0 where one of them does not vary."""
    x, y = (np.subtract(m[box.inside], n[box.inside], dtype=float) for m, n in ((a, b), (c, d)))
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / norm if norm > 0 else 0.0


@torch.inference_mode()
def verdicts(judge: Judge, finding: str, pictures: Sequence[Sequence[Levels]]) -> Array:
    """[n, 4] the judge's logits of the finding"""
    size, number = judge.config.size, judge.config.findings.index(finding)
    images = [
        image_files.resize(image_files.from_integers(picture), size, size)
        for each in pictures
        for picture in each
    ]
    logits = torch.cat([judge(image[None])[:, number] for image in images])
    return logits.double().numpy().reshape(len(pictures), -1)


def told_apart(scores: Array) -> Estimate:
    """AUC of the first column against the second."""
    return auc(scores.T.ravel(), np.repeat([1, 0], len(scores)))
