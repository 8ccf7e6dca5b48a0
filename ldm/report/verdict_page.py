"""What evaluate.py classify shows: tables of verdicts, ROC curves, the surest disagreements."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ldm.data.image_sets import ImageSet
from ldm.data.prompt_parser import requested_findings
from ldm.judging.extractors import Extractor
from ldm.report import roc_curves, verdicts
from ldm.report.page import Picture, Table
from ldm.report.verdicts import Judged, Verdict

PROMPTS = 30  # listed in the page at most
Found = Mapping[str, Sequence[Verdict | None]]  # {finding: of each set}


def lines(found: Found, names: Sequence[str]) -> list[tuple[str, Verdict | None]]:
    """A line for each finding and set, "cardiomegaly, fake"."""
    return [
        (f"{finding}, {name}", verdict)
        for finding, row in found.items()
        for name, verdict in zip(names, row, strict=True)
    ]


def areas(found: Found, names: Sequence[str]) -> Table:
    rows = []
    for name, v in lines(found, names):
        cells = ("too few images", *[""] * 4)
        if v is not None:
            positives = round(v.asked.value * v.asked.n)
            counts = (str(positives), str(v.asked.n - positives), str(v.rivals_n))
            rivals = "too few images" if v.rivals is None else str(v.rivals)
            cells = (*counts, str(v.auc), rivals)
        rows.append((name, *cells))
    header = ("", "with", "without", "of other findings", "AUC", "AUC against other findings")
    return Table("How well the classifier's score follows what was asked for.", header, rows)


def called(found: Found, names: Sequence[str]) -> Table:
    kinds = ("accuracy", "F1", "precision", "recall")
    rows = []
    for name, v in lines(found, names):
        if v is not None:
            cells = [v.asked, v.called, *(v.decisions[kind] for kind in kinds)]
            rows.append((name, *map(str, cells)))
    header = ("", "asked for", "called", *kinds)
    return Table("What it calls positive, at its own threshold.", header, rows)


def roc(
    found: Found, judged: Sequence[Judged], names: Sequence[str], extractor: Extractor
) -> Picture:
    panels: dict[str, list[roc_curves.Curve]] = {finding: [] for finding in found}
    for finding, row in found.items():
        column = extractor.findings.index(finding)
        for v, one, name in zip(row, judged, names, strict=True):
            if v is None:
                continue
            places, truth, rivals = verdicts.cases(one, finding)
            scores, among = one.scores[places, column], truth | rivals
            area = f"{name}, {v.auc.value:.2f}"
            panels[finding].append(roc_curves.Curve(area, scores, truth))
            if v.rivals:
                area = f"{name}, other findings, {v.rivals.value:.2f}"
                panels[finding].append(roc_curves.Curve(area, scores[among], truth[among]))
    caption = f"ROC curves and their areas, by {extractor.name}; n and intervals are in the table."
    return Picture("roc.png", roc_curves.roc(panels), caption)


def wrong(images: ImageSet, judged: Judged, finding: str, extractor: Extractor) -> list[Picture]:
    """A sheet of the surest disagreements of prompt and classifier; none if they never differ."""
    column = extractor.findings.index(finding)
    kinds = verdicts.surely_wrong(judged, finding, extractor, roc_curves.SHOWN)
    if not kinds:
        return []
    rows = {
        name: [
            roc_curves.Shown(images.load(judged.indices[p]), f"{judged.scores[p, column]:.2f}")
            for p in places
        ]
        for name, places in kinds.items()
    }
    texts = [images.text(judged.indices[p]) for places in kinds.values() for p in places]
    marked = sum("synthetic" in text for text in texts)
    mark = "synthetic" if marked == len(texts) else f"{marked} of {len(texts)} marked as synthetic"
    title = f"{finding} ({mark}): {'; '.join(rows)}"
    name = f"wrong_{re.sub('[^a-z0-9]+', '_', finding.lower())}.png"
    caption = f"{title}. The surest first, with the classifier's score."
    return [Picture(name, roc_curves.sheet(rows, title), caption)]


def prompt_table(judged: Judged, extractor: Extractor) -> Table:
    """How the prompts were read, so that a wrong reading is seen."""
    rows = []
    for prompt, count in judged.prompts.most_common(PROMPTS):
        row = requested_findings(prompt, extractor.findings)
        rows.append((prompt, str(count), ", ".join(f for f, there in row.items() if there)))
    caption = f"The {len(rows)} most frequent of {len(judged.prompts)} prompts, as they were read."
    return Table(caption, ("prompt", "images", "asks for"), rows)
