"""Does a classifier say of a reconstruction what it said of the original?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ldm.judging.extractors import Extractor
from ldm.metrics.classification import auc, auc_difference, decisions, wilson
from ldm.metrics.estimate import Estimate
from ldm.metrics.fid import Array
from ldm.report.page import Table
from ldm.report.roundtrip import HOW, ORIGINAL

LEAST = 5  # of each class: fewer say nothing
SHOWN = (ORIGINAL, *HOW)


class Rereading(NamedTuple):
    """One finding: {original, sample or mean: figure}, the differences to the original."""

    positive: int
    auc: dict[str, Estimate]
    difference: dict[str, Estimate]
    accuracy: dict[str, Estimate]
    f1: dict[str, Estimate]


class Verdicts(NamedTuple):
    """found: {finding: figures};  left_out: {finding: why};  agreement: {finding: {how: share}}

    called: {finding: originals of which it is said}, without which agreement is easy
    """

    found: dict[str, Rereading]
    left_out: dict[str, str]
    agreement: dict[str, dict[str, Estimate]]
    called: dict[str, int]


def measure(
    extractor: Extractor, features: Mapping[str, Array], labels: Sequence[Mapping[str, bool]]
) -> Verdicts:
    """features: {original, sample or mean: [n, d]};  labels: [n] what is known of each image"""
    scores = {which: extractor.scores(features[which]) for which in SHOWN}  # [n, K]
    verdicts = Verdicts({}, {}, {}, {})
    for k, finding in enumerate(extractor.findings):
        if not finding:  # a network's output that was never trained
            continue
        each = {which: scores[which][:, k] for which in SHOWN}
        called = {which: each[which] > extractor.threshold for which in SHOWN}
        verdicts.agreement[finding] = {
            how: wilson(int((called[how] == called[ORIGINAL]).sum()), len(labels)) for how in HOW
        }
        verdicts.called[finding] = int(called[ORIGINAL].sum())
        known = [i for i, there in enumerate(labels) if finding in there]
        truth = np.array([labels[i][finding] for i in known], bool)
        if not known:
            verdicts.left_out[finding] = "no label"
        elif min(truth.sum(), (~truth).sum()) < LEAST:
            verdicts.left_out[finding] = f"{truth.sum()} with it, {(~truth).sum()} without"
        else:
            kept = {which: each[which][known] for which in SHOWN}
            verdicts.found[finding] = _verdict(kept, truth, extractor.threshold)
    return verdicts


def _verdict(scores: Mapping[str, Array], truth: np.ndarray, threshold: float) -> Rereading:
    calls = {which: decisions(scores[which], truth, threshold) for which in SHOWN}
    return Rereading(
        int(truth.sum()),
        {which: auc(scores[which], truth) for which in SHOWN},
        {how: auc_difference(scores[how], scores[ORIGINAL], truth) for how in HOW},
        {which: calls[which]["accuracy"] for which in SHOWN},
        {which: calls[which]["F1"] for which in SHOWN},
    )


def tables(name: str, verdicts: Verdicts) -> list[Table | str]:
    """Of one extractor: AUCs, accuracy and F1, and the agreement, which needs no labels."""
    blocks: list[Table | str] = []
    if verdicts.found:
        ranks, calls = [], []
        for finding, one in verdicts.found.items():
            first = (finding, f"{one.positive} of {one.auc[ORIGINAL].n}")
            differences = (show(one.difference[how], sign="+") for how in HOW)
            ranks.append((*first, *(show(one.auc[which]) for which in SHOWN), *differences))
            both = (figure[which] for figure in (one.accuracy, one.f1) for which in SHOWN)
            calls.append((*first, *map(show, both)))
        header = ("finding", "positive")
        more = tuple(f"{how} - original" for how in HOW)
        caption = f"{name}: area under the ROC curve, and its paired difference (DeLong)."
        blocks.append(Table(caption, header + SHOWN + more, ranks))
        columns = tuple(f"{figure}, {w}" for figure in ("accuracy", "F1") for w in SHOWN)
        caption = f"{name}: accuracy and F1 at its own threshold."
        blocks.append(Table(caption, header + columns, calls))
    if verdicts.left_out:
        reasons = "; ".join(f"{finding} ({why})" for finding, why in verdicts.left_out.items())
        blocks.append(
            f"{name}, left out for fewer than {LEAST} labelled images of a class: {reasons}."
        )
    if verdicts.agreement:
        rows = [
            (
                finding,
                f"{verdicts.called[finding]} of {share['mean'].n}",
                *(show(share[how]) for how in HOW),
            )
            for finding, share in verdicts.agreement.items()
        ]
        caption = f"{name}: images whose reconstruction gets the original's verdict."
        blocks.append(Table(caption, ("finding", "said of originals", *HOW), rows))
    return blocks


def show(estimate: Estimate, sign: str = "") -> str:
    value, low, high = (f"{x:{sign}.3f}" for x in estimate[:3])
    return f"{value} ({low} to {high})"


def as_json(verdicts: Verdicts) -> dict[str, object]:
    def plain(each: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
        return {name: estimate._asdict() for name, estimate in each.items()}

    found = {
        finding: {
            "positive": one.positive,
            **{name: plain(getattr(one, name)) for name in Rereading._fields[1:]},
        }
        for finding, one in verdicts.found.items()
    }
    agreement = {finding: plain(each) for finding, each in verdicts.agreement.items()}
    return {
        "findings": found,
        "left out": verdicts.left_out,
        "agreement": agreement,
        "said of originals": verdicts.called,
    }
