"""Distances of feature sets against independent references, closed forms and usual mistakes.

Goldens: goldens/metrics.json, made in 80-bit arithmetic from the same pseudo-random inputs.
"""

import json

import numpy as np
import pytest
from conftest import GOLDENS
from pseudo import unit

from ldm.metrics import fid

WANT = json.loads((GOLDENS / "metrics.json").read_text())
CASES = sorted(set(WANT["distances"]["cases"]) - {"c"})  # c is large; see the slow test


def sets(case: str) -> tuple[np.ndarray, np.ndarray, dict]:
    """Features of `real` and `generated` images, and what they must give."""
    n, m, d = WANT["distances"]["sizes"][case]
    scale, shift = WANT["distances"]["scale_shift"][case]

    def u(name: str, *shape: int) -> np.ndarray:
        return unit(f"dist.{case}.{name}", shape).astype(np.float64)

    x, y = u("x", n, d), u("y", m, d)
    if case == "c":  # decaying variances, mixed
        weights = np.arange(1, d + 1) ** -0.75
        mix = u("mix_x", d, d)
        x = (x * weights) @ mix
        y = (y * scale * weights) @ (0.7 * mix + 0.3 * u("mix_y", d, d)) + shift
    else:
        y = y * scale + shift
    return x, y, WANT["distances"]["cases"][case]


@pytest.mark.parametrize("case", [*CASES, pytest.param("c", marks=pytest.mark.slow)])
def test_distances_equal_the_references(case: str) -> None:
    """Fréchet to 1e-8 (1e-7 for n < d), KID to 1e-10, CMMD to 1e-8; a divisor of n would show."""
    x, y, want = sets(case)
    close = 1e-7 if case == "b" else 1e-8
    assert fid.frechet(x, y) == pytest.approx(want["frechet"], rel=close)
    assert abs(want["wrong_ddof"] / want["frechet"] - 1) > 1e-4
    assert fid.kid(x, y) == pytest.approx(want["kid"], rel=1e-10)
    assert fid.cmmd(x, y) == pytest.approx(want["cmmd"], rel=1e-8)
    rows = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y)]
    assert fid.cmmd(*rows) == pytest.approx(want["cmmd_normalised"], rel=1e-8)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("case", CASES)
def test_neighbourhoods_count_as_the_reference_does(case: str, k: int, monkeypatch) -> None:
    """Precision, recall, density and coverage to the last count, also when rows come in parts."""
    monkeypatch.setattr(fid, "ROWS", 37)
    x, y, want = sets(case)
    counts, found = want["counts"][f"k={k}"], fid.neighbourhoods(x, y, k)
    cases = {"precision": len(y), "recall": len(x), "density": k * len(y), "coverage": len(x)}
    assert {name: round(getattr(found, name) * n) for name, n in cases.items()} == counts


@pytest.mark.parametrize("case", WANT["closed_forms"], ids=lambda c: c["name"])
def test_frechet_of_known_gaussians(case: dict) -> None:
    """Closed forms, one dimension and singular covariances among them."""
    both = []
    for i in ("1", "2"):
        moments = fid.Moments(len(case[f"mu{i}"]))
        moments.count, moments.mean = 10**6, np.array(case[f"mu{i}"])
        moments.scatter = np.array(case[f"sigma{i}"]) * (10**6 - 1)
        both.append(moments)
    assert fid.frechet_of_moments(*both) == pytest.approx(case["exact"], abs=1e-6)


def test_streamed_moments_give_the_same_distance() -> None:
    """Batches of any size, far from the origin, give what the whole array gives."""
    x, y, _ = sets("a")
    x, y = x + 1e4, y + 1e4
    both = [fid.Moments(64), fid.Moments(64)]
    for moments, z in zip(both, (x, y), strict=True):
        for part in np.split(z, [1, 100, 250]):
            moments.update(part)
        np.testing.assert_allclose(moments.covariance(), np.cov(z, rowvar=False), atol=1e-9)
    assert fid.frechet_of_moments(*both) == pytest.approx(fid.frechet(x, y), rel=1e-8)


def test_tenths_give_the_jackknife_of_all_features() -> None:
    """Moments of ten groups, filled in batches of any size, give value and interval at once."""
    x, y, _ = sets("a")
    y[:, 5] = x[:, 5] = 3.0  # a feature that never varies makes the covariance singular
    both = [fid.Tenths(64), fid.Tenths(64)]
    for tenths, z in zip(both, (x, y), strict=True):
        for part in np.split(z, [1, 100, 250]):
            tenths.update(part)
    found, want = fid.frechet_of_tenths(*both), fid.jackknife(fid.frechet, x, y)
    assert found.n == want.n
    np.testing.assert_allclose(found[:3], want[:3], rtol=1e-7)  # a zero's root is rounding


def test_a_set_is_no_distance_from_itself() -> None:
    """Fréchet and CMMD are 0 and precision and recall 1, for many images and for few."""
    for case in ("a", "b"):
        x = sets(case)[0]
        assert fid.frechet(x, x) == pytest.approx(0, abs=1e-9)
        assert fid.cmmd(x, x) == pytest.approx(0, abs=1e-9)
        assert fid.neighbourhoods(x, x)[:2] == (1, 1)


def test_features_that_cannot_be_measured_are_refused() -> None:
    """Not finite, no table, a single image, fewer images than features: each says so."""
    x = sets("e")[0]
    broken = x.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match="features of 1 of 250 images are not finite"):
        fid.frechet(x, broken)
    with pytest.raises(ValueError, match=r"must be \[n, d\]"):
        fid.kid(x, x[0])
    with pytest.raises(ValueError, match="n >= 2"):
        fid.cmmd(x[:1], x)
    few = fid.Moments(8)
    few.update(x[:8])
    with pytest.raises(ValueError, match="8 images are too few for 8 features"):
        fid.frechet_of_moments(few, few)


def test_the_jackknife_covers_a_known_distance() -> None:
    """Of two Gaussian sets a known mean apart, 95 % of intervals for the mean distance hold it."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        x, y = rng.normal(0, 1, (100, 1)), rng.normal(2, 1, (100, 1))
        found = fid.jackknife(lambda a, b: float(abs(a.mean() - b.mean())), x, y)
        inside += found.low < 2 < found.high
    # three standard errors; 0.915 with 1.96 in the place of Student's t
    assert inside / 1000 == pytest.approx(0.95, abs=0.02)


def test_vendi_counts_different_images() -> None:
    """1 for copies, n for orthogonal ones; 3 and 1 in two groups: the entropy of 3/4 and 1/4.

    The length of features does not count, nor do copies of the whole set.
    """
    assert fid.vendi(np.ones((5, 3))) == pytest.approx(1)
    assert fid.vendi(np.eye(4) * [[1], [2], [3], [4]]) == pytest.approx(4)
    groups = [[1, 0], [2, 0], [3, 0], [0, 1]]
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert fid.vendi(groups) == pytest.approx(expected)
    assert fid.vendi(groups + groups) == pytest.approx(expected)


def test_neighbourhoods_of_a_line_by_hand() -> None:
    """k = 1; real 0, 1, 3 have the radii 1, 1, 2; generated 0.5, 10, 10.5 the radii 9.5, 0.5, 0.5.

    0.5 lies in the balls of 0 and 1, not strictly within 2.5 of 3's 2: precision 1/3, density 2/3,
    coverage 2/3; all real ones lie in the ball of 0.5: recall 1.
    """
    found = fid.neighbourhoods([[0.0], [1.0], [3.0]], [[0.5], [10.0], [10.5]], k=1)
    assert found == pytest.approx((1 / 3, 1, 2 / 3, 2 / 3))
