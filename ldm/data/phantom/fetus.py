"""A fetal head in the plane in which it is measured, by thalami, cavum and midline."""

import numpy as np

from ldm.data.phantom.findings import Rng, stream
from ldm.data.phantom.person import about
from ldm.data.phantom.scene import Part
from ldm.data.phantom.solids import Solid, View, ellipsoid
from ldm.data.phantom.views import AXIAL


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

    def layer(material: str, depth: float, within: str) -> Part:
        half = (40.0, 40.0, 30.0)
        return Part("", material, ((ellipsoid((0, 0, top - 30 - depth), half),),), within)

    sac = ellipsoid((rng.normal(0, 1), 0, 0), (a + 2.5 * fluid[0], 9.0, b + fluid[2]))
    parts = [
        layer("fat", 0.0, "air"),
        layer("muscle", 0.35 * wall, "fat"),
        layer("bowel", 0.6 * wall, "muscle"),
        Part("", "water", ((sac,),), "bowel"),
    ]
    parts += [part.moved(turn, shift) for part in brain]
    truth = {
        "weeks": weeks,
        "biparietal_mm": 10 * (2 * b - bone),
        "occipitofrontal_mm": 20 * a,
        "circumference_mm": 10 * perimeter(a, b),
        "view_width_cm": 2 * size,
    }
    return parts, truth


def fetal_view(truth: dict[str, float], size: int) -> View:
    return View((0, 0, 0), AXIAL, truth["view_width_cm"], size)


def _brain(a: float, b: float, bone: float, weeks: float, rng: Rng) -> list[Part]:
    """The head around the origin: forehead at +x, midline along x; sizes by eye."""

    def solid(x: float, z: float, long: float, wide: float, degrees: float = 0.0) -> Solid:
        half = (long * a, 0.6 * b, wide * b)
        return ellipsoid((x * a, 0, z * b), half, about(1, degrees))

    def both(name: str, material: str, within: str, *where: float) -> Part:
        x, z, long, wide, tilt = where
        pair = (solid(x, -z, long, wide, -tilt),), (solid(x, z, long, wide, tilt),)
        return Part(name, material, pair[:sides], within)

    def skull(name: str, material: str, less: float, within: str) -> Part:
        half = (a - less, b - less, b - less)
        return Part(name, material, ((ellipsoid((0, 0, 0), half),),), within)

    horn, plexus, thin = rng.uniform(0.1, 0.2), rng.uniform(0.7, 0.95), 0.07 / b
    falx, insula = rng.uniform(0.7, 0.95), rng.uniform(0.55, 0.68)
    sides = 1 + (rng.random() < 0.4)  # of the half nearer to the probe little is seen
    sulci = rng.uniform([-0.7, -0.7, 0.02, -40], [0.7, 0.7, 0.15, 40], (int(weeks / 2) - 6, 4))
    return [
        skull("", "muscle", -0.25, "water"),
        skull("fetal head", "fetal skull", 0.0, "muscle"),
        skull("brain", "fetal brain", bone, "fetal skull"),
        Part("", "membrane",
             tuple((solid(x, z * (1 - x**2), s, thin, turn),) for x, z, s, turn in sulci),
             "fetal brain"),
        Part("midline", "membrane", ((solid(0, 0, falx, thin),),), "fetal brain"),
        both("", "membrane", "fetal brain", -0.38, 0.36, 0.36, horn + thin, -10),
        both("ventricles", "water", "membrane", -0.38, 0.36, 0.35, horn, -10),
        both("choroid plexus", "choroid plexus", "water",
             -0.32, 0.36, 0.25, horn * plexus, -10),
        *(Part("thalami", "blood", ((solid(0.0, z, 0.2, 0.11, 90 * z),),), "fetal brain")
          for z in (-0.13, 0.13)),
        both("", "membrane", "fetal brain", 0.2, insula, 0.2, thin, 8),
        Part("", "membrane", ((solid(0.42, 0, 0.14, 0.1 + thin),),), "fetal brain"),
        Part("cavum", "water", ((solid(0.42, 0, 0.12, 0.1),),), "membrane"),
    ]  # fmt: skip
