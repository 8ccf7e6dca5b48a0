"""CheXpert@k against an independent reference and closed forms.

Goldens: goldens/chexpert.json, hits counted in float64 and by a plain loop over the same
pseudo-random embeddings, of 14 classes of 40 reports down to 1.
"""

import json
import re

import numpy as np
import pytest
from conftest import GOLDENS
from pseudo import unit

from ldm.metrics import retrieval
from ldm.metrics.retrieval import chexpert_at_k, shared_words, shares

WANT = json.loads((GOLDENS / "chexpert.json").read_text())
KS = [int(k) for k in WANT["hits"]]


@pytest.fixture(scope="module")
def reports() -> tuple[np.ndarray, np.ndarray]:
    """Embeddings [200, 768] and labels [200]."""

    def u(name: str, *shape: int) -> np.ndarray:
        return unit(f"chexpert.{name}", shape).astype(np.float64)

    order = np.argsort(u("order", 200) + 1e-9 * np.arange(200))
    labels = np.repeat(np.arange(14), WANT["class_sizes"])[order]
    e = u("noise", 200, 768) + 0.5 * u("centre", 14, 768)[labels] + 1.5 * u("common", 1, 768)
    e *= 1 + 0.12 * u("norm", 200, 1)
    assert e.sum() == pytest.approx(WANT["check"]["sum"])
    assert e[0, :3].tolist() == pytest.approx(WANT["check"]["E[0,:3]"])
    return e, labels


# --- the goldens ---


@pytest.mark.parametrize("rows", [500, 37])
@pytest.mark.parametrize("k", KS)
def test_hits_equal_the_reference(reports, k: int, rows: int, monkeypatch) -> None:
    """Every report's hits to the last count, up to k = n - 1, whatever rows come at a time."""
    monkeypatch.setattr(retrieval, "ROWS", rows)
    e, labels = reports
    found = chexpert_at_k(e, labels, k, draws=10)
    assert np.array_equal(found.shares, np.array(WANT["hits"][str(k)]) / k)
    assert found.macro.value == pytest.approx(WANT["macro"][str(k)]["right"], abs=1e-12)
    assert found.mean.value == pytest.approx(WANT["macro"][str(k)]["mean"], abs=1e-12)
    assert [found.classes[c].n for c in range(14)] == WANT["class_sizes"]
    assert found.macro.n == found.mean.n == 200


def test_float32_embeddings_and_given_similarities_are_as_good(reports) -> None:
    """float32 and E E^T made beforehand give the same hits."""
    e, labels = reports
    for of in (e.astype(np.float32), (e @ e.T).__getitem__):
        assert np.array_equal(shares(of, labels, 10) * 10, WANT["hits"]["10"])


def test_equal_similarities_rank_by_index(reports) -> None:
    """Rows 4 to 7 are copies of row 0; the lower index is the nearer neighbour."""
    e = reports[0][:12].copy()
    e[4:8] = e[0]
    assert np.array_equal(shares(e, WANT["ties"]["labels"], 3) * 3, WANT["ties"]["hits"])


# --- closed forms ---


def test_separated_classes_reach_their_ceiling() -> None:
    """Classes that are apart give min(k, n_c - 1) / k, so a single report gives 0."""
    labels = np.repeat([3, 5, 8], [20, 6, 1])
    found = chexpert_at_k(np.eye(9)[labels], labels, k=10)
    assert {c: e.value for c, e in found.classes.items()} == {3: 1.0, 5: 0.5, 8: 0.0}
    assert found.macro.value == pytest.approx(0.5)  # absent classes do not count
    assert found.mean.value == pytest.approx((20 + 3) / 27)
    assert found.chance == {3: 19 / 26, 5: 5 / 26, 8: 0.0}


def test_all_others_as_neighbours_are_chance() -> None:
    """At k = n - 1 the ranking says nothing, and each class has exactly its chance level."""
    labels = np.arange(60) % 7 % 5
    found = chexpert_at_k(unit("ceiling", (60, 8)), labels, k=59, draws=10)
    assert found.macro.value == pytest.approx(found.macro_chance, abs=1e-12)
    for c, estimate in found.classes.items():
        assert estimate.value == pytest.approx(found.chance[c], abs=1e-12)


# --- intervals ---


def test_intervals_cover_a_known_value() -> None:
    """Neighbours right with probability 0.6: 95 % of intervals hold it, for a class and a macro."""
    rng = np.random.default_rng(0)
    n, k, inside = 80, 10, np.zeros(2)
    labels = np.repeat([0, 1], n // 2)
    for _ in range(200):
        similar = np.zeros((n, n))
        for i, right in enumerate(rng.binomial(k, 0.6, n)):  # that many of its own class are near
            own = rng.permutation(np.flatnonzero((labels == labels[i]) & (np.arange(n) != i)))
            other = rng.permutation(np.flatnonzero(labels != labels[i]))
            similar[i, [*own[:right], *other[: k - right]]] = 1
        found = chexpert_at_k(similar.__getitem__, labels, k, draws=200)
        inside += [e.low <= 0.6 <= e.high for e in (found.classes[0], found.macro)]
    assert inside / 200 == pytest.approx(0.95, abs=0.05)


def test_intervals_depend_on_the_seed_alone(reports) -> None:
    """Equal seeds give equal intervals; a class has its own, whatever the other classes."""
    e, labels = reports
    a, b, c = (chexpert_at_k(e, labels, 10, seed=s) for s in (0, 0, 1))
    assert a.classes == b.classes
    assert a.macro == b.macro != c.macro
    merged = chexpert_at_k(e, np.where(labels > 3, 4, labels), 10, seed=0)
    assert merged.classes[0] == a.classes[0]


def test_chance_is_the_mean_over_shuffled_labels(reports) -> None:
    """For every class and the macro; intervals for one collection hold it in most, not in 95 %."""
    e, labels = reports
    rng, similar, runs = np.random.default_rng(0), (e @ e.T).__getitem__, 120
    found = [chexpert_at_k(similar, rng.permutation(labels), 10, draws=200) for _ in range(runs)]
    chance = found[0].chance
    for c, size in enumerate(WANT["class_sizes"]):
        values = [score.classes[c].value for score in found]
        assert chance[c] == pytest.approx((size - 1) / 199)
        # four standard errors; the class of one is at 0 exactly
        assert abs(np.mean(values) - chance[c]) <= 4 * np.std(values) / np.sqrt(runs)
    level = found[0].macro_chance
    assert np.mean([score.macro.value for score in found]) == pytest.approx(level, abs=2e-3)
    inside = np.mean([score.macro.low <= level <= score.macro.high for score in found])
    assert 0.75 < inside < 0.95


# --- the bag of words ---


def test_shared_words_are_those_of_both_over_those_of_either() -> None:
    """Case, punctuation and repeats do not count; no word at all is like nothing."""
    texts = ["Small effusion. Small!", "small LEFT effusion", "normal", "", " . "]
    found = shared_words(texts)(slice(0, 5))
    assert np.array_equal(found[0], [1, 2 / 3, 0, 0, 0])
    assert np.array_equal(found, found.T)
    assert not found[3:].any()
    assert not shared_words(["", "-"])(slice(0, 2)).any()


def test_shared_words_equal_set_arithmetic_by_rows(monkeypatch) -> None:
    """Rows at a time give what Python's sets give, and the score of the whole matrix."""
    monkeypatch.setattr(retrieval, "ROWS", 7)
    rng = np.random.default_rng(0)
    words = np.array(["no", "small", "left", "effusion", "edema", "lungs", "clear", "heart"])
    texts = [" ".join(rng.choice(words, rng.integers(0, 6))) for _ in range(30)]
    labels = rng.integers(0, 3, 30)
    sets = [set(re.findall(r"\w+", text)) for text in texts]
    want = np.array([[len(a & b) / max(len(a | b), 1) for b in sets] for a in sets])
    assert np.array_equal(shared_words(texts)(slice(0, 30)), want)
    assert np.array_equal(
        shares(shared_words(texts), labels, 5), shares(want.__getitem__, labels, 5)
    )


# --- bad input ---


def test_what_cannot_be_scored_is_refused() -> None:
    """k beyond the others, one class, not finite, shapes that disagree: one line each."""
    e, labels = np.eye(6), np.arange(6) % 2
    broken = e.copy()
    broken[2, 1] = np.nan
    for of, y, k, message in [
        (e, labels, 6, "k must be 1 to 5"),
        (e, labels, 0, "k must be 1 to 5"),
        (e, np.zeros(6, int), 2, "two or more classes"),
        (broken, labels, 2, "embeddings of 1 of 6 reports are not finite"),
        (e[:5], labels, 2, "6 labels need as many reports, got 5"),
        (e, labels[:5], 2, "5 labels need as many reports, got 6"),
        (shared_words(["a"] * 5), labels, 2, "6 labels need as many reports, got 5"),
        (e[0], labels, 2, r"embeddings must have the shape \[n, d\]"),
        (e, labels / 2, 2, "must be integers"),
        (e, np.eye(6, dtype=int), 2, "must be integers"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            chexpert_at_k(of, y, k)
        assert "\n" not in str(error.value)
