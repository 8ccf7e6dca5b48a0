"""Where the parallel rays of a view enter and leave solids.

A picture, a slice and a mask all come from one thing: the interval [front, back] that a body part
covers of each pixel's ray. A radiograph sums its length, a slice of thickness T takes the share of
[-T/2, T/2] that it covers.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ldm.data.phantom.body import F32, Array
from ldm.data.phantom.detector import Floats, Plane
from ldm.data.phantom.solids import AXES, Groups, Point

Box = tuple[slice, slice]
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
        shapes = (high - low)[:, ::-1]
        found, corner = _empty(low, high, seen, starts, self.size)
        inner = np.concatenate([(end - corner[group])[:, ::-1] for end in (low, high)], 1)
        for some in _alike(shapes, seen):
            v, u = (
                (np.arange(n) - 0.5 * (shapes[some, i, None] - 1)).astype(F32) * F32(self.pixel)
                for i, n in enumerate(shapes[some].max(0))
            )
            one, two = _crossings(turned, some, u[:, None], v[:, :, None])
            depth = own[some, 2].astype(F32)[:, None, None]
            for number, first_depth, last_depth, (top, left, bottom, right) in zip(
                group[some].tolist(), one + depth, two + depth, inner[some].tolist(), strict=True
            ):
                _, front, back = found[number]
                front, back = front[top:bottom, left:right], back[top:bottom, left:right]
                own_box = slice(0, bottom - top), slice(0, right - left)
                np.minimum(front, first_depth[own_box], out=front)
                np.maximum(back, last_depth[own_box], out=back)
        return found


def _empty(
    low: NDArray[np.integer],
    high: NDArray[np.integer],
    seen: NDArray[np.bool_],
    starts: NDArray[np.integer],
    size: int,
) -> tuple[list[Interval | None], NDArray[np.integer]]:
    """An empty interval for each group, in the box of its solids, and the box's corner [n, 2].

    All lie in one long array, which is filled at once.
    """
    corner = np.minimum.reduceat(np.where(seen[:, None], low, size), starts)
    far = np.maximum.reduceat(np.where(seen[:, None], high, 0), starts)
    wide, tall = np.maximum(far - corner, 0).T
    ends = np.cumsum(wide * tall)
    fronts, backs = np.full(ends[-1], np.inf, F32), np.full(ends[-1], -np.inf, F32)
    found: list[Interval | None] = []
    for (x, y), w, h, end in zip(
        corner.tolist(), wide.tolist(), tall.tolist(), ends.tolist(), strict=True
    ):
        box, part = (slice(y, y + h), slice(x, x + w)), slice(end - w * h, end)
        whole = box, fronts[part].reshape(h, w), backs[part].reshape(h, w)
        found.append(whole if w and h else None)
    return found, corner


def _alike(shapes: NDArray[np.integer], seen: NDArray[np.bool_]) -> Iterator[NDArray[np.integer]]:
    """Numbers of solids of about one size: many small boxes cost as little as one large one."""
    kinds = np.ceil(np.log2(np.maximum(shapes, 1))).astype(int) @ [32, 1]
    for kind in np.unique(kinds[seen]):
        every = np.flatnonzero(seen & (kinds == kind))
        most = max(1, 40000 // shapes[every].max(0).prod())
        yield from np.split(every, range(most, len(every), most))


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
