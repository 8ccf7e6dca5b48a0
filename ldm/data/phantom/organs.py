"""Organs of head, abdomen and pelvis: solids at places chosen by eye, in sizes as published.

Mean volumes in adults: liver 1.5 l, spleen 0.2 l, kidney 0.15 l, brain 1.3 l (ICRP Publication 89,
Basic anatomical and physiological data, 2002: 1.4 to 1.8, 0.13 to 0.15, 0.14 to 0.16 and 1.3 to
1.45 kg of women and men).
"""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ldm.data.phantom.body import F32, Array
from ldm.data.phantom.detector import Floats, spline
from ldm.data.phantom.findings import stream
from ldm.data.phantom.person import Person, about, cranium
from ldm.data.phantom.scene import Field, Part
from ldm.data.phantom.solids import Solid, chain, ellipsoid, frustum
from ldm.data.phantom.thorax import chest_organs


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    """Ellipsoids, lengths in the chest's units.

    dome, spine: name, material, [level of the spine,] middle, half axes, turn about z and x (deg);
    y from the diaphragm's dome of that side, or y and z from the middle of the spine
    colon: level of the spine, x as a share of the chest's half width, z, radius
    """
    return dict(json.loads((Path(__file__).parent / "organs.json").read_text()))


def abdomen_organs(person: Person) -> list[Part]:
    """The fat inside the wall of the belly, then organs, great vessels, psoas and bowel in it."""
    a, size, rng = person.anatomy, person.scale, stream(person.seed, 132)
    waist = person.spine(21) / size
    back, front = waist[2] - 0.8, 0.5 * a.depth - 1.5 + 3 * a.fat
    wide, deep = a.width - 1.3 + 1.5 * a.fat, (front - back) / 2
    middle = np.array([0, a.dome[0] + 11, (front + back) / 2])
    upper = ellipsoid(middle * size, np.array([wide, 10.0, deep]) * size)
    hips = person.spine(24)[1] + 1
    lower = frustum(middle * size, (0, hips, middle[2] * size[2]), wide, 0.8 * wide, deep / wide)
    parts = [Part("", "fat", ((upper, lower),))]
    solids: dict[tuple[str, str], list[Solid]] = {}
    for name, material, x, y, z, *shape in _table()["dome"]:
        at = np.array([x, y + a.dome[int(x > 0)], z])
        solids.setdefault((name, material), []).append(_blob(at * size, shape, size, rng))
    for name, material, level, x, y, z, *shape in _table()["spine"]:
        at = person.spine(level) + np.array([x, y, z]) * size
        solids.setdefault((name, material), []).append(_blob(at, shape, size, rng))
    for (name, material), group in solids.items():
        parts.append(Part(name, material, (tuple(group),), "fat"))
        if "kidney" in name:
            sign = 1 if "left" in name else -1
            hilum = group[0].hull[0] - np.array([sign * 1.3, 0, -0.4])
            parts.append(Part("", "fat", ((ellipsoid(hilum, (1.1, 2.6, 1.0)),),), "kidney"))
            parts.append(Part("", "water", ((ellipsoid(hilum, (0.5, 1.5, 0.5)),),), "fat"))
    parts += _trunks(person)
    return parts + _stomach_gas(person) + _bowel(person)


def _blob(at: Floats, shape: Sequence[float], size: Floats, rng: np.random.Generator) -> Solid:
    half = np.array(shape[:3]) * size * rng.normal(1, 0.035, 3) * rng.normal(1, 0.03)
    return ellipsoid(at, half, about(2, shape[3]) @ about(0, shape[4]))


def _trunks(person: Person) -> list[Part]:
    """Aorta and vena cava in front of the spine, the psoas muscles beside it."""
    size, parts = person.scale, []
    for name, x, radius in (("aorta", 0.9, 0.9), ("vena cava", -1.7, 1.05)):
        curve = [person.spine(v) + np.array([x, 0, 3.1]) * size for v in (18.3, 20.5, 22.8)]
        parts.append(Part(name, "blood", (tuple(chain(np.array(curve), radius * size[0])),), "fat"))
    for side, sign in (("left", 1), ("right", -1)):
        course = [(19.2, 2.5, 0.2), (21.5, 3.9, 0.6), (23.8, 5.2, 1.8)]
        curve = [person.spine(v) + np.array([sign * x, 0, z]) * size for v, x, z in course]
        curve.append(person.hip(side) + np.array([-sign * 1.0, -1.5, 2.2]))
        flesh = tuple(chain(np.array(curve), np.array([0.7, 1.9, 2.3, 1.5]) * size[0]))
        parts.append(Part(f"{side} psoas", "muscle", (flesh,), "fat"))
    return parts


def _lying(person: Person) -> bool:
    """Of all but chest films of the standing."""
    return person.phantom.modality != "xray" or person.phantom.region != "chest"


def _stomach_gas(person: Person) -> list[Part]:
    """The film's bubble under the left dome: the upper part of the standing, the front of others."""
    a, size, rng = person.anatomy, person.scale, stream(person.seed, 6)  # as the film's
    g = a.gas
    at = np.array([rng.normal(7.0, 1.0) - 0.8, a.dome[1] + 1.6 + 1.2 * g, 0.5])
    half = np.array([1.2 + 2.2 * g, 0.7 + 1.3 * g, max(3.5 * g, 0.5)])
    if _lying(person):
        at, half = at + np.array([-1.0, 3.0, 1.0]), half * np.array([1.0, 1.6, 0.5])
        bubble = ellipsoid(at * size, half * size).cut((0, 0, 1), (at[2] - 0.2) * size[2])
    else:
        bubble = ellipsoid(at * size, half * size).cut((0, 1, 0), high=(at[1] + 0.35) * size[1])
    return [Part("", "air", ((bubble,),), "bowel")]


def _bowel(person: Person) -> list[Part]:
    """The colon's haustra along its frame and the loops of the small bowel; gas in some of them."""
    a, size, rng, parts = person.anatomy, person.scale, stream(person.seed, 133), []
    knots = _table()["colon"]
    line = np.array([person.spine(level) / size * [0, 1, 1] for level, *_ in knots])
    line[:10, 2] = 0  # only the rectum follows the sacrum
    line += [(x * a.width, 0, z) for _, x, z, _ in knots]
    line += rng.normal(0, 0.7, line.shape) * [1, 1.3, 0.6]
    radius = np.array([r for *_, r in knots]) * rng.normal(1, 0.12, len(knots))
    curve = spline(np.column_stack([line, radius, _table()["gas"]]), 400)
    length = np.cumsum(np.linalg.norm(np.diff(curve[:, :3], axis=0, prepend=curve[:1, :3]), axis=1))
    count = int(length[-1] / 2.5)
    stops = np.array([np.interp((np.arange(count) + 0.5) * 2.5, length, c) for c in curve.T]).T
    along = np.gradient(stops[:, :3], axis=0)
    filled, lying = 0.5, _lying(person)
    for (*at, r, gas), way in zip(stops, along, strict=True):
        turn = _facing(way)
        filled = 0.6 * filled + 0.4 * rng.random()  # neighbours are alike
        half = np.array([r, 1.5, r]) * size[0] * rng.normal(1, 0.08)
        parts += _loop(
            np.array(at) * size, half, turn, 1.45 * gas * (filled > 0.62 - 0.45 * gas), lying
        )
    for i in range(26):
        column, row = i % 5, i // 5
        x = ((column - 2) * 2.5 + rng.normal(0, 0.8)) * a.width / 13.5
        y = person.spine(21.0 + 0.62 * row + rng.normal(0, 0.12))[1]
        at = np.array([x * size[0], y, rng.uniform(0.5, 5.5) * size[2]])
        half = np.array([rng.uniform(1.1, 1.5), rng.uniform(1.8, 2.8), rng.uniform(1.1, 1.5)])
        turn = _facing(rng.normal(0, 1, 3) * [1, 1, 0.4])
        parts += _loop(at, half, turn, rng.choice([0.0, 0.7], p=[0.8, 0.2]), lying)
    return parts


def _facing(way: Floats) -> Floats:
    """[3, 3] a turn that lays the y axis along the way."""
    v = way / np.linalg.norm(way)
    w = np.cross(v, (0, 0, 1)) + np.array([1e-6, 0, 0])
    w = w / np.linalg.norm(w)
    return np.stack([w, v, np.cross(w, v)], 1)


def _loop(at: Floats, half: Floats, turn: Floats, gas: float, lying: bool) -> list[Part]:
    """A piece of bowel, and the gas that floats in it, up or, of those who lie, to the front."""
    parts = [Part("", "bowel", ((ellipsoid(at, half, turn),),), "fat")]
    if gas > 0.25:
        inner = ellipsoid(at, half * np.array([0.86, 0.95, 0.86]), turn)
        up, r = ((0, 0, 1), half[2]) if lying else ((0, -1, 0), half[0])
        level = float(np.array(up) @ at) + (0.9 - 1.8 * min(gas, 1)) * r
        parts.append(Part("", "air", ((inner.cut(up, low=level),),), "bowel"))
    return parts


def pelvis_organs(person: Person) -> list[Part]:
    """Fat of the small pelvis, the bladder, and the uterus or the prostate."""
    rng, size = stream(person.seed, 134), person.scale
    floor = person.spine(24.6)
    middle = np.array([0, floor[1] + 2, person.hip("left")[2] + 1.0])
    fill = rng.uniform(0.75, 1.15)
    at = middle + np.array([0, 1.5, 2.5])
    bladder = ellipsoid(at, np.array([4.2, 2.9, 3.2]) * fill * size)
    parts = [Part("", "fat", ((ellipsoid(middle, np.array([6.0, 6.5, 5.5]) * size),),))]
    if person.sex == "F":
        half = np.array([2.6, 2.0, 3.6]) * size * rng.normal(1, 0.1)
        uterus = ellipsoid(at + np.array([0.3, -3.6, -1.0]) * size, half, about(0, 20))
        parts.append(Part("uterus", "muscle", ((uterus,),), "fat"))
    else:
        prostate = ellipsoid(at + np.array([0, 3.9, -1.0]) * size, np.array([2.2, 1.7, 1.6]) * size)
        parts.append(Part("prostate", "muscle", ((prostate,),), "fat"))
    return [*parts, Part("bladder", "water", ((bladder,),), "fat")]


def head_organs(person: Person) -> list[Part]:
    """Brain in its fluid, ventricles, cerebellum, brainstem and eyes."""
    middle, half = cranium(person)
    rng, s = stream(person.seed, 135), half / np.array([6.8, 6.4, 8.6])
    old = float(np.clip((person.age - 50) / 35, 0, 1))
    rim = 0.25 + 0.25 * old

    def blob(x: float, y: float, z: float, *size: float, turn: Floats | None = None) -> Solid:
        at = middle + np.array([x, y, z]) * s
        return ellipsoid(at, np.array(size) * s, np.eye(3) if turn is None else turn)

    brain = ellipsoid(middle, half - rim).cut((0, 1, 0), high=middle[1] + 4.0 * s[1])
    parts = [Part("brain", "grey matter", ((brain,),), "water")]
    parts.append(
        Part(
            "", "white matter", within="grey matter", other=_folds(middle, half, rim, rng, "white")
        )
    )
    parts.append(
        Part("", "water", within="grey matter", other=_folds(middle, half, rim, rng, "water"))
    )
    for sign in (-1, 1):
        for x, y, z, *size in (
            (1.5, 0.9, 2.6, 0.7, 0.9, 1.6),
            (2.6, 1.0, 0.6, 0.55, 1.3, 1.9),
            (1.3, 1.2, -0.6, 0.8, 1.0, 1.5),
        ):
            parts.append(Part("", "grey matter", ((blob(sign * x, y, z, *size),),), "white matter"))
        swell = (0.8 + 0.5 * old) * rng.normal(1, 0.1)
        horns = [(0.9, -0.4, 3.4), (0.7, -1.2, 0.5), (1.7, -0.5, -2.2), (2.0, 0.6, -4.0)]
        curve = np.array([middle + np.array([sign * x, y, z]) * s for x, y, z in horns])
        for i in range(3):
            tube = chain(curve[i : i + 2], np.array([0.4, 0.55, 0.6, 0.35])[i : i + 2] * swell)
            parts.append(
                Part(
                    f"{'left' if sign > 0 else 'right'} ventricle" if i == 0 else "",
                    "water",
                    (tuple(tube),),
                    "white matter",
                )
            )
    parts.append(
        Part("", "water", ((blob(0, 1.3, 0.4, 0.25 + 0.15 * old, 1.1, 1.5),),), "grey matter")
    )
    below = blob(0, 4.2, -4.2, 5.3, 2.9, 3.6)
    parts.append(Part("", "water", ((below,),), "grey matter"))
    for sign in (-1, 1):
        lobe = blob(sign * 2.3, 4.3, -4.3, 2.6, 2.3, 3.0)
        parts.append(Part("cerebellum" if sign > 0 else "", "grey matter", ((lobe,),), "water"))
        parts.append(
            Part(
                "", "white matter", ((blob(sign * 2.0, 4.2, -3.8, 1.2, 0.7, 1.4),),), "grey matter"
            )
        )
    stem = np.array(
        [middle + np.array(p) * s for p in ((0, 2.2, -0.6), (0, 4.2, -0.6), (0, 7.5, -1.6))]
    )
    parts.append(
        Part(
            "brainstem",
            "white matter",
            (tuple(chain(stem, np.array([1.5, 1.5, 0.8]) * s[0])),),
            "water",
        )
    )
    parts.append(Part("", "water", ((blob(0, 4.3, -2.3, 0.7, 0.8, 0.45),),), "grey matter"))
    for side, sign in (("left", 1), ("right", -1)):
        socket, eye = (
            blob(sign * 3.2, 5.0, 6.6, 1.8, 1.7, 2.2),
            blob(sign * 3.2, 5.0, 7.6, 1.2, 1.2, 1.2),
        )
        parts.append(Part("", "fat", ((socket,),), "muscle", clip=(socket,)))
        parts.append(Part(f"{side} eye", "water", ((eye,),), "fat"))
    return parts


def _folds(middle: Floats, half: Floats, rim: float, rng: np.random.Generator, kind: str) -> Field:
    """White matter under a folded cortex of 0.35 cm, or the fluid in its furrows."""
    waves = rng.normal(0, 1, (3, 3))
    waves *= (np.array([2.2, 2.0, 1.4]) / np.linalg.norm(waves, axis=1))[:, None]
    phase, inner = rng.uniform(0, 6, 3), (half - rim).astype(F32)

    def inside(points: Floats, soft: float) -> Array:
        p = (points - middle).astype(F32)
        r = np.sqrt(((p / inner) ** 2).sum(-1))
        depth = (1 - r) * F32(inner.mean())  # cm below the surface
        a, b, c = (p @ wave.astype(F32) + F32(f) for wave, f in zip(waves, phase, strict=True))
        fold = np.abs(np.sin(a + 1.3 * np.sin(b) + 0.8 * np.sin(1.7 * c))) / F32(2.6)
        cleft = np.minimum(np.abs(p[..., 0]), 3.0)
        fold = np.where(depth < 2.2, np.minimum(fold, cleft), np.minimum(cleft, 3))
        if kind == "water":
            share = (F32(0.07 + 0.3 * rim) - fold) / F32(max(soft, 0.1)) + F32(0.3)
            share = np.minimum(share, depth / F32(max(soft, 0.1)))
            share = np.minimum(share, (F32(1.9) - depth) / F32(max(soft, 0.1)))
        else:
            share = np.minimum(depth - F32(0.35), fold - F32(0.33)) / F32(max(soft, 0.1)) + F32(0.5)
        return np.asarray(np.clip(share, 0, 1) * (p[..., 1] < 4.0), F32)

    return Field(inside, middle, half)


ORGANS: dict[str, Callable[[Person], list[Part]]] = {
    "head": head_organs,
    "chest": chest_organs,
    "abdomen": abdomen_organs,
    "pelvis": pelvis_organs,
}
