"""Tubes, lines, wires and pacemakers: thin rods of metal or plastic over the picture."""

import numpy as np

from ldm.data.phantom.body import F32, Anatomy, Array, Mask
from ldm.data.phantom.detector import Canvas, Floats
from ldm.data.phantom.findings import Phantom, Rng, stream

Points = Floats | list[tuple[float, float]]
LEADS_SHARE = {"AP": 0.45, "PA": 0.06}  # monitor leads lie on the skin and are no finding


def draw(canvas: Canvas, a: Anatomy, phantom: Phantom) -> tuple[Array, Mask]:
    """[H, W] cm of metal along the ray, and the mask of the support device alone."""
    metal = np.zeros_like(canvas.x)
    if device := phantom.finding("support device"):
        metal = KINDS[device.kind](canvas, a, stream(phantom.seed, 7))
    mask = metal > 0.03 * float(metal.max())
    rng = stream(phantom.seed, 8)
    if rng.random() < LEADS_SHARE[phantom.view]:
        metal = metal + _leads(canvas, rng)
    return metal, mask


def _wire(canvas: Canvas, points: Points, width: float, thick: float) -> Array:
    """A thin rod along a smooth curve through the points [n, 2]; `thick` cm of metal."""
    n = len(points)
    t = np.linspace(0, n - 1, max(90, 60 * n))
    weights = np.exp(-((t[:, None] - np.arange(n)) ** 2) / 0.5)
    weights /= weights.sum(1, keepdims=True)
    x, y = (weights @ np.asarray(points)).T
    length = np.hypot(np.gradient(x), np.gradient(y))
    return canvas.blur(canvas.splat(x, y, 0.0, length * width * thick), width / 3)


def _tube(canvas: Canvas, a: Anatomy, rng: Rng) -> Array:
    """An endotracheal tube: ends a few cm above the carina, with a dense stripe."""
    y = np.linspace(-26, rng.uniform(-9, -5.5), 6)
    x = rng.normal(0, 0.15) + 0.2 * np.sin(y / 5 + rng.uniform(0, 6))
    body, stripe = (np.stack([x + shift, y], 1) for shift in (0, 0.3))
    return _wire(canvas, body, 0.9, 0.06) + _wire(canvas, stripe, 0.2, 0.35)


def _central_line(canvas: Canvas, a: Anatomy, rng: Rng) -> Array:
    """From neck or collarbone on either side into the superior vena cava, right of the midline."""
    end = (-2.0 + rng.normal(0, 0.2), rng.uniform(-3.5, 1.5))
    s = -1 if rng.random() < 0.7 else 1
    if rng.random() < 0.5:
        start = [(s * 5.0, -24.0), (s * 4.2, -18.0), (s * 3.4, -13.0), (s * 2.2, -9.5)]
    else:
        start = [(s * 15.0, -6.0), (s * 10.5, -9.6), (s * 6.0, -10.4), (s * 2.6, -9.2)]
    return _wire(canvas, [*start, (-1.6, -7.6), (-2.1, -5.5), end], 0.22, 0.35)


def _pacemaker(canvas: Canvas, a: Anatomy, rng: Rng) -> Array:
    """A can below the left collarbone with one or two leads into the right heart."""
    x, y = rng.uniform(9.5, 12.0), rng.uniform(-7.5, -4.5)
    turn = rng.uniform(-0.5, 0.5)
    c, s = F32(np.cos(turn)), F32(np.sin(turn))
    dx, dy = canvas.x - F32(x), canvas.y - F32(y)
    u, v = np.abs(c * dx + s * dy), np.abs(c * dy - s * dx)
    r = np.sqrt(np.maximum(u - 1.5, 0) ** 2 + np.maximum(v - 1.1, 0) ** 2)
    metal = canvas.edge(0.9 - r, 0.05) * 0.9
    way = [(x - 1.0, y - 2.0), (8.0, -10.6), (4.0, -9.6), (-1.2, -8.6), (-2.0, -5.0)]
    ventricle = [(-2.2, 0.0), (-0.5, a.dome[1] - 2.2), (5.2, a.dome[1] - 1.6)]
    metal += _wire(canvas, way + ventricle, 0.2, 0.35)
    if rng.random() < 0.6:
        atrium = [(-2.4, -1.0), (-2.6, 2.0), (-1.6, 3.0), (-1.9, 1.2)]
        metal += _wire(canvas, way + atrium, 0.2, 0.35)
    return metal


def _sternal_wires(canvas: Canvas, a: Anatomy, rng: Rng) -> Array:
    """Five to seven twisted loops down the breastbone."""
    metal = np.zeros_like(canvas.x)
    t = np.linspace(0, 2 * np.pi, 14)
    for y in np.linspace(-7, 6.5, int(rng.integers(5, 8))):
        x0, y0, tilt = rng.normal(0.2, 0.15), y + rng.normal(0, 0.2), rng.normal(0, 0.25)
        x, v = rng.uniform(0.8, 1.2) * np.cos(t), rng.uniform(0.35, 0.65) * np.sin(t)
        metal += _wire(canvas, np.stack([x0 + x, y0 + v + tilt * x], 1), 0.16, 0.4)
    return metal


def _leads(canvas: Canvas, rng: Rng) -> Array:
    """Electrodes with their cables hanging off towards the image's edge."""
    metal = np.zeros_like(canvas.x)
    for _ in range(int(rng.integers(2, 5))):
        s = rng.choice([-1.0, 1.0])
        x, y = s * rng.uniform(6, 14), rng.choice([rng.uniform(-9, -4), rng.uniform(5, 12)])
        r = np.hypot(canvas.x - F32(x), canvas.y - F32(y))
        pad, stud = canvas.edge(0.55 - r, 0.05), canvas.edge(0.25 - r)
        metal += pad * 0.14 + stud * 0.2
        end = (s * rng.uniform(8, 24), y + rng.uniform(8, 26))
        mid = (0.5 * (x + end[0]) + rng.normal(0, 3), 0.5 * (y + end[1]) + rng.normal(0, 2))
        metal += _wire(canvas, [(x, y), mid, end], 0.17, 0.09)
    return metal


KINDS = {
    "endotracheal tube": _tube,
    "central line": _central_line,
    "pacemaker": _pacemaker,
    "sternal wires": _sternal_wires,
}
