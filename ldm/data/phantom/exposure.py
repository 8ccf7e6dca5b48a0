"""From path lengths to a displayed film: scatter, noise, exposure, film curve, borders, markers."""

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from ldm.data.phantom.body import F32, SHAPES, Array
from ldm.data.phantom.detector import Plane
from ldm.data.phantom.findings import Rng

GLYPHS = SHAPES["glyphs"]  # strokes on a 4 x 6 raster: x, y to x, y


def film(canvas: Plane, attenuation: Array, lung: Array, view: str, rng: Rng) -> Array:
    """[H, W] grey in [0, 1], bright where little arrives, like a film on a light box.

    I = exp(-sum mu_i l_i) + scatter + noise (Beer-Lambert); lung: [H, W] cm of air, for the window
    """
    primary = np.exp(-attenuation)
    scatter = _broad(canvas, primary * (1 - np.exp(-2 * attenuation)), 6)
    share = rng.uniform(0.25, 0.4) if view == "PA" else rng.uniform(0.35, 0.6)
    signal = (1 - share) * primary + share * scatter
    dose = rng.uniform(3e5, 2e6) * (1.0 if view == "PA" else 0.5) * (canvas.pixel / 0.3) ** 2
    # the grain has a stream of its own: it takes more numbers at larger sizes, the film must not
    noise = rng.spawn(1)[0].standard_normal((canvas.size, canvas.size)).astype(F32)
    signal = signal + np.sqrt(signal / F32(dose)) * noise
    density = -np.log(np.maximum(signal, 1e-4))  # what a film or a digital plate shows
    # back comes a share of the broad differences, as on every digital workstation
    body = np.clip(density / 0.5, 0, 1)  # bare film stays black
    broad = _broad(canvas, density, 4.5) - np.median(density)
    density = density - body * F32(rng.uniform(0.25, 0.6)) * broad
    density = density + F32(rng.uniform(0.3, 1.0)) * (density - canvas.blur(density, 0.5))
    grey = collimate(canvas, _window(density, lung, view, rng), rng)
    letter, side = ("L", 1) if rng.random() < 0.75 else ("R", -1)  # the patient's left is right
    return mark(canvas, grey, letter, side, view, rng)


def _broad(canvas: Plane, source: Array, cm: float) -> Array:
    """Gaussian blur over that many cm, done on a coarse grid because it is broad."""
    cells = 32
    block = canvas.size // cells
    if block * cells != canvas.size:
        return gaussian_filter(source, cm / canvas.pixel, mode="nearest", truncate=2)
    coarse = source.reshape(cells, block, cells, block).mean((1, 3))
    coarse = gaussian_filter(coarse, cm / (canvas.pixel * block), mode="nearest", truncate=2)
    return np.asarray(zoom(coarse, block, order=1, mode="nearest", grid_mode=True), F32)


def _window(density: Array, lung: Array, view: str, rng: Rng) -> Array:
    """Film curve: a logistic through the lungs' dark grey and the abdomen's light one."""
    inner = lung > 4
    dark = float(np.median(density[inner])) if inner.sum() > 50 else float(np.median(density))
    light = float(np.quantile(density, 0.93))
    grey_dark = rng.uniform(0.2, 0.45) if view == "PA" else rng.uniform(0.28, 0.6)
    grey_light = rng.uniform(0.78, 0.92)
    to, fro = np.log(grey_dark / (1 - grey_dark)), np.log(grey_light / (1 - grey_light))
    slope = (fro - to) / max(light - dark, 0.3)
    curve = 1 / (1 + np.exp(-(to + slope * (density - dark))))
    floor = 1 / (1 + np.exp(-(to - slope * dark)))  # what bare film would show
    grey = np.clip((curve - floor) / (1 - floor), 0, 1)
    fog = max(0.0, rng.normal(-0.02, 0.06))
    return np.asarray(fog + (1 - fog) * grey, F32)


def collimate(canvas: Plane, grey: Array, rng: Rng) -> Array:
    """A third of all films with the shutters in the picture."""
    half = 0.5 * canvas.size * canvas.pixel
    if rng.random() < 0.3:
        edges = half * (1 - np.where(rng.random(4) < 0.5, rng.uniform(0, 0.12, 4), -0.1))
        tilt = rng.normal(0, 0.02)
        u, v = canvas.u + F32(tilt) * canvas.v, canvas.v - F32(tilt) * canvas.u
        inside = canvas.edge(F32(edges[0]) - u) * canvas.edge(F32(edges[1]) + u)
        inside *= canvas.edge(F32(edges[2]) - v) * canvas.edge(F32(edges[3]) + v)
        blank = 0.0 if rng.random() < 0.75 else 0.93  # beyond the shutters: black, or clear film
        grey = F32(blank) + (grey - F32(blank)) * inside
    return grey


def mark(canvas: Plane, grey: Array, letter: str, side: int, view: str, rng: Rng) -> Array:
    """With the letter near an upper corner: that on the right for side 1, on the left for -1."""
    half = 0.5 * canvas.size * canvas.pixel
    height = half * rng.uniform(0.06, 0.1) if view == "" else rng.uniform(1.1, 1.8)
    at = (side * half * rng.uniform(0.76, 0.9), -half * rng.uniform(0.7, 0.92))
    ink = write(canvas, letter, at, height, rng.normal(0, 0.1))
    if view == "AP" and rng.random() < 0.4:
        ink = ink + write(canvas, "AP", (at[0] - 0.5, at[1] + 1.8 * height), 0.5 * height, 0.0)
    return burn_in(grey, ink)


def burn_in(grey: Array, ink: Array) -> Array:
    """Ink of 1 is white, whatever is below it."""
    return np.asarray(np.clip(grey + np.clip(ink, 0, 1) * (0.97 - grey), 0, 1), F32)


def write(canvas: Plane, text: str, at: tuple[float, float], height: float, tilt: float) -> Array:
    """[H, W] ink of letters that stand upright in the image, whatever the body does."""
    strokes = [np.add(GLYPHS[letter], (5.5 * i, 0, 5.5 * i, 0)) for i, letter in enumerate(text)]
    x0, y0, x1, y1 = np.concatenate(strokes).T * (height / 6)
    t = np.linspace(0, 1, 40)[:, None]
    x, y = (x0 * (1 - t) + x1 * t).ravel(), (y0 * (1 - t) + y1 * t).ravel()
    x, y = x + tilt * y + at[0], y - tilt * x + at[1]
    n, pixel = (canvas.size - 1) / 2, canvas.pixel
    ink = canvas.deposit(y / pixel + n, x / pixel + n, np.ones_like(x))
    ink = canvas.blur(ink, max(0.09 * height, 0.3 * pixel))
    return np.asarray(np.clip(1.6 * ink / max(float(ink.max()), 1e-6), 0, 1), F32)
