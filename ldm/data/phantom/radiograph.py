"""Radiographs of any region: the scene's attenuation along the rays, then the film."""

import numpy as np

from ldm.data.phantom.body import F32, Array
from ldm.data.phantom.findings import Rng
from ldm.data.phantom.materials import MATERIALS
from ldm.data.phantom.scene import Scene
from ldm.data.phantom.solids import Box, View


def attenuation(scene: Scene, view: View) -> tuple[Array, dict[str, tuple[Box, Array]]]:
    """[H, W] sum of mu l along the rays (Beer-Lambert), and {name: (box, cm)} of the named."""
    path, named = np.zeros((view.size, view.size), F32), {}
    for part, box, amount in scene.amounts(view):
        mu = MATERIALS[part.material].mu - MATERIALS[part.within].mu
        path[box] += F32(mu) * amount
        if part.name:
            named[part.name] = (box, amount)
    return np.maximum(path, 0), named


def film(view: View, path: Array, rng: Rng) -> Array:
    """[H, W] grey in [0, 1]: scatter, noise, the workstation's window."""
    primary = np.exp(-path)
    share = rng.uniform(0.1, 0.3) * min(1.0, float(path.max()) / 3)
    signal = (1 - share) * primary + share * view.blur(primary, 2.0)
    dose = rng.uniform(3e4, 3e5)
    noise = rng.spawn(1)[0].standard_normal((view.size, view.size)).astype(F32)
    signal = np.clip(signal + np.sqrt(signal / F32(dose)) * noise, 1e-4, None)
    density = -np.log(signal)
    density = density + F32(rng.uniform(0.3, 1.0)) * (density - view.blur(density, 0.4))
    inside = density[path > 0.15]
    high = float(np.quantile(inside, 0.995)) if inside.size > 20 else 1.0
    gamma = rng.uniform(0.75, 1.25)
    return np.clip(density / F32(high), 0, 1) ** F32(gamma) * F32(0.97)
