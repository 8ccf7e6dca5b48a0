"""Findings that change the lungs: the share of air replaced, and the tissue beside it."""

from dataclasses import dataclass, field

import numpy as np

from ldm.data.phantom.body import F32, Anatomy, Array, Cavity, Mask
from ldm.data.phantom.detector import Canvas, ellipsoid
from ldm.data.phantom.findings import Finding, Phantom, Rng, stream
from ldm.data.phantom.vessels import hilum


@dataclass
class Lungs:
    """The lungs as rays see them; findings change it in turn. All [H, W]."""

    x: Array  # |cm from the midline|
    right: Mask
    air: Array  # cm of lung along the ray
    density: Array  # tissue per lung volume
    vessels: Array  # cm of blood in the lung
    extra: Array  # cm of soft tissue drawn over it: pleural and septal lines
    masks: dict[str, Array] = field(default_factory=dict)
    volume: dict[str, float] = field(default_factory=dict)  # ml of fluid per side

    def on(self, side: str) -> Array:
        """1 on that side: the patient's right is the image's left."""
        return np.asarray(self.right if side == "right" else ~self.right, F32)

    def fill(self, share: Array) -> None:
        """Replaces that share of the lung by fluid or tissue, vessels and all."""
        self.density = self.density + (1 - self.density) * share
        self.vessels = self.vessels * (1 - share)

    def insert(self, tissue: Array) -> None:
        """Puts so many cm of soft tissue in the place of lung."""
        tissue, depth = np.minimum(tissue, self.air), np.maximum(self.air, 0.1)
        self.density = np.asarray(self.density + (1 - self.density) * tissue / depth, F32)


def apply(canvas: Canvas, anatomy: Anatomy, phantom: Phantom, lungs: Lungs) -> None:
    """Lets each finding of the phantom act on its lungs."""
    for name, act in ACTIONS.items():  # a fixed order: air first, then what fills it
        if found := phantom.finding(name):
            act(canvas, anatomy, found, lungs, stream(phantom.seed, 50 + len(name)))


def _effusion(canvas: Canvas, a: Anatomy, found: Finding, lungs: Lungs, rng: Rng) -> None:
    """Fluid up to a level that climbs at the walls (the meniscus); lying, a veil as well."""
    y, lying = canvas.y, found.kind == "layering"
    wall = np.maximum(Cavity(a).lateral(y) - lungs.x, 0)
    share = np.zeros_like(y)
    sides = ("right", "left") if found.side == "bilateral" else (found.side,)
    for side in sides:
        size, level, rise, reach = meniscus(a, found, side, rng)
        top = level - rise * np.exp(-wall / F32(reach))
        top = top - 0.45 * rise * np.exp(-lungs.x / 3.5)
        top += 0.15 * canvas.texture(rng, 2.5)
        fluid = canvas.edge(y - top, 1.5 if lying else rng.uniform(0.4, 1.0))
        squeezed = F32(0.22 + 0.2 * size) * np.exp(np.clip(y - top, None, 0) / 2.2)
        if lying:
            height = F32(a.dome[side == "left"] + a.angle - a.apex)
            veil = (0.12 + 0.38 * size) * np.clip((y - a.apex) / height, 0, 1) ** 0.7
            squeezed = np.maximum(squeezed, veil)
        on = lungs.on(side)
        share += on * (fluid + (1 - fluid) * squeezed)
        lungs.masks[f"{found.name} {side}"] = on * fluid * (lungs.air > 0.02)
        held = on * fluid * lungs.air * (1 - lungs.density)
        lungs.volume[side] = float(held.sum() * canvas.pixel**2 * a.scale**3)
    masks = [lungs.masks[f"{found.name} {side}"] for side in sides]
    lungs.masks[found.name] = np.maximum.reduce(masks)
    lungs.fill(np.clip(share, 0, 1))


def meniscus(a: Anatomy, found: Finding, side: str, rng: Rng) -> tuple[float, float, float, float]:
    """Of an effusion: its size, its level in y, how high it climbs at a wall, how far from it."""
    size = float(np.clip(found.size * rng.uniform(0.75, 1.1), 0, 1))
    base = a.dome[side == "left"] + a.angle
    level = base - 1.7 - (7.0 if found.kind == "layering" else 11.5) * size**1.1
    return size, level, rng.uniform(4.2, 6.5) + 0.5 * size, rng.uniform(2.2, 3.6)


def _pneumothorax(canvas: Canvas, a: Anatomy, found: Finding, lungs: Lungs, rng: Rng) -> None:
    """The lung falls back from the wall, most at the apex: a thin line, and nothing beyond it."""
    inner = Cavity(a, shrink=1.3 + 4.0 * found.size)
    on = lungs.on(found.side)
    distance = inner.lateral(canvas.y) - lungs.x  # > 0 in what is left of the lung
    slope = np.maximum(np.hypot(*np.gradient(distance, canvas.pixel)), 1)
    distance = np.asarray(distance / slope, F32)
    below = canvas.y - F32(a.apex + 1.6 * inner.shrink)
    bend = 1.4  # cm, rounds the corner between the side and the top of the fallen lung
    distance = -bend * np.logaddexp(-distance / bend, -below / bend)
    free = on * canvas.edge(-distance, 0.1)
    lungs.masks["pneumothorax"] = free * (lungs.air > 0.3)
    lungs.density = lungs.density * (1 - 0.93 * free) * (1 + F32(0.35 * found.size) * on)
    lungs.vessels = lungs.vessels * (1 - free)
    lungs.extra += on * 0.5 * np.exp(-((distance / F32(0.12 + 0.3 * canvas.pixel)) ** 2))
    lungs.extra *= lungs.air > 0.3


def _consolidation(canvas: Canvas, a: Anatomy, found: Finding, lungs: Lungs, rng: Rng) -> None:
    """One to three patches with ragged soft edges; branches of air stay visible in them."""
    on = lungs.on(found.side)
    ragged = canvas.texture(rng, 2.2) * 0.18 + canvas.texture(rng, 0.9) * 0.08
    share = np.zeros_like(lungs.air)
    for x, y, radius in patches(found, rng):
        dx, dy = (canvas.x - F32(x)) / F32(radius), (canvas.y - F32(y)) / F32(radius * 0.85)
        reach = np.sqrt(dx * dx + dy * dy) + ragged
        share = np.maximum(share, 1 / (1 + np.exp(np.minimum((reach - 1) / 0.2, 30))))
    branches = np.tanh(lungs.vessels * 2.5)  # air bronchograms run beside the vessels
    share = on * share * F32(0.45 + 0.3 * found.size) * (1 - 0.2 * branches)
    lungs.masks["consolidation"] = (share > 0.25) * np.asarray(lungs.air > 0.3, F32)
    lungs.fill(np.asarray(share, F32))


def patches(found: Finding, rng: Rng) -> list[tuple[float, float, float]]:
    """x, y and radius of each patch of a consolidation."""
    sign, usual = -1 if found.side == "right" else 1, 2.4 + 3.0 * found.size
    x, y = rng.uniform(5, 10), rng.uniform(-6, 6.5)
    n, u = rng.normal, rng.uniform
    count = int(rng.integers(1, 4))
    return [(sign * (x + n(0, 1.5)), y + n(0, 1.8), usual * u(0.8, 1.2)) for _ in range(count)]


def _nodule(canvas: Canvas, a: Anatomy, found: Finding, lungs: Lungs, rng: Rng) -> None:
    """One to three balls of soft tissue inside the lung."""
    balls = np.zeros_like(lungs.air)
    for x, y, radius, long, turn in nodules(found, rng):
        balls += ellipsoid(canvas.x, canvas.y, x, y, radius * long, radius / long, 3 * radius, turn)
    balls = np.minimum(canvas.blur(balls, 0.12), lungs.air)
    lungs.masks["nodule"] = np.asarray(balls > 0.25, F32)
    lungs.insert(balls)


def nodules(found: Finding, rng: Rng) -> list[tuple[float, float, float, float, float]]:
    """x, y, radius, stretch and turn of each nodule."""
    usual, u, drawn = 1.0 + 1.3 * found.size, rng.uniform, []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))):
        radius = usual * u(0.9, 1.1)
        x = -u(6.0, 10.2) if found.side == "right" else u(6.0, 10.2)
        drawn.append((x, u(-6.5, 5), radius, u(1, 1.25), u(0, 3)))
    return drawn


def _edema(canvas: Canvas, a: Anatomy, found: Finding, lungs: Lungs, rng: Rng) -> None:
    """Haze about both hila and at the bases, blurred vessels, short septal lines at the sides."""
    haze = hilar_haze(canvas.x, canvas.y, a)
    clumps = 1 + 0.22 * canvas.texture(rng, 1.8) + 0.1 * canvas.texture(rng, 0.7)
    share = np.clip(F32(0.16 + 0.4 * found.size) * (haze + 0.12) * clumps, 0, 0.85)
    lungs.masks["edema"] = (share > 0.12) * np.asarray(lungs.air > 0.3, F32)
    lungs.vessels = canvas.blur(lungs.vessels, 0.1 + 0.2 * found.size)
    lungs.fill(np.asarray(share, F32))
    count = int(8 + 12 * found.size)
    side = rng.choice([-1.0, 1.0], count)
    y = rng.uniform(2, a.dome[0] + 1, count)
    x = Cavity(a).lateral(y.astype(F32)) - rng.uniform(0.3, 0.7, count)
    t = np.linspace(0, 1.6, 24)
    px = side[:, None] * (x[:, None] - t)
    py = y[:, None] + t * rng.normal(0, 0.1, (count, 1))
    lines = canvas.splat(px, py, 0.0, 0.012 * (0.5 + found.size))
    lungs.extra += canvas.blur(lines, 0.08) * (lungs.air > 0.3)


def hilar_haze(x: Array, y: Array, a: Anatomy) -> Array:
    """About 1 beside the hila, falling off to all sides: where the fluid of an edema collects."""
    haze = np.zeros_like(x)
    for s in (-1, 1):
        hx, hy = hilum(a, s)
        dx, dy = (x - F32(hx + 1.8 * s)) / 5.0, (y - F32(hy + 3.0)) / 7.0
        haze += np.exp(-(dx * dx + dy * dy))
    return haze


ACTIONS = {
    "pneumothorax": _pneumothorax,
    "edema": _edema,
    "consolidation": _consolidation,
    "nodule": _nodule,
    "pleural effusion": _effusion,
}
