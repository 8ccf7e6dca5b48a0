"""Pulmonary vessels: trees of short straight pieces that fork and taper from the hila outwards.

And the mediastinum between the lungs, from which they come.
"""

import numpy as np
from scipy.interpolate import PchipInterpolator

from ldm.data.phantom.body import F32, SHAPES, Anatomy, Array, rise
from ldm.data.phantom.detector import Canvas, Floats, ellipsoid
from ldm.data.phantom.findings import Rng

GENERATIONS = 6
# of the first branches: radians (0 lateral, positive down), and calibre in cm
DIRECTIONS = (-1.35, -0.95, -0.5, -0.1, 0.3, 0.65, 0.95, 1.25)
CALIBRES = (0.30, 0.36, 0.32, 0.34, 0.4, 0.46, 0.5, 0.46)
WIDTHS = (0.07, 0.14, 0.26)  # blur of three calibre classes, cm


def hilum(anatomy: Anatomy, side: int) -> tuple[float, float]:
    """x, y at which the vessels of one lung enter it; the left hilum lies higher."""
    return side * (3.9 if side < 0 else 4.1), -1.0 if side < 0 else -2.2


def mediastinum(
    x: Array, y: Array, a: Anatomy, rng: Rng
) -> tuple[Array, Array, list[Array], Array]:
    """Soft tissue between the lungs along rays through x, y: front, back, both hila; the heart.

    Between a right and a left border that run down through the landmarks every reader knows:
    great veins and aortic knob, pulmonary trunk, left atrium, ventricle; right atrium. The heart
    is the share of its depth at its middle, squared.
    """
    floor = 0.5 * (a.dome[0] + a.dome[1]) + a.apex_down
    h, knob = a.heart, a.arch - 1.5
    # of each landmark: y, and how far to the left and to the right of the midline the borders lie:
    # cm, and more for a wider knob and a larger heart
    levels, *sides = np.array(SHAPES["mediastinum"]).T
    left, right = (base + k * knob + of_heart * h for base, k, of_heart in (sides[:3], sides[3:]))
    # a high diaphragm squeezes the heart upwards, not the vessels
    levels = np.where(levels > -3, -3 + (levels + 3) * (floor + 3) / 12.5, levels)
    left = left * (1 + rng.normal(0, 0.035, 12)) + F32(0.35 * a.fat)
    right = right * (1 + rng.normal(0, 0.035, 12)) + F32(0.35 * a.fat)
    rows = np.linspace(-26, 26, 261)
    curves = PchipInterpolator(levels, np.stack([left, right], 1))(rows.clip(-24, levels[-1]))
    left, right = (np.interp(y, rows, curve).astype(F32) for curve in curves.T)
    middle, half = 0.5 * (left - right), 0.5 * (left + right)
    deep = 12 + F32(5.5 * h) * rise(y, -2, 5)
    across = np.maximum(1 - ((x - middle) / half) ** 2, 0)
    body = deep * np.sqrt(across)
    heart = across * (y > -1.5 * (floor / 9.5)) * (y < floor + 2.0)
    bow = F32(0.9 * a.unfold)
    aorta_x = 2.0 + bow * np.sin(np.clip((y + 5) / 14, 0, 1) * F32(np.pi))
    down = 5 * np.sqrt(np.maximum(1 - ((x - aorta_x) / 1.4) ** 2, 0))
    front = np.maximum(body, down * rise(y, -6, -4))
    back = 5.5 * np.maximum(1 - (x / 4.2) ** 2, 0)
    hila = [  # their great vessels
        ellipsoid(x, y, hx * 0.95, hy + 0.8, 1.4, 2.4, 3.2 * a.vessel, -0.35 * side)
        for side in (-1, 1)
        for hx, hy in [hilum(a, side)]
    ]
    return front, back, hila, np.asarray(heart, F32)


def vessels(canvas: Canvas, anatomy: Anatomy, rng: Rng) -> Array:
    """Path length in blood of the branches of both lungs, as if they filled the whole picture."""
    x, y, radius, mass = trees(anatomy, rng)
    total, kind = np.zeros_like(canvas.x), np.digitize(radius, [0.1, 0.22])
    for i, width in enumerate(WIDTHS):
        at = kind == i
        total += canvas.blur(canvas.splat(x[at], y[at], 0.0, mass[at]), width)
    return total


def trees(a: Anatomy, rng: Rng) -> tuple[np.ndarray, ...]:
    """Points along the trees of both lungs: x, y, radius in cm and mass in cm^3."""
    count = 2 * len(DIRECTIONS)
    side = np.repeat([-1.0, 1.0], len(DIRECTIONS))
    origin = np.repeat([hilum(a, -1), hilum(a, 1)], len(DIRECTIONS), axis=0)
    angle = np.tile(DIRECTIONS, 2) + rng.normal(0, 0.12, count)
    radius = np.tile(CALIBRES, 2) * a.vessel * rng.uniform(0.8, 1.15, count)
    x = origin[:, 0] + rng.normal(0, 0.5, count)
    y = origin[:, 1] + np.sin(angle) * 2.0 + rng.normal(0, 0.4, count)
    slant = rng.uniform(0.65, 1.0, count)  # branches also run forwards and backwards
    points: list[tuple[np.ndarray, ...]] = []
    t = np.linspace(0, 1, 14)
    for generation in range(GENERATIONS):
        length = (3.4 * 0.84**generation) * rng.uniform(0.7, 1.25, len(x)) * slant
        bend = rng.normal(0, 0.22, len(x))
        direction = angle[:, None] + bend[:, None] * t
        step = (length / len(t))[:, None]
        px = x[:, None] + side[:, None] * np.cumsum(np.cos(direction) * step, 1)
        py = y[:, None] + np.cumsum(np.sin(direction) * step, 1)
        r = radius[:, None] * (1 - 0.22 * t)
        points.append((px, py, r, np.pi * r**2 * step / np.maximum(slant, 0.5)[:, None]))
        side = np.repeat(side, 2)
        fork = rng.uniform(0.25, 0.6, len(x))
        x, y = np.repeat(px[:, -1], 2), np.repeat(py[:, -1], 2)
        angle = (direction[:, -1][:, None] + fork[:, None] * np.array([-0.6, 1.0])).ravel()
        angle += rng.normal(0, 0.12, len(angle))
        radius = (r[:, -1][:, None] * rng.uniform(0.62, 0.9, (len(r), 2))).ravel()
        slant = np.clip(np.repeat(slant, 2) + rng.normal(0, 0.12, len(radius)), 0.45, 1)
    return tuple(np.concatenate([part[i].ravel() for part in points]) for i in range(4))


def tree_depths(rng: Rng) -> Floats:
    """cm of each point of `trees` before (or behind) the hilum, in their order."""
    start = np.zeros(2 * len(DIRECTIONS))
    slope = rng.normal(0, 0.8, len(start))
    t, depths = np.linspace(0, 1, 14), []
    for generation in range(GENERATIONS):
        z = start[:, None] + (slope * 2.2 * 0.84**generation)[:, None] * t
        depths.append(z.ravel())
        start, slope = np.repeat(z[:, -1], 2), 0.8 * np.repeat(slope, 2)
        slope = slope + rng.normal(0, 0.5, len(slope))
    return np.concatenate(depths)
