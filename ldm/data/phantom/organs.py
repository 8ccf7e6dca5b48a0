"""Organs of head, abdomen and pelvis: solids at places chosen by eye, in sizes as published.

Mean volumes in adults: liver 1.5 l, spleen 0.2 l, kidney 0.15 l, brain 1.3 l (ICRP Publication 89,
Basic anatomical and physiological data, 2002: 1.4 to 1.8, 0.13 to 0.15, 0.14 to 0.16 and 1.3 to
1.45 kg of women and men). Tables of organs.json, in the chest's units, those of the head for a
skull of mean size:

abdomen: name, material, a level of the spine (or null: the diaphragm's dome of that side), the
    place from there, half axes, turn about z and x in degrees
colon: level of the spine, x as a share of the chest's half width, z, radius, share of gas
pelvis: name, place from the bladder, half axes, turn about x, standard deviation of the size
horns: of a lateral ventricle, x, y, z and radius;  nuclei, hindbrain: name, material, within, place
    and half axes of a pair, or points and radii of a tube in the middle
aorta, veins, airways: x, y, z and radius along each; of the aorta from the fifth point on, and of
    the airways below the neck, z is that from the spine
"""

from collections.abc import Callable, Sequence

import numpy as np

from ldm.data.phantom.body import F32, Array
from ldm.data.phantom.detector import Floats, spline
from ldm.data.phantom.findings import stream
from ldm.data.phantom.person import SIDES, Person, about, cranium
from ldm.data.phantom.scene import Cloud, Field, Part
from ldm.data.phantom.solids import AXES, Point, Solid, chain, ellipsoid
from ldm.data.phantom.thorax import SHAPES, chest_organs

GAS = 0.25  # share of a piece of bowel, from which on it is drawn


def abdomen_organs(person: Person) -> list[Part]:
    """The fat inside the wall of the belly, then organs, great vessels, psoas and bowel in it."""
    a, size, rng = person.anatomy, person.scale, stream(person.seed, 132)
    # the trunk's ellipsoid less the wall of the belly, from the diaphragm on
    loin = person.spine(21)
    back, front = loin[2] - 1.0, loin[2] + 4.5 + (7.6 + 1.5 * a.fat) * size[2]
    half = ((a.width - 1.0) * size[0], 20 * size[1], 0.5 * (front - back))
    belly = ellipsoid((0, loin[1], 0.5 * (back + front)), half)
    fat = [(belly.cut((0, 1, 0), (min(a.dome) + 1.0) * size[1]),)]
    organs: dict[tuple[str, str], list[Solid]] = {}
    for name, material, level, x, y, z, *shape in SHAPES["abdomen"]:
        start = person.spine(level) if level else size * (0, a.dome[int(x > 0)], 0)
        half = size * shape[:3] * rng.normal(1, 0.035, 3) * rng.normal(1, 0.03)
        made = ellipsoid(start + size * (x, y, z), half, about(2, shape[3]) @ about(0, shape[4]))
        if name == "liver" and x < 0:  # its lower side lies on kidney and gut
            under = np.array([0.5, 0.62, -0.6])
            made = made.cut(under, high=float(under @ made.hull[0]) + 3.6 * size[0])
        organs.setdefault((name, material), []).append(made)
    parts: list[Part] = []
    for (name, material), group in organs.items():
        parts.append(Part(name, material, (tuple(group),), "fat"))
        if "kidney" in name:
            middle = group[0].hull[0]
            fat.append((ellipsoid(middle, size * (4.0, 7.2, 3.6)),))
            hilum = middle + np.array([-1.3 if "left" in name else 1.3, 0, 0.4])
            parts.append(Part("", "fat", ((ellipsoid(hilum, (1.1, 2.6, 1.0)),),), "kidney"))
            parts.append(Part("", "water", ((ellipsoid(hilum, (0.5, 1.5, 0.5)),),), "fat"))
    return [Part("", "fat", tuple(fat)), *parts, *_trunks(person), *_bowel(person)]


def _trunks(person: Person) -> list[Part]:
    """Aorta and vena cava in front of the spine, the psoas muscles beside it."""
    size, parts = person.scale, []
    for name, x, radius in (("aorta", 0.9, 0.9), ("vena cava", -1.7, 1.05)):
        curve = person.spine(np.array([18.3, 20.5, 22.8])) + size * (x, 0, 3.1)
        parts.append(Part(name, "blood", (tuple(chain(curve, radius * size[0])),), "fat"))
    beside = np.array([(2.5, 0, 0.2), (3.9, 0, 0.6), (5.2, 0, 1.8)])
    for side, mirror in zip(SIDES, ((1, 1, 1), (-1, 1, 1)), strict=True):
        curve = person.spine(np.array([19.2, 21.5, 23.8])) + beside * mirror * size
        curve = np.vstack([curve, person.hip(side) + np.multiply(mirror, (-1.0, -1.5, 2.2))])
        flesh = tuple(chain(curve, size[0] * np.array([0.7, 1.9, 2.3, 1.5])))
        parts.append(Part(f"{side} psoas", "muscle", (flesh,), "fat"))
    return parts


def _bowel(person: Person) -> list[Part]:
    """Gas of the stomach, the colon's haustra along its frame, loops of small bowel; gas in some.

    Gas floats up in those who stand for a film of the chest, to the front in all others.
    """
    a, size, rng = person.anatomy, person.scale, stream(person.seed, 133)
    standing = (person.phantom.modality, person.phantom.region) == ("xray", "chest")
    up = -AXES[1] if standing else AXES[2]
    level, x, z, radius, gas = np.array(SHAPES["colon"]).T
    line = person.spine(level) / size * [0, 1, 1]
    line[:10, 2] = 0  # only the rectum follows the sacrum
    line += np.stack([x * a.width, 0 * x, z], 1)
    line += rng.normal(0, 0.7, line.shape) * [1, 1.3, 0.6]
    radius = radius * rng.normal(1, 0.12, len(radius))
    curve = spline(np.column_stack([line, radius, gas]), 400)
    length = np.cumsum(np.linalg.norm(np.diff(curve[:, :3], axis=0, prepend=curve[:1, :3]), axis=1))
    count = int(length[-1] / 2.5)
    stops = np.array([np.interp((np.arange(count) + 0.5) * 2.5, length, c) for c in curve.T]).T
    r, gas = stops[:, 3] * rng.normal(1, 0.1, count), stops[:, 4]
    filled = np.convolve(rng.random(count + 5), [0.4, 0.24, 0.15, 0.09, 0.07, 0.05], "valid")
    full = filled > 0.66 - 0.45 * gas  # neighbours are alike
    row, column = np.divmod(np.arange(42), 6)
    x = ((column - 2.5) * 2.3 + rng.normal(0, 0.8, 42)) * a.width / 13.5
    first, last = person.spine(np.array([20.8, 24.1]))[:, 1] / size[1]
    y = first + (last - first) * (row + rng.normal(0, 0.2, 42)) / 6
    z = rng.uniform(0, a.depth / 2 - 2 + 1.5 * a.fat, 42)
    at = np.concatenate([stops[:, :3], np.stack([x, y, z], 1)]) * size
    small = rng.uniform((1, 2, 1), (1.5, 3.4, 1.5), (42, 3))
    half = np.concatenate([np.stack([r, np.full(count, 1.5), r], 1), small]) * size[0]
    small = rng.normal(0, 1, (42, 3)) * [1, 1, 0.4]
    turn = _along(np.concatenate([np.gradient(stops[:, :3], axis=0), small]))
    share = np.concatenate([1.3 * gas * full, 0.7 * (rng.random(42) < 0.2)])
    walls = _pieces(at, half, turn, up, np.full(len(at), -np.inf))
    low = at @ up + (0.9 - 1.8 * np.minimum(share, 1)) * half[:, 0 if standing else 2]
    lumens = _pieces(at, half * (0.86, 0.97, 0.86), turn, up, low)
    runs: list[list[Solid]] = []  # one lumen for neighbours with gas
    for i in np.flatnonzero(share > GAS).tolist():
        if 0 < i < count and share[i - 1] > GAS and len(runs[-1]) < 5:
            runs[-1].append(lumens[i])
        else:
            runs.append([lumens[i]])
    stool = np.flatnonzero(~full & (gas < 0.65)).repeat(30)  # with bubbles of about 5 mm in it
    bubbles = at[stool] + rng.normal(0, 0.4, (len(stool), 3)) * half[stool]
    cloud = Cloud(bubbles, 0.06 * rng.exponential(1, len(stool)), 0.18)
    parts = [Part("", "air", ((_bubble(person, up),),), "bowel")]
    parts += [Part("", "bowel", ((wall,),), "fat") for wall in walls]
    parts += [Part("", "air", tuple((lumen,) for lumen in run), "bowel") for run in runs]
    return [*parts, Part("", "air", within="bowel", other=cloud)]


def _bubble(person: Person, up: Floats) -> Solid:
    """The film's, under the left dome: its upper part, or its front in those who lie."""
    a, size, rng = person.anatomy, person.scale, stream(person.seed, 6)  # as the film's
    g = a.gas
    at = np.array([rng.normal(7.0, 1.0) - 0.8, a.dome[1] + 1.6 + 1.2 * g, 0.5])
    half, below = np.array([1.2 + 2.2 * g, 0.7 + 1.3 * g, max(3.5 * g, 0.5)]), 0.35
    if up[2]:
        at, half, below = at + np.array([-1.0, 3.0, 1.0]), half * (1.0, 1.6, 0.5), 0.2
    at, half = at * size, half * size
    return ellipsoid(at, half).cut(up, float(up @ at - below * np.abs(up) @ size))


def _along(way: Floats) -> Floats:
    """[n, 3, 3] turns whose second axes point along `way` [n, 3]; the first lie across z."""
    v = way / np.linalg.norm(way, axis=1, keepdims=True)
    w = np.stack([v[:, 1] + 1e-6, -v[:, 0], 0 * v[:, 0]], 1)
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    return np.stack([w, v, np.cross(w, v)], 2)


def _pieces(at: Floats, half: Floats, turn: Floats, up: Floats, low: Floats) -> list[Solid]:
    """Ellipsoids at points [n, 3] with axes `turn`, each from its plane up'p = low on."""
    a = (turn * half[:, None] ** -2) @ turn.transpose(0, 2, 1)
    b = -(a @ at[..., None])[..., 0]
    c, spread = -(b * at).sum(1) - 1, turn * half[:, None]
    shapes = zip(a, b, c.tolist(), at[:, None], spread, low.tolist(), strict=True)
    return [Solid._make((*shape, up, cut, np.inf)) for *shape, cut in shapes]


def pelvis_organs(person: Person) -> list[Part]:
    """Fat of the small pelvis, the bladder, and the uterus or the prostate."""
    rng, size = stream(person.seed, 134), person.scale
    middle = np.array([0, person.spine(24.6)[1], person.hip("left")[2] + 1.0])
    at, fill = middle + np.array([0, 3.5, 2.5]), rng.uniform(0.75, 1.15)
    name, shift, half, degrees, spread = SHAPES["pelvis"][person.sex]
    organ = ellipsoid(at + size * shift, size * half * rng.normal(1, spread), about(0, degrees))
    bladder = ellipsoid(at, size * (4.2, 2.9, 3.2) * fill)
    return [
        Part("", "fat", ((ellipsoid(middle, size * (6.2, 7.5, 5.5)),),)),
        Part(name, "muscle", ((organ,),), "fat"),
        Part("bladder", "water", ((bladder,),), "fat"),
    ]


def head_organs(person: Person) -> list[Part]:
    """Brain in its fluid, ventricles, deep nuclei, cerebellum, brainstem and eyes."""
    (middle, half), turn, top = cranium(person), about(0, 8), person.spine(0)
    rng, size = stream(person.seed, 135), np.asarray(person.head) / (15.2, 22.8, 19.6)
    old = float(np.clip((person.age - 50) / 35, 0, 1))
    shrunk = 0.15 + 0.3 * old + 0.05 * rng.random()  # cm of fluid around the brain
    mirrors = dict(zip(SIDES, ((1, 1, 1), (-1, 1, 1)), strict=True))

    def cerebrum(less: float) -> list[Solid]:
        """Above the skull's base, and both temporal lobes."""
        at, long = np.array([3.9, -5.4, 2.4]), size * (2.72, 2.5, 3.7)
        lobes = [ellipsoid(top + size * at * m, long - less) for m in mirrors.values()]
        return [ellipsoid(middle, half - less, turn), *lobes]

    def drawn(name: str, material: str, within: str, at: Sequence, long: Point) -> list[Part]:
        """A pair of ellipsoids, or a tube in the middle along points."""
        where, long = size * at, np.asarray(long)
        if where.ndim == 2:
            return [Part(name, material, (tuple(chain(top + where, long * size[0])),), within)]
        pair = {side: ellipsoid(top + where * m, size * long) for side, m in mirrors.items()}
        return [Part(name.format(s), material, ((blob,),), within) for s, blob in pair.items()]

    brain = cerebrum(shrunk)
    parts = [
        Part("", "water", tuple((s,) for s in cerebrum(0.0)), "grey matter"),
        Part("brain", "grey matter", tuple((s,) for s in brain), "water"),
    ]
    if person.phantom.modality != "xray":  # to X-rays the brain is all of one kind
        waves = rng.normal(0, 1, (3, 3))
        for material, out in (("white matter", -0.3), ("water", 0.03 + 0.1 * old)):
            parts.append(Part("", material, (), "grey matter", (), _folds(brain, waves, out)))
    callosum = chain(top + size * SHAPES["callosum"], 0.45 * size[0])
    parts.append(Part("", "white matter", tuple((s,) for s in callosum), "grey matter"))
    for row in SHAPES["nuclei"]:
        parts += drawn(*row)
    horns, swell = np.array(SHAPES["horns"]), (0.75 + 0.5 * old) * rng.normal(1, 0.1)
    for side, mirror in mirrors.items():
        curve, wide = top + size * horns[:, :3] * mirror, horns[:, 3] * swell
        for i in range(4):
            tube = tuple(chain(curve[i : i + 2], wide[i : i + 2], 1.5, (0, 1, 0)))
            parts.append(Part(f"{side} lateral ventricle", "water", (tube,), "white matter"))
    parts += drawn("", "water", "grey matter", (0, -7.9, -0.1), (0.15 + 0.2 * old, 1.1, 1.4))
    for row in SHAPES["hindbrain"]:
        parts += drawn(*row)
    return parts


def _folds(brain: Sequence[Solid], waves: Floats, out: float) -> Field:
    """White matter below a folded cortex (as deep as out < 0 says), or fluid in its furrows."""
    waves = waves * (np.array([2.0, 1.9, 1.7]) / np.linalg.norm(waves, axis=1))[:, None]
    middle, half = brain[0].hull[0], np.abs(brain[0].spread).sum(1)

    def inside(points: Floats, soft: float) -> Array:
        depth = np.full(points.shape[:-1], -9, F32)
        for lobe in brain:
            p = (points - lobe.hull[0]).astype(F32)
            r = np.sqrt(((p @ lobe.quadric.astype(F32)) * p).sum(-1))
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
