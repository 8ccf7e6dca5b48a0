"""Copies of training images among generated ones: distances to the nearest, calibrated."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldm.metrics.classification import wilson
from ldm.metrics.estimate import Estimate

Array = NDArray[np.float64]


class Neighbours(NamedTuple):
    """distance: [n] Euclidean, to the nearest training image;  which: [n] its number"""

    distance: Array
    which: NDArray[np.int64]


class Audit(NamedTuple):
    """copies: share of samples nearer to a training image than `threshold`."""

    copies: Estimate
    threshold: float
    samples: Neighbours
    held_out: Neighbours


def nearest(images: ArrayLike, training: ArrayLike, rows: int = 256) -> Neighbours:
    """The nearest training image of each image; both [n, ...] of one shape, in any space.

    |a - b|^2 = |a|^2 + |b|^2 - 2 a b picks the nearest, whose distance is then computed directly:
    the expansion has no digits left for a copy, which is what is looked for.
    """
    a, b = np.asarray(images, np.float64), np.asarray(training, np.float64)
    if a.shape[1:] != b.shape[1:] or not len(a) or not len(b):
        raise ValueError(f"cannot compare images {list(a.shape)} with {list(b.shape)}")
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    norms, index = np.square(b).sum(axis=1), np.empty(len(a), np.int64)
    for start in range(0, len(a), rows):
        part = slice(start, start + rows)
        index[part] = (norms - 2 * a[part] @ b.T).argmin(axis=1)
    return Neighbours(np.linalg.norm(a - b[index], axis=1), index)


def audit(
    samples: ArrayLike, training: ArrayLike, held_out: ArrayLike, quantile: float = 0.01
) -> Audit:
    """The share of samples nearer to a training image than held-out real images are.

    The threshold is the `quantile` of held-out images' own distances to the training set, so a
    model that copies nothing shows about that share. Blur alone brings images nearer: let the
    held-out images pass through the same autoencoder as the samples.
    """
    of_samples, of_held_out = nearest(samples, training), nearest(held_out, training)
    threshold = float(np.quantile(of_held_out.distance, quantile))
    copies = int((of_samples.distance < threshold).sum())
    return Audit(wilson(copies, len(of_samples.which)), threshold, of_samples, of_held_out)
