"""Sample size of a reader study: half widths of its 95 % intervals before it is made."""

import bisect
from collections.abc import Callable

import numpy as np
from scipy.stats import betabinom, norm

from ldm.metrics.agreement import Z, fleiss_moments
from ldm.metrics.classification import wilson

MOST = 100_000  # images; beyond it nobody reads


def design_effect(readers: int, kappa: float) -> float:
    """1 + (R - 1) kappa: how many readings of one image tell as much as one reading alone.

    Kish's design effect (Survey Sampling, 1965); for answers of yes and no the correlation of two
    readers within an image is Fleiss' kappa.
    """
    return 1 + (readers - 1) * kappa


def of_rate(rate: float, n: int, readers: int = 1, kappa: float = 0.0) -> float:
    """Of a proportion by Wilson, n images each seen by all readers."""
    readings = n * readers
    found = wilson(rate * readings, readings, effect=design_effect(readers, kappa))
    return (found.high - found.low) / 2


def of_d_prime(d_prime: float, n: int, readers: int = 1, kappa: float = 0.0) -> float:
    """Of the mean d' over readers without bias, n images of each kind, the error of `detect`."""
    rate = norm.cdf(d_prime / 2)  # of hits, and of correct rejections
    variance = 2 * rate * (1 - rate) / (n * norm.pdf(d_prime / 2) ** 2)
    return float(Z * np.sqrt(variance * design_effect(readers, kappa) / readers))


def of_kappa(kappa: float, n: int, readers: int = 2, rate: float = 0.5) -> float:
    """Of Fleiss' kappa of yes and no, n images, `rate` of the readings a yes.

    Each image has a share of yes of its own, a beta distribution: the common correlation model.
    """
    yes = np.arange(readers + 1)
    together = (1 - kappa) / kappa if kappa > 0 else 1e9
    p = betabinom.pmf(yes, readers, rate * together, (1 - rate) * together)
    no = readers - yes
    agree = (yes * (yes - 1) + no * (no - 1)) / (readers * (readers - 1))
    shares = np.stack([yes, no], axis=1) / readers
    _, deviation = fleiss_moments(agree, shares, p)
    return float(Z * deviation / np.sqrt(n))


def images_for(half_width: float, of: Callable[[int], float]) -> int | None:
    """The fewest images whose half width `of(n)` is that small, None if MOST are too few."""
    if of(MOST) > half_width:
        return None
    # half widths fall as n rises
    return 1 + bisect.bisect_left(range(1, MOST), True, key=lambda n: of(n) <= half_width)
