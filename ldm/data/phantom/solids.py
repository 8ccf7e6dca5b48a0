"""Convex solids in 3D: ellipsoids, cones' pieces and chains of them, turned and stacked."""

from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

import numpy as np

from ldm.data.phantom.detector import Floats

AXES = np.eye(3)
Point = Floats | Sequence[float]  # [3]


class Solid(NamedTuple):
    """Points p with p'Ap + 2 b'p + c <= 0 and low <= n'p <= high: a quadric between two planes.

    Lengths in cm.
    hull, spread: the solid lies in the convex hull of points [k, 3] and an ellipsoid about each,
    whose axes are the columns of `spread` [3, 3]
    """

    quadric: Floats  # A [3, 3], symmetric
    linear: Floats  # b [3]
    constant: float  # c
    hull: Floats
    spread: Floats
    normal: Floats
    low: float = -np.inf
    high: float = np.inf

    def moved(self, turn: Floats, shift: Floats) -> "Solid":
        """The solid of the points turn p + shift; turn: [3, 3] orthogonal, a mirror too."""
        return move([self], turn, shift)[0]

    def cut(self, normal: Point, low: float = -np.inf, high: float = np.inf) -> "Solid":
        """The part with low <= n'p <= high, in place of an earlier cut."""
        return self._replace(normal=np.asarray(normal, float), low=low, high=high)


def ellipsoid(centre: Point, half: Point, turn: Floats = AXES) -> Solid:
    """|turn' (p - centre) / half| <= 1; turn: [3, 3], its columns are the three axes."""
    at, long = np.asarray(centre, float), np.asarray(half, float)
    spread = turn * long
    a = (turn * long**-2.0) @ turn.T
    b = a @ at
    return Solid(a, -b, float(at @ b) - 1, at[None], spread, AXES[0])


def ball(centre: Point, radius: float) -> Solid:
    return ellipsoid(centre, (radius, radius, radius))


def frustum(
    p: Point, q: Point, start: float, end: float, flat: float = 1.0, front: Point = (0, 0, 1)
) -> Solid:
    """A cone's piece from p to q with radii `start` and `end` and flat ends.

    flat: its depth along `front` (a direction across the axis) over its width
    """
    return _frustums(np.array([p, q], float), np.array([start, end], float), flat, front)[0]


def _frustums(curve: Floats, radius: Floats, flat: float, front: Point) -> list[Solid]:
    """Those between successive points [n, 3] with a radius [n] at each."""
    first, step = curve[:-1], np.diff(curve, axis=0)
    length = np.sqrt((step**2).sum(1))
    u = step / length[:, None]
    w = _across(u, front)
    start, slope = radius[:-1], np.diff(radius) / length
    # |x - p|^2 across the axis, shrunk along w, minus (start + slope s)^2, s = u'(x - p)
    along, deep = u[:, :, None] * u[:, None], w[:, :, None] * w[:, None]
    a = AXES - (1 + slope**2)[:, None, None] * along + (flat**-2.0 - 1) * deep
    low = (u * first).sum(1)
    b = -(a @ first[:, :, None])[..., 0] - (start * slope)[:, None] * u
    c = -((b + (start * slope)[:, None] * u) * first).sum(1) + 2 * start * slope * low - start**2
    reach = np.maximum(start, radius[1:]) * max(1.0, flat)
    return [
        Solid(a[i], b[i], c[i], curve[i : i + 2], AXES * reach[i], u[i], low[i], low[i] + length[i])
        for i in range(len(u))
    ]


def _across(u: Floats, front: Point) -> Floats:
    """Unit vectors across unit vectors u [n, 3], as near as can be to `front`."""
    w = np.asarray(front, float) - u * (u @ np.asarray(front, float))[:, None]
    size = np.sqrt((w**2).sum(1))
    for i in np.flatnonzero(size < 1e-6):  # any will do
        w[i] = np.cross(u[i], AXES[int(np.argmin(np.abs(u[i])))])
        size[i] = np.linalg.norm(w[i])
    return np.asarray(w / size[:, None])


def chain(
    curve: Floats, radius: Floats | float, flat: float = 1.0, front: Point = (0, 0, 1)
) -> list[Solid]:
    """Frustums along the points [n, 3]; where they bend, what fills the wedge between two."""
    r = np.broadcast_to(np.asarray(radius, float), (len(curve),))
    solids = _frustums(np.asarray(curve, float), r, flat, front)
    axes, lengths = np.array([s.normal for s in solids]), [s.high - s.low for s in solids]
    bends = np.arccos(np.clip((axes[:-1] * axes[1:]).sum(1), -1, 1))
    for i in np.flatnonzero(bends > 0.01).tolist():
        u = axes[i] + axes[i + 1]
        u = u / np.sqrt(u @ u)
        w = _across(u[None], front)[0]
        near = 0.9 * min(lengths[i : i + 2])
        radius_here = float(r[i + 1])
        along = min(radius_here * min(1.0, flat, 8 * np.tan(bends[i] / 2)), near)
        half = np.array([radius_here, along, radius_here * flat])
        side = np.array(
            [u[1] * w[2] - u[2] * w[1], u[2] * w[0] - u[0] * w[2], u[0] * w[1] - u[1] * w[0]]
        )
        solids.append(ellipsoid(curve[i + 1], half, np.stack([side, u, w], 1)))
    return solids


class Groups:
    """Groups of solids, stacked so that each view turns all of them together.

    A group is seen as one body: along a ray it covers all from its first to its last solid.
    """

    def __init__(self, groups: Sequence[Sequence[Solid]]) -> None:
        solids = [solid for group in groups for solid in group]
        quadric, linear, constant, hull, spread, normal, low, high = zip(*solids, strict=True)
        n = len(solids)
        self.ends = np.cumsum([len(group) for group in groups])
        self.quadric = np.concatenate(quadric).reshape(n, 3, 3)
        self.linear = np.concatenate(linear).reshape(n, 3)
        self.constant = np.array(constant)
        # a solid whose hull is one point has that twice
        self.hull = np.concatenate([end for h in hull for end in (h[0], h[-1])]).reshape(n, 2, 3)
        self.spread = np.concatenate(spread).reshape(n, 3, 3)
        self.normal = np.concatenate(normal).reshape(n, 3)
        self.planes = np.array([low, high]).T

    def moved(self, turn: Floats, shift: Floats) -> "Groups":
        """The groups of the points turn p + shift; shift: [3], or [n, 3] for each solid its own."""
        made, shift = copy(self), np.broadcast_to(shift, self.linear.shape)
        a, b, n = turn @ self.quadric @ turn.T, self.linear @ turn.T, self.normal @ turn.T
        pushed = (a @ shift[..., None])[..., 0]
        made.quadric, made.linear, made.normal = a, b - pushed, n
        made.constant = self.constant + ((pushed - 2 * b) * shift).sum(1)
        made.hull = self.hull @ turn.T + shift[:, None]
        made.spread = turn @ self.spread
        made.planes = self.planes + (n * shift).sum(1)[:, None]
        return made


def move(solids: Sequence[Solid], turn: Floats, shift: Floats) -> list[Solid]:
    """Each solid moved as `Solid.moved`, all at once."""
    if not solids:
        return []
    m = Groups([solids]).moved(turn, shift)
    return [
        Solid(a, b, c, hull[: len(old.hull)], spread, normal, low, high)
        for old, a, b, c, hull, spread, normal, (low, high) in zip(
            solids, m.quadric, m.linear, m.constant.tolist(), m.hull, m.spread, m.normal,
            m.planes.tolist(), strict=True,
        )
    ]  # fmt: skip
