"""B-mode ultrasound of a scene in the plane of a view, by a curved array on the skin above it."""

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from ldm.data.phantom.body import F32, Array
from ldm.data.phantom.detector import Floats
from ldm.data.phantom.fetus import fetal_head as fetal_head
from ldm.data.phantom.findings import Rng
from ldm.data.phantom.materials import MATERIALS
from ldm.data.phantom.rays import View
from ldm.data.phantom.scene import Scene
from ldm.data.phantom.solids import Groups
from ldm.data.phantom.tomography import Shares, halved, painted

# acoustic impedance in MRayl (Szabo 2014, Diagnostic Ultrasound Imaging, appendix B); else 1.65
IMPEDANCE = {"air": 0.0004, "lung": 0.2, "fat": 1.38, "water": 1.5, "compact bone": 6.4,
             "spongy bone": 3.0, "tooth": 7.0, "stone": 6.0, "metal": 30.0, "plaster": 3.0,
             "muscle": 1.70, "kidney": 1.62, "blood": 1.67, "fetal brain": 1.58, "fetal skull": 3.5,
             "membrane": 2.0}  # fmt: skip
SPEED = 0.154  # cm / microsecond
SPECULAR = 60.0  # a perfect mirror across the beam, relative to the liver's backscatter; by eye
TARGETS = ("liver", "right kidney")  # of the abdomen
SCANNED = ("abdomen", "fetal head")
RAYS, SAMPLES = 160, 400


def speckle(shape: tuple[int, int], axial: float, lateral: float, rng: Rng) -> Array:
    """Complex echoes [r, theta] of many scatterers in each resolution cell, of mean square 1.

    White complex Gaussian scatterers seen through a Gaussian pulse and beam (deviations in
    samples): |echo| is Rayleigh distributed, mean / std = 1.91 (Burckhardt 1978,
    doi:10.1109/T-SU.1978.30978; Wagner et al. 1983, doi:10.1109/T-SU.1983.31404)
    """
    noise = rng.standard_normal((2, *shape)).astype(F32)
    seen = gaussian_filter(noise, (0, axial, lateral), mode="wrap", truncate=3)
    real, imaginary = seen / np.sqrt((seen**2).mean() * 2)
    return np.asarray(real + 1j * imaginary)


def envelope(
    echo: Array, loss: Array, log_z: Array, radius: Floats, angle: Floats, frequency: float,
    rng: Rng,
) -> Array:  # fmt: skip
    """[r, theta] amplitude of the echoes before the gain, on rays from one centre.

    diffuse: backscatter amplitude times speckle; specular: R = (Z2 - Z1) / (Z2 + Z1) at each step
    of impedance, times cos^8 of the angle between beam and surface normal; both lose
    2 f integral of loss dr in dB    (echo [1], loss [dB / (cm MHz)], ln Z: [r, theta])
    """
    step, turn = radius[1] - radius[0], angle[1] - angle[0]
    # a pulse of two cycles, an aperture of 2 cm
    axial, lateral = SPEED / frequency / step, 0.3 * SPEED / frequency / turn
    wave = speckle(echo.shape, axial, lateral, rng) * echo
    deep, across = np.gradient(log_z, axis=0), np.gradient(log_z, axis=1)
    across = across * step / (radius[:, None] * turn)
    normal = deep**2 / (deep**2 + across**2 + 1e-12)  # cos^2
    mirror = np.tanh(0.5 * np.abs(deep)) * normal**4
    mirror = gaussian_filter(mirror, (axial, lateral)) * axial * np.sqrt(2 * np.pi)
    left = 10 ** (-0.1 * frequency * step * np.cumsum(loss, 0))  # to and fro
    left = gaussian_filter(left, (0, lateral))  # the beam is as wide as that at a shadow's edge
    return np.asarray(np.abs(wave + SPECULAR * mirror) * left, F32)


def aimed(scene: Scene, view: View, rng: Rng) -> View:
    """The picture that a probe gives: turned so that its front side is up, from the skin on.

    A whole abdomen becomes liver and right kidney from the flank; what is aimed already stays.
    """
    middle, width, away = view.middle, view.size * view.pixel, view.axes[2]
    down = np.array([0, 0, -1.0]) + away * away[2]
    organs = [p.groups[0][0].hull.mean(0) for n in TARGETS for p in scene.parts if p.name == n][:2]
    if (whole := width > 24) and len(organs) == 2:
        middle = organs[0] + (organs[1] - organs[0]) * rng.uniform(0.5, 0.9)
        c, s = np.cos(slant := rng.uniform(0.7, 1.2)), np.sin(slant)
        down, away = np.array([[s, 0, -c], [c, 0, s]])
    elif np.linalg.norm(down) < 0.3:  # coronal: a scan from above
        down = view.axes[1]
    down = down / np.linalg.norm(down)
    right = np.cross(away, down)  # the body's axes are left-handed
    if right[0] + right[1] < 0:  # patient's left or feet on the right
        right, away = -right, -away
    axes = np.stack([right, down, away])
    skin = _skin(scene, View(middle, axes, width, view.size))
    if whole:
        width = float(np.clip(rng.uniform(4, 6) - skin, 12, 23))
    lower = skin - 0.3 + width / 2
    return View(middle + (lower if whole else max(lower, 0)) * down, axes, width, view.size)


def _skin(scene: Scene, view: View) -> float:
    """cm down the picture from its middle to where the middle column enters the body."""
    bodies = [group for part in scene.parts if part.within == "air" for group in part.groups]
    right, down, away = view.axes
    column = View(view.middle, np.stack([right, away, down]), 0.1, 1)
    along = column.intervals(Groups(bodies)) if bodies else []
    first = min((float(found[1].min()) for found in along if found), default=np.inf)
    return first if np.isfinite(first) else -0.5 * view.size * view.pixel


def scan(scene: Scene, view: View, rng: Rng) -> tuple[Array, Shares]:
    """[H, W] grey in [0, 1], black outside the sector, and {name: (box, share of the slice)}.

    20 lg(envelope) + gain that grows with depth, of which 50-60 dB are shown;  view: of `aimed`
    """
    skin, bottom = _skin(scene, view), 0.5 * view.size * view.pixel
    frequency, array, half = rng.uniform([2.5, 4.0, 0.5], [4.5, 6.5, 0.65])
    gain, span, tgc = rng.uniform([14, 50, 1.0], [25, 60, 1.35])
    radius = array + np.linspace(0, (bottom - skin) * rng.uniform(0.97, 1.1), SAMPLES)
    angle = np.linspace(-half, half, RAYS)
    x, y = radius[:, None] * np.sin(angle), radius[:, None] * np.cos(angle) + skin - array
    middle, reach = 0.5 * (skin + y.max()), max(x.max(), 0.5 * (y.max() - skin)) + 0.2
    around = View(view.middle + middle * view.axes[1], view.axes, 2 * reach, 224)
    log_z = {k: np.log(IMPEDANCE.get(k, 1.65)) for k in MATERIALS}
    values = {k: (m.echo, m.loss, log_z[k], k != "air") for k, m in MATERIALS.items()}
    maps, shares = painted(scene, around, 0.3, values)
    maps[0] *= np.exp(F32(0.25) * around.texture(rng, 0.5))  # no tissue is all even
    at = [(v + reach) / around.pixel - 0.5 for v in (y - middle, x)]
    echo, loss, hard, matter = (map_coordinates(m, at, order=1, mode="nearest") for m in maps)
    # what lies between the array and the skin is gel
    wet = np.maximum.accumulate(matter > 0.5, axis=0)
    hard = np.where(wet, hard, log_z["water"])
    sound = envelope(echo * wet, loss * wet, hard, radius, angle, frequency, rng)
    rise = tgc * frequency * np.minimum(radius[:, None] - array, 15)
    decibel = 20 * np.log10(sound + F32(1e-5)) + rise
    grey = np.clip((decibel + gain) / span, 0, 1).astype(F32)
    fine = View(view.middle, view.axes, 2 * bottom, 2 * view.size)
    deep = fine.v - F32(skin - array)
    far, turn = np.hypot(fine.u, deep), np.arctan2(fine.u, deep)
    at = [(far - array) / (radius[1] - radius[0]), (turn + half) / (angle[1] - angle[0])]
    box = slice(0, view.size), slice(0, view.size)
    picture, seen = (halved(map_coordinates(m, at, order=1)) for m in (grey, np.ones_like(grey)))
    places = ((view.at + reach - shift) / around.pixel for shift in (middle, 0))
    grid = np.ix_(*(np.clip(place, 0, around.size - 1).astype(int) for place in places))
    return picture, {name: (box, share[grid] * seen) for name, (_, share) in shares.items()}
