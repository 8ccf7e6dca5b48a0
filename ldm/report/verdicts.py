"""What an extractor sees in a set, beside what the set's labels or prompts say is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ldm.data.image_sets import ImageSet, load_each
from ldm.data.prompt_parser import requested_findings
from ldm.judging.extractors import Array, Extractor, batches
from ldm.metrics.classification import auc, decisions, wilson
from ldm.metrics.estimate import Estimate
from ldm.report.set_distances import fingerprint

Truth = NDArray[np.bool_]


class Judged(NamedTuple):
    """A set, read once: n images that can be read.

    indices: their places in the set;  rows: {finding: is it there?};  prompts: {prompt: n}
    features: [n, d];  scores: [n, K];  synthetic: how many say that they are
    hashes: of the pixels
    """

    name: str
    indices: list[int]
    rows: list[Mapping[str, bool]]
    prompts: Counter[str]
    features: Array
    scores: Array
    synthetic: int
    hashes: frozenset[str] = frozenset()


class Cases(NamedTuple):
    """The images [n] of which it is known whether they show a finding.

    places: of them in Judged;  truth: with it;  rivals: with another finding and without this one
    """

    places: NDArray[np.int64]
    truth: Truth
    rivals: Truth


class Verdict(NamedTuple):
    """A finding as the extractor calls it; `rivals` is the AUC against other findings alone."""

    asked: Estimate
    called: Estimate
    rivals_n: int
    auc: Estimate
    rivals: Estimate | None
    decisions: dict[str, Estimate]


def look(
    images: ImageSet, extractor: Extractor, limit: int | None = None, skip_bad: bool = False
) -> Judged:
    """Raises ValueError for an image with neither labels nor a prompt, and for few images."""
    by_prompt = not any(images.findings(i) for i in range(len(images)))
    indices: list[int] = []
    rows: list[Mapping[str, bool]] = []
    prompts: Counter[str] = Counter()
    features: list[Array] = []
    synthetic, hashes = 0, set()
    total = len(images) if limit is None else min(limit, len(images))
    with tqdm(
        total=total, desc=images.name, unit="image", delay=2, disable=None, leave=False
    ) as bar:
        for numbers, pictures in batches(load_each(images, limit, skip_bad)):
            for index in numbers:
                text = images.text(index)
                synthetic += "synthetic" in text
                if by_prompt:
                    prompts[prompt := prompt_of(images, index, text)] += 1
                    rows.append(requested_findings(prompt, extractor.findings))
                else:
                    rows.append(images.findings(index))
            indices += numbers
            hashes |= {fingerprint(image) for image in pictures}
            features.append(extractor(pictures))
            bar.update(len(pictures))
    if len(indices) < 4:
        raise ValueError(f"{images.name} has {len(indices)} usable images; wants 4 or more")
    found = np.concatenate(features)
    scores = np.concatenate([extractor.scores(part) for part in features])
    seen = (indices, rows, prompts, found, scores, synthetic, frozenset(hashes))
    return Judged(images.name, *seen)


def prompt_of(images: ImageSet, index: int, text: Mapping[str, str]) -> str:
    if "prompt" not in text:
        raise ValueError(
            f"{images.name}: {images.sample_id(index)} has neither labels nor a prompt in its PNG "
            "text; name a folder that sample.py wrote, a CSV with labels, or phantoms:N"
        )
    return text["prompt"]


def cases(judged: Judged, finding: str) -> Cases:
    """Images whose labels do not know the finding are left out."""
    places = [i for i, row in enumerate(judged.rows) if finding in row]
    rows = [judged.rows[i] for i in places]
    truth = np.array([row[finding] for row in rows], bool)
    others = [any(there for name, there in row.items() if name != finding) for row in rows]
    return Cases(np.array(places, np.int64), truth, np.array(others, bool) & ~truth)


def enough(truth: Truth, least: int = 2) -> bool:
    """Are there so many of each class?"""
    return bool(min(truth.sum(), (~truth).sum()) >= least)


def choose(
    judged: Judged, extractor: Extractor, wanted: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """The findings to be measured, and those left out for want of two images of each class.

    Raises ValueError if one wanted is none of the extractor's, or if nothing is left.
    """
    if unknown := [name for name in wanted or () if name not in extractor.findings]:
        raise ValueError(
            f"{extractor.name} does not look for {', '.join(unknown)}; it looks for "
            f"{', '.join(extractor.findings)}"
        )
    names = [name for name in dict.fromkeys(wanted or extractor.findings) if name]
    known = {name for row in judged.rows for name in row}
    if not known & set(names):
        raise ValueError(
            f"{judged.name} is labelled with {', '.join(sorted(known))}; none of them is among "
            f"{', '.join(names)}, which {extractor.name} was to look for"
        )
    chosen = [name for name in names if enough(cases(judged, name).truth)]
    if not chosen:
        raise ValueError(
            f"{judged.name}: of {', '.join(names)} none has two images with it and two without; "
            "draw images of other prompts, too"
        )
    return chosen, [name for name in names if name not in chosen]


def verdict(judged: Judged, finding: str, extractor: Extractor) -> Verdict | None:
    """None if there are fewer than two images of a class."""
    places, truth, rivals = cases(judged, finding)
    if not enough(truth):
        return None
    scores = judged.scores[places, extractor.findings.index(finding)]
    among = truth | rivals
    return Verdict(
        asked=wilson(int(truth.sum()), len(truth)),
        called=wilson(int((scores > extractor.threshold).sum()), len(truth)),
        rivals_n=int(rivals.sum()),
        auc=auc(scores, truth),
        rivals=auc(scores[among], truth[among]) if rivals.sum() >= 2 else None,
        decisions=decisions(scores, truth, extractor.threshold),
    )


def surely_wrong(
    judged: Judged, finding: str, extractor: Extractor, count: int
) -> dict[str, list[int]]:
    """{kind: places of images} on the wrong side of the threshold, the surest `count` first."""
    places, truth, _ = cases(judged, finding)
    scores = judged.scores[places, extractor.findings.index(finding)]
    seen = scores > extractor.threshold
    rising = np.argsort(scores, kind="stable")
    kinds = {
        "asked for, not seen": [i for i in rising if truth[i] and not seen[i]],
        "seen, not asked for": [i for i in rising[::-1] if seen[i] and not truth[i]],
    }
    return {kind: places[some[:count]].tolist() for kind, some in kinds.items() if some}
