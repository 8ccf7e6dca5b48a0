"""Radiographs of any region: the scene's attenuation along the rays, then the film."""

import numpy as np

from ldm.data.phantom import exposure
from ldm.data.phantom.body import F32, Array
from ldm.data.phantom.findings import Phantom, Rng
from ldm.data.phantom.materials import MATERIALS
from ldm.data.phantom.rays import Box, View
from ldm.data.phantom.scene import Scene


def attenuation(
    scene: Scene, view: View, thickness: float | None = None
) -> tuple[Array, dict[str, tuple[Box, Array]]]:
    """[H, W] sum of mu l along the rays (Beer-Lambert), and {name: (box, cm)} of the named.

    thickness: cm; then mean mu in a slice, and the share of each
    """
    path = np.zeros((view.size, view.size), F32)
    named: dict[str, tuple[Box, Array]] = {}
    for part, box, amount in scene.amounts(view, thickness):
        mu = MATERIALS[part.material].mu - MATERIALS[part.within].mu
        path[box] += F32(mu) * amount
        if part.name and part.name in named:  # the pieces of a broken bone
            whole = np.zeros_like(path)
            for where, much in (named[part.name], (box, amount)):
                whole[where] += much
            box, amount = (slice(None), slice(None)), whole
        if part.name:
            named[part.name] = (box, amount)
    return np.maximum(path, 0), named


def film(view: View, path: Array, phantom: Phantom, rng: Rng) -> Array:
    """[H, W] grey in [0, 1]: scatter, noise, the workstation's window, shutters and a marker.

    I = exp(-sum mu l) + scatter + noise, shown as -log I (Beer-Lambert)
    """
    primary = np.exp(-path)
    share = rng.uniform(0.1, 0.3) * min(1.0, float(path.max()) / 3)
    signal = (1 - share) * primary + F32(share) * view.blur(primary, 2.0)
    dose = rng.uniform(3e4, 3e5) * (view.pixel / 0.1) ** 2
    noise = rng.spawn(1)[0].standard_normal((view.size, view.size)).astype(F32)
    density = -np.log(np.clip(signal + np.sqrt(signal / F32(dose)) * noise, 1e-4, None))
    # the workstation takes back most of the broad differences, so that thin and thick parts show
    width = view.size * view.pixel
    body = np.clip(path / F32(0.25), 0, 1)  # bare film stays black
    inside = path > 0.12
    broad = view.blur(density * body, 0.07 * width) / np.maximum(
        view.blur(body, 0.07 * width), 0.05
    )
    level = float(np.median(density[inside])) if inside.any() else 1.0
    density = density - F32(rng.uniform(0.45, 0.75)) * body * (broad - level)
    density = density + F32(rng.uniform(0.3, 1.0)) * (density - view.blur(density, 0.02 * width))
    low, high = np.quantile(density[inside], [0.03, 0.995]) if inside.any() else (0.0, 1.0)
    dark = rng.uniform(0.08, 0.3)  # grey of the thinnest flesh
    low = max(float(low), 0.15)  # noise of bare film stays dark
    grey = np.interp(density, [0, low, high], [0, dark, 0.97]).astype(F32)
    grey = grey ** F32(rng.uniform(0.85, 1.2))
    fog = F32(max(0.0, rng.normal(0, 0.05)))
    grey = fog + (1 - fog) * grey
    grey = exposure.collimate(view, np.asarray(grey, F32), rng)
    if rng.random() < 0.6:
        letter = {"left": "L", "right": "R"}.get(phantom.side) or str(rng.choice(["L", "R"]))
        corner = 1 if letter == "L" else -1  # the patient's left is a frontal picture's right
        if phantom.side or phantom.view == "lateral":
            corner = int(rng.choice([-1, 1]))
        grey = exposure.mark(view, grey, letter, corner, "", rng)
    return grey
