"""Do the intervals of a reader study hold the truth?  python benchmarks/reader_coverage.py

Simulated readers of known skill and agreement; the share of runs whose 95 % interval holds it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy.stats import norm

from ldm.metrics.agreement import cohen_interval, detect, fleiss_interval
from ldm.metrics.classification import auc_of_readers, wilson, wilson_of_groups
from ldm.metrics.estimate import Estimate
from ldm.system import cli

Study = Callable[[np.random.Generator], Estimate]


def skilled(d_prime: float, n: int, readers: int, area: bool) -> Study:
    """n images of each kind; half of a reader's noise is shared with the others."""
    truth = np.repeat([True, False], n)

    def study(random: np.random.Generator) -> Estimate:
        noise = random.normal(size=2 * n) + random.normal(size=(readers, 2 * n))
        if readers == 1:
            noise = np.sqrt(2) * random.normal(size=(1, 2 * n))
        seen = truth * d_prime + noise / np.sqrt(2)
        return auc_of_readers(seen, truth) if area else detect(seen > d_prime / 2 + 0.3, truth)[0]

    return study


def pair(kappa: float, shares: tuple[float, ...], n: int) -> Study:
    joint = (1 - kappa) * np.outer(shares, shares) + kappa * np.diag(shares)
    return lambda random: cohen_interval(random.multinomial(n, joint.ravel()).reshape(joint.shape))


def several(kappa: float, shares: tuple[float, ...], n: int, readers: int) -> Study:
    law = np.array(shares) * (1 / kappa - 1)
    return lambda random: fleiss_interval(random.multinomial(readers, random.dirichlet(law, n)))


def called(rate: float, kappa: float, n: int, readers: int) -> Study:
    law = rate * (1 / kappa - 1), (1 - rate) * (1 / kappa - 1)
    return lambda random: wilson_of_groups(random.random((readers, n)) < random.beta(*law, n))


def main() -> int:
    parser = cli.Parser("reader_coverage.py", __doc__.splitlines()[0])
    parser.add_argument("--runs", type=cli.whole(1), default=4000, metavar="N", help="(4000)")
    options: argparse.Namespace = parser.parse_args()
    studies: dict[str, tuple[Study, float]] = {}
    for d_prime in (0.0, 1.0, 2.5):
        for n in (20, 50):
            for readers in (1, 3):
                what = f"d' = {d_prime}, {n} + {n} images, {readers} readers"
                area = float(norm.cdf(d_prime / np.sqrt(2)))
                studies[what] = skilled(d_prime, n, readers, False), d_prime
                studies[f"AUC of {what}"] = skilled(d_prime, n, readers, True), area
    for kappa in (0.2, 0.5, 0.8):
        for shares in ((0.5, 0.5), (0.8, 0.2), (0.45, 0.4, 0.15)):
            for n in (40, 100):
                what = f"kappa = {kappa}, shares {shares}, {n} images"
                studies[f"Cohen's {what}"] = pair(kappa, shares, n), kappa
                studies[f"Fleiss' {what}, 3 readers"] = several(kappa, shares, n, 3), kappa
    for rate in (0.1, 0.5):
        for n in (20, 50):
            studies[f"rate {rate}, {n} images, 3 readers"] = called(rate, 0.4, n, 3), rate
    for what, (study, truth) in studies.items():
        random = np.random.default_rng(0)
        found = [study(random) for _ in range(options.runs)]
        hits = sum(each.low <= truth <= each.high for each in found)
        print(f"{what}: {wilson(hits, options.runs)}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(cli.run(main, "reader_coverage.py"))
