"""Bones as clouds of points on 3D curves (ribs, clavicles, scapulae) and as solids (vertebrae)."""

import numpy as np

from ldm.data.phantom.body import F32, Anatomy, Array, Cavity
from ldm.data.phantom.detector import Canvas, Floats, capsule, spline
from ldm.data.phantom.findings import Rng

CORTEX = 0.13  # cm of compact bone around every bone
COMPACT, SPONGY = 1.7, 0.55  # mineral, relative to compact bone
Each = Floats | float  # one number of all points, or one of each


def bones(canvas: Canvas, anatomy: Anatomy, rng: Rng) -> tuple[Array, Array]:
    """Path length in compact bone of the whole skeleton, and of the ribs alone. [H, W] cm each."""
    ribs = _ribs(canvas, anatomy, rng)
    other = _girdle(canvas, anatomy, rng) + _spine(canvas, anatomy)
    return (ribs + 1.25 * other) * F32(anatomy.bone), ribs


def _rods(
    canvas: Canvas, curve: Floats, side: Floats, half: Each, thick: float, share: Each
) -> Floats:
    """[4, n] x, y, z and mass of points of hollow bones, denser at their edges where the ray runs
    along compact bone.

    curve, side: [K, t, 3] the axes and the unit vectors across the bones;  half: half their height
    thick: their depth over their height;  share: of the mineral
    """
    count = max(int(2.9 * np.max(half) / min(canvas.pixel, 0.3)) | 1, 5)
    v = np.linspace(-0.96, 0.96, count)
    half = np.broadcast_to(np.asarray(half, np.float64), curve.shape[:2])[..., None]
    inner = np.clip(1 - CORTEX / half, 0.05, 1)
    hollow = np.sqrt(np.maximum(inner**2 - v**2, 0))
    depth = 2 * half * thick * (COMPACT * (np.sqrt(1 - v**2) - hollow) + SPONGY * hollow)
    step = np.linalg.norm(np.diff(curve, axis=1, append=curve[:, -1:]), axis=-1)
    mass = depth * (step * share)[..., None] * (1.92 * half / count)  # [K, t, v]
    points = [curve[..., i, None] + half * v * side[..., i, None] for i in range(3)]
    return np.stack([*points, mass]).reshape(4, -1)


def rib_curves(a: Anatomy, side: int, jitter: Floats, count: int) -> tuple[Floats, Floats, Floats]:
    """The 12 ribs of one side on the chest's wall: from the spine round the side to the front,
    always falling.

    side: -1 is the patient's right;  jitter: [12] cm by which each begins lower
    returns the curves [12, count, 3], the angle around the chest [12, count] (0 spine, pi/2 side,
    pi sternum) and half the ribs' height [12, count]; in units of the anatomy
    """
    cavity, number = Cavity(a), np.arange(12)
    start = a.apex - 0.2 + a.rib_step * number + 0.012 * a.rib_step * number**2 + jitter
    drop = a.rib_drop * np.interp(number, [0, 1, 3, 8, 11], [0.55, 0.75, 1, 1.1, 0.9])
    # the bony part ends ever farther from the sternum; 11 and 12 float
    end = np.interp(number, [0, 1, 5, 8, 9, 10, 11], [2.75, 2.62, 2.5, 2.2, 2.0, 1.45, 1.1])
    angle = np.linspace(0.1, 1, count)[None] * end[:, None]
    y = start[:, None] + drop[:, None] * (0.5 - 0.5 * np.cos(angle)) ** 1.15
    wide = cavity.lateral((start + 0.55 * drop).astype(F32), 0.2)[:, None]
    deep = 0.52 * a.depth * np.interp(number, [0, 3, 11], [0.55, 0.9, 1.0])[:, None]
    bulge = np.abs(np.sin(angle)) ** 0.85  # fuller than an ellipse towards the spine
    x, z = wide * bulge, -deep * np.cos(angle)
    curve = np.stack([side * x + a.scoliosis * np.sin(y / 9), y, z], -1)
    height = 0.5 * a.rib_height * np.interp(number, [0, 2, 7, 11], [1.0, 0.95, 1.05, 0.75])
    along = np.interp(angle / end[:, None], [0, 0.2, 0.6, 1], [0.8, 1.0, 1.0, 0.95])
    return curve, angle, height[:, None] * along


def _ribs(canvas: Canvas, a: Anatomy, rng: Rng) -> Array:
    """24 ribs."""
    count = int(np.clip(60 / canvas.pixel, 60, 400))
    both = [rib_curves(a, side, rng.normal(0, 0.08, 12), count) for side in (-1, 1)]
    curve, angle, half = map(np.concatenate, zip(*both, strict=True))
    side, number = np.repeat([[-1], [1]], 12, 0), np.tile(np.arange(12), 2)
    tangent = _unit(np.gradient(curve, axis=1))
    outward = np.stack([side * np.sin(angle), 0 * angle, -np.cos(angle)], -1)
    # the front of a rib is thinner and less dense; at the sides its depth spreads the mass
    share = np.interp(angle, [0, 1.1, 1.5, 1.9, 3], [1, 1, 0.5, 0.7, 0.6])
    share = share * np.interp(number, [8, 9, 11], [1, 0.7, 0.6])[:, None]
    across = _unit(np.cross(tangent, outward))
    return canvas.splat(*_rods(canvas, curve, across, half, 0.55, share))


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def _girdle(canvas: Canvas, a: Anatomy, rng: Rng) -> Array:
    """Clavicles, scapulae and upper arm bones of both sides."""
    solid = np.zeros((canvas.size, canvas.size), F32)
    curves = []
    front, back, m = 0.3 * a.depth, -0.45 * a.depth, a.scapula
    for s in (-1, 1):
        lift = rng.normal(0, 0.3)
        joint, top = a.shoulder + lift, a.clavicle + lift
        inner = a.apex + 3.4 + 0.3 * (top - a.clavicle)
        tip, glenoid = (m + 1.6, joint + 11.0), (16.2, joint + 0.6)
        between = (5.0, 0.7 * inner + 0.3 * top, front + 1)
        lateral_end = [(8.6, top - 0.1, front), (12.0, top - 0.6, 1), (16.0, top, 0)]
        clavicle = [(1.9, inner, front), between, *lateral_end]
        medial = [(m + 0.9, joint - 2.2, back), (m, joint + 2, back), (m + 0.2, joint + 7, back)]
        lateral = [(*tip, back), (m + 3.6, joint + 6, back), (*glenoid, back + 3)]
        ridge = [(m + 0.4, joint + 0.6, back), (m + 3.5, joint - 0.8, back - 1)]
        bones = clavicle, [*medial, (*tip, back)], lateral, [*ridge, (16.8, top + 0.3, back + 2)]
        curves.append([np.array(points) * (s, 1, 1) for points in bones])
        solid += 0.16 * _plate(canvas, s, [(m + 0.9, joint - 2.2), glenoid, tip])
        head, elbow = (s * 18.2, joint + 0.4), (s * a.elbow[0], a.elbow[1])
        solid += 0.22 * capsule(canvas, head, (head[0] + s * 0.4, head[1] + 1.2), 2.3)
        outer, marrow = capsule(canvas, head, elbow, 1.1), capsule(canvas, head, elbow, 0.75)
        solid += 0.6 * (COMPACT * (outer - marrow) + SPONGY * marrow).astype(F32) * 0.7
    count = int(np.clip(40 / canvas.pixel, 60, 400))
    t = np.linspace(0, 1, count)
    half = 0.5 + 0.3 * np.exp(-((t / 0.12) ** 2)) + 0.15 * t**2  # of the clavicles
    wide: list[Each] = [half, 0.22, 0.5, 0.5]
    thick, clouds = (0.95, 0.6, 0.8, 0.5), []
    for i, points in enumerate(zip(*curves, strict=True)):
        curve = spline(np.stack(points), count)
        tangent = np.gradient(curve, axis=1)
        flat = np.stack([-tangent[..., 1], tangent[..., 0], 0 * tangent[..., 2]], -1)
        flat /= np.linalg.norm(flat, axis=-1, keepdims=True) + 1e-9
        clouds.append(_rods(canvas, curve, flat, wide[i], thick[i], 1 if i else 0.75))
    return solid + canvas.splat(*np.concatenate(clouds, 1))


def _plate(canvas: Canvas, s: int, corners: list[tuple[float, float]]) -> Array:
    """The thin blade of a scapula: a triangle with soft edges."""
    x, y, inside = canvas.x * F32(s), canvas.y, np.ones_like(canvas.x)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        across = F32(x1 - x0) * (y - F32(y0)) - F32(y1 - y0) * (x - F32(x0))
        inside *= canvas.edge(across / F32(np.hypot(x1 - x0, y1 - y0)))
    return inside


def _spine(canvas: Canvas, a: Anatomy) -> Array:
    """Vertebrae: bodies and discs, end plates, pedicles, spinous and transverse processes."""
    y = canvas.y
    x = canvas.x - F32(a.scoliosis) * np.sin(y / 9) + F32(canvas.yaw * 0.35 * a.depth)
    level = (y - F32(a.apex)) / F32(a.rib_step)
    level = level - 0.012 * level**2  # vertebrae grow downwards
    phase = level - np.floor(level)  # 0..1 down one vertebra and its disc
    wide = 1.55 + 0.018 * (y - F32(a.apex))  # half width, growing downwards
    waist = wide - 0.22 * np.sin(F32(np.pi) * np.clip(phase / 0.82, 0, 1))
    body = canvas.edge((0.41 - np.abs(phase - 0.41)) * F32(a.rib_step), 0.12)
    across = canvas.edge(waist - np.abs(x), 0.45)
    plates = np.exp(-(((np.abs(phase - 0.41) - 0.36) / 0.06) ** 2))
    walls = np.exp(-(((np.abs(x) - waist + 0.15) / 0.16) ** 2))
    bone = across * (0.3 + body * (0.18 + 0.2 * plates)) + 0.15 * across * walls
    up = (phase - 0.33) * F32(a.rib_step)
    pedicle = np.sqrt(((np.abs(x) - wide + 0.45) / 0.36) ** 2 + (up / 0.5) ** 2)
    bone += 0.14 * np.exp(-(((pedicle - 0.9) / 0.35) ** 2))
    spinous = (x / 0.32) ** 2 + ((phase - 0.75) * F32(a.rib_step) / 0.9) ** 2
    bone += 0.25 * np.exp(-spinous)
    wing = (up / 0.42) ** 2 + ((np.abs(x) - wide - 0.7) / 1.0) ** 2
    return np.asarray(bone + 0.3 * np.exp(-wing), F32)
