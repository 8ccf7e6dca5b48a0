"""How a figure is spread over images: its mean with an interval, and its quantiles."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ldm.metrics.estimate import Estimate
from ldm.metrics.fid import Array
from ldm.report.page import Table

QUANTILES = {"least": 0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1}


def average(values: Array) -> Estimate:
    """The mean of [n] with its 95 % interval, 1.96 standard errors; infinite if one value is."""
    mean = float(values.mean())
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if math.isfinite(mean) else 0.0
    return Estimate(mean, mean - half, mean + half, len(values))


def table(caption: str, rows: Mapping[str, Array]) -> Table:
    """A row for each name with its values [n]."""
    cells = []
    for name, values in rows.items():
        deviation = values.std(ddof=1) if np.isfinite(values).all() else math.nan
        quantiles = np.quantile(values, list(QUANTILES.values()), method="nearest")
        cells.append((name, average(values).show(), *(f"{x:.4g}" for x in (deviation, *quantiles))))
    return Table(caption, ("figure", "mean (95 %)", "SD", *QUANTILES), cells)


def as_json(each: Mapping[str, Array]) -> dict[str, dict[str, float]]:
    """{name: mean, its interval, n, SD and median} of values [n]."""
    found: dict[str, dict[str, float]] = {}
    for name, values in each.items():
        with np.errstate(invalid="ignore"):  # the deviation of infinite values
            more = {"SD": float(values.std(ddof=1)), "median": float(np.median(values))}
        found[name] = average(values)._asdict() | more
    return found
