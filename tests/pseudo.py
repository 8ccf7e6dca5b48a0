"""Pseudo-random weights and inputs, the same bits on every platform and numpy version.

The goldens were made by running the reference on these numbers instead of trained weights.
Every value is the sum of four 16-bit integers from raw Philox output, centred and scaled in
float32: mean 0, variance 1, never beyond 3.47. No library sampler is involved.
"""

import hashlib
import math

import numpy as np

WORDS_AT_ONCE = 1 << 20  # bounds the memory of the integer arrays, not the result
SUM_OF_FOUR_MEAN = 2 * (2**16 - 1)
SUM_OF_FOUR_STD = math.sqrt((2**32 - 1) / 3)


def unit(key: str, shape: tuple[int, ...], salt: str = "", std: float = 1.0) -> np.ndarray:
    """An input (latent, image, context, noise) named `key`: float32, standard deviation `std`."""
    digest = hashlib.sha256(f"{salt}|{key}".encode()).digest()
    philox = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
    scale = np.float32(std / SUM_OF_FOUR_STD)
    out = np.empty(math.prod(shape), np.float32)
    for start in range(0, out.size, WORDS_AT_ONCE):
        chunk = out[start : start + WORDS_AT_ONCE]
        words = philox.random_raw(chunk.size).astype("<u8", copy=False)
        sums = words.view("<u2").reshape(-1, 4).sum(axis=1, dtype=np.int32)
        chunk[:] = (sums - SUM_OF_FOUR_MEAN).astype(np.float32) * scale
    return out.reshape(shape)


def fill(key: str, shape: tuple[int, ...], salt: str = "") -> np.ndarray:
    """A weight named by its checkpoint key.

    Two or more dimensions: std 1 / sqrt(fan_in), fan_in = prod(shape[1:]).
    One dimension: `.weight` (of a norm) is 1 + 0.1 unit, `.bias` is 0.1 unit.
    """
    if len(shape) > 1:
        return unit(key, shape, salt, std=1 / math.sqrt(math.prod(shape[1:])))
    value = unit(key, shape, salt, std=0.1)
    return value + np.float32(1) if key.endswith("weight") else value
