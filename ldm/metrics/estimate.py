"""An estimate with its 95 % interval and its n: as a tuple, as text and as JSON."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Estimate(NamedTuple):
    """A figure with the ends of its interval and the number of cases behind it."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n = {self.n})"

    def show(self, form: str = ".4g", scale: float = 1) -> str:
        """value (low to high), each times `scale`; percentages are show(".1f", 100)"""
        value, low, high = (f"{scale * part:{form}}" for part in self[:3])
        return f"{value} ({low} to {high})"


def mean(values: ArrayLike) -> Estimate:
    """The mean of [n] plus or minus 1.96 standard errors; of no width if one value is infinite."""
    each = np.asarray(values, np.float64)
    middle = float(each.mean())
    half = 1.96 * float(each.std(ddof=1)) / len(each) ** 0.5 if math.isfinite(middle) else 0.0
    return Estimate(middle, middle - half, middle + half, len(each))


def as_json(value: Any) -> Any:
    """A value for JSON: named tuples (estimates) become tables, infinity and NaN null."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {key: as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
