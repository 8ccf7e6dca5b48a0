"""Findings of bones and organs: parts broken, worn or added, and their truth in mm."""

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from ldm.data.phantom.detector import Floats
from ldm.data.phantom.findings import Finding, Phantom, Rng, stream
from ldm.data.phantom.scene import Part
from ldm.data.phantom.solids import AXES, Solid, ball, ellipsoid, frustum

IN_PLASTER = ("humerus", "radius", "ulna", "femur", "tibia", "fibula")
LONG = (*IN_PLASTER, "clavicle", "rib", "metacarpal", "metatarsal", "phalanx")
EVERYWHERE = 1e3  # cm
Truth = dict[str, Any]


def apply(
    parts: list[Part], phantom: Phantom, middle: Floats, reach: float
) -> tuple[list[Part], Truth]:
    """The parts with the phantom's findings of `BODY_FINDINGS` in them, and what was done.

    middle, reach: cm; a fracture lies within the reach of this point, so that pictures show it
    """
    truth: Truth = {}
    for found in phantom.findings:
        rng = stream(phantom.seed, 70 + len(found.name))
        if found.name == "fracture":
            parts, truth["fracture"] = _fracture(parts, found, middle, reach, rng)
        elif found.name in GROWTHS:
            added, size = GROWTHS[found.name](parts, found, rng)
            parts, truth[found.name] = [*parts, *added], {"side": found.side, **size}
    return parts, truth


def _fracture(
    parts: list[Part], found: Finding, middle: Floats, reach: float, rng: Rng
) -> tuple[list[Part], Truth]:
    """A long bone cut by a plane; what lies beyond is shifted, turned and set apart a little."""
    places = []  # distance from the middle, bone, point, axis, radius
    for part in parts:
        words = part.name.split()
        if part.material == "compact bone" and found.side in words and {*words} & {*LONG}:
            for solid in part.groups[0]:
                p, q = solid.hull[0], solid.hull[-1]
                if (length := float(np.linalg.norm(q - p))) > 0.8:
                    point = p + rng.uniform(0.3, 0.7) * (q - p)
                    distance = float(np.linalg.norm(point - middle))
                    places.append((distance, part.name, point, (q - p) / length, _radius(solid)))
    if not places:
        raise ValueError(f"no long bone of the {found.side} side is here; choose another region")
    reach = max(reach, min(place[0] for place in places))
    near = [place for place in places if place[0] <= reach]
    # every bone in reach is as likely as any other, whatever the number of its pieces
    bone = str(rng.choice(sorted({place[1] for place in near})))
    own = [place for place in near if place[1] == bone]
    _, _, point, along, radius = own[int(rng.integers(len(own)))]
    number = [part.name for part in parts].index(bone)
    across = np.cross(along, rng.normal(size=3))
    across /= np.linalg.norm(across)
    angle = rng.uniform(25, 50) if found.kind == "oblique" else rng.uniform(0, 12)
    normal = np.cos(np.deg2rad(angle)) * along + np.sin(np.deg2rad(angle)) * across
    far = found.kind == "displaced"
    shift = radius * (rng.uniform(0.4, 0.7) if far else rng.uniform(0.12, 0.25))
    shift *= 0.5 + found.size
    bend = rng.uniform(5, 20) * found.size if far else rng.uniform(0, 4)
    gap = 0.1 + 0.15 * found.size
    turn = Rotation.from_rotvec(np.deg2rad(bend) * np.cross(along, across)).as_matrix()
    move = shift * across + gap * along
    shift_all = point - turn @ point + move
    kept = _half_space(normal, high=float(normal @ point))
    beyond = _half_space(normal, low=float(normal @ point)).moved(turn, shift_all)
    end = number + 1
    while end < len(parts) and not parts[end].name and "bone" in parts[end].within:
        end += 1  # the spongy bone and the marrow in it
    broken = [replace(part, clip=(kept,)) for part in parts[number:end]]
    for part in parts[number:end]:
        rest = part.moved(turn, shift_all)
        broken.append(replace(rest, clip=(beyond,)))
    truth: Truth = {
        "bone": bone,
        "kind": found.kind,
        "displacement_mm": 10 * shift,
        "gap_mm": 10 * gap,
        "angle_deg": bend,
        "at_cm": point.tolist(),
        "width_mm": 20 * radius,
    }
    return [*parts[:number], *broken, *parts[end:]], truth


def _half_space(normal: Floats, low: float = -np.inf, high: float = np.inf) -> Solid:
    """All points with low <= n'p <= high."""
    nothing = np.zeros((3, 3))
    return Solid(nothing, np.zeros(3), -1.0, np.zeros((1, 3)), EVERYWHERE * AXES, normal, low, high)


def _stone(parts: list[Part], found: Finding, rng: Rng) -> tuple[list[Part], Truth]:
    kidney = _named(parts, f"{found.side} kidney")
    half = 0.5 * (0.3 + 1.5 * found.size) * rng.uniform(0.75, 1.0, 3)
    at = kidney.groups[0][0].hull.mean(0) + rng.uniform(-1, 1, 3) * [0.6, 1.8, 0.4]
    stone = Part("kidney stone", "stone", ((ellipsoid(at, half),),), kidney.material)
    return [stone], {"size_mm": 20 * float(half.max())}


def _tumour(parts: list[Part], found: Finding, rng: Rng) -> tuple[list[Part], Truth]:
    """A ball with three lumps, in a swollen part of the white matter."""
    centre, half = _brain(parts, found)
    radius = 0.7 + 1.8 * found.size
    way = np.array([rng.uniform(0.5, 1), rng.uniform(-0.8, 0.3), rng.uniform(-0.8, 0.8)])
    at = centre + way / np.linalg.norm(way) * (half - (radius + 0.9) * np.sign(half)) * 0.8
    swollen = ellipsoid(at, radius * rng.uniform(1.3, 1.8, 3))
    lumps = [ball(at + radius * 0.45 * rng.normal(size=3), radius * 0.75) for _ in range(3)]
    brain = ellipsoid(centre, 0.97 * np.abs(half))
    return [
        Part("", "oedema", ((swollen,),), "white matter", (brain,)),
        Part("brain tumour", "tumour", ((ball(at, radius), *lumps),), "white matter"),
    ], {"size_mm": 20 * radius}


def _haemorrhage(parts: list[Part], found: Finding, rng: Rng) -> tuple[list[Part], Truth]:
    """Epidural: a lens under the vault; subdural: a crescent along it; or in the brain itself."""
    centre, half = _brain(parts, found)
    thick = 0.8 + 1.6 * found.size
    place, size = {
        "intracerebral": ((0.4, -0.1, 0.1), thick * rng.uniform(0.7, 1.1, 3)),
        "epidural": ((0.93, -0.1, 0.1), np.array([thick, 2.6 + found.size, 3 + found.size])),
        "subdural": ((0.95, -0.1, 0.0), np.abs(half) * [0, 0.75, 0.85] + [0.6 * thick, 0, 0]),
    }[found.kind]
    at = centre + half * (np.array(place) + rng.uniform(-1, 1, 3) * [0, 0.15, 0.2])
    vault = ellipsoid(centre, 1.02 * np.abs(half))
    blood = Part(found.name, "bleeding", ((ellipsoid(at, size),),), "grey matter", (vault,))
    return [blood], {"kind": found.kind, "thickness_mm": 10 * thick}


def _brain(parts: list[Part], found: Finding) -> tuple[Floats, Floats]:
    """Centre and half axes of the brain; x points to the finding's side."""
    solid = _named(parts, "brain").groups[0][0]
    towards = np.array([1.0 if found.side == "left" else -1.0, 1, 1])
    return solid.hull[0], towards * np.linalg.norm(solid.spread, axis=1)


def _named(parts: list[Part], name: str) -> Part:
    return next(part for part in parts if part.name == name)


def plate(parts: list[Part], truth: Truth, rng: Rng) -> list[Part]:
    """With a plate and four screws beside the broken bone."""
    at, radius = np.asarray(truth["at_cm"]), float(truth["width_mm"]) / 20
    bone = [s for part in parts if part.name == truth["bone"] for s in part.groups[0]]
    near = min((s for s in bone if len(s.hull) > 1), key=lambda s: _distance(s, at))
    along = near.hull[-1] - near.hull[0]
    along = along / np.linalg.norm(along)
    out = np.cross(along, rng.normal(size=3))
    out /= np.linalg.norm(out)
    half, middle = 3.5 * radius * along, at + 1.1 * radius * out
    metal = [(frustum(middle - half, middle + half, 0.35 * radius, 0.35 * radius, 0.3, out),)]
    for place in (-0.85, -0.55, 0.55, 0.85):
        head = middle + place * half
        metal.append((frustum(head, head - 2.2 * radius * out, 0.13 * radius, 0.1 * radius),))
    return [*parts, Part("plate and screws", "metal", tuple(metal))]


def cast(parts: list[Part], truth: Truth) -> list[Part]:
    """With plaster round the broken limb, of which it is a cone."""
    at = np.asarray(truth["at_cm"])
    limbs = [[s for s in group if len(s.hull) > 1] for group in parts[0].groups]
    limb = min(filter(None, limbs), key=lambda group: min(_distance(s, at) for s in group))
    near = [s for s in limb if _distance(s, at) < 12]
    p, q, radius = near[0].hull[0], near[-1].hull[-1], max(map(_radius, near))
    return [*_sleeve(p, q, radius, "cast", "plaster", 0.5), *parts]


def ring(parts: list[Part], side: str) -> list[Part]:
    """With a ring on the fourth finger."""
    bone = _named(parts, f"{side} proximal phalanx 4 of the hand").groups[0]
    p, q = max((s.hull for s in bone if len(s.hull) > 1), key=lambda h: np.ptp(h, 0).max())
    middle, along = 0.4 * p + 0.6 * q, (q - p) / np.linalg.norm(q - p)
    half = 0.15 * along
    return [*_sleeve(middle - half, middle + half, 0.85, "ring", "metal", 0.12), *parts]


def _sleeve(
    p: Floats, q: Floats, radius: float, name: str, material: str, thick: float
) -> list[Part]:
    """A tube in the air: parts that come before the flesh in it."""
    outer, inner = (frustum(p, q, radius + more, radius + more) for more in (thick, 0))
    return [Part(name, material, ((outer,),), "air"), Part("", "air", ((inner,),), material)]


def _distance(solid: Solid, point: Floats) -> float:
    return float(np.linalg.norm(solid.hull.mean(0) - point))


def _radius(solid: Solid) -> float:
    return float(np.abs(solid.spread).max())


GROWTHS = {"kidney stone": _stone, "brain tumour": _tumour, "brain haemorrhage": _haemorrhage}
