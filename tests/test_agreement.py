"""Kappas and d' against independent references, closed forms and their usual mistakes.

Goldens: goldens/agreement.json, of scikit-learn, statsmodels and mpmath.
"""

import json
import math

import pytest
from conftest import GOLDENS

from ldm.metrics.agreement import cohen, detection, fleiss

WANT = json.loads((GOLDENS / "agreement.json").read_text())


@pytest.mark.parametrize("case", WANT["cohen"], ids=lambda case: str(case["table"]))
def test_cohens_kappa_equals_the_references(case: dict) -> None:
    """Unweighted, linear and quadratic to 1e-12; one category alone is not a number."""
    for weights in ("unweighted", "linear", "quadratic"):
        found, want = cohen(case["table"], weights), case[weights]
        if case["unweighted"] is None:
            assert math.isnan(found)
        else:
            assert found == pytest.approx(want, abs=1e-12)


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
    "call",
    [
        lambda: cohen([[1, 2, 3], [4, 5, 6]]),
        lambda: cohen([[0, 0], [0, 0]]),
        lambda: fleiss([[3, 0], [1, 1]]),
        lambda: detection(1, 2, 0, 0),
    ],
)
def test_what_is_no_table_of_counts_is_refused(call) -> None:
    """No square, nothing counted, other numbers of raters, no case of noise."""
    with pytest.raises(ValueError, match="want"):
        call()
