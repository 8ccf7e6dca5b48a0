"""The chest in 3D: the solid whose ray sums along z are those of `Cavity`, and what lies in it."""

from collections.abc import Sequence

import numpy as np

from ldm.data.phantom import lesions
from ldm.data.phantom.body import F32, Anatomy, Array, Cavity, Mask
from ldm.data.phantom.detector import Floats, Plane
from ldm.data.phantom.findings import Rng, stream
from ldm.data.phantom.person import Person
from ldm.data.phantom.scene import Cloud, Field, Part
from ldm.data.phantom.solids import Solid, chain, ellipsoid
from ldm.data.phantom.vessels import WIDTHS, mediastinum, tree_depths, trees

STEP = 0.25  # cm between the columns along z of which the chest is made
Span = tuple[Array, Array]  # z of the back and of the front end of each column


class Chest:
    """Columns along z at x, y [H, W], all in the chest's own units: from z to z.

    From back to front: lung behind (`rear`), mediastinum or diaphragm, lung before it (`fore`).
    """

    def __init__(self, person: Person) -> None:
        self.person, a = person, person.anatomy
        x, y = np.arange(-16.5, 16.6, STEP), np.arange(a.apex - 0.5, 22, STEP)
        self.x, self.y = (grid.astype(F32) for grid in np.meshgrid(x, y))
        middle = self.x - F32(a.scoliosis) * np.sin(self.y / F32(9))
        self.right = middle < 0
        self.beside = np.abs(middle)
        full, air = Cavity(a).path(self.beside, self.y, self.right, STEP)
        front, back, hila, heart = mediastinum(self.x, self.y, a, stream(person.seed, 9))
        self.air = np.clip(air - (front + back + hila[0] + hila[1]), 0, None)
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
        self.heart = self.fore[0] - np.clip(wide, 0, None), self.fore[0]

    def field(self, spans: Sequence[Span], where: Mask, share: Array | float = 1.0) -> Field:
        """The shape of the spans [low, high] of those columns, by that share."""
        size, (rows, columns) = self.person.scale, self.x.shape
        planes: list[Array] = []
        tilts: list[Array] = []
        for low, high in spans:
            for z in (low, np.where(where, np.maximum(high, low), low)):
                z = z * F32(size[2])
                down, right = np.gradient(z, F32(STEP * size[1]), F32(STEP * size[0]))
                tilts.append(1 / np.sqrt(1 + down**2 + right**2))
                planes.append(z * tilts[-1])
        table = np.stack([*tilts, *planes, np.broadcast_to(F32(share), self.x.shape)])
        table = table.reshape(-1, rows * columns).astype(F32)
        step, count = STEP * size[:2], len(planes)
        origin = np.array([self.x[0, 0], self.y[0, 0]]) * size[:2]

        def inside(points: Floats, soft: float) -> Array:
            column = (points[..., 0] * F32(1 / step[0]) + F32(0.5 - origin[0] / step[0])).clip(0)
            row = (points[..., 1] * F32(1 / step[1]) + F32(0.5 - origin[1] / step[1])).clip(0)
            index = np.minimum(row.astype(np.int32), rows - 1) * columns
            index += np.minimum(column.astype(np.int32), columns - 1)
            z = points[..., 2]
            total = np.zeros(index.shape, F32)
            for i in range(count):  # how far beyond each end: in front of the first, the last, ...
                beyond = z * table[i].take(index)
                beyond -= table[count + i].take(index)
                beyond *= F32(1 / soft)
                np.clip(beyond, F32(-0.5), F32(0.5), out=beyond)
                total += beyond if i % 2 == 0 else -beyond
            return np.asarray(np.maximum(total, 0) * table[-1].take(index), F32)

        seen = where & np.any([high > low for low, high in spans], axis=0)
        at = np.stack([self.x[seen], self.y[seen]], 1)
        box = np.zeros((2, 3))
        if seen.any():
            box[0] = *at.min(0), np.min([low[seen] for low, _ in spans])
            box[1] = *at.max(0), np.max([high[seen] for _, high in spans])
        box = box * size
        return Field(inside, box.mean(0), (box[1] - box[0]) / 2 + 0.5)


def chest_organs(person: Person) -> list[Part]:
    """Mediastinum, heart, great vessels, airways, lungs with their vessels, and findings."""
    chest, a = Chest(person), person.anatomy
    everywhere = np.ones_like(chest.right)
    gap = (chest.rear[1], chest.fore[0])
    between = (chest.y < 0.5 * sum(a.dome) + 1) & (chest.beside < 8)
    parts = [
        Part("", "fat", other=chest.field([gap], between)),
        Part("heart", "blood", within="fat", other=chest.field([chest.heart], everywhere)),
    ]
    parts += _tubes(person)
    for side, on in (("left", ~chest.right), ("right", chest.right)):
        parts.append(Part(f"{side} lung", "lung", other=chest.field([chest.rear, chest.fore], on)))
    parts += _lung_vessels(chest)
    for found in person.phantom.findings:
        if found.name in FINDINGS_3D:
            rng = stream(person.seed, 50 + len(found.name))  # as `lesions.apply`
            parts += FINDINGS_3D[found.name](chest, a, found, rng)
    return parts


def _tubes(person: Person) -> list[Part]:
    """Aorta and great veins (blood), trachea, main bronchi (air), along curves chosen by eye."""
    a = person.anatomy
    size, r, bow = person.scale, a.arch * 0.85, 0.9 * a.unfold

    def spine(y: float, x: float, z: float) -> tuple[float, float, float]:
        behind = person.spine(np.interp(y, [a.apex, -a.apex + 7], [7, 19]))[2] / size[2]
        return x, y, behind + z

    aorta = [(0.5, 2.5, 2.0), (-1.2, -2.5, 2.8), (-0.3, -5.0, 2.0), (1.8, -6.0, -0.8)]
    aorta += [spine(-5.0, 2.4, 3.4), spine(0, 2.2 + bow, 3.0), spine(7, 1.8 + bow, 2.9)]
    aorta += [spine(14.0, 1.0, 2.9)]
    radius = np.array([1.15, 1.15, 1.05, 1, 0.9, 0.85, 0.8, 0.75]) * r
    veins = [(-2.6, -13.0, 1.5), (-2.4, -6.0, 1.2), (-2.6, 0.0, 0.8)]
    trunk = [(1.5, 0.5, 3.5), (1.8, -2.0, 1.2), (-3.4, -1.2, -0.6)]
    left = [(1.8, -2.0, 1.2), (4.0, -2.6, -1.2)]
    carotid, other = [(0.6, -5.8, 1.5), (-1.8, -13, 0.0)], [(2.2, -6, 0.0), (2.4, -13, -1.0)]
    carina = spine(-3.6, 0.3, 4.2)
    neck = tuple(person.spine(4) / size + (0, 0, 3.2))
    air = [(neck, carina, 0.85), (carina, (-2.9, -0.4, carina[2] - 0.4), 0.62)]
    air.append((carina, (4.0, -1.6, carina[2] - 0.8), 0.55))

    def tube(points: Sequence[Sequence[float]], radius: Floats | float) -> tuple[Solid, ...]:
        return tuple(chain(np.array(points) * size, np.asarray(radius) * size[0]))

    blood = [tube(aorta[i : i + 2], radius[i : i + 2]) for i in range(3)]
    blood += [tube(aorta[3:5], radius[3:5]), tube(aorta[4:], radius[4:])]
    blood += [tube(veins, 1.0), tube(trunk, 1.3), tube(left, 1.1), tube(carotid, 0.5)]
    blood += [tube(other, 0.45)]
    parts = [Part("", "blood", (group,), "fat") for group in blood]
    return parts + [Part("", "air", (tube((p, q), r),), "fat") for p, q, r in air]


def _lung_vessels(chest: Chest) -> list[Part]:
    """The trees of the film, x, y and calibre alike, with depths from a stream of their own."""
    person = chest.person
    x, y, radius, mass = trees(person.anatomy, stream(person.seed, 3))
    column = np.rint((x - chest.x[0, 0]) / STEP).astype(int).clip(0, chest.x.shape[1] - 1)
    row = np.rint((y - chest.y[0, 0]) / STEP).astype(int).clip(0, chest.x.shape[0] - 1)
    ends = np.stack([*chest.rear, *chest.fore])[:, row, column]
    z = -1.5 + tree_depths(stream(person.seed, 130))
    room = [np.minimum(0.25, (ends[i + 1] - ends[i]) / 2) for i in (0, 2)]
    rear = np.clip(z, ends[0] + room[0], ends[1] - room[0])
    fore = np.clip(z, ends[2] + room[1], ends[3] - room[1])
    z = np.where(np.abs(rear - z) - room[0] < np.abs(fore - z) - room[1], rear, fore)
    # 2.3 and 6 as on the film: thinner than life, and less of them where the lung is thin
    volume = 2.3 * mass * np.clip(chest.air[row, column] / 6, 0, 1) * person.scale.prod()
    points, kind = np.stack([x, y, z], 1) * person.scale, np.digitize(radius, [0.1, 0.22])
    return [
        Part("", "blood", within="lung", other=Cloud(points[at], volume[at], width))
        for i, width in enumerate(WIDTHS)
        for at in [(kind == i) & (volume > 1e-5)]
    ]


def _effusion(chest: Chest, a: Anatomy, found: lesions.Finding, rng: Rng) -> list[Part]:
    """Fluid below a level that climbs at the walls; lying, the rearmost part of the cavity."""
    fields = []
    for side, on in (("right", chest.right), ("left", ~chest.right)):
        if found.side not in (side, "bilateral"):
            continue
        size, level, rise, reach = lesions.meniscus(a, found, side, rng)
        if chest.person.phantom.modality != "xray":  # on the back
            top = np.full_like(chest.y, chest.back[on].min() + 1.5 + 6.0 * size)
        else:
            wall = np.clip(Cavity(a).lateral(chest.y) - chest.beside, 0, None)
            near = rise * np.exp(-wall / F32(reach)) + 0.45 * rise * np.exp(-chest.beside / 3.5)
            over = level - near - chest.y  # cm above the fluid
            behind = chest.back + reach * np.log(np.maximum(rise / np.maximum(over, 0.01), 1))
            top = np.where(over > 0, behind, chest.front)
        spans = [(low, np.minimum(high, top)) for low, high in (chest.rear, chest.fore)]
        fields.append(
            Part("pleural effusion", "water", within="lung", other=chest.field(spans, on))
        )
        Plane(1, 1.0).texture(rng, 2.5)  # the film's next side follows these
        rng.uniform(0 if found.kind == "layering" else 1)
    return fields


def _pneumothorax(chest: Chest, a: Anatomy, found: lesions.Finding, rng: Rng) -> list[Part]:
    """Air between the chest's wall and the lung that has fallen back from it."""
    on = chest.right if found.side == "right" else ~chest.right
    inner = Cavity(a, shrink=1.3 + 4.0 * found.size)
    full, _ = inner.path(chest.beside, chest.y, chest.right)
    at = 0.5 * (chest.back + chest.front)
    spans = []
    for low, high in (chest.rear, chest.fore):
        spans += [(low, np.minimum(high, at - full / 2)), (np.maximum(low, at + full / 2), high)]
    return [Part("pneumothorax", "air", within="lung", other=chest.field(spans, on))]


def _consolidation(chest: Chest, a: Anatomy, found: lesions.Finding, rng: Rng) -> list[Part]:
    """The film's patches as ragged balls within the lung."""
    on = chest.right if found.side == "right" else ~chest.right
    for cm in (2.2, 0.9):  # the film's textures come first from the stream
        Plane(1, 1.0).texture(rng, cm)
    own, fields = stream(chest.person.seed, 131), []
    for x, y, radius in lesions.patches(found, rng):
        rough = own.normal(0, 1, (2, *chest.x.shape))
        rough = np.stack([Plane(1, 1).blur(part, 4) for part in rough])
        rough *= 0.35 / rough.std()
        dx, dy = (chest.x - x) / radius, (chest.y - y) / (0.85 * radius)
        half = radius * np.sqrt(np.clip(1 - dx**2 - dy**2 + rough, 0, None))
        at = own.uniform(-0.5, 0.3) * radius + 0.5 * (chest.back + chest.front)
        spans = [
            (np.maximum(low, at - half[0]), np.minimum(high, at + half[1]))
            for low, high in (chest.rear, chest.fore)
        ]
        share = 0.55 + 0.35 * found.size
        fields.append(
            Part("consolidation", "water", within="lung", other=chest.field(spans, on, share))
        )
    return fields


def _nodule(chest: Chest, a: Anatomy, found: lesions.Finding, rng: Rng) -> list[Part]:
    """The film's balls, as deep as they are wide, in the middle of the lung behind the heart."""
    parts, size = [], chest.person.scale
    for x, y, radius, long, turn in lesions.nodules(found, rng):
        row, column = int((y - chest.y[0, 0]) / STEP), int((x - chest.x[0, 0]) / STEP)
        z = 0.5 * (chest.rear[0] + chest.rear[1])[row, column]
        c, s = np.cos(turn), np.sin(turn)
        axes = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        half = np.array([radius * long, radius / long, radius]) * size[0]
        ball = ellipsoid(np.array([x, y, z]) * size, half, axes)
        parts.append(Part("nodule", "tumour", ((ball,),), "lung"))
    return parts


def _edema(chest: Chest, a: Anatomy, found: lesions.Finding, rng: Rng) -> list[Part]:
    haze = lesions.hilar_haze(chest.x, chest.y, a) + F32(0.12)
    share = np.clip((0.1 + 0.25 * found.size) * haze, 0, 0.85)
    whole = chest.field([chest.rear, chest.fore], np.ones_like(chest.right), share)
    return [Part("edema", "water", within="lung", other=whole)]


FINDINGS_3D = {
    "pneumothorax": _pneumothorax,
    "edema": _edema,
    "consolidation": _consolidation,
    "nodule": _nodule,
    "pleural effusion": _effusion,
}
