"""An order is what intervals tell apart, and Kendall's tau takes every pair."""

import pytest

from ldm.metrics.estimate import Estimate
from ldm.report.study.rank_agreement import RankAgreement, compare


def near(value: float, half: float = 0.1) -> Estimate:
    return Estimate(value, value - half, value + half, 10)


PAPER = {"a": 1.0, "b": 2.0, "c": 3.0, "d": None}


@pytest.mark.parametrize(
    ("ours", "tau", "apart", "alike", "words"),
    [
        ((1, 2, 3), 1, 3, 3, "same order"),
        ((3, 2, 1), -1, 3, 0, "not the same order"),
        ((1, 3, 2), 1 / 3, 3, 2, "not the same order"),
        ((1, 1.15, 1.1), 1 / 3, 0, 0, "not told"),  # all intervals overlap
        ((1, 2.1, 2), 1 / 3, 2, 2, "same order"),  # b and c are not told apart
        ((1, 1.15, 1.25), 1, 1, 1, "not told"),  # one pair of three is too few
    ],
)
def test_words_follow_the_pairs_told_apart(
    ours: tuple[float, ...], tau: float, apart: int, alike: int, words: str
) -> None:
    """By hand: of three pairs tau is (alike - others) / 3."""
    found = compare({**dict(zip("abc", map(near, ours), strict=True)), "d": near(9)}, PAPER)
    assert found.tau == pytest.approx(tau)
    assert (found.n, found.apart, found.alike, found.words) == (3, apart, alike, words)


def test_rows_without_a_partner_do_not_count() -> None:
    """A figure that is missing on either side leaves its row out."""
    assert compare({"a": near(1), "b": None, "d": near(2)}, PAPER) == RankAgreement(
        None, None, 1, 0, 0
    )


def test_equal_figures_have_no_order() -> None:
    """A column that is constant in the paper has no tau, and no pair is told apart."""
    found = compare({"a": near(1), "b": near(5)}, {"a": 0.5, "b": 0.5})
    assert found == RankAgreement(None, None, 2, 0, 0)
    assert "undefined" in str(found)
