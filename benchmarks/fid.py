"""A Fréchet distance without a matrix square root beside the usual one with scipy's sqrtm.

Two sets of correlated Gaussian features, streamed into means and covariances as evaluate.py images
does.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import sqrtm

from benchmarks.measure import Row, Setting, contest
from ldm.metrics.fid import Moments, frechet_of_moments

Array = np.ndarray


def features(n: int, width: int, seed: int) -> Array:
    """float32 [n, width]: variances that decay as those of real features do, mixed."""
    drawn = np.random.default_rng(seed)
    scale = np.arange(1, width + 1) ** -0.5
    mix = np.random.default_rng(0).normal(size=(width, width)) / width**0.5
    return ((drawn.normal(size=(n, width)) * scale + 0.01 * seed) @ mix).astype(np.float32)


def moments(features: Array) -> Moments:
    found = Moments(features.shape[1])
    for start in range(0, len(features), 1000):
        found.update(features[start : start + 1000])
    return found


def usual(x: Moments, y: Moments) -> float:
    return by_root(x.mean, x.covariance(), y.mean, y.covariance())


def by_root(mean_x: Array, S_x: Array, mean_y: Array, S_y: Array) -> float:
    apart = np.square(mean_x - mean_y).sum()
    return float(apart + np.trace(S_x + S_y - 2 * sqrtm(S_x @ S_y).real))


def rows(name: str, setting: Setting, n: int, width: int = 2048) -> list[Row]:
    """From features to a distance, then from means and covariances, which both ways need.

    The other is what pytorch-fid does: numpy's mean and cov, scipy's sqrtm.
    """
    x, y = (features(n, width, seed).astype(np.float64) for seed in (1, 2))
    found = moments(x), moments(y)

    def other() -> float:
        return by_root(
            x.mean(axis=0), np.cov(x, rowvar=False), y.mean(axis=0), np.cov(y, rowvar=False)
        )

    def whole() -> float:
        return frechet_of_moments(moments(x), moments(y))

    ways = {
        name: (whole, other, "numpy's cov and scipy's sqrtm"),
        f"{name}_moments": (lambda: frechet_of_moments(*found), lambda: usual(*found), "sqrtm"),
    }
    return [
        row
        for name, (ours, other, note) in ways.items()
        for row in contest({name: (ours, f"the other: {note}")}, other, setting.rounds)
    ]
