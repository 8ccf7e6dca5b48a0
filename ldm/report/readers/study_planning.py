"""evaluate.py reader-study plan: images and readers for an interval of a given width."""

import argparse
from functools import partial

from ldm.config import ConfigError
from ldm.metrics.reader_sample_size import MOST, images_for, of_d_prime, of_kappa, of_rate
from ldm.report import Report, page
from ldm.report.page import Block, Table

TITLE = "How many images and readers?"
IMAGES = (25, 50, 100, 200, 400)


def run(options: argparse.Namespace) -> Report:
    """Raises ConfigError for impossible figures."""
    rate, d_prime, kappa, readers = options.rate, options.d_prime, options.kappa, options.readers
    widths = (options.rate_within, options.d_prime_within, options.kappa_within)
    if not (0 < rate < 1 and 0 <= kappa < 1 and min(widths) > 0 and abs(d_prime) <= 6):
        raise ConfigError(
            "plan needs a rate between 0 and 1, a kappa of 0 or more and below 1, a d' of at "
            "most 6, and half widths above 0"
        )
    several = f"{readers} readers"
    columns = {
        "rate, 1 reader": partial(of_rate, rate),
        f"rate, {several}": partial(of_rate, rate, readers=readers, kappa=kappa),
        "d', 1 reader": partial(of_d_prime, d_prime),
        f"d', {several}": partial(of_d_prime, d_prime, readers=readers, kappa=kappa),
        "kappa, 2 readers": partial(of_kappa, kappa, rate=rate),
        f"kappa, {several}": partial(of_kappa, kappa, readers=readers, rate=rate),
    }
    half = {name: {n: of(n) for n in IMAGES} for name, of in columns.items()}
    wanted = dict(zip(columns, [width for width in widths for _ in range(2)], strict=True))
    needed = {name: images_for(wanted[name], of) for name, of in columns.items()}
    rows = [(str(n), *(f"{each[n]:.3f}" for each in half.values())) for n in IMAGES]
    needs = [
        (name, f"{wanted[name]:g}", str(n) if n else f"more than {MOST}")
        for name, n in needed.items()
    ]
    blocks: list[Block] = [
        page.passage("study_planning", rate=rate, d_prime=d_prime, kappa=kappa),
        Table("Half widths.", ("images", *columns), rows),
        Table("Images that are needed.", ("figure", "half width", "images"), needs),
    ]
    values = {
        "expected": {"rate": rate, "d'": d_prime, "kappa": kappa, "readers": readers},
        "half widths": half,
        "wanted": wanted,
        "needed": needed,
    }
    return page.report("plan", TITLE, blocks, values)
