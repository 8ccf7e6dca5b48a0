"""Kappas and d' against independent references, closed forms and their usual mistakes.

Goldens: goldens/agreement.json, of scikit-learn, statsmodels and mpmath.
"""

import json
import math

import numpy as np
import pytest
from conftest import GOLDENS
from scipy.stats import norm

from ldm.metrics import agreement
from ldm.metrics.agreement import cohen, cohen_interval, detect, detection, fleiss, fleiss_interval

WANT = json.loads((GOLDENS / "agreement.json").read_text())


@pytest.mark.parametrize("case", WANT["cohen"], ids=lambda case: str(case["table"]))
def test_cohens_kappa_equals_the_references(case: dict) -> None:
    """Unweighted, linear and quadratic to 1e-12; one category alone is not a number."""
    for weights in ("unweighted", "linear", "quadratic"):
        want = math.nan if case["unweighted"] is None else case[weights]
        assert cohen(case["table"], weights) == pytest.approx(want, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("case", WANT["fleiss"], ids=lambda case: f"{len(case['table'])} subjects")
def test_fleiss_kappa_equals_the_references(case: dict) -> None:
    """Fleiss' own example, two raters, and high agreement of low prevalence, to 1e-12."""
    assert fleiss(case["table"]) == pytest.approx(case["kappa"], abs=1e-12)


@pytest.mark.parametrize("case", WANT["d_prime"], ids=lambda case: str(case["counts"]))
def test_d_prime_equals_the_references(case: dict) -> None:
    """With the log-linear correction always finite; without it infinite at rates of 0 and 1."""
    found = detection(*case["counts"])
    assert found.d_prime == pytest.approx(case["loglinear"], abs=1e-12)
    assert found.criterion == pytest.approx(case["criterion"], abs=1e-12)
    plain = detection(*case["counts"], loglinear=False).d_prime
    if case["plain"] is None:
        assert not math.isfinite(plain)
    else:
        assert plain == pytest.approx(case["plain"], abs=1e-12)


def test_with_two_raters_fleiss_is_not_cohen() -> None:
    """Raters of different habits: Scott's pi takes the mean of their shares, Cohen each one's."""
    table = [[10, 20], [0, 20]]
    subjects = [[2, 0]] * 10 + [[1, 1]] * 20 + [[0, 2]] * 20
    assert fleiss(subjects) < cohen(table)
    assert fleiss([[3, 0]] * 4) != fleiss([[3, 0]] * 4)  # NaN: one category


@pytest.mark.parametrize(
    ("figure", "counts"),
    [
        (cohen, [[[1, 2, 3], [4, 5, 6]]]),
        (cohen, [[[0, 0], [0, 0]]]),
        (fleiss, [[[3, 0], [1, 1]]]),
        (detection, [1, 2, 0, 0]),
    ],
)
def test_what_is_no_table_of_counts_is_refused(figure, counts) -> None:
    """No square, nothing counted, other numbers of raters, no case of noise."""
    with pytest.raises(ValueError, match="need"):
        figure(*counts)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals without imagined images."""
    monkeypatch.setattr(agreement, "IMAGINED", 0.0)


def jackknife_error(left_out: list[float]) -> float:
    n = len(left_out)
    return math.sqrt((n - 1) / n * np.square(left_out - np.mean(left_out)).sum())


def test_cohens_error_is_that_of_fleiss_cohen_and_everitt(plain) -> None:
    """Their own example (1969, table 1): 200 subjects: kappa 0.429, variance 0.002885."""
    p = [[0.53, 0.05, 0.02], [0.11, 0.14, 0.05], [0.01, 0.06, 0.03]]
    found = cohen_interval(200 * np.array(p))
    assert found.value == pytest.approx(0.429, abs=5e-4)
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(math.sqrt(0.002885), abs=2e-4)


@pytest.mark.parametrize("weights", ["unweighted", "linear", "quadratic"])
def test_cohens_error_is_the_jackknifes(plain, weights: str) -> None:
    """Leaving out one image in turn gives the same error, to 2 %, without imagined images."""
    table = np.array([[40, 9, 1], [8, 50, 12], [3, 7, 30]])
    left_out = []
    for cell, count in np.ndenumerate(table):
        fewer = table.copy()
        fewer[cell] -= 1
        left_out += [cohen(fewer, weights)] * count
    found = cohen_interval(table, weights)
    error = jackknife_error(left_out)
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(error, rel=0.02)


def test_fleiss_error_is_the_jackknifes(plain) -> None:
    """Leaving out one of 150 images in turn: four raters, three categories."""
    random = np.random.default_rng(0)
    table = np.array([random.multinomial(4, p) for p in random.dirichlet([1, 1, 0.5], 150)])
    error = jackknife_error([fleiss(np.delete(table, i, axis=0)) for i in range(150)])
    found = fleiss_interval(table)
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(error, rel=0.02)


def test_intervals_of_perfect_agreement_have_a_width() -> None:
    """All agree on twenty images: kappa 1, and the lower end well below."""
    for found in (cohen_interval([[10, 0], [0, 10]]), fleiss_interval([[3, 0], [0, 3]] * 10)):
        assert found.value == found.high == 1
        assert 0.5 < found.low < 0.95
        assert found.n == 20


def test_one_category_alone_is_an_interval_without_a_kappa() -> None:
    """0 / 0 stays not a number; what is known of it is an interval."""
    for found in (cohen_interval([[30, 0], [0, 0]]), fleiss_interval([[3, 0]] * 30)):
        assert math.isnan(found.value)
        assert -1 <= found.low < found.high <= 1


def test_one_readers_d_prime_has_the_error_of_gourevitch_and_galanter() -> None:
    """Closed form, of rates with the log-linear correction; the criterion's is half of it."""
    truth = np.repeat([True, False], 50)
    called = np.r_[np.arange(50) < 40, np.arange(50) < 10]
    d_prime, criterion = detect(called, truth)
    rate = 40.5 / 51
    error = math.sqrt(2 * rate * (1 - rate) / 50) / norm.pdf(norm.ppf(rate))
    assert d_prime.value == detection(40, 10, 10, 40).d_prime
    assert d_prime.high - d_prime.value == pytest.approx(1.96 * error, rel=1e-4)
    assert criterion.high - criterion.low == pytest.approx(1.96 * error, rel=1e-4)


def test_the_same_reader_thrice_tells_no_more_than_once() -> None:
    """Copies share their mistakes: the interval of the mean stays as wide as one's, to 2 %."""
    random = np.random.default_rng(0)
    truth = np.repeat([True, False], 60)
    one = random.normal(truth * 1.0) > 0.5
    alone, thrice = detect(one, truth)[0], detect([one] * 3, truth)[0]
    assert thrice.value == pytest.approx(alone.value)
    assert thrice.high - thrice.low == pytest.approx(alone.high - alone.low, rel=0.02)


# --- simulated readers: the truth lies within the intervals in 93 % of 1,000 runs or more ---

RUNS = 1000


def covered(study, truth: float) -> float:
    """The share of RUNS intervals that hold the truth."""
    random = np.random.default_rng(0)
    found = [study(random) for _ in range(RUNS)]
    return sum(each.low <= truth <= each.high for each in found) / RUNS


@pytest.mark.parametrize("n", [20, 50])
@pytest.mark.parametrize("d_prime", [0.0, 1.0, 2.5])
def test_the_d_prime_of_simulated_readers_is_recovered(d_prime: float, n: int) -> None:
    """A reader with a criterion 0.3 beyond the middle, n images of each kind."""
    truth = np.repeat([True, False], n)

    def study(random):
        return detect(random.normal(truth * d_prime) > d_prime / 2 + 0.3, truth)[0]

    assert covered(study, d_prime) >= 0.93


@pytest.mark.parametrize("kappa", [0.0, 0.4, 0.8])
@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.8, 0.2), (0.45, 0.4, 0.15)], ids=str)
def test_the_kappa_of_two_simulated_readers_is_recovered(kappa: float, shares: tuple) -> None:
    """60 images; readers agree by kappa beyond chance, and choose by the same shares."""
    joint = (1 - kappa) * np.outer(shares, shares) + kappa * np.diag(shares)

    def study(random):
        counts = random.multinomial(60, joint.ravel())
        return cohen_interval(counts.reshape(joint.shape))

    assert covered(study, kappa) >= 0.93


@pytest.mark.parametrize("kappa", [0.2, 0.5, 0.8])
@pytest.mark.parametrize(("shares", "readers"), [((0.5, 0.5), 3), ((0.45, 0.4, 0.15), 5)], ids=str)
def test_the_kappa_of_several_simulated_readers_is_recovered(
    kappa: float, shares: tuple, readers: int
) -> None:
    """60 images, each of which has shares of its own, by a Dirichlet distribution."""

    def study(random):
        each = random.dirichlet(np.array(shares) * (1 / kappa - 1), size=60)
        return fleiss_interval(random.multinomial(readers, each))

    assert covered(study, kappa) >= 0.93


def test_the_mean_d_prime_of_simulated_readers_is_recovered() -> None:
    """Three readers who see the same evidence and noise of their own, 40 images of each kind."""
    truth = np.repeat([True, False], 40)

    def study(random):
        shared = random.normal(size=80) * math.sqrt(0.5)
        own = random.normal(size=(3, 80)) * math.sqrt(0.5)
        return detect(truth * 1.2 + shared + own > 0.6, truth)[0]

    assert covered(study, 1.2) >= 0.93
