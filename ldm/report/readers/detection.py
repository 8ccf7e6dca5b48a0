"""Rates, d' and AUC of readers who tell real from synthetic, of each and of all together."""

from collections.abc import Mapping, Sequence

import numpy as np

from ldm.metrics.agreement import detect
from ldm.metrics.classification import auc_of_readers, wilson_of_groups
from ldm.metrics.estimate import Estimate
from ldm.report import page, plots
from ldm.report.page import Block, Picture, Table
from ldm.report.readers.answers import SAID, Key, Reader
from ldm.report.readers.readings import Readings, gather, groups

AS_REAL, AS_FAKE = "unsure as real", "unsure as fake"  # the two ways to count it
FAKE = SAID.index("fake")


def measure(key: Key, readers: Sequence[Reader]) -> dict[str, dict[str, Estimate]]:
    """{reader, or POOLED: {figure: estimate}}"""
    return {name: figures(gather(key, group), name) for name, group in groups(readers).items()}


def figures(seen: Readings, who: str) -> dict[str, Estimate]:
    """ValueError for fewer than two images of a kind."""
    synthetic, said = seen.synthetic, seen.said
    kinds = {"synthetic": synthetic, "real": ~synthetic}
    if min(there.sum() for there in kinds.values()) < 2:
        counts = " and ".join(f"{there.sum()} {kind}" for kind, there in kinds.items())
        raise ValueError(f"{who} answered {counts} images; d' and AUC need at least two of each")
    found = {
        f"{kind} called {word}": wilson_of_groups(said[:, there] == number)
        for kind, there in kinds.items()
        for number, word in enumerate(SAID)
    }
    for how, called in ((AS_REAL, said == FAKE), (AS_FAKE, said > 0)):
        found[f"sensitivity, {how}"] = wilson_of_groups(called[:, synthetic])
        found[f"specificity, {how}"] = wilson_of_groups(~called[:, ~synthetic])
        found[f"d', {how}"], found[f"criterion, {how}"] = detect(called, synthetic)
    found["AUC"] = auc_of_readers(seen.ratings, synthetic)
    return found


def blocks(
    found: Mapping[str, dict[str, Estimate]], key: Key, readers: Sequence[Reader]
) -> list[Block]:
    called, others = (
        {
            who: {name: one for name, one in each.items() if (" called " in name) == calls}
            for who, each in found.items()
        }
        for calls in (True, False)
    )
    return [
        Table.of("What was called what: shares, 95 %.", "", called),
        Table.of(page.passage("detection"), "", others),
        *pictures(key, readers),
        fooled(key, readers),
    ]


def pictures(key: Key, readers: Sequence[Reader]) -> list[Picture]:
    """ROC curves and times of each reader."""
    curves, times = {}, {}
    for reader in readers:
        seen = gather(key, [reader])
        curves[reader.name] = [plots.Curve("fake", seen.ratings[0], seen.synthetic)]
        seconds = np.array([reader.answers[i].seconds for i in seen.ids])
        kinds = {"real": seconds[~seen.synthetic], "synthetic": seconds[seen.synthetic]}
        times[f"{reader.name}: seconds"] = kinds
    caption = "ROC curves of each reader's confidence that an image is fake."
    more = "Seconds for each image; dotted: the medians."
    return [
        Picture("score_roc.png", plots.roc(curves), caption),
        Picture("score_times.png", plots.histograms(times), more),
    ]


def fooled(key: Key, readers: Sequence[Reader]) -> Table:
    """Every image that half of the readers or more took for the other kind."""
    seen = gather(key, readers)
    names = {trial.id: trial.image for trial in key.trials}
    wrong = np.where(seen.synthetic, seen.said == 0, seen.said == FAKE).sum(axis=0)
    rows = [
        (names[seen.ids[i]], "synthetic" if seen.synthetic[i] else "real", f"{wrong[i]}")
        for i in np.argsort(-wrong, kind="stable")
        if 2 * wrong[i] >= len(readers)
    ]
    caption = f"Images that half of the {len(readers)} readers or more took for the other kind."
    return Table(caption, ("image", "is", "readers who were wrong"), rows)
