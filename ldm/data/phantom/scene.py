"""A scene: body parts in the order in which each takes the place of what is there already."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ldm.data.phantom.body import F32, Array
from ldm.data.phantom.detector import Floats
from ldm.data.phantom.materials import MATERIALS
from ldm.data.phantom.rays import Box, Interval, View
from ldm.data.phantom.solids import AXES, Groups, Point, Solid, ellipsoid, move

PLANES, PLANE_STEP = 16, 0.6  # at least so many along a ray look up a field, at most so far apart


@dataclass(frozen=True)
class Field:
    """A shape given by a function of points [..., 3]: the share of it there, in [0, 1].

    The function is told, too, over how many cm an edge may rise from 0 to 1: sums over planes
    that lie so far apart then show no contour lines.
    """

    share: Callable[[Floats, float], Array]
    middle: Floats  # [3] of a box that holds the shape
    reach: Floats  # [3] half its sides

    def volume(self) -> float:
        """cm^3, by 64^3 points of the box."""
        at = [
            m + r * (2 * (np.arange(64) + 0.5) / 64 - 1)
            for m, r in zip(self.middle, self.reach, strict=True)
        ]
        points = np.stack(np.meshgrid(*at, indexing="ij"), -1).astype(F32)
        mean = float(self.share(points, float(self.reach.max()) / 32).mean())
        return mean * 8 * float(np.prod(self.reach))


@dataclass(frozen=True)
class Cloud:
    """Points [n, 3] that each hold so many cm^3 [n]; drawn as Gaussians of `blur` cm."""

    points: Floats
    volume: Floats
    blur: float


@dataclass(frozen=True)
class Part:
    """One shape of one material.

    groups: its solids; each group is filled from its first to its last along a ray
    within: the material that it takes the place of
    clip: if given, only what lies in these solids, too
    """

    name: str  # of its mask and in counts: "left femur"; "" has none
    material: str
    groups: tuple[tuple[Solid, ...], ...] = ()
    within: str = "muscle"
    clip: tuple[Solid, ...] = ()
    other: Field | Cloud | None = None  # in place of solids

    def __post_init__(self) -> None:
        for name in (self.material, self.within):
            if name not in MATERIALS:
                raise ValueError(f"no such material: {name!r}; there are {', '.join(MATERIALS)}")

    @property
    def is_bone(self) -> bool:
        return bool(self.name) and self.material == "compact bone"

    def moved(self, turn: Floats, shift: Floats) -> "Part":
        """The part after a rotation (or mirror) and a shift; of solids alone."""
        return move_parts([self], turn, shift)[0]


def move_parts(parts: Sequence[Part], turn: Floats, shift: Floats) -> list[Part]:
    """Each part moved as `Part.moved`, all at once."""
    groups = [group for part in parts for group in (*part.groups, part.clip)]
    solids = iter(move([solid for group in groups for solid in group], turn, shift))

    def next_of(group: tuple[Solid, ...]) -> tuple[Solid, ...]:
        return tuple(next(solids) for _ in group)

    return [
        Part(p.name, p.material, tuple(map(next_of, p.groups)), p.within, next_of(p.clip))
        for p in parts
    ]


@dataclass
class Bone:
    """A bone under construction: solids of compact bone, and of spongy bone inside them."""

    name: str
    outer: list[Solid] = field(default_factory=list)
    inner: list[Solid] = field(default_factory=list)

    def end(
        self,
        centre: Point,
        half: Point | float,
        turn: Floats = AXES,
        cortex: float = 0.1,
    ) -> "Bone":
        """An ellipsoid, as the ends of long bones and as short bones are."""
        long = np.broadcast_to(np.asarray(half, float), (3,))
        self.outer.append(ellipsoid(centre, long, turn))
        self.inner.append(ellipsoid(centre, np.maximum(long - cortex, 0.3 * long), turn))
        return self


def flesh(solids: Sequence[Sequence[Solid]], lean: Sequence[Sequence[Solid]]) -> list[Part]:
    """Skin and fat up to the first solids, muscle inside the second; one group a limb."""
    return [
        Part("", "fat", tuple(map(tuple, solids)), "air"),
        Part("", "muscle", tuple(map(tuple, lean)), "fat"),
    ]


class Scene:
    """Parts stacked once, to be looked at from many sides."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)
        groups: list[tuple[Solid, ...]] = []
        self.places = []  # of each part: the numbers of its groups, and of its clip
        for part in self.parts:
            first = len(groups)
            groups += [*part.groups, *([part.clip] if part.clip else [])]
            own = list(range(first, first + len(part.groups)))
            self.places.append((own, len(groups) - 1 if part.clip else None))
        self.groups = Groups(groups) if groups else None

    def middles(self, names: Iterable[str]) -> list[Floats]:
        """[3] the middle of each part of one of these names."""
        wanted = set(names)
        return [
            part.other.middle if isinstance(part.other, Field) else part.groups[0][0].hull.mean(0)
            for part in self.parts
            if part.name in wanted and (part.groups or isinstance(part.other, Field))
        ]

    def amounts(self, view: View, thickness: float | None = None) -> list[tuple[Part, Box, Array]]:
        """Each visible part, the box of pixels around it and how much of it is in each.

        That is cm along the ray, or the share of a slice of `thickness` cm at depth 0.
        """
        slab = np.inf if thickness is None else thickness
        intervals = view.intervals(self.groups, slab) if self.groups else []
        found = []
        for part, (own, clip) in zip(self.parts, self.places, strict=True):
            if isinstance(part.other, Field):
                seen = _field(view, part.other, thickness)
            elif isinstance(part.other, Cloud):
                seen = _cloud(view, part.other, thickness)
            else:
                limit = intervals[clip] if clip is not None else None
                if clip is not None and limit is None:
                    continue
                seen = _solids(view, [intervals[i] for i in own], limit, thickness)
            if seen is not None:
                found.append((part, *seen))
        return found


def _solids(
    view: View,
    groups: Sequence[Interval | None],
    limit: Interval | None,
    thickness: float | None,
) -> tuple[Box, Array] | None:
    """Length of the union of intervals: their sum less what two of them share."""
    seen = [group for group in groups if group is not None]
    if not seen:
        return None
    if len(seen) == 1 and limit is None and thickness is None:
        box, front, back = seen[0]
        return box, np.maximum(back - front, 0)
    rows = slice(min(b[0].start for b, _, _ in seen), max(b[0].stop for b, _, _ in seen))
    columns = slice(min(b[1].start for b, _, _ in seen), max(b[1].stop for b, _, _ in seen))
    box = rows, columns
    layers = [_placed(view, box, group) for group in seen]
    cuts = [] if limit is None else [_placed(view, box, limit)]
    half = np.inf if thickness is None else 0.5 * thickness
    for i, (front, back) in enumerate(layers):
        for one, two in cuts:
            front, back = np.maximum(front, one), np.minimum(back, two)
        layers[i] = np.maximum(front, F32(-half)), np.minimum(back, F32(half))
    total = sum(np.maximum(back - front, 0) for front, back in layers)
    for i, (front, back) in enumerate(layers):
        for one, two in layers[:i]:
            total = total - np.maximum(np.minimum(back, two) - np.maximum(front, one), 0)
    if len(layers) > 2:  # where three meet, pairs take too much: at least the longest stays
        longest = np.maximum.reduce([back - front for front, back in layers])
        total = np.maximum(total, longest)
    amount = np.asarray(np.maximum(total, 0), F32)
    return (box, amount if thickness is None else amount / F32(thickness))


def _placed(view: View, box: Box, interval: Interval) -> tuple[Array, Array]:
    """The interval's depths in another box; outside its own nothing is covered."""
    own, front, back = interval
    if own == box:
        return front, back
    one, two = (np.full((view.size, view.size), x, F32) for x in (np.inf, -np.inf))
    one[own], two[own] = front, back
    return one[box], two[box]


def _field(view: View, shape: Field, thickness: float | None) -> tuple[Box, Array] | None:
    """Sums over planes across the rays, from the first that the shape can reach to the last."""
    middle, reach = view.see(shape.middle), np.abs(view.axes) @ shape.reach
    span = np.stack([middle - reach, middle + reach])
    low, high = np.clip(span[:, :2] / view.pixel + view.size / 2, 0, view.size)
    (x0, y0), (x1, y1) = np.floor(low).astype(int), np.ceil(high).astype(int)
    depths = span[:, 2] if thickness is None else np.array([-0.5, 0.5]) * thickness
    if x0 >= x1 or y0 >= y1 or depths[0] > span[1, 2] or depths[1] < span[0, 2]:
        return None
    count = max(PLANES, int((depths[1] - depths[0]) / PLANE_STEP)) if thickness is None else 3
    step = (depths[1] - depths[0]) / count
    # x, y and z each in one piece: twice as fast as points one after the other
    u, v = view.at[x0:x1], view.at[y0:y1, None]
    right, down, away = view.axes[:, :, None, None]
    grid = (view.middle[:, None, None] + u * right + v * down).astype(F32)
    total = np.zeros((y1 - y0, x1 - x0), F32)
    for w in depths[0] + step * (np.arange(count) + 0.5):
        points = np.moveaxis(grid + (w * away).astype(F32), 0, -1)
        total += shape.share(points, max(step, view.pixel))
    scale = step if thickness is None else 1 / count
    return (slice(y0, y1), slice(x0, x1)), total * F32(scale)


def _cloud(view: View, shape: Cloud, thickness: float | None) -> tuple[Box, Array] | None:
    u, v, w = view.see(shape.points).T
    volume = shape.volume
    if thickness is not None:  # each point is as deep as it is wide
        near = np.abs(w) < 0.5 * thickness + 2 * shape.blur
        u, v, w, volume = u[near], v[near], w[near], volume[near]
        volume = volume * np.exp(
            -0.5 * (np.maximum(np.abs(w) - thickness / 2, 0) / shape.blur) ** 2
        )
    if not len(u):
        return None
    n = (view.size - 1) / 2
    amount = view.deposit(v / view.pixel + n, u / view.pixel + n, volume / view.pixel**2)
    amount = view.blur(amount, shape.blur)
    whole = slice(0, view.size)
    return (whole, whole), amount if thickness is None else np.clip(
        amount / F32(thickness + 2 * shape.blur), 0, 1
    )
