"""A classifier's verdicts of reconstructions beside those of the originals."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ldm.judging.extractors import Extractor
from ldm.metrics.classification import auc, auc_difference, decisions, wilson
from ldm.metrics.estimate import Estimate
from ldm.metrics.fid import Array
from ldm.report.page import Table
from ldm.report.roundtrip import HOW, ORIGINAL

LEAST = 5  # images of each class for an AUC
SHOWN = (ORIGINAL, *HOW)


class Rereading(NamedTuple):
    """A finding's {original, sample or mean: figure}; difference: of AUCs to the original's."""

    positive: int
    auc: dict[str, Estimate]
    difference: dict[str, Estimate]
    accuracy: dict[str, Estimate]
    f1: dict[str, Estimate]


class Verdicts(NamedTuple):
    """found: {finding: figures};  left_out: {finding: why};  agreement: {finding: {how: share}}

    called: {finding: originals called positive}; where they are few, agreement is easy
    """

    found: dict[str, Rereading]
    left_out: dict[str, str]
    agreement: dict[str, dict[str, Estimate]]
    called: dict[str, int]

    def values(self) -> dict[str, Any]:
        keys = ("findings", "left out", "agreement", "said of originals")
        return dict(zip(keys, self, strict=True))


def measure(
    extractor: Extractor, features: Mapping[str, Array], labels: Sequence[Mapping[str, bool]]
) -> Verdicts:
    """features: {original, sample or mean: [n, d]};  labels: [n] known findings of each image"""
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
            calls = {w: decisions(kept[w], truth, extractor.threshold) for w in SHOWN}
            verdicts.found[finding] = Rereading(
                int(truth.sum()),
                {which: auc(kept[which], truth) for which in SHOWN},
                {how: auc_difference(kept[how], kept[ORIGINAL], truth) for how in HOW},
                {which: calls[which]["accuracy"] for which in SHOWN},
                {which: calls[which]["F1"] for which in SHOWN},
            )
    return verdicts


def tables(name: str, verdicts: Verdicts) -> list[Table | str]:
    """One extractor's AUCs, accuracy and F1, and the agreement, which needs no labels."""
    blocks: list[Table | str] = []
    if verdicts.found:
        found = verdicts.found.items()
        positive = {f: f"{one.positive} of {one.auc[ORIGINAL].n}" for f, one in found}
        areas = {w: {f: one.auc[w].show(".3f") for f, one in found} for w in SHOWN}
        areas |= {
            f"{how} - original": {f: one.difference[how].show("+.3f") for f, one in found}
            for how in HOW
        }
        caption = f"{name}: area under the ROC curve, and its paired difference (DeLong)."
        blocks.append(Table.of(caption, "finding", {"positive": positive, **areas}))
        calls = {
            f"accuracy, {w}": {f: one.accuracy[w].show(".3f") for f, one in found} for w in SHOWN
        }
        calls |= {f"F1, {w}": {f: one.f1[w].show(".3f") for f, one in found} for w in SHOWN}
        caption = f"{name}: accuracy and F1 at its own threshold."
        blocks.append(Table.of(caption, "finding", {"positive": positive, **calls}))
    if verdicts.left_out:
        reasons = "; ".join(f"{finding} ({why})" for finding, why in verdicts.left_out.items())
        blocks.append(
            f"{name}, left out for fewer than {LEAST} labelled images of a class: {reasons}."
        )
    if verdicts.agreement:
        called = verdicts.called.values()
        rows = [
            (finding, f"{said} of {share['mean'].n}", *(share[how].show(".3f") for how in HOW))
            for said, (finding, share) in zip(called, verdicts.agreement.items(), strict=True)
        ]
        caption = f"{name}: images whose reconstruction gets the original's verdict."
        blocks.append(Table(caption, ("finding", "said of originals", *HOW), rows))
    return blocks
