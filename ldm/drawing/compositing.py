"""Masks, padding, and pasting without a seam.

Arrays here are images [H, W, C] and alphas [H, W]: how much of the new image is shown, 0 to 1.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import splu
from torch import Tensor

Levels = NDArray[np.unsignedinteger[Any]]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
NEIGHBOURS = ((0, 1), (0, -1), (1, 0), (-1, 0))


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def inside(self) -> tuple[slice, slice]:
        """For indexing."""
        top, left, height, width = self
        return slice(top, top + height), slice(left, left + width)


def alpha_of(mask: Levels, grow: int = 0, invert: bool = False) -> Floats:
    """The alpha of a mask [H, W, C] whose white is repainted; inverted first, then grown.

    Raises ValueError if nothing is to repaint, or nothing to keep.
    """
    alpha = mask.mean(axis=2) / np.iinfo(mask.dtype).max
    alpha = 1 - alpha if invert else alpha
    grow = min(grow, max(alpha.shape))  # more changes nothing, but takes time
    alpha = ndimage.maximum_filter(alpha, 2 * grow + 1, mode="nearest")
    if not alpha.any():
        raise ValueError("the mask is empty: white is repainted; invert it with --invert-mask")
    if alpha.all():
        raise ValueError("the mask is full: nothing is kept of the image; draw without --init")
    return alpha


def to_latents(alpha: Floats, factor: int) -> Tensor:
    """float32 [1, 1, h, w]: 1 for each cell of factor x factor pixels with any to repaint."""
    hole = torch.from_numpy(alpha > 0).float()[None, None]
    return torch.nn.functional.max_pool2d(hole, factor)


def padded(array: NDArray[Any], multiple: int) -> NDArray[Any]:
    """[H, W, ...], mirrored to the right and below until the sides are multiples."""
    more = [(0, -side % multiple) for side in array.shape[:2]]
    return np.pad(array, more + [(0, 0)] * (array.ndim - 2), mode="symmetric")


def harmonic(values: Floats, hole: Mask) -> Floats:
    """`values` [H, W, C] with the hole filled smoothly: each pixel there is the mean of its
    neighbours (Laplace's equation; at the image's border there are fewer).

    The values in the hole have no effect. The rest must not be empty.
    """
    if hole.all():
        raise ValueError("the hole is the whole image: there is nothing to fill it from")
    y, x = np.nonzero(hole)
    number = np.full(np.add(hole.shape, 2), -2)  # -2: beyond the border, -1: known
    number[1:-1, 1:-1] = -1
    number[y + 1, x + 1] = np.arange(len(y))
    around = np.stack([number[y + 1 + dy, x + 1 + dx] for dy, dx in NEIGHBOURS])  # [4, n]
    side, pixel = np.nonzero(around >= 0)
    size = (len(y), len(y))
    links = sparse.csc_matrix((np.ones(len(pixel)), (pixel, around[side, pixel])), size)
    matrix = sparse.diags((around >= -1).sum(axis=0).astype(float), format="csc") - links
    known = np.zeros((len(y), values.shape[2]))
    for (dy, dx), neighbour in zip(NEIGHBOURS, around, strict=True):
        edge = neighbour == -1
        known[edge] += values[y[edge] + dy, x[edge] + dx]
    filled = values.copy()
    solve = splu(matrix, permc_spec="MMD_AT_PLUS_A").solve
    filled[hole] = solve(known)
    return filled


def paste(original: Levels, drawn: Floats, alpha: Floats) -> Levels:
    """The original with the drawn image where alpha is above 0; everything else bit for bit.

    Drawn and original differ along the edge, if only by what the autoencoder loses. That
    difference is continued smoothly into the hole, and added: Poisson image editing (Perez et al.,
    ACM TOG 22(3), 2003, section 3, "seamless cloning").

    original: [H, W, C];  drawn: [H, W, C] in the original's levels
    """
    hole = alpha > 0
    drawn = (drawn + harmonic(original - drawn, hole)).clip(0, np.iinfo(original.dtype).max)
    share = alpha[hole][:, None]
    mixed = share * drawn[hole] + (1 - share) * original[hole]
    result = original.copy()
    result[hole] = mixed.round().astype(original.dtype)
    return result


def window(hole: Mask, size: int) -> Box:
    """The part to draw: the hole and half a `size` around; at least `size`, at most the image."""
    spans = []
    for axis in (0, 1):
        seen, side = np.flatnonzero(hole.any(axis=1 - axis)), hole.shape[axis]
        length = min(side, max(size, int(seen[-1] - seen[0]) + 1 + size // 2))
        start = (int(seen[0] + seen[-1]) + 1 - length) // 2
        spans.append((min(max(start, 0), side - length), length))
    (top, height), (left, width) = spans
    return Box(top, left, height, width)
