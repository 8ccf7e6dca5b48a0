"""The detector plane: pixel positions in the body's cm, and matter gathered on it along the rays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from ldm.data.phantom.anatomy import F32, Anatomy, Array

Floats = NDArray[np.floating]


class Canvas:
    """Maps body cm to pixels. The anatomy lives in cm, so any image size shows the same chest."""

    def __init__(self, anatomy: Anatomy, size: int) -> None:
        self.size = size
        self.pixel = anatomy.view_width / anatomy.scale / size  # cm of unscaled body
        self.cos, self.sin = np.cos(anatomy.roll), np.sin(anatomy.roll)
        self.yaw, self.centre = np.tan(anatomy.yaw), anatomy.centre
        at = (np.arange(size) + 0.5 - size / 2) * self.pixel
        u, v = at[None, :].astype(F32), at[:, None].astype(F32)
        self.u, self.v = np.broadcast_to(u, (size, size)), np.broadcast_to(v, (size, size))
        self.x: Array = np.asarray(self.cos * u + self.sin * v + self.centre[0], F32)
        self.y: Array = np.asarray(self.cos * v - self.sin * u + self.centre[1], F32)

    def splat(self, x: Floats, y: Floats, z: Floats | float, mass: Floats | float) -> Array:
        """[H, W] cm of path length from points of matter (mass in cm^3), shared bilinearly."""
        x = (x + self.yaw * z).ravel() - self.centre[0]  # type: ignore[union-attr]
        y = y.ravel() - self.centre[1]
        column = (self.cos * x - self.sin * y) / self.pixel + (self.size - 1) / 2
        row = (self.sin * x + self.cos * y) / self.pixel + (self.size - 1) / 2
        return self.deposit(row, column, np.broadcast_to(mass, x.shape).ravel() / self.pixel**2)

    def deposit(self, row: Floats, column: Floats, amount: Floats) -> Array:
        """[H, W] sums of the amounts, each shared by the four pixels around its point."""
        n = self.size + 2  # a border of one pixel takes what falls outside
        row, column = np.clip(row + 1, 0, n - 1.001), np.clip(column + 1, 0, n - 1.001)
        top, left = row.astype(np.int64), column.astype(np.int64)
        down, right = row - top, column - left
        first = top * n + left
        where = np.concatenate([first, first + 1, first + n, first + n + 1])
        share = np.concatenate(
            [
                amount * (1 - down) * (1 - right),
                amount * (1 - down) * right,
                amount * down * (1 - right),
                amount * down * right,
            ]
        )
        total = np.bincount(where, share, minlength=n * n)[: n * n].reshape(n, n)
        return total[1:-1, 1:-1].astype(F32)

    def edge(self, distance: Array, soft: float = 0.1) -> Array:
        """0 outside .. 1 inside a signed distance in cm, blurred over a pixel at least."""
        width = max(soft, 0.4 * self.pixel)
        return np.asarray(0.5 + 0.5 * np.tanh(distance * F32(0.5 / width)), F32)

    def blur(self, image: Array, cm: float) -> Array:
        """Gaussian blur of that many cm."""
        sigma = cm / self.pixel
        return gaussian_filter(image, sigma, mode="nearest", truncate=3) if sigma > 0.2 else image

    def texture(self, rng: np.random.Generator, cm: float) -> Array:
        """[H, W] smooth noise of unit variance with grains of that size, fixed to the body."""
        step = 0.5 * cm
        cells = int(56 / step)
        grid = gaussian_filter(rng.standard_normal((cells, cells)).astype(F32), 1.0, mode="wrap")
        half = F32((cells - 1) / 2)
        at = [self.y / F32(step) + half, self.x / F32(step) + half]
        noise = map_coordinates(grid, at, order=1, mode="wrap")
        return np.asarray(noise * F32(3.8), F32)  # 1 / std after the blur and the interpolation


def ellipsoid(
    canvas: Canvas, x: float, y: float, a: float, b: float, deep: float, turn: float = 0.0
) -> Array:
    """Path length through an ellipsoid with half axes a, b in the picture, `deep` cm thick."""
    dx, dy = canvas.x - F32(x), canvas.y - F32(y)
    c, s = F32(np.cos(turn)), F32(np.sin(turn))
    r = ((c * dx + s * dy) / F32(a)) ** 2 + ((c * dy - s * dx) / F32(b)) ** 2
    return np.asarray(F32(deep) * np.sqrt(np.clip(1 - r, 0, None)), F32)


def capsule(
    canvas: Canvas, p: tuple[float, float], q: tuple[float, float], radius: float, taper: float = 1
) -> Array:
    """Path length through a round rod from p to q; `taper` is the radius at q over that at p."""
    dx, dy = F32(q[0] - p[0]), F32(q[1] - p[1])
    x, y = canvas.x - F32(p[0]), canvas.y - F32(p[1])
    along = np.clip((x * dx + y * dy) / (dx * dx + dy * dy), 0, 1)
    reach = F32(radius) * (1 + F32(taper - 1) * along)
    distance2 = (x - along * dx) ** 2 + (y - along * dy) ** 2
    return np.asarray(2 * np.sqrt(np.clip(reach**2 - distance2, 0, None)), F32)
