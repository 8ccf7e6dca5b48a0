"""Planned half widths are those that simulated studies get."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from ldm.metrics.agreement import detect, fleiss_interval
from ldm.metrics.classification import wilson, wilson_of_groups
from ldm.metrics.estimate import Estimate
from ldm.metrics.reader_sample_size import images_for, of_d_prime, of_kappa, of_rate

RUNS = 300


def readings(
    random: np.random.Generator, rate: float, kappa: float, readers: int, n: int
) -> NDArray[np.bool_]:
    """[R, n] yes or no: Fleiss' kappa between readers is `kappa`, `rate` of them are a yes."""
    together = (1 - kappa) / kappa
    shares = random.beta(rate * together, (1 - rate) * together, n)
    return random.random((readers, n)) < shares


def simulate(study: Callable[[np.random.Generator], Estimate]) -> float:
    """The mean half width over RUNS studies."""
    random = np.random.default_rng(0)
    found = [study(random) for _ in range(RUNS)]
    return float(np.mean([(each.high - each.low) / 2 for each in found]))


@pytest.mark.parametrize(("readers", "kappa", "n"), [(1, 0.5, 40), (3, 0.3, 100), (4, 0.8, 60)])
def test_the_half_width_of_a_rate_is_that_of_simulated_studies(
    readers: int, kappa: float, n: int
) -> None:
    """Within 5 %, for one reader and for several who agree a little or a lot."""
    got = simulate(lambda random: wilson_of_groups(readings(random, 0.4, kappa, readers, n)))
    assert of_rate(0.4, n, readers, kappa) == pytest.approx(got, rel=0.05)


@pytest.mark.parametrize(("d_prime", "n"), [(0.5, 50), (1.5, 100)])
def test_the_half_width_of_d_prime_is_that_of_simulated_studies(d_prime: float, n: int) -> None:
    """Within 5 %: a reader who says fake above the middle of two unit normals."""
    truth = np.repeat([True, False], n)

    def study(random: np.random.Generator) -> Estimate:
        return detect(random.normal(truth * d_prime) > d_prime / 2, truth)[0]

    assert of_d_prime(d_prime, n) == pytest.approx(simulate(study), rel=0.05)


def test_readers_who_agree_share_their_mistakes() -> None:
    """The mean d' of three: within 5 % where images pull them together as the plan assumes."""
    n, rate = 100, norm.cdf(0.5)
    truth = np.repeat([True, False], n)

    def study(random: np.random.Generator) -> Estimate:
        said = [readings(random, share, 0.4, 3, n) for share in (rate, 1 - rate)]
        return detect(np.concatenate(said, axis=1), truth)[0]

    assert of_d_prime(1, n, 3, 0.4) == pytest.approx(simulate(study), rel=0.05)


@pytest.mark.parametrize(("kappa", "readers"), [(0.2, 2), (0.6, 2), (0.4, 4)])
def test_the_half_width_of_kappa_is_that_of_simulated_studies(kappa: float, readers: int) -> None:
    """Within 5 %, yes to a third."""

    def study(random: np.random.Generator) -> Estimate:
        yes = readings(random, 1 / 3, kappa, readers, 150).sum(axis=0)
        return fleiss_interval(np.stack([yes, readers - yes], axis=1))

    planned = of_kappa(kappa, 150, readers, 1 / 3)
    assert planned == pytest.approx(simulate(study), rel=0.05)


def test_without_agreement_kappa_has_the_error_of_chance() -> None:
    """kappa = 0 of two readers: a half width of 1.96 / sqrt(n), for any share of yes."""
    assert of_kappa(0, 100, 2, 0.5) == pytest.approx(0.196, abs=1e-3)
    assert of_kappa(0, 100, 2, 0.2) == pytest.approx(0.196, abs=1e-3)


def test_the_fewest_images_are_just_enough() -> None:
    """One image fewer is too few; 93 for a tenth; None beyond what can be read."""
    needed = images_for(0.25, lambda n: of_d_prime(1, n))
    assert needed is not None
    assert of_d_prime(1, needed) <= 0.25 < of_d_prime(1, needed - 1)
    half = wilson(50, 100)
    assert of_rate(0.5, 100) == (half.high - half.low) / 2
    assert images_for(0.1, lambda n: of_rate(0.5, n)) == 93  # Wald has 97
    assert images_for(1e-5, lambda n: of_rate(0.5, n)) is None
