"""Bones and flesh of arms and legs, the left side's, each in its limb's own frame (`person`).

`limb_bones.json` holds them for a man of 176 cm, in cm: the tubes and ellipsoids of each long bone,
the ellipsoids of carpals and tarsals, the rays of hand and foot, the flesh. They were shaped by eye
on films; the lengths in the rays of the hand are the means of Buryanov and Kotiuk 2010 (Int J
Morphol 28:755), the long bones take theirs from `Person.lengths`.
"""

import json
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ldm.data.phantom.detector import Floats
from ldm.data.phantom.findings import stream
from ldm.data.phantom.person import Person, about
from ldm.data.phantom.scene import Bone, Part, flesh, move_parts
from ldm.data.phantom.solids import AXES, Solid, ball, chain, ellipsoid, frustum

SPAN = {"hand": 19.2, "foot": 25.2}  # of the table's hand and foot, flesh included
PHALANGES = ("proximal phalanx", "middle phalanx", "distal phalanx")
GAP = 0.15  # cm of cartilage between two bones of a finger or toe, 1 to 2 mm on films
WORN = 0.35  # cm of joint space below which a knee grows osteophytes; by eye


@lru_cache(maxsize=1)
def _table() -> Any:
    return json.loads(Path(__file__).with_name("limb_bones.json").read_text(encoding="utf-8"))


class _Fit(NamedTuple):
    """How the table's bone becomes a person's: `girth` times as large, and longer by `extra`.

    Only the shaft, between the heights `stretch`, takes up what the length needs.
    """

    girth: float
    thick: float  # of the cortex
    extra: float = 0.0
    stretch: tuple[float, float] = (0.0, 1.0)
    stout: float = 1.0  # of the shaft
    bow: float = 0.0  # cm, of the shaft, beyond the table's

    def at(self, point: Any) -> Floats:
        """point: [..., 3] in the table"""
        p = np.asarray(point, float)
        share = np.clip((p[..., 1] - self.stretch[0]) / (self.stretch[1] - self.stretch[0]), 0, 1)
        moved = self.girth * p
        moved[..., 1] += self.extra * share
        moved[..., 2] += 4 * self.bow * share * (1 - share)
        return moved

    def knob(self, bone: Bone, cortex: float, centre: Any, half: Any, turn: Any = ()) -> None:
        """Adds an ellipsoid; turn: degrees about x, y and z."""
        axes = about(2, turn[2]) @ about(1, turn[1]) @ about(0, turn[0]) if any(turn) else AXES
        bone.end(self.at(centre), self.girth * np.asarray(half), axes, cortex * self.thick)


def _fit(person: Person, name: str) -> _Fit:
    """Of a long bone of the table, or of "hand" or "foot"."""
    if name in SPAN:
        return _Fit(getattr(person, name) / SPAN[name], person.mineral)
    bones = _table()["long"]
    draws = stream(person.seed, 110).normal(size=(len(bones), 3))[list(bones).index(name)]
    thick, stout, bow = np.clip(draws, -2, 2) * (0.1, 0.05, 0.15) + (1, 1, 0)
    table, length = bones[name], person.lengths[bones[name].get("like", name)]
    extra = length - person.girth * table["length"]
    return _Fit(person.girth, person.mineral * thick, extra, table["stretch"], stout, bow)


def _tube(fit: _Fit, name: str, number: int) -> tuple[Floats, Floats]:
    """[n, 3] points and [n] radii of a long bone's tube; the first is its shaft."""
    line = np.array(_table()["long"][name]["tubes"][number]["line"])
    return fit.at(line[:, :3]), fit.girth * (1 if number else fit.stout) * line[:, 3]


def _parts(name: str, groups: list[Bone]) -> list[Part]:
    return [
        Part(name, "compact bone", tuple(tuple(bone.outer) for bone in groups)),
        Part("", "spongy bone", tuple(tuple(bone.inner) for bone in groups), "compact bone"),
    ]


def _long_bone(person: Person, side: str, name: str) -> list[Part]:
    """The bone and its marrow; the first tube of the table is the shaft."""
    table, fit = _table()["long"][name], _fit(person, name)
    groups: defaultdict[int, Bone] = defaultdict(lambda: Bone(name))
    marrow: list[Solid] = []
    for k, tube in enumerate(table["tubes"]):
        curve, radius = _tube(fit, name, k)
        cortex = np.array(tube["cortex"]) * fit.girth * fit.thick
        bone = groups[tube["group"]]
        bone.outer += chain(curve, radius, tube["flat"])
        inside = np.maximum(radius - cortex, 0.2 * radius)
        if k == 0:  # marrow fills the shaft and ends in the spongy bone
            taper = np.array([0.3, *[0.92] * (len(curve) - 2), 0.3])
            marrow = chain(curve, taper * inside, tube["flat"])
        for end, beside in ((0, 1), (-1, -2)):  # the plate of an end that bears cartilage
            along = curve[beside] - curve[end]
            curve[end] += tube["plate"][end] * fit.thick * along / np.linalg.norm(along)
        bone.inner += chain(curve, inside, tube["flat"])
    for group, cortex, centre, half, *turn in table["knobs"]:
        fit.knob(groups[group], cortex, centre, half, *turn)
    for half, margin in zip(("medial", "lateral"), table.get("spurs", []), strict=False):
        worn = 1 - person.joint_space[f"{side} {half}"] / WORN
        if worn > 0:
            fit.knob(groups[0], 0.1, margin, (0.4 + 0.5 * worn, 0.3 + 0.2 * worn, 1.1))
    parts = _parts(f"{side} {name}", list(groups.values()))
    if name == "patella":  # held by its ligament, it glides over the condyles as the knee bends
        pivot, turn = fit.at((0, 40.45, -1.2)), about(0, -0.65 * person.pose.knee)
        parts = move_parts(parts, turn, pivot - turn @ pivot)
    return [*parts, Part("", "marrow", (tuple(marrow),), "spongy bone")] if marrow else parts


class _Digit(NamedTuple):
    """A metacarpal, metatarsal or phalanx: from its base, along y of its own frame."""

    name: str
    base: Floats
    turn: Floats  # [3, 3] columns: across, along, towards palm or sole
    length: float
    radii: Floats  # of base, waist and head

    def at(self, share: float, beyond: float = 0.0) -> Floats:
        """[3] the point at a share of its length, and cm farther."""
        return np.asarray(self.base + (share * self.length + beyond) * self.turn[:, 1])

    def parts(self, side: str, thick: float) -> list[Part]:
        """A flat base, a waist, a round head."""
        bone, (base, waist, head) = Bone(self.name), self.radii
        for solids, shell in ((bone.outer, 0.0), (bone.inner, 0.15 * thick)):
            r = base - 0.5 * shell, max(waist - shell, 0.3 * waist), head - 0.5 * shell
            p = [self.at(0, 0.35 * shell), self.at(0.5), self.at(1, -0.8 * head)]
            front = self.turn[:, 2]
            solids.append(frustum(p[0], p[1], r[0], r[1], 0.88, front))
            solids.append(frustum(p[1], p[2], r[1], 0.85 * r[2], 0.88, front))
            half = r[2], 0.8 * head - 0.35 * shell, 0.9 * r[2]
            solids.append(ellipsoid(p[2], half, self.turn))
        return _parts(f"{side} {self.name}", [bone])


def _rays(person: Person, part: str) -> list[list[_Digit]]:
    """The five rays of hand or foot, the thumb's or great toe's first; other limbs have none."""
    if part not in SPAN:
        return []
    table, grow, pose = _table(), _fit(person, part).girth, person.pose
    rng, hand = stream(person.seed, 111 if part == "hand" else 112), part == "hand"
    stretch, wobble = rng.normal(1, 0.03, (5, 4)), rng.normal(0, 2.0, (5, 4))
    rays = []
    for i, ray in enumerate(table["rays"][part]):
        base: Floats = grow * np.array(ray["base"])
        head, digits = grow * np.array(ray["head"]), []
        along = (head - base) / np.linalg.norm(head - base)
        across = np.cross(along, ray["front"])
        across /= np.linalg.norm(across)
        turn = np.stack([across, along, np.cross(across, along)], 1)
        numbers = (0, 1, 3) if i == 0 else (0, 1, 2, 3)
        for k, (number, length) in enumerate(zip(numbers, ray["lengths"], strict=True)):
            if k:  # toes point up at their base, then down
                spread = (2 - i) * pose.fingers if hand and i and k == 1 else 0.0
                bend = pose.curl if hand else (-14 if k == 1 else 12)
                turn = turn @ about(2, wobble[i, k] - spread) @ about(0, bend)
            kind = PHALANGES[number - 1] if k else "metacarpal" if hand else "metatarsal"
            name = f"{kind} {i + 1}" + (f" of the {part}" if k else "")
            radii = grow * ray["size"] * np.array(table["radii"][part][number])
            digits.append(_Digit(name, base, turn, grow * length * stretch[i, k], radii))
            base = digits[-1].at(1, GAP)
        rays.append(digits)
    return rays


def _flesh(person: Person, part: str, fit: _Fit) -> list[Part]:
    """Fat and muscle; their ends are round, so that bent joints have no notch."""
    lean: list[list[Solid]] = [[]]  # the limb, then its fingers or toes
    skin: list[list[Solid]] = [[]]
    fat = 0.2 + 1.5 * person.build
    for tube in _table()["flesh"][part]:
        line = np.array(tube["line"])
        curve, radius = fit.at(line[:, :3]), fit.girth * line[:, 3]
        for groups, r in ((lean, radius), (skin, radius + fat * tube["fat"])):
            groups[0] += chain(curve, r, tube["flat"], tube["front"])
            groups[0] += [ball(curve[i], r[i] * min(1, tube["flat"])) for i in (0, -1)]
    for k, ray in enumerate(_rays(person, part)):
        curve = np.stack([ray[0].at(0.6 * (k > 0)), *(d.base for d in ray[1:]), ray[-1].at(1, 0.1)])
        radius = np.array(_table()["ray_flesh"][part][min(k, 1)]) * ray[0].radii[0] / 0.75
        for groups, r in ((lean, radius), (skin, radius + 0.1 + 0.08 * person.build)):
            groups.append([*chain(curve, r), *(ball(curve[i], r[i]) for i in (0, -1))])
    parts = flesh(skin, lean)
    for pad in _table()["pads"].get(part, []):
        solid = ellipsoid(fit.at(pad[:3]), fit.girth * np.array(pad[3:]))
        parts.append(Part("", "fat", ((solid,),)))
    return parts


def limb(person: Person, side: str, part: str) -> list[Part]:
    """Flesh and bones of an upper arm, forearm, hand, thigh, shank or foot, in its own frame."""
    bones = [name for name, bone in _table()["long"].items() if bone["limb"] == part]
    fit = _fit(person, bones[0] if bones else part)
    parts = _flesh(person, part, fit)
    for name in bones:
        parts += _long_bone(person, side, name)
    for name, knobs in _table()["short"].get(part, {}).items():
        bone = Bone(name)
        for knob in knobs:
            fit.knob(bone, 0.09, knob[:3], knob[3:6], knob[6:])
        parts += _parts(f"{side} {name}", [bone])
    digits = [digit for ray in _rays(person, part) for digit in ray]
    return [*parts, *(p for digit in digits for p in digit.parts(side, person.mineral))]
