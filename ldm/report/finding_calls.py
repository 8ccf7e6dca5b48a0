"""The findings that an extractor calls in a set, beside those of the set's labels or prompts."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ldm.data import attributes
from ldm.data.image_sets import ImageSet
from ldm.data.prompt_parser import requested_findings
from ldm.judging.extractors import Array, Extractor
from ldm.metrics.classification import auc, decisions, wilson
from ldm.metrics.estimate import Estimate
from ldm.report.image_sheets import COLUMNS, TitledImage, titled_rows
from ldm.report.page import Picture, Table
from ldm.report.plots import Curve, roc
from ldm.report.set_distances import fingerprint, read_batches

Truth = NDArray[np.bool_]
MEASURABLE = 0.7  # AUC of the extractor on real images below which it measures nothing
FEW = 5  # images with a finding, and without it, of a group that is measured
PROMPTS = 30  # listed in the page at most


class Judged(NamedTuple):
    """A set, read once: n images that can be read.

    indices: their places in the set;  rows: {finding: is it there?};  prompts: {prompt: n}
    features: [n, d];  scores: [n, K];  synthetic: how many say that they are
    hashes: of the pixels;  told: attributes of each, as far as labels or prompts tell them
    """

    name: str
    indices: list[int]
    rows: list[Mapping[str, bool]]
    prompts: Counter[str]
    features: Array
    scores: Array
    synthetic: int
    hashes: frozenset[str] = frozenset()
    told: Sequence[Mapping[str, str]] = ()


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


Found = Mapping[str, Sequence[Verdict | None]]  # {finding: of each set}


def judge_images(
    images: ImageSet, extractor: Extractor, limit: int | None = None, skip_bad: bool = False
) -> Judged:
    """Raises ValueError for an image with neither labels nor a prompt, and for few images."""
    by_prompt = not any(images.findings(i) for i in range(len(images)))
    indices: list[int] = []
    rows: list[Mapping[str, bool]] = []
    prompts: Counter[str] = Counter()
    features: list[Array] = []
    synthetic, hashes = 0, set()
    told: list[Mapping[str, str]] = []
    for numbers, pictures in read_batches(images, limit, skip_bad):
        for index in numbers:
            text = images.text(index)
            synthetic += "synthetic" in text
            if by_prompt:
                if "prompt" not in text:
                    raise ValueError(
                        f"{images.name}: {images.sample_id(index)} has neither labels nor a prompt "
                        "in its PNG text; name a folder that sample.py wrote, a CSV with labels, "
                        "or phantoms:N"
                    )
                prompts[text["prompt"]] += 1
                told.append(attributes.of_prompt(text["prompt"]))
                row = requested_findings(text["prompt"], extractor.findings)
            else:
                told.append(images.attributes(index))
                row = dict(images.findings(index))
            # an attribute that is not told is unknown, not absent
            rows.append(row | attributes.told(told[-1], extractor.findings))
        indices += numbers
        hashes |= {fingerprint(image) for image in pictures}
        features.append(extractor(pictures))
    if len(indices) < 4:
        raise ValueError(f"{images.name} has {len(indices)} usable images; 4 or more are needed")
    found = np.concatenate(features)
    scores = np.concatenate([extractor.scores(part) for part in features])
    same = frozenset(hashes)
    return Judged(images.name, indices, rows, prompts, found, scores, synthetic, same, told)


def cases(judged: Judged, finding: str) -> Cases:
    """Images whose labels do not know the finding are left out; an attribute has no rivals."""
    places = [i for i, row in enumerate(judged.rows) if finding in row]
    rows = [judged.rows[i] for i in places]
    truth = np.array([row[finding] for row in rows], bool)
    rival = {name for row in rows for name in row if "=" not in name + finding} - {finding}
    others = [any(row.get(name) for name in rival) for row in rows]
    return Cases(np.array(places, np.int64), truth, np.array(others, bool) & ~truth)


def enough(truth: Truth, least: int = 2) -> bool:
    """Are there `least` of each class?"""
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
    return {kind: places[each[:count]].tolist() for kind, each in kinds.items() if each}


def by_group(judged: Judged, findings: Sequence[str], extractor: Extractor) -> dict[str, Any]:
    """{finding: {"sex: F": its AUC, or why there is none}}, attributes aside"""
    found: dict[str, Any] = {}
    for finding in (name for name in findings if "=" not in name):
        places, truth, _ = cases(judged, finding)
        scores = judged.scores[places, extractor.findings.index(finding)]
        found[finding] = {}
        for name, some in attributes.groups([judged.told[i] for i in places]).items():
            few = "" if len(some) >= 30 else ", n < 30"
            is_known = enough(truth[some], FEW)
            figure = str(auc(scores[some], truth[some])) if is_known else f"too few of {len(some)}"
            found[finding][name] = figure + few
    return found


def tables(found: Found, names: Sequence[str], extractor: Extractor) -> list[Table]:
    """AUCs, and decisions at the extractor's threshold: a row for each finding and set."""
    kinds = ("accuracy", "F1", "precision", "recall")
    areas, calls = [], []
    for finding, row in found.items():
        for name, v in zip(names, row, strict=True):
            label = f"{finding}, {name}"
            if v is None:
                areas.append((label, "too few images", *[""] * 5))
                continue
            positives = round(v.asked.value * v.asked.n)
            counts = (str(positives), str(v.asked.n - positives), str(v.rivals_n))
            own = own_figure(extractor, finding)
            areas.append((label, *counts, str(v.auc), str(v.rivals or "too few images"), own))
            figures = (v.asked, v.called, *(v.decisions[kind] for kind in kinds))
            calls.append((label, *map(str, figures)))
    rivals = "AUC against other findings"
    own_auc = "its own AUC on held-out real images"
    header = ("", "with", "without", "of other findings", "AUC", rivals, own_auc)
    caption = "How well the classifier's score follows what was asked for."
    return [
        Table(caption, header, areas),
        Table(
            "What it calls positive, at its own threshold.",
            ("", "asked for", "called", *kinds),
            calls,
        ),
    ]


def own_figure(extractor: Extractor, finding: str) -> str:
    """What the extractor can do on real images that it never saw."""
    own = extractor.own_auc.get(finding)
    if own is None:
        return "not known"
    return str(own) if own.value >= MEASURABLE else f"{own}: not measurable"


def roc_picture(
    found: Found, judged: Sequence[Judged], names: Sequence[str], extractor: Extractor
) -> Picture:
    panels: dict[str, list[Curve]] = {finding: [] for finding in found}
    for finding, row in found.items():
        column = extractor.findings.index(finding)
        for v, one, name in zip(row, judged, names, strict=True):
            if v is None:
                continue
            places, truth, rivals = cases(one, finding)
            scores, among = one.scores[places, column], truth | rivals
            panels[finding].append(Curve(f"{name}, {v.auc.value:.2f}", scores, truth))
            if v.rivals:
                label = f"{name}, other findings, {v.rivals.value:.2f}"
                panels[finding].append(Curve(label, scores[among], truth[among]))
    caption = f"ROC curves and their areas, by {extractor.name}; n and intervals are in the table."
    return Picture("roc.png", roc(panels), caption)


def disagreements(
    images: ImageSet, judged: Judged, finding: str, extractor: Extractor
) -> list[Picture]:
    """A sheet of the surest disagreements of prompt and classifier; none if they never differ."""
    scores = judged.scores[:, extractor.findings.index(finding)]
    kinds = surely_wrong(judged, finding, extractor, COLUMNS)
    if not kinds:
        return []
    rows = {
        name: [TitledImage(images.load(judged.indices[p]), f"{scores[p]:.2f}") for p in places]
        for name, places in kinds.items()
    }
    texts = [images.text(judged.indices[p]) for places in kinds.values() for p in places]
    marked = sum("synthetic" in text for text in texts)
    mark = "synthetic" if marked == len(texts) else f"{marked} of {len(texts)} marked as synthetic"
    title = f"{finding} ({mark}): {'; '.join(rows)}"
    name = f"wrong_{re.sub('[^a-z0-9]+', '_', finding.lower())}.png"
    caption = f"{title}. The surest first, with the classifier's score."
    return [Picture(name, titled_rows(rows, title), caption)]


def prompt_table(judged: Judged, extractor: Extractor) -> Table:
    """What each prompt was taken to name, so that a wrong reading is noticed."""
    rows = []
    for prompt, count in judged.prompts.most_common(PROMPTS):
        asked = [f for f, there in requested_findings(prompt, extractor.findings).items() if there]
        asked += [f"{name}={word}" for name, word in attributes.of_prompt(prompt).items()]
        rows.append((prompt, str(count), ", ".join(asked)))
    caption = f"The {len(rows)} most frequent of {len(judged.prompts)} prompts, as they were read."
    return Table(caption, ("prompt", "images", "asks for"), rows)
