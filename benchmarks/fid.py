"""A Fréchet distance without a matrix square root beside the usual one with scipy's sqrtm.

    python benchmarks/fid.py [--n 2500] [--width 2048] [--rounds 3]
    python -m benchmarks fid_10k

Two sets of correlated Gaussian features, streamed into means and covariances as evaluate.py images
does; then both distances of these, which take turns. Prints medians of the seconds, their ratio,
and both distances. The row of `python -m benchmarks` is of the whole way from features to distance.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import sqrtm

from ldm.metrics.fid import Moments, frechet_of_moments

if TYPE_CHECKING:
    from benchmarks.measure import Row, Setting

Array = np.ndarray


def features(n: int, width: int, seed: int) -> Array:
    """float32 [n, width]: variances that decay as those of real features do, mixed."""
    drawn = np.random.default_rng(seed)
    scale = np.arange(1, width + 1) ** -0.5
    mix = np.random.default_rng(0).normal(size=(width, width)) / width**0.5
    return ((drawn.normal(size=(n, width)) * scale + 0.01 * seed) @ mix).astype(np.float32)


def moments(features: Array) -> Moments:
    found = Moments(features.shape[1])
    for start in range(0, len(features), 256):
        found.update(features[start : start + 256])
    return found


def usual(x: Moments, y: Moments) -> float:
    return by_root(x.mean, x.covariance(), y.mean, y.covariance())


def by_root(mean_x: Array, S_x: Array, mean_y: Array, S_y: Array) -> float:
    apart = np.square(mean_x - mean_y).sum()
    return float(apart + np.trace(S_x + S_y - 2 * sqrtm(S_x @ S_y).real))


def rows(name: str, setting: Setting, n: int, width: int = 2048) -> list[Row]:
    """The other is what pytorch-fid does with features: numpy's mean and cov, scipy's sqrtm."""
    from benchmarks.measure import contest  # not to be had where this file runs as a script

    x, y = (features(n, width, seed).astype(np.float64) for seed in (1, 2))

    def other() -> float:
        return by_root(
            x.mean(axis=0), np.cov(x, rowvar=False), y.mean(axis=0), np.cov(y, rowvar=False)
        )

    ours = {name: (lambda: frechet_of_moments(moments(x), moments(y)), "the other: scipy's sqrtm")}
    return contest(ours, other, setting.rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=2500)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sets = [features(options.n, options.width, seed) for seed in (1, 2)]
    seconds: dict[str, list[float]] = {"moments": [], "ours": [], "sqrtm": []}
    distances: dict[str, float] = {}
    for _ in range(options.rounds):
        start = time.perf_counter()
        both = [moments(one) for one in sets]
        seconds["moments"].append(time.perf_counter() - start)
        for name, distance in (("ours", frechet_of_moments), ("sqrtm", usual)):
            start = time.perf_counter()
            distances[name] = distance(*both)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    report = {
        "n": options.n,
        "width": options.width,
        "rounds": options.rounds,
        "seconds": {name: round(value, 3) for name, value in medians.items()},
        "ratio": round(medians["sqrtm"] / medians["ours"], 1),
        "distances": distances,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
