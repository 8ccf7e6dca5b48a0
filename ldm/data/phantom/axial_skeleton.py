"""Skull, spine, ribs, girdle and pelvis, and the flesh of head, neck and trunk.

A bone is a table of solids in axial_shapes.json, stretched and turned to its place: in cm of a
person of 170 cm about a joint, or for vertebrae in half widths, heights and half depths of the
body. Measures of the tables are chosen by eye on films and sections unless a source is named.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ldm.data.phantom.body import Cavity
from ldm.data.phantom.detector import Floats
from ldm.data.phantom.findings import stream
from ldm.data.phantom.person import SIDES, Person, about
from ldm.data.phantom.scene import Part, flesh
from ldm.data.phantom.skeleton import rib_curves
from ldm.data.phantom.solids import AXES, Solid, ellipsoid, frustum

MIRROR = np.diag([-1.0, 1, 1])
NAMES = [f"{k}{i + 1}" for k, n in (("C", 7), ("T", 12), ("L", 5)) for i in range(n)]


@lru_cache(maxsize=1)
def tables() -> dict[str, Any]:
    return dict(json.loads(Path(__file__).with_name("axial_shapes.json").read_text("utf-8")))


class Mould:
    """Parts of one table, stacked so that many copies are stretched at once.

    table: dicts of `name`, `material`, `within`, `clip` and `groups` of solids: {ball, half,
    turn?, cut?}, {tube: points with radii, flat?, front?, joints?} or {fan: a point, rim: points,
    thick}. A part with a `cortex` is compact bone of that depth around spongy bone.
    """

    def __init__(self, table: Sequence[dict[str, Any]]) -> None:
        self.parts: list[tuple[str, str, str, list[int], int]] = []
        solids: list[Solid] = []
        for part in table:
            groups = [group for spec in part["groups"] for group in _split(spec)]
            clip = part.get("clip", [])
            core = part.get("material", "spongy bone")
            layers = [(part.get("name", ""), core, part.get("within", "muscle"), 0.0)]
            if cortex := part.get("cortex", 0.0):
                skin = layers[0][0], "compact bone", layers[0][2], 0.0
                layers = [skin, ("", core, "compact bone", cortex)]
            for name, material, within, less in layers:
                built = [[s for spec in g for s in _solids(spec, less)] for g in groups]
                cut = [s for spec in clip for s in _solids(spec, 0.0)]
                self.parts.append((name, material, within, [len(g) for g in built], len(cut)))
                solids += [s for g in built for s in g] + cut
        self.quadric = np.stack([s.quadric for s in solids])
        self.linear = np.stack([s.linear for s in solids])
        self.constant = np.array([s.constant for s in solids])
        self.hull = np.stack([s.hull[[0, -1]] for s in solids])
        self.spread = np.stack([s.spread for s in solids])
        self.normal = np.stack([s.normal for s in solids])
        self.planes = np.array([[s.low, s.high] for s in solids])

    def solids(self, turn: Floats, shift: Floats) -> list[list[Solid]]:
        """K copies of all solids, their points p at turn p + shift: turn [K, 3, 3], shift [K, 3]"""
        back = np.linalg.inv(turn)[:, None]
        up, s = np.swapaxes(back, -1, -2), shift[:, None]
        a = up @ self.quadric @ back
        b = (up @ self.linear[..., None])[..., 0]
        along = (a @ s[..., None])[..., 0]
        c = self.constant - 2 * (b * s).sum(-1) + (along * s).sum(-1)
        hull = self.hull @ np.swapaxes(turn, -1, -2)[:, None] + s[..., None, :]
        spread = turn[:, None] @ self.spread
        normal = (up @ self.normal[..., None])[..., 0]
        planes = self.planes + (normal * s).sum(-1)[..., None]
        rows = zip(a, b - along, c.tolist(), hull, spread, normal, planes.tolist(), strict=True)
        return [[Solid(*row[:-1], *row[-1]) for row in zip(*copy, strict=True)] for copy in rows]

    def cast(self, names: Sequence[str], turn: Floats, shift: Floats) -> list[Part]:
        """The table's parts for each of K places; "*" in a part's name is the place's name."""
        made = []
        for label, solids in zip(names, self.solids(turn, shift), strict=True):
            at = 0
            for name, material, within, sizes, clip in self.parts:
                groups = []
                for size in sizes:
                    groups.append(tuple(solids[at : at + size]))
                    at += size
                cut = tuple(solids[at : at + clip])
                at += clip
                made.append(Part(name.replace("*", label), material, tuple(groups), within, cut))
        return made


@lru_cache(maxsize=64)
def mould(name: str, thick: int = 10) -> Mould:
    """thick: tenths of a young adult's cortex"""
    table = [
        p | {"cortex": p["cortex"] * thick / 10} if "cortex" in p else p for p in tables()[name]
    ]
    return Mould(table)


def _split(group: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """A fan becomes groups of its own: a plate to each piece of the rim, and the rim."""
    if "fan" not in group[0]:
        return [group]
    fan = group[0]
    root, rim = np.array(fan["fan"], float), np.array(fan["rim"], float)
    groups = [[{"tube": rim.tolist()}]]
    for p, q in zip(rim[:-1], rim[1:], strict=True):
        wide, long = q[:3] - p[:3], 0.5 * (p + q)[:3] - root[:3]
        end = [*(0.5 * (p + q)[:3]), 0.54 * float(np.linalg.norm(wide))]
        flat = 0.5 * fan["thick"] / end[3]
        groups.append([{"tube": [root.tolist(), end], "flat": flat, "front": np.cross(wide, long)}])
    return groups


def _solids(spec: dict[str, Any], less: float) -> list[Solid]:
    """less: how far the solids lie inside those of the table"""
    if "ball" in spec:
        turn = AXES
        for axis, degrees in enumerate(spec.get("turn", ())):
            turn = about(axis, degrees) @ turn
        half = np.asarray(spec["half"], float)
        made = ellipsoid(spec["ball"], np.maximum(half - less, 0.3 * half), turn)
        if "cut" in spec:
            *normal, low, high = spec["cut"]
            made = made.cut(normal, low + less, high - less)
        return [made]
    points = np.asarray(spec["tube"], float)
    line, r, flat = points[:, :3].copy(), points[:, 3], spec.get("flat", 1.0)
    width = np.maximum(r - less, 0.3 * r)
    depth = np.maximum(r * flat - less, 0.3 * r * flat)
    if less:  # flat ends, too
        for end, near in ((0, 1), (-1, -2)):
            step = line[near] - line[end]
            size = float(np.linalg.norm(step))
            line[end] += step * min(less / size, 0.3)
    flats, front = depth / width, spec.get("front", (0, 0, 1))
    found = [
        frustum(line[i], line[i + 1], width[i], width[i + 1], float(flats[i : i + 2].mean()), front)
        for i in range(len(line) - 1)
    ]
    if spec.get("joints", flat == 1):
        balls = zip(line[1:-1], depth[1:-1], strict=True)
        found += [ellipsoid(p, (d, d, d)) for p, d in balls]
    return found


def _cortex(person: Person) -> int:
    return int(np.clip(round(10 * person.mineral), 5, 14))


def _size(person: Person, purpose: int, spread: float = 0.03) -> Floats:
    """[3, 3] from cm of the tables to this person's."""
    change = stream(person.seed, purpose).normal(1, spread, 3)
    return np.diag(person.height / 170 * np.clip(change, 1 - 2 * spread, 1 + 2 * spread))


def _pair(person: Person, name: str, turn: Floats, at: Floats) -> list[Part]:
    """A table of the left side and its mirror; at: [3] of the left."""
    turns, shifts = np.stack([turn, MIRROR @ turn]), np.stack([at, MIRROR @ at])
    return mould(name, _cortex(person)).cast(SIDES, turns, shifts)


def _vertebrae(person: Person, first: int, last: int) -> list[Part]:
    """Those from number `first` (0 = C1) up to `last`, along the spine's curve."""
    found: list[Part] = []
    number = np.arange(24)
    rng = stream(person.seed, 120)
    # half width and half depth of the bodies: Panjabi et al. 1991 and 1992 (Spine), smoothed
    wide = np.interp(number, [2, 6, 7, 11, 18, 23], [0.9, 1.15, 1.35, 1.35, 1.95, 2.55])
    deep = np.interp(number, [2, 6, 7, 18, 23], [0.78, 0.85, 0.9, 1.5, 1.75])
    stretch = person.height / 170 * (0.95 if person.sex == "F" else 1.03)
    wide, deep = (
        v * stretch * rng.normal(1, 0.04) * rng.normal(1, 0.015, 24) for v in (wide, deep)
    )
    for kind, start, end in (("atlas", 0, 1), ("axis", 1, 2), ("cervical", 2, 7),
                             ("thoracic", 7, 19), ("lumbar", 19, 24)):  # fmt: skip
        these = range(max(start, first), min(end, last))
        if not these:
            continue
        turns, shifts = [], []
        for i in these:
            top, bottom = person.spine(i + 0.0), person.spine(i + 1.0)
            turns.append(_along(bottom - top, wide[i], deep[i]))
            shifts.append(0.5 * (top + bottom))
        found += mould(kind, _cortex(person)).cast(
            [NAMES[i] for i in these], np.stack(turns), np.stack(shifts)
        )
    return found


def _along(down: Floats, wide: float, deep: float) -> Floats:
    """[3, 3] whose columns span a vertebra: half a width, its height, half a depth."""
    front = np.cross(AXES[0], down)
    front /= np.linalg.norm(front)
    across = np.cross(down, front)
    return np.stack([across / np.linalg.norm(across) * wide, down, front * deep], 1)


def head(person: Person) -> list[Part]:
    b, h, length = person.head
    at = person.spine(0.0) + np.array([0, 0, 0.0])
    turn = np.diag([b / 15.2, h / 22.8, length / 19.6])
    parts = mould("skull", _cortex(person)).cast([""], turn[None], at[None])
    parts += _pair(person, "face", turn, at)
    return parts + mould("head flesh").cast([""], turn[None], at[None])


def neck(person: Person) -> list[Part]:
    return _vertebrae(person, 0, 7) + _flesh(person, -np.inf, person.spine(7.0)[1])


def chest(person: Person) -> list[Part]:
    parts = _vertebrae(person, 7, 19) + _ribs(person)
    return parts + _flesh(person, person.spine(7.0)[1], person.spine(19.0)[1])


def abdomen(person: Person) -> list[Part]:
    low, high = person.spine(19.0)[1], person.spine(23.5)[1]
    return _vertebrae(person, 19, 24) + _flesh(person, low, high)


def pelvis(person: Person) -> list[Part]:
    turns, shifts, names = [], [], []
    wide = np.array([5.6, 4.7, 3.7, 3.0, 2.3, 1.2, 0.9, 0.7, 0.5]) * person.height / 170
    deep = np.array([1.6, 1.35, 1.1, 0.95, 0.8, 0.6, 0.5, 0.4, 0.35]) * person.height / 170
    for i in range(9):
        level = (
            (24 + 0.2 * i, 24.2 + 0.2 * i)
            if i < 5
            else (25 + 0.25 * (i - 5), 25.25 + 0.25 * (i - 5))
        )
        top, bottom = person.spine(level[0]), person.spine(level[1])
        turns.append(_along(bottom - top, wide[i], deep[i]))
        shifts.append(0.5 * (top + bottom))
        names.append(f"sacrum {i + 1}" if i < 5 else f"coccyx {i - 4}")
    cortex = _cortex(person)
    parts = mould("sacrum", cortex).cast(names[:5], np.stack(turns[:5]), np.stack(shifts[:5]))
    parts += mould("coccyx", cortex).cast(names[5:], np.stack(turns[5:]), np.stack(shifts[5:]))
    size = _size(person, 121)
    size[0, 0] = person.hips / 8.7
    parts += _pair(person, "hip", size, person.hip("left"))
    return parts + _flesh(person, person.spine(23.5)[1], np.inf)


def _ribs(person: Person) -> list[Part]:
    """24 tubes on the curves of the chest film's ribs, and the sternum."""
    rng, names, groups = stream(person.seed, 4), [], []
    jitter = {side: rng.normal(0, 0.08, 12) for side in (-1, 1)}
    cortex = 0.09 * person.mineral
    for side in (-1, 1):
        curve, _, half = rib_curves(person.anatomy, side, jitter[side], 10)
        line, scale = curve * person.scale, person.scale[0]
        step = np.diff(line, axis=1)
        middle = 0.5 * (line[:, 1:] + line[:, :-1]) - person.spine(12) * [1, 0, 0]
        out = middle * [1, 0, 1]
        size = np.linalg.norm(step, axis=-1, keepdims=True)
        out -= step / size * (out * step / size).sum(-1, keepdims=True)
        out /= np.linalg.norm(out, axis=-1, keepdims=True)
        high = 0.5 * (half[:, 1:] + half[:, :-1])[..., None] * scale
        across = np.cross(step / size, out)
        for less in (0.0, cortex):
            turn = np.stack([across * (high - less), step, out * (0.55 * high - less)], -1)
            made = mould("rod").solids(turn.reshape(-1, 3, 3), line[:, :-1].reshape(-1, 3))
            groups.append([tuple(s for (s,) in made[9 * i : 9 * i + 9]) for i in range(12)])
        names.append([f"{SIDES[side < 0]} rib {i + 1}" for i in range(12)])
    parts = []
    for side in (0, 1):
        for name, outer, inner in zip(names[side], *groups[2 * side : 2 * side + 2], strict=True):
            parts.append(Part(name, "compact bone", (outer,)))
            parts.append(Part("", "spongy bone", (inner,), "compact bone"))
    a = person.anatomy
    at = np.array([0, a.apex + 3.4, 0.36 * a.depth]) * person.scale
    return parts + mould("sternum", _cortex(person)).cast(
        ["sternum"], _size(person, 122)[None], at[None]
    )


def girdle(person: Person) -> list[Part]:
    """Clavicles and scapulae where the chest film of the person shows them."""
    a, rng, parts = person.anatomy, stream(person.seed, 4), []
    rng.normal(0, 0.08, 24)
    for side, sign in (("right", -1), ("left", 1)):
        lift = rng.normal(0, 0.3)
        joint, top = a.shoulder + lift, a.clavicle + lift
        inner = a.apex + 3.4 + 0.3 * (top - a.clavicle)
        m, front = a.scapula, 0.3 * a.depth
        back = -0.34 * a.depth
        clavicle = [(1.9, inner, front, 0.8), (5.0, 0.7 * inner + 0.3 * top, front + 1, 0.55),
                    (8.6, top - 0.1, front - 0.6, 0.5), (12.0, top - 0.6, 1.2, 0.55), (16.0, top, 0, 0.65)]  # fmt: skip
        medial = [(m + 0.9, joint - 2.2, back + 1.2, 0.3), (m, joint + 2, back, 0.28),
                  (m + 0.2, joint + 7, back + 0.2, 0.3), (m + 1.6, joint + 11.0, back + 1, 0.45)]  # fmt: skip
        lateral = [medial[-1], (m + 3.6, joint + 6, back + 2.6, 0.5), (15.4, joint + 2.2, -1, 0.75)]
        ridge = [(m + 0.4, joint + 0.6, back - 0.2, 0.3), (m + 3.2, joint - 0.8, back + 0.6, 0.45),
                 (16.6, top + 0.5, -1.6, 0.6), (17.6, top + 0.5, 0.3, 0.5)]  # fmt: skip
        coracoid = [
            (14.6, joint - 0.8, 0.2, 0.6),
            (14.2, joint - 1.5, 2.2, 0.55),
            (15.4, joint - 0.6, 3.4, 0.5),
        ]
        glenoid = {"ball": (15.3, joint + 0.6, -0.6), "half": (0.75, 1.9, 1.3), "turn": (0, 30, 0)}
        table = [
            {"name": f"{side} clavicle", "cortex": 0.14 * person.mineral, "groups": [[{"tube": clavicle}]]},
            {"name": f"{side} scapula", "cortex": 0.12 * person.mineral,
             "groups": [[{"fan": (14.4, joint + 0.6, -1.6, 1.2), "rim": medial, "thick": 0.4}],
                        [{"tube": lateral}], [{"tube": ridge}], [{"tube": coracoid}], [glenoid]]},
        ]  # fmt: skip
        turn = np.diag([sign, 1.0, 1.0] * person.scale)
        parts += Mould(table).cast([""], turn[None], np.zeros((1, 3)))
    return parts


def _flesh(person: Person, low: float, high: float) -> list[Part]:
    """Fat and muscle of neck and trunk between two heights, cut so that sections do not overlap."""
    a, s, fat = person.anatomy, person.scale, person.build
    wide = float(Cavity(a).lateral(np.array([a.widest], np.float32))[0])
    loin, base, hip = person.spine(21.0), person.spine(24.0), person.hip("left")
    x, y, z = s
    # middle and half size of muscle and all inside it, and the fat on top of it
    bodies = [
        ((0, -17 * y, -3.0 * z), (5.4 * x, 14 * y, 5.6 * z), 0.3 + 0.8 * fat),
        ((0, -11 * y, -3.2 * z), (12 * x, 6.5 * y, 6.2 * z), 0.4 + fat),
        ((0, (a.shoulder + 3.5) * y, -1.5 * z), (20.3 * x, 7.5 * y, 8 * z), 0.5 + 1.2 * fat),
        (
            (0, 3 * y, -1.6 * z),
            ((wide + 2.6) * x, 25 * y, (0.52 * a.depth + 3) * z),
            0.5 + 2.5 * fat,
        ),
        (
            (0, loin[1], loin[2] + 4.5),
            ((wide + 0.6) * x, 20 * y, (9.5 + 1.5 * fat) * z),
            0.7 + 4 * fat,
        ),
        ((0, hip[1] - 3, base[2] - 0.2), (person.hips + 8, 13 * y, 10.2 * z), 0.9 + 3.5 * fat),
    ]
    fats, lean = [], []
    for middle, half, thick in bodies:
        if middle[1] - half[1] - thick > high or middle[1] + half[1] + thick < low:
            continue
        for to, more in ((fats, thick), (lean, 0.0)):
            to.append(ellipsoid(middle, np.asarray(half) + more).cut((0, 1, 0), low, high))
    if a.breast and low < a.breast_y * y < high:
        for sign in (-1, 1):
            at = np.array([sign * (8.8 + 1.5 * fat), a.breast_y - 1, 0.46 * a.depth]) * s
            half = np.array([6.8, 5.5, 2.5 + 1.1 * a.breast]) * s
            fats.append(ellipsoid(at, half).cut((0, 1, 0), low, high))
    return flesh([fats], [lean])
