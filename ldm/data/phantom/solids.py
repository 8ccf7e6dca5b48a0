"""Convex solids in 3D, and where the rays of a view enter and leave them.

A picture, a slice and a mask all come from one thing: the interval [front, back] that a body part
covers of each pixel's ray. A radiograph sums its length, a slice of thickness T takes the share of
[-T/2, T/2] that it covers.
"""

from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ldm.data.phantom.body import F32, Array
from ldm.data.phantom.detector import Floats, Plane

AXES = np.eye(3)
Point = Floats | Sequence[float]  # [3]
Box = tuple[slice, slice]


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


Interval = tuple[Box, Array, Array]


class View(Plane):
    """Parallel rays through the body: `axes` [3, 3] holds right, down and away as rows.

    middle: the point (cm) at the picture's middle, where depth along the rays is 0
    """

    def __init__(self, middle: Point, axes: Floats, width: float, size: int) -> None:
        super().__init__(size, width / size)
        self.middle, self.axes = np.asarray(middle, float), np.asarray(axes, float)

    def see(self, points: Floats) -> Floats:
        """[..., 3] body cm -> right, down and away from the picture's middle."""
        return (points - self.middle) @ self.axes.T

    def intervals(self, groups: Groups, thickness: float = np.inf) -> list[Interval | None]:
        """For each group the box of pixels it may cover, and there its first and last depth.

        front > back where a ray misses it; None for a group outside the picture or all of whose
        solids end before, or begin behind, a slice of `thickness` cm at depth 0.
        """
        turned = groups.moved(self.axes, -self.axes @ self.middle)
        reach = np.linalg.norm(turned.spread, axis=2)
        first, last = turned.hull.min(1) - reach, turned.hull.max(1) + reach
        low, high = (end[:, :2] / self.pixel + self.size / 2 for end in (first, last))
        low = np.clip(np.floor(low), 0, self.size).astype(int)
        high = np.clip(np.ceil(high), 0, self.size).astype(int)
        sizes = np.diff(groups.ends, prepend=0)
        group, starts = np.repeat(np.arange(len(sizes)), sizes), groups.ends - sizes
        near = np.minimum.reduceat(first[:, 2], starts) < 0.5 * thickness
        near &= np.maximum.reduceat(last[:, 2], starts) > -0.5 * thickness
        seen = (low < high).all(1) & near[group]
        # each solid from the middle of its own box, where float32 is finest
        own = (0.5 * (low + high) - 0.5 * self.size) * self.pixel
        own = np.concatenate([own, turned.hull[..., 2].mean(1, keepdims=True)], 1)
        turned = turned.moved(AXES, -own)
        # the box of each group, and its part of one long array
        corner = np.minimum.reduceat(np.where(seen[:, None], low, self.size), starts)
        far = np.maximum.reduceat(np.where(seen[:, None], high, 0), starts)
        wide, tall = np.maximum(far - corner, 0).T
        ends = np.cumsum(wide * tall)
        fronts, backs = np.full(ends[-1], np.inf, F32), np.full(ends[-1], -np.inf, F32)
        found: list[Interval | None] = [
            (
                (slice(y, y + h), slice(x, x + w)),
                fronts[end - w * h : end].reshape(h, w),
                backs[end - w * h : end].reshape(h, w),
            )
            if w and h
            else None
            for (x, y), w, h, end in zip(
                corner.tolist(), wide.tolist(), tall.tolist(), ends.tolist(), strict=True
            )
        ]
        # solids of about one size together: many small boxes cost as little as one large one
        shapes = (high - low)[:, ::-1]
        kinds = np.ceil(np.log2(np.maximum(shapes, 1))).astype(int) @ [32, 1]
        kinds = np.where(seen, kinds, -1)
        inner = np.concatenate([(end - corner[group])[:, ::-1] for end in (low, high)], 1)
        for kind in set(kinds.tolist()) - {-1}:
            every = np.flatnonzero(kinds == kind)
            most = shapes[every].max(0)
            for some in np.split(every, range(0, len(every), max(1, 40000 // most.prod()))[1:]):
                v, u = (
                    (np.arange(n) - 0.5 * (shapes[some, i, None] - 1)) * self.pixel
                    for i, n in enumerate(most)
                )
                one, two = _crossings(
                    turned, some, u.astype(F32)[:, None], v.astype(F32)[:, :, None]
                )
                depth = own[some, 2].astype(F32)[:, None, None]
                one += depth
                two += depth
                for i, (number, (top, left, bottom, right)) in enumerate(
                    zip(group[some].tolist(), inner[some].tolist(), strict=True)
                ):
                    _, front, back = found[number]
                    front, back = front[top:bottom, left:right], back[top:bottom, left:right]
                    np.minimum(front, one[i, : bottom - top, : right - left], out=front)
                    np.maximum(back, two[i, : bottom - top, : right - left], out=back)
        return found


def _crossings(
    groups: Groups, some: NDArray[np.integer], u: Array, v: Array
) -> tuple[Array, Array]:
    """[n, H, W] depths at which rays (u, v) enter and leave some solids; inf and -inf: they don't.

    a w^2 + 2 h w + k <= 0 of p = (u, v, w);  u: [n, 1, W], v: [n, H, 1]
    """
    q, b, c, normal, planes = (
        x[some].astype(F32)
        for x in (groups.quadric, groups.linear, groups.constant, groups.normal, groups.planes)
    )

    def each(x: Array) -> Array:
        return x[:, None, None]

    a = each(q[:, 2, 2])
    h = (each(q[:, 0, 2]) * u + each(b[:, 2])) + each(q[:, 1, 2]) * v
    k = (each(q[:, 0, 0]) * u + each(2 * b[:, 0])) * u + each(c)
    k = k + (each(q[:, 1, 1]) * v + (each(2 * q[:, 0, 1]) * u + each(2 * b[:, 1]))) * v
    along = np.abs(a) < 1e-7  # rays along a cylinder's axis
    a = np.where(along, F32(1), a)
    # rays that miss the quadric get an empty interval: both roots fall together
    root = np.sqrt(np.maximum(h * h - a * k, 0)) / np.abs(a)
    middle = -h / a
    one, two = middle - root, middle + root
    if along.any():
        one = np.where(along, np.where(k <= 0, F32(-np.inf), F32(np.inf)), one)
        two = np.where(along, np.where(k <= 0, F32(np.inf), F32(-np.inf)), two)
    if np.isfinite(planes).any():
        across = each(normal[:, 0]) * u + each(normal[:, 1]) * v
        beside = np.abs(each(normal[:, 2])) < 1e-6  # planes along the rays
        low, high = each(planes[:, 0]) - across, each(planes[:, 1]) - across
        steep = np.where(beside, F32(1), each(normal[:, 2]))
        front, back = np.minimum(low / steep, high / steep), np.maximum(low / steep, high / steep)
        if beside.any():
            inside = (low <= 0) & (high >= 0)
            front = np.where(beside, np.where(inside, F32(-np.inf), F32(np.inf)), front)
            back = np.where(beside, np.where(inside, F32(np.inf), F32(-np.inf)), back)
        if (a < 0).any():  # a cone met steeper than its side: beyond the roots, on one nappe
            with np.errstate(invalid="ignore"):  # without planes there is no cone
                nappe = 0.5 * (front + back) > middle
            one, two = (
                np.where(a < 0, np.where(nappe, two, F32(-np.inf)), one),
                np.where(a < 0, np.where(nappe, F32(np.inf), one), two),
            )
        one, two = np.maximum(front, one), np.minimum(back, two)
    hit = two > one
    return np.where(hit, one, F32(np.inf)), np.where(hit, two, F32(-np.inf))
