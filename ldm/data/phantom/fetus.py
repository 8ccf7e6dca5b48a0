"""A fetal head in the plane in which it is measured, by thalami, cavum and midline."""

import numpy as np

from ldm.data.phantom.findings import Rng, stream
from ldm.data.phantom.person import about
from ldm.data.phantom.scene import Part, move_parts
from ldm.data.phantom.solids import ellipsoid

Row = tuple[float, float, float, float, float]  # x, z, half axes, as shares of the head's; degrees


def biparietal(weeks: float) -> float:
    """cm at a gestational age: weeks = 9.54 + 1.482 d + 0.1676 d^2

    (Hadlock et al. 1984, doi:10.1148/radiology.152.2.6739822, the regression on it alone)
    """
    return float((-1.482 + np.sqrt(1.482**2 + 4 * 0.1676 * (weeks - 9.54))) / (2 * 0.1676))


def circumference(weeks: float) -> float:
    """cm of the head at a gestational age: weeks = 8.96 + 0.540 c + 0.0003 c^3 (Hadlock 1984)."""
    roots = np.roots([0.0003, 0, 0.540, 8.96 - weeks])
    return float(roots[np.abs(roots.imag) < 1e-6].real[0])


def perimeter(a: float, b: float) -> float:
    """Of an ellipse with half axes a and b (Ramanujan 1914)."""
    h = 3 * ((a - b) / (a + b)) ** 2
    return float(np.pi * (a + b) * (1 + h / (10 + np.sqrt(4 - h))))


def fetal_head(seed: int) -> tuple[list[Part], dict[str, float]]:
    """Parts around (0, 0, 0) for an axial view, the probe at +z, and the truth.

    Truth: weeks, biparietal_mm (outer to inner edge), occipitofrontal_mm, circumference_mm (of
    the outer ellipse), and view_width_cm, of a picture that frames the head as usual
    """
    rng = stream(seed, 140)
    weeks = rng.uniform(18, 40)
    width = biparietal(weeks) * float(np.clip(rng.normal(1, 0.03), 0.94, 1.06))
    bone = 0.06 + 0.0035 * weeks  # thickness of the skull; by eye
    b = 0.5 * (width + bone)
    a = circumference(weeks) * float(np.clip(rng.normal(1, 0.02), 0.96, 1.04)) / np.pi - b
    brain = _brain(a, b, bone, weeks, rng)
    turn = np.diag([rng.choice([-1.0, 1.0]), 1, 1]) @ about(1, rng.normal(0, 9))
    size = a / rng.uniform(0.6, 0.85)  # half of the picture's width
    wall, fluid = rng.uniform(1.0, 3.5), rng.uniform(0.1, 1.2, 3)
    top = b + fluid[2] + wall
    shift = np.array([rng.normal(0, 0.1) * a, 0, 0])
    sac = ellipsoid((rng.normal(0, 1), 0, 0), (a + 2.5 * fluid[0], 9.0, b + fluid[2]))
    layers = [("fat", 0.0, "air"), ("muscle", 0.35 * wall, "fat"), ("bowel", 0.6 * wall, "muscle")]
    parts = [
        Part("", material, ((ellipsoid((0, 0, top - 30 - depth), (40, 40, 30)),),), within)
        for material, depth, within in layers
    ]
    parts += [Part("", "water", ((sac,),), "bowel"), *move_parts(brain, turn, shift)]
    return parts, {
        "weeks": weeks,
        "biparietal_mm": 10 * (2 * b - bone),
        "occipitofrontal_mm": 20 * a,
        "circumference_mm": 10 * perimeter(a, b),
        "view_width_cm": 2 * size,
    }


def _brain(a: float, b: float, bone: float, weeks: float, rng: Rng) -> list[Part]:
    """The head around the origin: forehead at +x, midline along x; sizes by eye."""
    size = np.array([a, b, b])
    horn, plexus, thin = rng.uniform(0.1, 0.2), rng.uniform(0.7, 0.95), 0.07 / b
    falx, insula = rng.uniform(0.7, 0.95), rng.uniform(0.55, 0.68)
    sides = 1 + (rng.random() < 0.4)  # of the half nearer to the probe little is seen
    sulci = rng.uniform([-0.7, -0.7, 0.02, -40], [0.7, 0.7, 0.15, 40], (int(weeks / 2) - 6, 4))

    def inner(name: str, material: str, within: str, count: int, *rows: Row) -> Part:
        """Ellipsoids far from the probe, and near to it if `count` is 2."""
        groups = [
            (ellipsoid(size * (x, 0, sign * z), size * (long, 0.6, wide), about(1, sign * turn)),)
            for x, z, long, wide, turn in rows
            for sign in (1, -1)[:count]
        ]
        return Part(name, material, tuple(groups), within)

    folds = [(x, z * (1 - x**2), long, thin, turn) for x, z, long, turn in sulci.tolist()]
    plexuses = (-0.32, -0.36, 0.25, horn * plexus, 10)
    skull = [("", "muscle", -0.25, "water"), ("fetal head", "fetal skull", 0.0, "muscle")]
    skull += [("brain", "fetal brain", bone, "fetal skull")]
    return [
        *(Part(n, kind, ((ellipsoid((0, 0, 0), size - less),),), w) for n, kind, less, w in skull),
        inner("", "membrane", "fetal brain", 1, *folds),
        inner("midline", "membrane", "fetal brain", 1, (0, 0, falx, thin, 0)),
        inner("", "membrane", "fetal brain", sides, (-0.38, -0.36, 0.36, horn + thin, 10)),
        inner("ventricles", "water", "membrane", sides, (-0.38, -0.36, 0.35, horn, 10)),
        inner("choroid plexus", "choroid plexus", "water", sides, plexuses),
        inner("thalami", "blood", "fetal brain", 2, (0, -0.13, 0.2, 0.11, -11.7)),
        inner("", "membrane", "fetal brain", sides, (0.2, -insula, 0.2, thin, -8)),
        inner("", "membrane", "fetal brain", 1, (0.42, 0, 0.14, 0.1 + thin, 0)),
        inner("cavum", "water", "membrane", 1, (0.42, 0, 0.12, 0.1, 0)),
    ]
