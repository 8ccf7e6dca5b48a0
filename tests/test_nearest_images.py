"""Copies of training images are found, and images that are none are not."""

import numpy as np
import pytest

from ldm.metrics.nearest_images import audit, nearest


def points(name: int, count: int, width: int = 64) -> np.ndarray:
    return np.random.default_rng(name).normal(size=(count, width))


def test_the_nearest_is_the_nearest() -> None:
    """Index and distance equal those of the full distance matrix, in parts of any size."""
    a, b = points(0, 50), points(1, 70)
    distances = np.linalg.norm(a[:, None] - b[None], axis=2)
    for rows in (1, 7, 256):
        found = nearest(a.reshape(50, 1, 8, 8), b.reshape(70, 1, 8, 8), rows)
        assert np.array_equal(found.which, distances.argmin(axis=1))
        np.testing.assert_allclose(found.distance, distances.min(axis=1))


def test_a_copy_is_at_no_distance_even_far_from_the_origin() -> None:
    """Exactly 0, where the expanded square would leave only rounding errors."""
    training = points(0, 30) + 1e6
    found = nearest(training[[4, 9]], training)
    assert found.which.tolist() == [4, 9]
    assert found.distance.tolist() == [0, 0]


def test_planted_copies_are_found_at_one_percent_false_alarms() -> None:
    """Of 300 slightly changed copies among 900 samples, 99 % are found; of new ones about 1 %."""
    training, held_out = points(0, 2000), points(1, 2000)
    copies = training[:300] + 0.05 * points(2, 300)
    assert audit(copies, training, held_out).copies.value >= 0.99
    fresh = audit(points(3, 2000), training, held_out).copies
    assert fresh.low <= 0.01 <= fresh.high
    both = audit(np.concatenate([copies, points(4, 600)]), training, held_out)
    assert both.copies.value == pytest.approx(1 / 3, abs=0.02)
    assert both.samples.which[:300].tolist() == list(range(300))


def test_sets_that_cannot_be_compared_are_refused() -> None:
    """Other sizes, or no training images."""
    with pytest.raises(ValueError, match=r"images \[3, 64\] with \[5, 32\]"):
        nearest(points(0, 3), points(1, 5, 32))
    with pytest.raises(ValueError, match=r"with \[0, 64\]"):
        nearest(points(0, 3), np.empty((0, 64)))
