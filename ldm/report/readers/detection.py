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
from ldm.report.readers.trials import CATCH, SYNTHETIC

AS_REAL, AS_FAKE = "unsure as real", "unsure as fake"  # the two ways to count it
FAKE = SAID.index("fake")


def measure(key: Key, readers: Sequence[Reader]) -> dict[str, dict[str, Estimate]]:
    """{reader, or POOLED: {figure: estimate}}"""
    alone = synthetic_sets(key)
    return {who: figures(gather(key, group), who, alone) for who, group in groups(readers).items()}


def synthetic_sets(key: Key) -> list[str]:
    """The sets of a study without real images; none of any other."""
    shown = [trial for trial in key.trials if trial.truth != CATCH]
    alone = all(trial.truth == SYNTHETIC for trial in shown)
    return sorted({trial.set or trial.truth for trial in shown}) if alone else []


def figures(seen: Readings, who: str, alone: Sequence[str] = ()) -> dict[str, Estimate]:
    """Without real images, only what was called what. ValueError for fewer than two of a kind."""
    synthetic, said = seen.synthetic, seen.said
    kinds = {"synthetic": synthetic, "real": ~synthetic}
    if alone:
        sets = {name: seen.sets == name for name in alone}
        kinds = sets | ({"all sets": synthetic} if len(sets) > 1 else {})
    if min(there.sum() for there in kinds.values()) < 2:
        counts = " and ".join(f"{there.sum()} {kind}" for kind, there in kinds.items())
        raise ValueError(f"{who} answered {counts} images; figures need at least two of each")
    found = {
        f"{kind} called {word}": wilson_of_groups(said[:, there] == number)
        for kind, there in kinds.items()
        for number, word in enumerate(SAID)
    }
    if alone:
        return found
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
        page.passage("one_kind", kind=SYNTHETIC)
        if synthetic_sets(key)
        else Table.of(page.passage("detection"), "", others),
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
        kinds = {name: seconds[seen.sets == name] for name in sorted(set(seen.sets))}
        times[f"{reader.name}: seconds"] = kinds
    caption = "ROC curves of each reader's confidence that an image is fake."
    more = "Seconds for each image; dotted: the medians."
    shown = [Picture("score_times.png", plots.histograms(times), more)]
    if synthetic_sets(key):
        return shown
    return [Picture("score_roc.png", plots.roc(curves), caption), *shown]


def fooled(key: Key, readers: Sequence[Reader]) -> Table:
    """Every image that half of the readers or more took for the other kind."""
    seen = gather(key, readers)
    names = {trial.id: trial.image for trial in key.trials}
    wrong = np.where(seen.synthetic, seen.said == 0, seen.said == FAKE).sum(axis=0)
    rows = [
        (names[seen.ids[i]], str(seen.sets[i]), f"{wrong[i]}")
        for i in np.argsort(-wrong, kind="stable")
        if 2 * wrong[i] >= len(readers)
    ]
    caption = f"Images that half of the {len(readers)} readers or more took for the other kind."
    return Table(caption, ("image", "is", "readers who were wrong"), rows)
