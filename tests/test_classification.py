"""Proportions, medians and AUCs against independent references, closed forms and simulations.

Goldens: goldens/metrics.json and .npz, made with scikit-learn and 80-bit arithmetic.
"""

import json

import numpy as np
import pytest
from conftest import GOLDENS
from scipy.stats import binom, norm

from ldm.metrics.classification import (
    auc,
    auc_difference,
    auc_of_readers,
    decisions,
    median,
    share_of_groups,
    wilson,
    wilson_of_groups,
)
from ldm.metrics.estimate import Estimate

WANT = json.loads((GOLDENS / "metrics.json").read_text())
RUNS = 500  # of a simulation


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(GOLDENS / "metrics.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("case", WANT["wilson"], ids=lambda c: f"{c['k']} of {c['n']}")
def test_wilson_equals_the_reference(case: dict) -> None:
    """Also at 0 and n hits, where the end is exactly 0 or 1."""
    found = wilson(case["k"], case["n"], case["confidence"])
    assert found.low == pytest.approx(case["low"], abs=1e-12)
    assert found.high == pytest.approx(case["high"], abs=1e-12)
    assert (found.low == 0) == (case["k"] == 0)
    assert (found.high == 1) == (case["k"] == case["n"])


@pytest.mark.parametrize("case", WANT["auc"], ids=lambda c: c["name"])
def test_auc_and_delongs_interval_equal_the_reference(case: dict, stored) -> None:
    """With ties, apart, below chance, continuous scores; of all tied, nothing is known."""
    positives, negatives = case["positives"], case["negatives"]
    if positives is None:
        positives, negatives = stored["continuous_pos"], stored["continuous_neg"]
        if "rounded" in case["name"]:
            positives, negatives = (np.rint(2 * z) / 2 for z in (positives, negatives))
    labels = [True] * len(positives) + [False] * len(negatives)
    found = auc(np.concatenate([positives, negatives]), labels)
    assert found.value == pytest.approx(case["auc"], abs=1e-12)
    ends = [0, 1] if case["name"] == "all tied" else case["delong_95_clipped"]
    assert [found.low, found.high] == pytest.approx(ends, abs=1e-12)
    assert found.n == len(labels)


def test_scores_that_are_all_alike_say_nothing_of_an_auc() -> None:
    """A constant has the AUC 0.5 by its ties, and DeLong's error of 0 is no certainty."""
    labels = np.repeat([1, 0], [8, 12])
    assert auc(np.zeros(20), labels) == Estimate(0.5, 0.0, 1.0, 20)
    # 5 / 6, whose rounding is no spread
    found = auc_of_readers([np.zeros(20), labels, labels], labels)
    assert found == (pytest.approx(5 / 6), 0, 1, 20)


def test_two_scores_on_the_same_cases_are_compared_in_pairs(stored) -> None:
    """DeLong's paired interval uses the covariance: narrower here than if they were independent."""
    want = WANT["auc_paired"]
    one, two = (
        np.concatenate([stored[f"continuous{x}_pos"], stored[f"continuous{x}_neg"]])
        for x in ("", "_b")
    )
    found = auc_difference(one, two, [True] * 157 + [False] * 243)
    assert found.value == pytest.approx(want["auc_a"] - want["auc_b"], abs=1e-12)
    error = np.sqrt(want["var_a"] + want["var_b"] - 2 * want["cov"])
    assert found.high - found.value == pytest.approx(1.9599639845400545 * error, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1, 2, 3], [True, True, False], "two cases of each class"),
        ([1, 2], [True, False, True], "one finite score for each label"),
        ([1, np.nan, 2, 3], [True, False, True, False], "one finite score for each label"),
        ([1, 2, 3, 4], [1, 0, np.nan, 1], "must be 0 or 1"),
    ],
)
def test_scores_that_cannot_be_judged_are_refused(scores, labels, message: str) -> None:
    """One class alone, other lengths, scores or labels that are not finite."""
    with pytest.raises(ValueError, match=message):
        auc(scores, labels)


@pytest.mark.parametrize(
    ("proportion", "hits", "n"),
    [
        *((wilson, hits, n) for hits, n in ((3, 2), (-1, 2), (0, 0))),
        (share_of_groups, [1], [2]),
        (share_of_groups, [0, 0], [0, 0]),
        (share_of_groups, [2, 0], [1, 1]),
        (share_of_groups, [1, 1, 1], [2, 2]),
    ],
)
def test_impossible_counts_are_refused(proportion, hits, n) -> None:
    """More hits than cases, fewer than none, no case at all, or one group are no proportion."""
    with pytest.raises(ValueError, match="needs"):
        proportion(hits, n)


def test_decisions_equal_scikit_learns() -> None:
    """Accuracy, F1, precision and recall of a random case, and of one with nothing called."""
    from sklearn import metrics

    rng = np.random.default_rng(0)
    labels = rng.random(50) < 0.4
    scores = labels + rng.normal(0, 1, 50) - 0.5
    found = decisions(scores, labels)
    for name in ("accuracy", "F1", "precision", "recall"):
        expected = getattr(metrics, f"{name.lower()}_score")(labels, scores > 0)
        assert found[name].value == pytest.approx(expected, abs=1e-12)
        assert found[name].low < expected < found[name].high
    none = decisions(np.full(50, -1.0), labels)
    assert none["precision"] == Estimate(0.0, 0.0, 1.0, 0)
    assert none["F1"].value == none["recall"].value == 0


@pytest.mark.parametrize("n", [6, 9, 30])
def test_a_median_lies_between_two_values_as_the_sign_test_has_them(n: int) -> None:
    """In 95 % of 1,000 samples or more; the next values inward would hold in fewer."""
    random = np.random.default_rng(0)
    found = [median(random.exponential(size=n)) for _ in range(1000)]
    assert sum(each.low <= np.log(2) <= each.high for each in found) >= 940
    _, low, high, _ = map(int, median(np.arange(n)))
    held, inward = (binom.cdf(high - i, n, 0.5) - binom.cdf(low + i, n, 0.5) for i in (0, 1))
    assert held >= 0.95 > inward


# --- several readers of the same images ---


def test_a_proportion_of_readers_is_between_two_of_wilsons() -> None:
    """Copies of one reader tell what one tells; readers who differ at random, as much as all."""
    random = np.random.default_rng(0)
    one = random.random(200) < 0.3
    alone = wilson(int(one.sum()), 200)[:3]
    assert wilson_of_groups(one)[:3] == pytest.approx(alone)
    assert wilson_of_groups([one] * 4) == (*(pytest.approx(x, rel=0.01) for x in alone), 800)
    apart = random.random((4, 200)) < 0.3
    together, found = wilson(int(apart.sum()), 800), wilson_of_groups(apart)
    assert found.high - found.low == pytest.approx(together.high - together.low, rel=0.1)
    assert wilson_of_groups(np.zeros((4, 200)))[:3] == wilson(0, 200)[:3]


def test_a_proportion_of_simulated_readers_is_recovered() -> None:
    """In 93 % of the runs: three readers of 60 images who agree by a kappa of 0.5."""
    random, hits = np.random.default_rng(0), 0
    for _ in range(RUNS):
        shares = random.beta(0.3, 0.7, 60)
        found = wilson_of_groups(random.random((3, 60)) < shares)
        hits += found.low <= 0.3 <= found.high
    assert hits >= 0.93 * RUNS


def test_the_mean_auc_of_simulated_readers_is_recovered() -> None:
    """In 93 % of the runs: three who share half of their noise; one's AUC is that of `auc`."""
    random, hits = np.random.default_rng(0), 0
    truth = np.repeat([True, False], 40)
    for _ in range(RUNS):
        noise = random.normal(size=80) + random.normal(size=(3, 80))
        found = auc_of_readers(truth * 1.5 + noise / np.sqrt(2), truth)
        hits += found.low <= norm.cdf(1.5 / np.sqrt(2)) <= found.high
    assert hits >= 0.93 * RUNS
    assert auc_of_readers(noise[0], truth).value == auc(noise[0], truth).value


def test_an_auc_of_one_has_an_interval() -> None:
    """Twenty and thirty cases apart: as sure as twenty hits of twenty."""
    labels = np.repeat([1, 0], [20, 30])
    assert auc_of_readers([labels, labels], labels)[:3] == wilson(20, 20)[:3]
    assert auc_of_readers(-labels, labels)[:3] == wilson(0, 20)[:3]


def test_cases_that_agree_within_a_group_widen_the_interval() -> None:
    """One case per group: the normal interval of a proportion; ten equal ones: as wide, not less.

    Ten independent cases per group are as narrow as 10 n cases.
    """
    rng = np.random.default_rng(0)
    once = rng.random(400) < 0.3
    single = share_of_groups(once, np.ones(400))
    p = once.mean()
    assert single.high - single.value == pytest.approx(1.96 * np.sqrt(p * (1 - p) / 399), rel=1e-4)
    assert share_of_groups(10 * once, np.full(400, 10)) == pytest.approx(single)
    hits = rng.binomial(10, 0.3, 400)
    many, alone = share_of_groups(hits, np.full(400, 10)), wilson(int(hits.sum()), 4000)
    assert many.high - many.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_large_groups_weigh_more() -> None:
    """The share is that of all cases, not the mean of the groups' shares."""
    assert share_of_groups([1, 0], [1, 9]).value == pytest.approx(0.1)
