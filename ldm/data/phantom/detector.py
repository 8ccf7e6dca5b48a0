"""The detector plane: pixel positions in the body's cm, and matter gathered along the rays."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ldm.data.phantom.body import F32, Anatomy, Array
from ldm.data.phantom.findings import Rng

Floats = NDArray[np.floating]


class Plane:
    """A square picture whose pixels have a length in cm; at its middle u = v = 0."""

    def __init__(self, size: int, pixel: float, centre: tuple[float, float] = (0.0, 0.0)) -> None:
        self.size, self.pixel, self.centre = size, pixel, centre
        self.at = (np.arange(size) + 0.5 - size / 2) * self.pixel
        u, v = self.at[None, :].astype(F32), self.at[:, None].astype(F32)
        self.u, self.v = np.broadcast_to(u, (size, size)), np.broadcast_to(v, (size, size))

    def deposit(self, row: Floats, column: Floats, amount: Floats) -> Array:
        """[H, W] sums of the amounts, each shared by the four pixels around its point."""
        n = self.size + 2  # a border of one pixel takes what falls outside
        row, column = np.clip(row + 1, 0, n - 1.001), np.clip(column + 1, 0, n - 1.001)
        top, left = row.astype(np.int64), column.astype(np.int64)
        down, right = row - top, column - left
        first = top * n + left
        lower = amount * down
        upper = amount - lower
        total = np.zeros(n * n + n + 2)
        for step, part in ((0, upper), (n, lower)):
            part_right = part * right
            total[step : step + n * n] += np.bincount(first, part - part_right, n * n)
            total[step + 1 : step + 1 + n * n] += np.bincount(first, part_right, n * n)
        return total[: n * n].reshape(n, n)[1:-1, 1:-1].astype(F32)

    def edge(self, distance: Floats, soft: float = 0.1) -> Array:
        """0 outside .. 1 inside a signed distance in cm, blurred over a pixel at least."""
        width = max(soft, 0.4 * self.pixel)
        return np.asarray(0.5 + 0.5 * np.tanh(distance * F32(0.5 / width)), F32)

    def blur(self, image: Array, cm: float) -> Array:
        """Gaussian blur of that many cm."""
        sigma = cm / self.pixel
        return gaussian_filter(image, sigma, mode="nearest", truncate=3) if sigma > 0.2 else image

    def texture(self, rng: Rng, cm: float) -> Array:
        """[H, W] smooth noise of unit variance with grains of that size, fixed to the body."""
        cells = int(60 / cm)
        knots = (np.arange(cells) - cells / 2) * cm
        columns, rows = (_bumps(self.at + shift, knots, cm) for shift in self.centre)
        grid = torch.from_numpy(rng.standard_normal((cells, cells)).astype(F32))
        # torch multiplies here because its threads are the caller's to set; numpy's are not
        return (rows @ grid @ columns.T).numpy()


class Canvas(Plane):
    """Maps body cm to pixels. The anatomy lives in cm, so any image size shows the same chest."""

    def __init__(self, anatomy: Anatomy, size: int) -> None:
        # cm of unscaled body
        super().__init__(size, anatomy.view_width / anatomy.scale / size, anatomy.centre)
        self.cos, self.sin = np.cos(anatomy.roll), np.sin(anatomy.roll)
        self.yaw, self.tall = np.tan(anatomy.yaw), anatomy.tall
        u, v = self.u[:1], self.v[:, :1]
        self.x: Array = np.asarray(self.cos * u + self.sin * v + self.centre[0], F32)
        self.y: Array = np.asarray((self.cos * v - self.sin * u) / self.tall + self.centre[1], F32)

    def splat(self, x: Floats, y: Floats, z: Floats | float, mass: Floats | float) -> Array:
        """[H, W] cm of path length from points of matter (mass in cm^3), shared bilinearly."""
        row, column = self.place((x + self.yaw * z).ravel(), y.ravel())
        mass = np.broadcast_to(mass * self.tall / self.pixel**2, row.shape)
        return self.deposit(row, column, mass)

    def place(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Row and column of points of the body: [n] pixels, whole at a pixel's centre."""
        x, y = x - self.centre[0], (y - self.centre[1]) * self.tall
        column = (self.cos * x - self.sin * y) / self.pixel + (self.size - 1) / 2
        row = (self.sin * x + self.cos * y) / self.pixel + (self.size - 1) / 2
        return row, column


def _bumps(at: Floats, knots: Floats, width: float) -> Tensor:
    """[H, knots] Gaussian weights; rows of unit length, so that noise keeps its variance."""
    weight = np.exp(-0.5 * ((at[:, None] - knots) / (0.6 * width)) ** 2)
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)
    return torch.from_numpy(weight.astype(F32))


def spline(points: Floats, count: int) -> Floats:
    """[..., count, d] points on the smooth curves through points [..., n, d]."""
    return _spline_basis(np.shape(points)[-2], count) @ points


@lru_cache(maxsize=64)
def _spline_basis(n: int, count: int) -> Floats:
    t, knots = np.linspace(0, 1, count), np.linspace(0, 1, n)
    if n < 3:
        return np.stack([1 - t, t], 1)
    return np.asarray(CubicSpline(knots, np.eye(n), bc_type="natural")(t))


def ellipsoid(
    x: Array, y: Array, x0: float, y0: float, a: float, b: float, deep: float, turn: float = 0.0
) -> Array:
    """Path length along rays at x, y through an ellipsoid about x0, y0: half axes a, b in the
    picture, `deep` cm thick.
    """
    dx, dy = x - F32(x0), y - F32(y0)
    c, s = F32(np.cos(turn)), F32(np.sin(turn))
    r = ((c * dx + s * dy) / F32(a)) ** 2 + ((c * dy - s * dx) / F32(b)) ** 2
    return np.asarray(F32(deep) * np.sqrt(np.maximum(1 - r, 0)), F32)


def capsule(
    canvas: Canvas, p: tuple[float, float], q: tuple[float, float], radius: float, taper: float = 1
) -> Array:
    """Path length through a round rod from p to q; `taper` is the radius at q over that at p."""
    total, ends = np.zeros_like(canvas.x), canvas.place(*np.array([p, q]).T)
    far = radius * max(1, taper) * max(1, canvas.tall) / canvas.pixel + 1
    # the box of pixels that the rod may cover
    box = tuple(slice(max(int(min(at) - far), 0), max(int(max(at) + far) + 2, 0)) for at in ends)
    dx, dy = F32(q[0] - p[0]), F32(q[1] - p[1])
    x, y = canvas.x[box] - F32(p[0]), canvas.y[box] - F32(p[1])
    along = np.clip((x * dx + y * dy) / (dx * dx + dy * dy), 0, 1)
    reach = F32(radius) * (1 + F32(taper - 1) * along)
    distance2 = (x - along * dx) ** 2 + (y - along * dy) ** 2
    total[box] = 2 * np.sqrt(np.maximum(reach**2 - distance2, 0))
    return total
