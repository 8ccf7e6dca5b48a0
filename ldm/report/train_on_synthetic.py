"""Classifiers trained on synthetic images and on real ones, both tried on real images."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ldm import rng
from ldm.judging.extractors import Array
from ldm.metrics.classification import auc, auc_difference
from ldm.metrics.estimate import Estimate
from ldm.report import page
from ldm.report.finding_calls import Judged, Truth, cases, enough
from ldm.report.page import Table

C = 0.1  # inverse strength of the ridge penalty: as the linear probe of benchmarks/built_in.py
FOLDS = 5


class Learned(NamedTuple):
    """AUCs on the real set, {trained on what: Estimate}: against all images, and other findings.

    n: images that both kinds of classifier were trained on
    """

    n: int
    everything: dict[str, Estimate]
    rivals: dict[str, Estimate]

    def values(self) -> dict[str, Any]:
        return {"n": self.n, "AUC": self.everything, "AUC, other findings": self.rivals}


def learn(fake: Judged, real: Judged, patients: Sequence[str], finding: str) -> Learned | None:
    """Trains on fake images, and on as many real ones of other patients; tries both on real ones.

    patients: of the images of `real`, the same for images of one patient
    None if there are too few images of a class.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    drawn, given = cases(fake, finding), cases(real, finding)
    x, asked = fake.features[drawn.places], drawn.truth
    y, truth = real.features[given.places], given.truth
    groups = np.array([patients[place] for place in given.places])
    if not enough(truth, FOLDS) or len(set(groups)) < FOLDS:
        return None
    split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(y, truth, groups)
    folds = [(shuffled(learning), tried) for learning, tried in split]
    n = min(len(x), *(len(learning) for learning, _ in folds))
    chosen = shuffled(np.arange(len(x)))[:n]
    if not all(enough(part) for part in [asked[chosen], *(truth[f[:n]] for f, _ in folds)]):
        return None
    of_fake = scores(x[chosen], asked[chosen], y)
    of_real = np.empty(len(y))
    for learning, tried in folds:
        of_real[tried] = scores(y[learning[:n]], truth[learning[:n]], y[tried])

    def areas(among: Truth) -> dict[str, Estimate]:
        a, b, labels = of_fake[among], of_real[among], truth[among]
        found = {f"{n} fake": auc(a, labels), f"{n} real": auc(b, labels)}
        found["fake - real"] = auc_difference(a, b, labels)
        if n < len(x):
            found[f"all {len(x)} fake"] = auc(scores(x, asked, y)[among], labels)
        return found

    rivals = areas(truth | given.rivals) if given.rivals.sum() >= 2 else {}
    return Learned(n, areas(np.ones_like(truth)), rivals)


def scores(x: Array, truth: Truth, y: Array) -> Array:
    """[m] of y [m, d] by a logistic regression on x [n, d], features of mean 0 and variance 1."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000))
    return classifier.fit(x, truth).decision_function(y)


def shuffled(places: NDArray[np.int64]) -> NDArray[np.int64]:
    order = torch.randperm(len(places), generator=rng.generator(0, "learned"))
    return places[order.numpy()]


def table(found: Mapping[str, Learned | None], unknown: int = 0) -> Table:
    """unknown: the number of real images without a patient"""
    caption = page.passage("train_on_synthetic", folds=FOLDS, C=C, unknown=unknown)
    rows = []
    for finding, learned in found.items():
        if learned is None:
            rows.append((finding, "too few images", ""))
            continue
        for what, area in learned.everything.items():
            rival = learned.rivals.get(what, "too few images")
            rows.append((f"{finding}, {what}", str(area), str(rival)))
    return Table(caption, ("trained on", "AUC", "AUC against other findings"), rows)
