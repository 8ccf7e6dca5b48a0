"""The chest in 3D: the solid whose ray sums along z are those of `Cavity`, and what lies in it."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ldm.data.phantom import lesions
from ldm.data.phantom.body import F32, Array, Cavity, Mask
from ldm.data.phantom.detector import Floats, Plane
from ldm.data.phantom.findings import Finding, Rng, stream
from ldm.data.phantom.person import SIDES, Person, about
from ldm.data.phantom.scene import Cloud, Field, Part
from ldm.data.phantom.solids import chain, ellipsoid
from ldm.data.phantom.vessels import WIDTHS, mediastinum, tree_depths, trees

STEP = 0.25  # cm between the columns along z of which the chest is made
# places and sizes in the chest's units, chosen by eye
SHAPES: dict[str, Any] = json.loads((Path(__file__).parent / "organs.json").read_text())
Span = tuple[Array, Array]  # z of the back and of the front end of each column
Filled = tuple[Sequence[Span], Mask, Array | float]  # spans, of which columns, by which share


class Thorax:
    """Columns along z at x, y [H, W], all in the chest's own units: from z to z.

    From back to front: lung behind (`rear`), mediastinum or diaphragm, lung before it (`fore`).
    """

    def __init__(self, person: Person) -> None:
        self.person, a = person, person.anatomy
        x, y = np.arange(-16.5, 16.6, STEP), np.arange(a.apex - 0.5, 22, STEP)
        self.x, self.y = (grid.astype(F32) for grid in np.meshgrid(x, y))
        middle = self.x - F32(a.scoliosis) * np.sin(self.y / F32(9))
        self.right, self.beside = middle < 0, np.abs(middle)
        full, air = Cavity(a).path(self.beside, self.y, self.right, STEP)
        front, back, hila, heart = mediastinum(self.x, self.y, a, stream(person.seed, 9))
        self.air = np.maximum(air - (front + back + hila[0] + hila[1]), 0)
        # the same ray sums wherever the air lies along the ray: most of it behind the heart, and in
        # the recess behind the diaphragm; above the heart a good part behind the sternum
        share = np.interp(y, [-9, -2, 3, 8], [0.4, 0.45, 0.12, 0.15]).astype(F32)[:, None]
        # the lungs' tips lie behind the middle
        at = np.interp(y, [a.apex, -2], [-2.2, 0]).astype(F32)[:, None]
        self.back, self.front = at - full / 2, at + full / 2
        rear = self.back + np.minimum(back, full - self.air)
        self.rear = rear, rear + (1 - share) * self.air
        self.fore = self.front - share * self.air, self.front
        # behind the heart lie fat, oesophagus and aorta
        wide = np.minimum(0.52 * front, self.fore[0] - self.rear[1]) * (heart > 0)
        self.heart = self.fore[0] - np.maximum(wide, 0), self.fore[0]

    def on(self, side: str) -> Mask:
        return self.right == (side == "right")

    def lung(self, low: Array | float = -np.inf, high: Array | float = np.inf) -> list[Span]:
        """The spans of lung between two depths."""
        return [(np.maximum(z, low), np.minimum(end, high)) for z, end in (self.rear, self.fore)]

    def field(self, spans: Sequence[Span], where: Mask, share: Array | float = 1.0) -> Field:
        """The shape of the spans [low, high] of those columns, by that share."""
        size = self.person.scale
        low, high = np.stack(spans, 1)  # [n, H, W] each
        ends = np.stack([low, np.where(where, np.maximum(high, low), low)], 1)
        seen = np.any(ends[:, 1] > ends[:, 0], axis=0)
        if not seen.any():
            seen = ~seen
        x, y = self.x[seen], self.y[seen]
        start = np.array([x.min(), y.min(), low[:, seen].min()]) * size
        end = np.array([x.max(), y.max(), high[:, seen].max()]) * size
        # two columns more on each side: beyond them nothing rises or falls
        row, column = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        first = np.maximum([column[0] - 2, row[0] - 2], 0)
        crop = slice(first[1], row[-1] + 3), slice(first[0], column[-1] + 3)
        ends = ends.reshape(-1, *self.x.shape)[:, crop[0], crop[1]] * F32(size[2])
        down, right = np.gradient(ends, F32(STEP * size[1]), F32(STEP * size[0]), axis=(1, 2))
        tilts = (1 / np.sqrt(1 + down**2 + right**2)).astype(F32)
        tilts[1::2] *= -1  # what lies in front of a span's end is not in it
        ends = (ends * tilts).astype(F32)
        rows, columns = ends.shape[1:]
        shares = np.broadcast_to(F32(share), self.x.shape)[crop].ravel()
        pace = (1 / (STEP * size[:2])).astype(F32)
        origin = (0.5 - np.array([self.x[0, 0], self.y[0, 0]]) / STEP - first).astype(F32)

        def inside(points: Floats, soft: float) -> Array:
            column = (points[..., 0] * pace[0] + origin[0]).clip(0, F32(columns - 1))
            row = (points[..., 1] * pace[1] + origin[1]).clip(0, F32(rows - 1))
            index = row.astype(np.intp) * columns + column.astype(np.intp)
            z, half = np.ascontiguousarray(points[..., 2], F32), F32(0.5 * soft)
            total = np.zeros(index.shape, F32)
            for tilt, plane in zip(tilts, ends, strict=True):
                beyond = z * tilt.take(index, mode="wrap")  # how far in front of it, at most half
                beyond -= plane.take(index, mode="wrap")
                total += beyond.clip(-half, half, out=beyond)
            return np.asarray(np.maximum(total, 0) * shares.take(index) * F32(1 / soft), F32)

        return Field(inside, (start + end) / 2, (end - start) / 2 + 0.5)


def chest_organs(person: Person) -> list[Part]:
    """Mediastinum, heart, great vessels, airways, lungs with their vessels, and findings."""
    chest, a = Thorax(person), person.anatomy
    everywhere = np.ones_like(chest.right)
    between = (chest.y < 0.5 * sum(a.dome) + 1) & (chest.beside < 8)
    parts = [
        Part("", "fat", other=chest.field([(chest.rear[1], chest.fore[0])], between)),
        Part("heart", "blood", within="fat", other=chest.field([chest.heart], everywhere)),
    ]
    parts += _tubes(person)
    for side in SIDES:
        shape = chest.field(chest.lung(), chest.on(side))
        parts.append(Part(f"{side} lung", "lung", other=shape))
    parts += _lung_vessels(chest)
    for found in person.phantom.findings:
        rng = stream(person.seed, 50 + len(found.name))  # as `lesions.apply`
        if found.name == "nodule":
            parts += _nodules(chest, found, rng)
        elif found.name in FILLED:
            material, shapes = FILLED[found.name]
            for filled in shapes(chest, found, rng):
                parts.append(Part(found.name, material, within="lung", other=chest.field(*filled)))
    return parts


def _tubes(person: Person) -> list[Part]:
    """Aorta and great veins (blood), trachea, main bronchi (air); one group for each."""
    a, size = person.anatomy, person.scale

    def behind(y: Floats | float) -> Floats:
        """z of the spine."""
        levels = np.interp(y, [a.apex, -a.apex + 7], [7, 19])
        return np.asarray(person.spine(levels)[..., 2] / size[2])

    aorta = np.array(SHAPES["aorta"])
    aorta[4:, 2] += behind(aorta[4:, 1])
    aorta[5:7, 0] += 0.9 * a.unfold
    aorta[:, 3] *= a.arch * 0.85
    tubes = [aorta[i:j] for i, j in ((0, 2), (1, 3), (2, 4), (3, 5), (4, 8))]
    tubes += [np.array(vein) for vein in SHAPES["veins"]]
    air = np.array(SHAPES["airways"])  # from the neck to the carina, from there to both sides
    air[0, 0, :3] += person.spine(4) / size
    air[[0, 1, 1, 2, 2], [1, 0, 1, 0, 1], 2] += behind(-3.6)
    return [
        Part("", material, (tuple(chain(t[:, :3] * size, t[:, 3] * size[0])),), "fat")
        for material, group in (("blood", tubes), ("air", air))
        for t in group
    ]


def _lung_vessels(chest: Thorax) -> list[Part]:
    """The trees of the film, x, y and calibre alike, with depths from a stream of their own."""
    person = chest.person
    x, y, radius, mass = trees(person.anatomy, stream(person.seed, 3))
    column = np.rint((x - chest.x[0, 0]) / STEP).astype(int).clip(0, chest.x.shape[1] - 1)
    row = np.rint((y - chest.y[0, 0]) / STEP).astype(int).clip(0, chest.x.shape[0] - 1)
    z = -1.5 + tree_depths(stream(person.seed, 130))
    inside, off = [], []
    for low, high in ((low[row, column], high[row, column]) for low, high in chest.lung()):
        room = np.minimum(0.25, (high - low) / 2)
        inside.append(np.clip(z, low + room, high - room))
        off.append(np.abs(inside[-1] - z) - room)
    z = np.where(off[0] < off[1], *inside)
    # 2.3 and 6 as on the film: thinner than life, and less of them where the lung is thin
    volume = 2.3 * mass * np.clip(chest.air[row, column] / 6, 0, 1) * person.scale.prod()
    points, kind = np.stack([x, y, z], 1) * person.scale, np.digitize(radius, [0.1, 0.22])
    return [
        Part("", "blood", within="lung", other=Cloud(points[at], volume[at], width))
        for i, width in enumerate(WIDTHS)
        for at in [(kind == i) & (volume > 1e-5)]
    ]


def _nodules(chest: Thorax, found: Finding, rng: Rng) -> list[Part]:
    """The film's balls, as deep as they are wide, in the middle of the lung behind the heart."""
    parts, size = [], chest.person.scale
    for x, y, radius, long, turn in lesions.nodules(found, rng):
        row, column = int((y - chest.y[0, 0]) / STEP), int((x - chest.x[0, 0]) / STEP)
        at = np.array([x, y, 0.5 * (chest.rear[0] + chest.rear[1])[row, column]]) * size
        half = np.array([radius * long, radius / long, radius]) * size[0]
        ball = ellipsoid(at, half, about(2, np.rad2deg(turn)))
        parts.append(Part("nodule", "tumour", ((ball,),), "lung"))
    return parts


def _effusion(chest: Thorax, found: Finding, rng: Rng) -> Iterator[Filled]:
    """Fluid below a level that climbs at the walls; lying, the rearmost part of the cavity."""
    a = chest.person.anatomy
    for side in SIDES[::-1]:
        if found.side not in (side, "bilateral"):
            continue
        size, level, rise, reach = lesions.meniscus(a, found, side, rng)
        if chest.person.phantom.modality != "xray":  # on the back
            top = np.full_like(chest.y, chest.back[chest.on(side)].min() + 1.5 + 6.0 * size)
        else:
            wall = np.maximum(Cavity(a).lateral(chest.y) - chest.beside, 0)
            near = rise * np.exp(-wall / F32(reach)) + 0.45 * rise * np.exp(-chest.beside / 3.5)
            over = level - near - chest.y  # cm above the fluid
            behind = chest.back + reach * np.log(np.maximum(rise / np.maximum(over, 0.01), 1))
            top = np.where(over > 0, behind, chest.front)
        yield chest.lung(high=top), chest.on(side), 1.0
        Plane(1, 1.0).texture(rng, 2.5)  # the film's next side follows these
        rng.uniform(0 if found.kind == "layering" else 1)


def _pneumothorax(chest: Thorax, found: Finding, rng: Rng) -> Iterator[Filled]:
    """Air between the chest's wall and the lung that has fallen back from it."""
    inner = Cavity(chest.person.anatomy, shrink=1.3 + 4.0 * found.size)
    half = inner.path(chest.beside, chest.y, chest.right)[0] / 2
    at = 0.5 * (chest.back + chest.front)
    yield chest.lung(high=at - half) + chest.lung(low=at + half), chest.on(found.side), 1.0


def _consolidation(chest: Thorax, found: Finding, rng: Rng) -> Iterator[Filled]:
    """The film's patches as ragged balls within the lung."""
    for cm in (2.2, 0.9):  # the film's textures come first from the stream
        Plane(1, 1.0).texture(rng, cm)
    own = stream(chest.person.seed, 131)
    for x, y, radius in lesions.patches(found, rng):
        rough = own.normal(0, 1, (2, *chest.x.shape))
        rough = np.stack([Plane(1, 1).blur(part, 4) for part in rough])
        rough *= 0.35 / rough.std()
        dx, dy = (chest.x - x) / radius, (chest.y - y) / (0.85 * radius)
        half = radius * np.sqrt(np.maximum(1 - dx**2 - dy**2 + rough, 0))
        at = own.uniform(-0.5, 0.3) * radius + 0.5 * (chest.back + chest.front)
        spans = chest.lung(at - half[0], at + half[1])
        yield spans, chest.on(found.side), 0.55 + 0.35 * found.size


def _edema(chest: Thorax, found: Finding, rng: Rng) -> Iterator[Filled]:
    haze = lesions.hilar_haze(chest.x, chest.y, chest.person.anatomy) + F32(0.12)
    share = np.clip((0.1 + 0.25 * found.size) * haze, 0, 0.85)
    yield chest.lung(), np.ones_like(chest.right), share


# the material that takes the place of lung, and where
FILLED: dict[str, tuple[str, Callable[[Thorax, Finding, Rng], Iterator[Filled]]]] = {
    "pneumothorax": ("air", _pneumothorax),
    "edema": ("water", _edema),
    "consolidation": ("water", _consolidation),
    "pleural effusion": ("water", _effusion),
}
