"""A phantom's frontal radiograph: anatomy projected along the rays, then the film.

Each image is projected by itself, vectorised over pixels and points: 64 kB maps stay in cache, and
an image cannot depend on the batch it is drawn in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ldm.data.phantom import exposure, lesions, medical_devices, probes
from ldm.data.phantom.body import F32, Anatomy, Array, Cavity, Mask, power, rise
from ldm.data.phantom.detector import Canvas, capsule, ellipsoid
from ldm.data.phantom.findings import Phantom, stream
from ldm.data.phantom.imaging import picture
from ldm.data.phantom.skeleton import bones
from ldm.data.phantom.vessels import mediastinum, vessels

# attenuation per cm at about 75 keV effective; lung is soft tissue of a quarter of the density
MU_SOFT, MU_BONE, MU_METAL = 0.19, 0.45, 2.5
LUNG_DENSITY = 0.26
MASKS = ("left lung", "right lung", "heart", "ribs")


@dataclass(frozen=True)
class Rendered:
    """images: float32 [B, 1, H, W] in [-1, 1];  masks: name -> bool [B, H, W];  truth: B dicts."""

    images: Tensor
    masks: dict[str, Tensor]
    truth: list[dict[str, object]]


def render(phantoms: Sequence[Phantom], size: int = 128) -> Rendered:
    """Images, masks and truth; the same chest at any size, the same bits in any batch."""
    if size < 32:
        raise ValueError(f"a phantom needs at least 32 pixels a side, got size={size}")
    if not phantoms:
        raise ValueError("render needs at least one phantom; sample_phantoms(range(4)) makes four")
    drawn = [(_chest_film if p.is_chest_film else picture)(p, size) for p in phantoms]
    images, maps, truth = zip(*drawn, strict=True)
    of_chest = list(MASKS) if any(phantom.is_chest_film for phantom in phantoms) else []
    names = of_chest + sorted(set().union(*maps) - set(of_chest))
    none = np.zeros((size, size), bool)
    masks = {k: torch.from_numpy(np.stack([m.get(k, none) for m in maps])) for k in names}
    batch = np.stack(images)[:, None] * 2 - 1
    return Rendered(torch.from_numpy(batch.astype(F32)), masks, list(truth))


def _chest_film(phantom: Phantom, size: int) -> tuple[Array, dict[str, Mask], dict[str, object]]:
    a = Anatomy(phantom)
    canvas = Canvas(a, size)
    midline = canvas.x - F32(a.scoliosis) * np.sin(canvas.y / 9)
    x, right = np.abs(midline), midline < 0
    full, air = Cavity(a).path(x, canvas.y, right, 1.3 * canvas.pixel + 0.1)
    front, back, hila, heart = mediastinum(canvas.x, canvas.y, a, stream(phantom.seed, 9))
    middle = canvas.blur(front + back + hila[0] + hila[1], 0.2)
    air = canvas.blur(np.maximum(air - middle, 0), 0.12)
    grain = stream(phantom.seed, 2)
    rough = canvas.texture(grain, 0.7) * 0.05 + canvas.texture(grain, 2.5) * 0.05
    # the trees are thinner than life: 2.3; where trunks overlap near the hilum they count once
    blood = 1.6 * np.tanh(2.3 / 1.6 * vessels(canvas, a, stream(phantom.seed, 3)))
    blood = blood * np.clip(air / 6, 0, 1)
    density = F32(LUNG_DENSITY) * (1 + rough)
    lungs = lesions.Lungs(x, right, air, density, blood, np.zeros_like(air))
    lesions.apply(canvas, a, phantom, lungs)
    probe = probes.draw(canvas, a, phantom)
    if "nodule" in probe:
        lungs.insert(probe["nodule"])
    bone, ribs = bones(canvas, a, stream(phantom.seed, 4))
    patchy = 1 + 0.025 * (canvas.texture(grain, 6) + canvas.texture(grain, 2.2))
    aerated = lungs.air * (1 - lungs.density)  # what the findings left, free of tissue
    soft = _trunk(canvas, a) * patchy - aerated + lungs.vessels + lungs.extra
    soft = np.maximum(soft - _airways(canvas) - _bowel_gas(canvas, a, phantom), 0)
    metal, device = medical_devices.draw(canvas, a, phantom)
    metal = metal + probe.get("wire", F32(0))
    path = F32(a.scale) * (F32(MU_SOFT) * soft + F32(MU_BONE) * bone) + F32(MU_METAL) * metal
    path = canvas.blur(path, 0.05)
    rng = stream(phantom.seed, 5)
    grey = exposure.film(canvas, path, aerated, phantom.view, rng)
    if "letter" in probe:
        grey = exposure.burn_in(grey, probe["letter"])
    field = (air > 0.5) & (full > 1)
    masks = {
        "left lung": field & ~right,
        "right lung": field & right,
        "heart": heart > 0,
        "ribs": ribs > 0.12,
    }
    masks |= {k: m > 0.5 for k, m in lungs.masks.items()}
    if phantom.finding("cardiomegaly"):
        masks["cardiomegaly"] = masks["heart"]
    if phantom.finding("support device"):
        masks["support device"] = device
    for shape in probe.values():
        masks["probe"] = shape > 0.1 * shape.max()
    columns = np.flatnonzero(masks["heart"].any(0))
    heart_share = (np.ptp(columns) + 1) / size if len(columns) else 0.0
    truth = phantom.facts() | {
        "effusion_ml": lungs.volume,
        "cardiothoracic_ratio": float(heart_share) / (2 * a.width) * (a.view_width / a.scale),
        "ribs": 24,
    }
    return grey, masks, truth


def _trunk(canvas: Canvas, a: Anatomy) -> Array:
    """Depth of the whole body along the ray: trunk, shoulders, neck, arms, breasts, chin."""
    x, y = np.abs(canvas.x), canvas.y
    belly = F32(0.06 + 0.1 * a.fat) * np.maximum(y - 8, 0)
    wide = Cavity(a).lateral(np.maximum(y, -1.0)) + F32(a.wall + 2.2) + belly
    deep = F32(a.depth + 3.2 + 4.5 * a.fat) * (0.62 + 0.38 * rise(y, -13, 0))
    trunk = deep * np.sqrt(np.maximum(1 - (x / wide) ** 4, 0)) * rise(y, -18, -11)
    # the shoulders: a wedge whose upper edge falls from the neck to the arms
    edge = F32(a.shoulder - 3.2) - 6.3 * np.exp(-((x / 8.5) ** 2)) - F32(0.8 * a.fat)
    edge = edge + 0.012 * np.maximum(x - 8, 0) ** 2
    inside = np.maximum(y - edge, 0)
    wedge = F32(16 + 4 * a.fat) * np.sqrt(1 - np.exp(-inside / 1.6))
    fall = 1 - rise(y, F32(a.shoulder + 1.0), F32(a.shoulder + 1.0) + 9)
    wedge *= np.sqrt(np.maximum(1 - (x / F32(20.5 + a.fat)) ** 6, 0)) * fall
    neck = F32(11) * np.sqrt(np.maximum(1 - (x / F32(5.6 + 1.2 * a.fat)) ** 2, 0))
    neck *= 1 - rise(y, -13, -7)
    total = _union(trunk, wedge, neck)
    for s in (-1, 1):
        joint, elbow = (s * 17.6, a.shoulder + 1.0), (s * a.elbow[0], a.elbow[1])
        total = _union(total, capsule(canvas, joint, elbow, 3.9 + a.fat, 0.8))
        if a.breast:
            centre = s * (8.8 + 1.5 * a.fat)
            over = np.clip((F32(a.breast_y) - y) / 11, 0, 1)  # thins out upwards, full below
            r = ((canvas.x - F32(centre)) / 7.2) ** 2
            r = r + (np.maximum(y - F32(a.breast_y), 0) / 4.0) ** 2
            total = total + F32(a.breast) * np.sqrt(np.maximum(1 - r, 0)) * (1 - over) ** 2
    return total + ellipsoid(canvas.x, canvas.y, 0, a.chin - 6, 5.8, 6.0, 9.0)


def _union(*paths: Array) -> Array:
    """Smooth maximum of path lengths: bodies that overlap count once."""
    return np.asarray(np.sqrt(np.sqrt(sum(power(p, 4) for p in paths))), F32)


def _airways(canvas: Canvas) -> Array:
    """Air in trachea and main bronchi, which lie in the mediastinum's soft tissue."""
    top, carina, right, left = (0.0, -24.0), (0.3, -3.6), (-2.9, -0.4), (4.0, -1.6)
    tubes = (top, carina, 0.85), (carina, right, 0.62), (carina, left, 0.55)
    return np.maximum.reduce([capsule(canvas, *tube) for tube in tubes]) * F32(1.1)


def _bowel_gas(canvas: Canvas, a: Anatomy, phantom: Phantom) -> Array:
    """The stomach's bubble under the left dome, flat below when standing, and bits of bowel gas."""
    rng, size, x, y = stream(phantom.seed, 6), a.gas, canvas.x, canvas.y
    at, half = (
        (rng.normal(7, 1), a.dome[1] + 1.6 + 1.2 * size),
        (1.2 + 2.2 * size, 0.7 + 1.3 * size),
    )
    gas = ellipsoid(x, y, *at, *half, 7 * size, rng.normal(0, 0.15))
    if phantom.view == "PA":
        gas *= canvas.edge(F32(at[1] + 0.35) - y)
    for _ in range(int(rng.integers(0, 3))):
        at = rng.uniform(-11, 11), a.dome[0] + rng.uniform(5.5, 11)
        half = rng.uniform(0.8, 2.5), rng.uniform(0.6, 1.4)
        gas += ellipsoid(x, y, *at, *half, 1.3, rng.uniform(-1, 1))
    return gas
