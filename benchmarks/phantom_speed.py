"""How fast are phantoms drawn? Images per second in one process, as a dataset draws them.

    python benchmarks/phantom_speed.py [--phantoms 200] [--size 128] [--repeats 5]
        [--where region=knee]

Renders the same phantoms again and again, one by one and turned to bytes as for the cache of
`data.phantoms`; prints the median over the repeats and the interquartile range.
"""

import argparse
import json
import os
import time

import numpy as np
import torch

from ldm.data.cache import to_bytes
from ldm.data.phantom import render
from ldm.data.phantom.selection import parse, select


def images_per_second(count: int, size: int, where: str) -> float:
    """The rate of one pass over phantoms 0 to count - 1, each another person."""
    phantoms = select(range(count), parse(where))
    start = time.perf_counter()
    for phantom in phantoms:
        to_bytes(render([phantom], size).images)
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phantoms", type=int, default=200)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--where", default="", help="as in phantoms:N:SEED:region=knee")
    options = parser.parse_args()
    images_per_second(8, options.size, options.where)  # warm-up: imports, spline bases, threads
    rates = [
        images_per_second(options.phantoms, options.size, options.where)
        for _ in range(options.repeats)
    ]
    low, median, high = np.quantile(rates, [0.25, 0.5, 0.75])
    report = {
        "images_per_second": round(float(median), 1),
        "interquartile_range": [round(float(low), 1), round(float(high), 1)],
        "n": options.phantoms,
        "size": options.size,
        "where": options.where,
        "repeats": options.repeats,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
