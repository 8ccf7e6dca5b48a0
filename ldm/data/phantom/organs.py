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
from ldm.data.phantom.scene import Cloud, Field, Part
from ldm.data.phantom.solids import AXES, Point, Solid, chain, ellipsoid
from ldm.data.phantom.thorax import chest_organs

GAS = 0.25  # share of a piece of bowel, from which on it is drawn


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
    # the trunk's ellipsoid less the wall of the belly, from the diaphragm on
    loin = person.spine(21)
    back, front = loin[2] - 1.0, loin[2] + 4.5 + (7.6 + 1.5 * a.fat) * size[2]
    middle = np.array([0, loin[1], 0.5 * (back + front)])
    half = np.array([(a.width - 1.0) * size[0], 20 * size[1], 0.5 * (front - back)])
    top = (min(a.dome) + 1.0) * size[1]
    fat = [(ellipsoid(middle, half).cut((0, 1, 0), top),)]
    parts: list[Part] = []
    solids: dict[tuple[str, str], list[Solid]] = {}
    for name, material, x, y, z, *shape in _table()["dome"]:
        at = np.array([x, y + a.dome[int(x > 0)], z])
        made = _blob(at * size, shape, size, rng)
        if (name, x < 0) == ("liver", True):  # its lower side lies on kidney and gut
            under = np.array([0.5, 0.62, -0.6])
            made = made.cut(under, high=float(under @ made.hull[0]) + 3.6 * size[0])
        solids.setdefault((name, material), []).append(made)
    for name, material, level, x, y, z, *shape in _table()["spine"]:
        at = person.spine(level) + np.array([x, y, z]) * size
        solids.setdefault((name, material), []).append(_blob(at, shape, size, rng))
    for (name, material), group in solids.items():
        parts.append(Part(name, material, (tuple(group),), "fat"))
        if "kidney" in name:
            sign = 1 if "left" in name else -1
            fat.append((ellipsoid(group[0].hull[0], np.array([4.0, 7.2, 3.6]) * size),))
            hilum = group[0].hull[0] - np.array([sign * 1.3, 0, -0.4])
            parts.append(Part("", "fat", ((ellipsoid(hilum, (1.1, 2.6, 1.0)),),), "kidney"))
            parts.append(Part("", "water", ((ellipsoid(hilum, (0.5, 1.5, 0.5)),),), "fat"))
    parts += _trunks(person) + _stomach_gas(person) + _bowel(person)
    return [Part("", "fat", tuple(fat)), *parts]


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
    """The film's bubble under the left dome: its upper part, or its front in those who lie."""
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
    a, size, rng = person.anatomy, person.scale, stream(person.seed, 133)
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
    r, gas = stops[:, 3] * rng.normal(1, 0.1, count), stops[:, 4]
    filled = np.convolve(rng.random(count + 5), [0.4, 0.24, 0.15, 0.09, 0.07, 0.05], "valid")
    full = filled > 0.66 - 0.45 * gas  # neighbours are alike
    row, column = np.divmod(np.arange(42), 6)
    x = ((column - 2.5) * 2.3 + rng.normal(0, 0.8, 42)) * a.width / 13.5
    first, last = (person.spine(level)[1] / size[1] for level in (20.8, 24.1))
    y = first + (last - first) * (row + rng.normal(0, 0.2, 42)) / 6
    z = rng.uniform(0, a.depth / 2 - 2 + 1.5 * a.fat, 42)
    at = np.concatenate([stops[:, :3], np.stack([x, y, z], 1)]) * size
    long = (
        np.stack([r, np.full(count, 1.5), r], 1),
        rng.uniform((1, 2, 1), (1.5, 3.4, 1.5), (42, 3)),
    )
    half = np.concatenate(long) * size[0]
    way = np.gradient(stops[:, :3], axis=0), rng.normal(0, 1, (42, 3)) * [1, 1, 0.4]
    share = np.concatenate([1.3 * gas * full, 0.7 * (rng.random(42) < 0.2)])
    walls, lumens = _loops(at, half, np.concatenate(way), share, _lying(person))
    parts = [Part("", "bowel", ((wall,),), "fat") for wall in walls]
    runs: list[list[Solid]] = []  # one lumen for neighbours with gas
    for i, lumen in enumerate(lumens):
        if share[i] > GAS:
            if 0 < i < count and share[i - 1] > GAS and len(runs[-1]) < 5:
                runs[-1].append(lumen)
            else:
                runs.append([lumen])
    parts += [Part("", "air", tuple((lumen,) for lumen in run), "bowel") for run in runs]
    stool = np.flatnonzero(~full & (gas < 0.65)).repeat(30)  # with bubbles of about 5 mm in it
    bubbles = at[stool] + rng.normal(0, 0.4, (len(stool), 3)) * half[stool]
    cloud = Cloud(bubbles, 0.06 * rng.exponential(1, len(stool)), 0.18)
    return [*parts, Part("", "air", within="bowel", other=cloud)]


def _loops(
    at: Floats, half: Floats, way: Floats, gas: Floats, lying: bool
) -> tuple[list[Solid], list[Solid]]:
    """Pieces of bowel along `way` [n, 3], and the gas that floats in them, up or to the front."""
    v = way / np.linalg.norm(way, axis=1, keepdims=True)
    w = np.stack([v[:, 1] + 1e-6, -v[:, 0], 0 * v[:, 0]], 1)
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    turn = np.stack([w, v, np.cross(w, v)], 2)
    up, radius = (AXES[2], half[:, 2]) if lying else (-AXES[1], half[:, 0])
    low = at @ up + (0.9 - 1.8 * np.minimum(gas, 1)) * radius
    found = []
    for inner, cut in ((1.0, np.full(len(at), -np.inf)), (np.array([0.86, 0.97, 0.86]), low)):
        long = half * inner
        a = (turn * long[:, None] ** -2) @ turn.transpose(0, 2, 1)
        b = -(a @ at[..., None])[..., 0]
        c, spread = -(b * at).sum(1) - 1, turn * long[:, None]
        found.append(
            [
                Solid(a[i], b[i], float(c[i]), at[i : i + 1], spread[i], up, float(cut[i]))
                for i in range(len(at))
            ]
        )
    return found[0], found[1]


def pelvis_organs(person: Person) -> list[Part]:
    """Fat of the small pelvis, the bladder, and the uterus or the prostate."""
    rng, size = stream(person.seed, 134), person.scale
    floor = person.spine(24.6)
    middle = np.array([0, floor[1], person.hip("left")[2] + 1.0])
    fill = rng.uniform(0.75, 1.15)
    at = middle + np.array([0, 3.5, 2.5])
    bladder = ellipsoid(at, np.array([4.2, 2.9, 3.2]) * fill * size)
    parts = [Part("", "fat", ((ellipsoid(middle, np.array([6.2, 7.5, 5.5]) * size),),))]
    if person.sex == "F":
        half = np.array([2.6, 2.0, 3.6]) * size * rng.normal(1, 0.1)
        uterus = ellipsoid(at + np.array([0.3, -3.6, -1.0]) * size, half, about(0, 20))
        parts.append(Part("uterus", "muscle", ((uterus,),), "fat"))
    else:
        prostate = ellipsoid(at + np.array([0, 3.9, -1.0]) * size, np.array([2.2, 1.7, 1.6]) * size)
        parts.append(Part("prostate", "muscle", ((prostate,),), "fat"))
    return [*parts, Part("bladder", "water", ((bladder,),), "fat")]


def head_organs(person: Person) -> list[Part]:
    """Brain in its fluid, ventricles, deep nuclei, cerebellum, brainstem and eyes."""
    (middle, half), turn, top = cranium(person), about(0, 8), person.spine(0)
    rng, size = stream(person.seed, 135), np.asarray(person.head) / (15.2, 22.8, 19.6)
    old = float(np.clip((person.age - 50) / 35, 0, 1))
    shrunk = 0.15 + 0.3 * old + 0.05 * rng.random()  # cm of fluid around the brain

    def blob(sign: int, at: Point, long: Point, less: float = 0.0) -> Solid:
        return ellipsoid(top + size * at * [sign, 1, 1], np.array(long) * size - less)

    def both(kind: str, within: str, at: Point, long: Point, name: str = "") -> list[Part]:
        return [Part(name, kind, ((blob(sign, at, long),),), within) for sign in (1, -1)]

    lobes = [((3.9, -5.4, 2.4), (2.72, 2.5, 3.7))]  # temporal
    groups = [(ellipsoid(middle, half - shrunk, turn),)]
    groups += [(blob(sign, *lobe, shrunk),) for lobe in lobes for sign in (1, -1)]
    space = [(ellipsoid(middle, half, turn),)]
    space += [(blob(sign, *lobe),) for lobe in lobes for sign in (1, -1)]
    parts = [Part("", "water", tuple(space), "grey matter")]
    parts.append(Part("brain", "grey matter", tuple(groups), "water"))
    if person.phantom.modality != "xray":  # to X-rays the brain is all of one kind
        shapes = [(g[0].hull[0], g[0]) for g in groups]
        waves = rng.normal(0, 1, (3, 3))
        parts.append(Part("", "white matter", (), "grey matter", (), _folds(shapes, waves, -0.3)))
        parts.append(
            Part("", "water", (), "grey matter", (), _folds(shapes, waves, 0.03 + 0.1 * old))
        )
    arch = [(0, -9.3, 3.6), (0, -10.9, 2.6), (0, -11.5, 0), (0, -10.8, -2.4), (0, -9.9, -3.1)]
    callosum = chain(top + size * np.array(arch), 0.45 * size[0])
    parts.append(Part("", "white matter", tuple((s,) for s in callosum), "grey matter"))
    for shape in (((1.4, -8.3, 2.9), (0.7, 1.1, 1.5)), ((2.3, -8.3, 1.0), (0.8, 1.2, 2.2)),
                  ((1.1, -7.9, -0.7), (0.9, 1.0, 1.5))):  # fmt: skip
        parts += both("grey matter", "white matter", *shape)
    swell = (0.75 + 0.5 * old) * rng.normal(1, 0.1)
    horns = [(1.1, -9.0, 4.4), (0.7, -10.0, 2.6), (0.7, -10.3, 0.2), (1.7, -9.8, -2.6),
             (2.2, -8.7, -4.8)]  # fmt: skip
    wide = np.array([0.12, 0.42, 0.4, 0.55, 0.12]) * swell
    for side, sign in (("left", 1), ("right", -1)):
        curve = top + size * np.array(horns) * [sign, 1, 1]
        for i in range(4):
            tube = tuple(chain(curve[i : i + 2], wide[i : i + 2], 1.5, (0, 1, 0)))
            parts.append(Part(f"{side} lateral ventricle", "water", (tube,), "white matter"))
    parts += both("water", "grey matter", (0, -7.9, -0.1), (0.15 + 0.2 * old, 1.1, 1.4))
    parts += both("water", "grey matter", (2.4, -4.4, -4.2), (3.0, 2.6, 3.4))
    parts += both("grey matter", "water", (2.4, -4.4, -4.2), (2.8, 2.4, 3.2), name="cerebellum")
    parts += both("white matter", "grey matter", (1.9, -5.0, -4.2), (1.3, 0.8, 1.4))
    stem = [(0, -7.2, -0.8), (0, -5.0, -0.4), (0, -3.0, -1.3), (0, 0.5, -2.2)]
    tube = tuple(chain(top + size * np.array(stem), np.array([1.3, 1.4, 0.8, 0.6]) * size[0]))
    parts.append(Part("brainstem", "white matter", (tube,), "water"))
    parts += both("water", "grey matter", (0, -5.0, -2.1), (0.7, 0.8, 0.4))
    parts += both("fat", "muscle", (3.1, -4.7, 6.4), (1.75, 1.6, 2.3))
    for side, sign in (("left", 1), ("right", -1)):
        eye = blob(sign, (3.1, -4.7, 7.6), (1.2, 1.2, 1.2))
        parts.append(Part(f"{side} eye", "water", ((eye,),), "fat"))
    return parts


def _folds(shapes: Sequence[tuple[Floats, Solid]], waves: Floats, out: float) -> Field:
    """White matter below a folded cortex (as deep as out < 0 says), or fluid in its furrows.

    shapes: the middles and the ellipsoids of the brain
    """
    waves = waves * (np.array([2.0, 1.9, 1.7]) / np.linalg.norm(waves, axis=1))[:, None]
    middle, solid = shapes[0]
    half = np.abs(solid.spread).sum(1)

    def inside(points: Floats, soft: float) -> Array:
        depth = np.full(points.shape[:-1], -9, F32)
        for at, ball in shapes:
            p = (points - at).astype(F32)
            r2 = np.einsum("...i,ij,...j->...", p, ball.quadric.astype(F32), p)
            r = np.sqrt(r2)
            depth = np.maximum(depth, (1 - r) * np.linalg.norm(p, axis=-1) / np.maximum(r, 0.1))
        p = (points - middle).astype(F32)
        a, b, c = np.moveaxis(p @ waves.T.astype(F32), -1, 0)
        fold = np.abs(np.sin(a + 1.9 * np.sin(b) + 1.5 * np.sin(c))) / F32(3.4)
        fold = fold + F32(0.6) * np.clip(depth - F32(1.3) - F32(0.6) * np.sin(b), 0, None)
        # the falx parts the halves but for the corpus callosum
        cleft = np.where((depth < 3.2) & (p[..., 1] < 1), np.abs(p[..., 0]), F32(3))
        fold, width = np.minimum(fold, cleft), F32(max(soft, 0.1))
        if out > 0:
            share = (F32(out) - fold) / width + F32(0.5)
            share = np.minimum(share, depth / width)
        else:
            share = (np.minimum(depth, fold) + F32(out)) / width + F32(0.5)
        return np.asarray(np.clip(share, 0, 1), F32)

    return Field(inside, middle, half + np.array([0, 2, 0]))


ORGANS: dict[str, Callable[[Person], list[Part]]] = {
    "head": head_organs,
    "chest": chest_organs,
    "lower chest": chest_organs,
    "abdomen": abdomen_organs,
    "pelvis": pelvis_organs,
}
