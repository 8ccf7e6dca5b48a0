"""Bones and flesh of arms and legs, the left side's, each in its limb's own frame (`person`).

`limb_bones.json` holds them for a man of 176 cm, in cm: the tubes and ellipsoids of each long bone,
the ellipsoids of carpals and tarsals, the rays of hand and foot, the flesh; by eye on films and on
the plates of Gray's Anatomy, but for the rays of the hand: their lengths are the means of Buryanov
and Kotiuk 2010 (Int J Morphol 28:755).
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ldm.data.phantom import anatomy
from ldm.data.phantom.detector import Floats
from ldm.data.phantom.findings import stream
from ldm.data.phantom.person import Person, about
from ldm.data.phantom.scene import Part, flesh
from ldm.data.phantom.solids import AXES, Solid, ball, chain, ellipsoid, frustum

SPAN = {"hand": 19.2, "foot": 25.2}  # of the table's hand and foot, flesh included
SEGMENTS = {
    "hand": ("metacarpal", "proximal phalanx", "middle phalanx", "distal phalanx"),
    "foot": ("metatarsal", "proximal phalanx", "middle phalanx", "distal phalanx"),
}
GAP = 0.15  # cm of cartilage between two bones of a finger or toe


@lru_cache(maxsize=1)
def _table() -> Any:
    return json.loads(Path(__file__).with_name("limb_bones.json").read_text(encoding="utf-8"))


def _turn(x: float, y: float, z: float) -> Floats:
    return about(2, z) @ about(1, y) @ about(0, x)


class _Fit(NamedTuple):
    """How a bone of the table becomes a person's: `girth` times as large, then longer by `extra`.

    Only the shaft, between the heights `stretch`, takes up the rest of the length.
    """

    girth: float
    extra: float
    stretch: tuple[float, float]
    thick: float  # of the cortex

    def at(self, points: Floats) -> Floats:
        low, high = self.stretch
        moved = self.girth * points
        moved[..., 1] += self.extra * np.clip((points[..., 1] - low) / (high - low), 0, 1)
        return moved


def _fit(person: Person, length: float, bone: str, stretch: Sequence[float]) -> _Fit:
    extra = person.lengths[bone] - person.girth * length if bone in person.lengths else 0.0
    return _Fit(person.girth, extra, (stretch[0], stretch[1]), person.mineral)


def _fill(name: str, outer: dict[int, list[Solid]], inner: dict[int, list[Solid]]) -> list[Part]:
    compact, spongy = (tuple(map(tuple, groups.values())) for groups in (outer, inner))
    return [
        Part(name, "compact bone", compact),
        Part("", "spongy bone", spongy, "compact bone"),
    ]


def _long_bone(person: Person, side: str, name: str) -> list[Part]:
    """The bone and its marrow; the first tube of the table is the shaft."""
    table = _table()["long"][name]
    fit = _fit(person, table["length"], table.get("like", name), table["stretch"])
    outer: dict[int, list[Solid]] = {}
    inner: dict[int, list[Solid]] = {}
    marrow: list[Solid] = []
    for tube in table["tubes"]:
        line = np.array(tube["line"])
        cortex = np.array(tube["cortex"]) * fit.girth * fit.thick
        curve, radius = fit.at(line[:, :3]), fit.girth * line[:, 3]
        group = tube["group"]
        outer.setdefault(group, []).extend(chain(curve, radius, tube["flat"]))
        inside = np.maximum(radius - cortex, 0.2 * radius)
        if not marrow:
            taper = np.array([0.3, *[0.92] * (len(curve) - 2), 0.3])
            marrow = chain(curve, taper * inside, tube["flat"])
        for end, beside in ((0, 1), (-1, -2)):  # the plate of an end that bears cartilage
            along = curve[beside] - curve[end]
            curve[end] += tube["plate"][end] * fit.thick * along / np.linalg.norm(along)
        inner.setdefault(group, []).extend(chain(curve, inside, tube["flat"]))
    for group, cortex, centre, half, *more in table["knobs"]:
        solids = _knob(fit, cortex, centre, half, *more)
        outer.setdefault(group, []).append(solids[0])
        inner.setdefault(group, []).append(solids[1])
    parts = _fill(f"{side} {name}", outer, inner)
    return [*parts, Part("", "marrow", (tuple(marrow),), "spongy bone")] if marrow else parts


def _knob(
    fit: _Fit,
    cortex: float,
    centre: Sequence[float],
    half: Sequence[float],
    turn: Sequence[float] = (0, 0, 0),
    cut: float = np.inf,
) -> list[Solid]:
    """An ellipsoid and its spongy inside; cut: half its breadth where it has flat sides."""
    axes = _turn(*turn) if any(turn) else AXES
    at, long = fit.at(np.asarray(centre, float)), fit.girth * np.asarray(half, float)
    solids = []
    for shell in (0.0, cortex * fit.thick):
        solid = ellipsoid(at, np.maximum(long - shell, 0.3 * long), axes)
        if cut < np.inf:
            middle, wide = float(axes[:, 0] @ at), cut * fit.girth - shell
            solid = solid.cut(axes[:, 0], middle - wide, middle + wide)
        solids.append(solid)
    return solids


class Digit(NamedTuple):
    """A metacarpal, metatarsal or phalanx: from its base, along y of its own frame."""

    name: str
    base: Floats
    turn: Floats  # [3, 3] columns: across, along, towards palm or sole
    length: float
    radii: Floats  # of base, waist and head


def _digits(person: Person, part: str) -> list[list[Digit]]:
    """Five rays of hand or foot, the thumb's or great toe's first."""
    table, grow = _table(), getattr(person, part) / SPAN[part]
    rng = stream(person.seed, 112 if part == "hand" else 115)
    stretch, wobble = rng.normal(1, 0.03, (5, 4)), rng.normal(0, 2.0, (5, 4))
    curl = person.pose.curl if part == "hand" else 6.0
    rays = []
    for i, ray in enumerate(table["rays"][part]):
        base, head = grow * np.array(ray["base"]), grow * np.array(ray["head"])
        along = (head - base) / np.linalg.norm(head - base)
        front = np.array(ray["front"], float)
        front -= along * (front @ along)
        front /= np.linalg.norm(front)
        turn = np.stack([np.cross(along, front), along, front], 1)
        numbers = [0, 1, 3] if i == 0 else [0, 1, 2, 3]
        ray_bones = []
        for k, (number, length) in enumerate(zip(numbers, ray["lengths"], strict=True)):
            if k:
                out = (2 - i) * person.pose.fingers if k == 1 and part == "hand" and i else 0
                bend = curl if part == "hand" else (-14 if k == 1 else 12)
                turn = turn @ about(2, wobble[i, k] - out) @ about(0, bend)
            name = f"{SEGMENTS[part][number]} {i + 1}" + (f" of the {part}" if k else "")
            size = grow * length * stretch[i, k]
            radii = grow * ray["size"] * np.array(table["radii"][part][number])
            ray_bones.append(Digit(name, base, turn, size, radii))
            base = base + (size + GAP) * turn[:, 1]
        rays.append(ray_bones)
    return rays


def _small_bone(digit: Digit, side: str, thick: float) -> list[Part]:
    """A flat base, a waist, a round head."""
    base, waist, head = digit.radii
    along, length = digit.turn[:, 1], digit.length
    outer, inner = [], []
    for shell, plate in ((0.0, 0.0), (0.16 * thick, 0.09 * thick)):
        r = [base - 0.6 * shell, max(waist - shell, 0.3 * waist), head - 0.6 * shell]
        y = [plate, 0.5 * length, length - 0.8 * head]
        points = [digit.base + s * along for s in y]
        group = outer if shell == 0 else inner
        for i in (0, 1):
            wide = r[2] * 0.85 if i else r[1]
            group.append(frustum(points[i], points[i + 1], r[i], wide, 0.88, digit.turn[:, 2]))
        group.append(ellipsoid(points[2], (r[2], 0.8 * head - plate, 0.9 * r[2]), digit.turn))
    return _fill(f"{side} {digit.name}", {0: outer}, {0: inner})


def _short_bones(person: Person, side: str, part: str) -> list[Part]:
    """Carpals or tarsals."""
    grow, parts = getattr(person, part) / SPAN[part], []
    fit = _Fit(grow, 0.0, (0, 1), person.mineral)
    for name, knobs in _table()["short"][part].items():
        pairs = [_knob(fit, 0.1, k[:3], k[3:6], k[6:9], *k[9:]) for k in knobs]
        outer, inner = zip(*pairs, strict=True)
        parts += _fill(f"{side} {name}", {0: list(outer)}, {0: list(inner)})
    return parts


def _flesh(person: Person, part: str, fit: _Fit) -> list[Part]:
    """Fat and muscle; the limb's ends are round, so that bent joints have no notch."""
    skin, lean = [], []
    fat = 0.2 + 1.5 * person.build
    for tube in _table()["flesh"][part]:
        line = np.array(tube["line"])
        curve, radius = fit.at(line[:, :3]), fit.girth * line[:, 3]
        for group, r in ((lean, radius), (skin, radius + fat * tube["fat"])):
            solids = chain(curve, r, tube["flat"], tube["front"])
            solids += [ball(curve[i], float(r[i]) * min(tube["flat"], 1)) for i in (0, -1)]
            group.append(solids)
    if part in SPAN:
        for ray in (rays := _digits(person, part)):
            thumb = part == "hand" and ray is rays[0]
            points = [digit.base for digit in ray[not thumb :]]
            points.append(ray[-1].base + (ray[-1].length + 0.1) * ray[-1].turn[:, 1])
            if part == "hand" and not thumb:
                points.insert(0, ray[0].base + 0.6 * ray[0].length * ray[0].turn[:, 1])
            curve = np.stack(points)
            radius = np.array(_table()["ray_flesh"]["thumb" if thumb else part])
            radius = radius[-len(curve) :] * ray[0].radii[0] / 0.75
            for group, r in ((lean, radius), (skin, radius + 0.1 + 0.08 * person.build)):
                ends = [ball(curve[i], float(r[i])) for i in (0, -1)]
                group.append([*chain(curve, r), *ends])
    parts = flesh(skin, lean)
    for pad in _table()["pads"].get(part, []):
        solid = ellipsoid(fit.at(np.array(pad[:3])), fit.girth * np.array(pad[3:]))
        parts.append(Part("", "fat", ((solid,),)))
    return parts


def _build(person: Person, side: str, part: str) -> list[Part]:
    bones = _table()["long"]
    names = [name for name in bones if bones[name]["limb"] == part]
    if part in SPAN:
        fit = _Fit(getattr(person, part) / SPAN[part], 0.0, (0, 1), person.mineral)
        parts = _flesh(person, part, fit) + _short_bones(person, side, part)
        for ray in _digits(person, part):
            for digit in ray:
                parts += _small_bone(digit, side, person.mineral)
        return parts
    main = bones[names[0]]
    parts = _flesh(person, part, _fit(person, main["length"], names[0], main["stretch"]))
    for name in names:
        parts += _long_bone(person, side, name)
    return parts


def _builder(part: str) -> Any:
    return lambda person, side: _build(person, side, part)


for _part in ("upper arm", "forearm", "hand", "thigh", "shank", "foot"):
    anatomy.LIMBS[_part] = _builder(_part)
