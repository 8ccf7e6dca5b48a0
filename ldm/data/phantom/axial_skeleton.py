"""Skull, spine, ribs, girdle and pelvis, and the flesh of head, neck and trunk.

The functions head, neck, girdle, chest, abdomen and pelvis return the parts of that section (cm).
A bone is a table of solids in axial_shapes.json, stretched and turned to its place: in cm of a
person of 170 cm about a joint, or for vertebrae in half widths, heights and half depths of the
body. Measures are chosen by eye on films and sections unless a source is named.
"""

import json
from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ldm.data.phantom.body import Cavity
from ldm.data.phantom.detector import Floats, spline
from ldm.data.phantom.findings import stream
from ldm.data.phantom.person import SIDES, Person, about
from ldm.data.phantom.scene import Part, flesh
from ldm.data.phantom.skeleton import rib_curves
from ldm.data.phantom.solids import AXES, Groups, Solid, ellipsoid, frustum

MIRROR = np.diag([-1.0, 1, 1])


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    return dict(json.loads(Path(__file__).with_name("axial_shapes.json").read_text("utf-8")))


class Mould:
    """Parts of one table, stacked so that many copies are stretched at once.

    table: dicts of `name`, `material`, `within` and `groups` of solids: {ball, half, turn?, cut?}
    or {tube: points with radii, flat?, front?, joints?, open?, smooth?: how many points then}.
    A part with a `cortex` is compact bone of that depth around spongy bone.
    """

    def __init__(self, table: Sequence[dict[str, Any]]) -> None:
        self.parts: list[tuple[str, str, str, list[int]]] = []
        solids: list[Solid] = []
        for part in table:
            name, within = part.get("name", ""), part.get("within", "muscle")
            layers = [(name, part.get("material", "compact bone"), within, 0.0)]
            if cortex := part.get("cortex", 0.0):
                layers.append(("", "spongy bone", "compact bone", cortex))
            for *what, less in layers:
                built = [[s for spec in g for s in _solids(spec, less)] for g in part["groups"]]
                self.parts.append((*what, [len(g) for g in built]))
                solids += [s for g in built for s in g]
        self.stack = Groups([solids])

    def solids(self, turn: Floats, shift: Floats) -> list[list[Solid]]:
        """K copies of all solids, their points p at turn p + shift: turn [K, 3, 3], shift [K, 3]"""
        one, s = self.stack, shift[:, None]
        back = np.linalg.inv(turn)[:, None]
        up = np.swapaxes(back, -1, -2)
        a = up @ one.quadric @ back
        b = (up @ one.linear[..., None])[..., 0]
        along = (a @ s[..., None])[..., 0]
        c = one.constant - 2 * (b * s).sum(-1) + (along * s).sum(-1)
        hull = one.hull @ np.swapaxes(turn, -1, -2)[:, None] + s[..., None, :]
        normal = (up @ one.normal[..., None])[..., 0]
        low, high = np.moveaxis(one.planes + (normal * s).sum(-1)[..., None], -1, 0).tolist()
        columns = (a, b - along, c.tolist(), hull, turn[:, None] @ one.spread, normal, low, high)
        copies = zip(*columns, strict=True)
        return [[Solid(*solid) for solid in zip(*copy, strict=True)] for copy in copies]

    def cast(self, names: Sequence[str], turn: Floats, shift: Floats) -> list[Part]:
        """The table's parts at each of K places; "*" in a part's name is the place's name."""
        made = []
        for label, solids in zip(names, self.solids(turn, shift), strict=True):
            left = iter(solids)
            for name, material, within, sizes in self.parts:
                groups = tuple(tuple(next(left) for _ in range(size)) for size in sizes)
                made.append(Part(name.replace("*", label), material, groups, within))
        return made

    def pair(self, turn: Floats, at: Floats) -> list[Part]:
        """The left one, `at` [3], and its mirror."""
        return self.cast(SIDES, np.stack([turn, MIRROR @ turn]), np.stack([at, MIRROR @ at]))


@lru_cache(maxsize=256)
def mould(name: str, thick: int = 10, change: int = 0) -> Mould:
    """thick: tenths of a young adult's cortex;  change: tenths of the table's `change`"""
    table = deepcopy(_tables()[name])
    for part in table:
        part["cortex"] = part.get("cortex", 0.0) * thick / 10
        for spec in (spec for group in part["groups"] for spec in group if "change" in spec):
            key = "tube" if "tube" in spec else "ball"
            spec[key] = np.asarray(spec[key]) + 0.1 * change * np.asarray(spec["change"])
    return Mould(table)


def _solids(spec: dict[str, Any], less: float) -> list[Solid]:
    """less: how far the solids lie inside those of the table"""
    if "ball" in spec:
        turn = AXES
        for axis, degrees in enumerate(spec.get("turn", ())):
            turn = about(axis, degrees) @ turn
        half = np.asarray(spec["half"], float)
        made = ellipsoid(spec["ball"], np.maximum(half - less, 0.3 * half), turn)
        *normal, low, high = spec.get("cut", (1, 0, 0, -np.inf, np.inf))
        return [made.cut(normal, low + less, high - less)]
    points, flat = np.array(spec["tube"]), spec.get("flat", 1.0)
    front = spec.get("front", (0, 0, 1))
    if "smooth" in spec:
        points = spline(points, spec["smooth"])
    line, r = points[:, :3], points[:, 3]
    width, depth = np.maximum(r - less, 0.3 * r), np.maximum(r * flat - less, 0.3 * r * flat)
    if less and not spec.get("open"):  # flat ends, too
        for end, near in ((0, 1), (-1, -2)):
            step = line[near] - line[end]
            line[end] += step * min(less / float(np.linalg.norm(step)), 0.3)
    found = []
    for i in range(len(line) - 1):
        ratio = float(np.mean(depth[i : i + 2] / width[i : i + 2]))
        found.append(frustum(line[i], line[i + 1], width[i], width[i + 1], ratio, front))
    if spec.get("joints", flat == 1 and "smooth" not in spec):
        found += [ellipsoid(p, (d, d, d)) for p, d in zip(line[1:-1], depth[1:-1], strict=True)]
    return found


def _cortex(person: Person) -> int:
    return int(np.clip(round(10 * person.mineral), 5, 14))


def _size(person: Person, purpose: int) -> Floats:
    """[3, 3] from cm of the tables to this person's, 3 % more or less in each direction."""
    change = 1 + 0.03 * np.clip(stream(person.seed, purpose).normal(size=3), -2, 2)
    return np.diag(person.height / 170 * change)


def _vertebrae(person: Person, first: int, last: int) -> list[Part]:
    """Of 33, those from number `first` up to `last`, along the spine's curve."""
    # rows of name, kind, levels of its upper and lower end, half the width and depth of the body:
    # C3 to L5 near the means of Panjabi et al. (Spine 1991 16:861 and 16:888, 1992 17:299)
    rows, rng = _tables()["spine"], stream(person.seed, 120)
    change = rng.normal(1, 0.04, (1, 2)) * rng.normal(1, 0.015, (33, 2))
    worn = int(np.clip((person.age - 45) / 4 * rng.uniform(0.3, 1.6), 0, 12))
    size = change * person.height / 170 * (0.95 if person.sex == "F" else 1.03)
    size = (size * [row[4:] for row in rows])[first:last]
    rows = rows[first:last]
    ends = person.spine(np.array([row[2:4] for row in rows]))
    down, middle = ends[:, 1] - ends[:, 0], ends.mean(1)
    front = np.cross(AXES[0], down)
    across = np.cross(down, front)
    across, front = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (across, front))
    turn = np.stack([across * size[:, :1], down, front * size[:, 1:]], -1)
    found = []
    for kind in dict.fromkeys(row[1] for row in rows):
        these = [i for i, row in enumerate(rows) if row[1] == kind]
        names = [rows[i][0] for i in these]
        for shape in (kind, f"{kind} canal") if person.phantom.modality != "xray" else (kind,):
            if shape in _tables():
                shapes = mould(shape, _cortex(person), worn)
                found += shapes.cast(names, turn[these], middle[these])
    return found


def head(person: Person) -> list[Part]:
    turn = np.diag(np.array(person.head) / [15.2, 22.8, 19.6])
    at, cortex = person.spine(0.0), _cortex(person)
    parts = mould("skull", cortex).cast([""], turn[None], at[None])
    parts += mould("face", cortex).pair(turn, at)
    return parts + mould("head flesh").cast([""], turn[None], at[None])


def neck(person: Person) -> list[Part]:
    wide = 0.85 * person.scale[0]
    top, end = (person.spine(level) + np.array([0, 0, 3.3]) for level in (2.3, 4.0))
    parts = [Part("", "air", ((frustum(top, end, wide, wide),),))]
    return parts + _vertebrae(person, 0, 7) + _flesh(person, -np.inf, person.spine(11.0)[1])


def chest(person: Person) -> list[Part]:
    a, cortex = person.anatomy, _cortex(person)
    at = np.array([0, a.apex + 3.4, 0.33 * a.depth]) * person.scale
    parts = mould("sternum", cortex).cast(["sternum"], _size(person, 122)[None], at[None])
    parts += _vertebrae(person, 7, 19) + _ribs(person)
    return parts + _flesh(person, -np.inf, person.spine(19.0)[1])


def lower_chest(person: Person) -> list[Part]:
    """What a picture of the belly shows of the chest: T9 to T12, ribs 7 to 12."""
    parts = _vertebrae(person, 15, 19) + _ribs(person, 6)
    return parts + _flesh(person, -np.inf, person.spine(19.0)[1])


def abdomen(person: Person) -> list[Part]:
    low, high = person.spine(19.0)[1], person.spine(23.5)[1]
    return _vertebrae(person, 19, 24) + _flesh(person, low, high)


def pelvis(person: Person) -> list[Part]:
    size = _size(person, 121)
    size[0, 0] = person.hips / 8.7  # so that the two sides meet in the midline
    # a woman's: a wide inlet, the sit bones far apart
    woman = round(stream(person.seed, 123).normal(8 if person.sex == "F" else 0, 2))
    parts = _vertebrae(person, 24, 33)
    parts += mould("hip", _cortex(person), woman).pair(size, person.hip("left"))
    return parts + _flesh(person, person.spine(23.5)[1], np.inf)


def _ribs(person: Person, skip: int = 0) -> list[Part]:
    """Tubes on the curves of the ribs of the person's chest film: 24, or without the first ones."""
    rng, parts, scale = stream(person.seed, 4), [], person.scale
    for side in (-1, 1):
        curve, _, half = rib_curves(person.anatomy, side, rng.normal(0, 0.08, 12), 10)
        line, half = (curve * scale)[skip:], half[skip:]
        step = np.diff(line, axis=1)
        u = step / np.linalg.norm(step, axis=-1, keepdims=True)
        out = 0.5 * (line[:, 1:] + line[:, :-1]) * [1, 0, 1]
        out -= u * (out * u).sum(-1, keepdims=True)
        out /= np.linalg.norm(out, axis=-1, keepdims=True)
        high = 0.5 * (half[:, 1:] + half[:, :-1])[..., None] * scale[0]
        made = []
        for less in (0.0, 0.12 * person.mineral):
            thin = np.maximum(0.55 * high - less, 0.03)
            turn = np.stack([np.cross(u, out) * (high - less), step, out * thin], -1)
            solids = mould("rod").solids(turn.reshape(-1, 3, 3), line[:, :-1].reshape(-1, 3))
            made.append([tuple(s for (s,) in solids[9 * i : 9 * i + 9]) for i in range(len(line))])
        for i, (outer, inner) in enumerate(zip(*made, strict=True), skip + 1):
            parts.append(Part(f"{SIDES[side < 0]} rib {i}", "compact bone", (outer,)))
            parts.append(Part("", "spongy bone", (inner,), "compact bone"))
    return parts


def girdle(person: Person) -> list[Part]:
    """Clavicles and scapulae where the chest film of the person shows them."""
    a, rng, table = person.anatomy, stream(person.seed, 4), deepcopy(_tables()["girdle"])
    rng.normal(size=24)  # the ribs'
    # the table is that of the mean anatomy: how much lower than there the landmarks lie
    inner, top, joint = a.apex + 12.6, a.clavicle + 11.8, a.shoulder + 9.8
    fall = {"clavicle": ((1.9, 8.6), (inner, top)), "ridge": ((13.2, 16.4), (joint, top))}
    for part in table:
        part["cortex"] *= person.mineral
        for spec in (spec for group in part["groups"] for spec in group):
            x, y = fall.get(spec.get("rise", ""), ((0, 1), (joint, joint)))
            points = np.array(spec.get("tube", [spec.get("ball")]))
            points[:, 1] += np.interp(points[:, 0], x, y)
            points[:, 0] += np.interp(points[:, 0], (1.9, 12.8, 15.4), (0, a.scapula - 12.8, 0))
            spec |= {"tube": points} if "tube" in spec else {"ball": points[0]}
    size = np.array([[-1, 1, a.depth / 18], [1, 1, a.depth / 18]]) * person.scale
    lift = rng.normal(0, 0.3, 2)[:, None] * person.scale * [0, 1, 0]
    return Mould(table).cast(SIDES[::-1], size[..., None] * AXES, lift)


def _flesh(person: Person, low: float, high: float) -> list[Part]:
    """Fat and muscle of neck and trunk between two heights; one body whatever is cut where."""
    a, fat, s, hip = person.anatomy, person.build, person.scale, person.hip("left")
    wide = float(Cavity(a).lateral(np.array([a.widest], np.float32))[0]) + 0.8
    loin, base = person.spine(21.0), person.spine(24.0)
    chest, belly = 0.52 * a.depth + 3.6, 10.2 + 1.5 * fat
    # y and z of the middle and half the size of muscle with all inside it; the fat on top of it
    bodies = np.array([
        [-17 * s[1], -3.4 * s[2], 5.4 * s[0], 14 * s[1], 6.1 * s[2], 0.3 + 0.8 * fat],
        [-10.5 * s[1], -4.8 * s[2], 13.5 * s[0], 6.5 * s[1], 6.8 * s[2], 0.4 + fat],
        [7 * s[1], -1.6 * s[2], (wide + 2) * s[0], 22 * s[1], chest * s[2], 0.4 + 2.2 * fat],
        [loin[1], loin[2] + 2.4, wide * s[0], 25 * s[1], belly * s[2], 0.5 + 3.6 * fat],
        [(a.clavicle + 3.5) * s[1], 0.3, 14.5 * s[0], 6.8 * s[1], 7.4 * s[2], 0.4 + 1.2 * fat],
        [hip[1] - 7, base[2] + 0.2, person.hips + 8, 15.5, 8.9 * s[2], 0.6 + 3 * fat],
    ])  # fmt: skip
    reach = bodies[:, 3] + bodies[:, 5]
    bodies = bodies[(bodies[:, 0] - reach < high) & (bodies[:, 0] + reach > low)]
    layers: list[list[list[Solid]]] = []
    for more in (1.0, 0.0):
        trunk = [ellipsoid((0, *b[:2]), b[2:5] + more * b[5]) for b in bodies]
        trunk = [solid.cut((0, 1, 0), low, high) for solid in trunk]
        layers.append([trunk])
        for sign in (-1, 1) if low < -10 * s[1] else ():  # apart: between arm and chest is air
            half = np.array([7.3, 8.5, 6.8]) * s + more * (0.4 + 1.2 * fat)
            y = a.shoulder + (3.5 if person.pose.arm_out < 90 else -8.0)  # or lifted with the arms
            layers[-1].append([ellipsoid(s * [sign * 13.4, y, -1.5], half)])
            if a.breast and more and high > 15 * s[1]:
                at = s * [sign * (8.3 + 1.3 * fat), a.breast_y - 1.5, 0.24 * a.depth]
                trunk.append(ellipsoid(at, s * [6.6, 6.4, 4.6 + 0.9 * a.breast]))
    return flesh(*layers)
