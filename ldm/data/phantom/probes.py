"""Probes: objects of known size in a phantom, to measure how much of them a network keeps."""

import numpy as np

from ldm.data.phantom import exposure
from ldm.data.phantom.body import F32, Anatomy, Array
from ldm.data.phantom.detector import Canvas, Floats
from ldm.data.phantom.findings import Phantom, Rng, stream

LENGTH = 6.0  # cm of a wire
FINE = 60  # points across an object: less than a pixel apart for whatever is less than 60 pixels


def draw(canvas: Canvas, a: Anatomy, phantom: Phantom) -> dict[str, Array]:
    """{"nodule", "wire" or "letter": [H, W]}, empty without a probe.

    A nodule is cm of tissue along the ray in the body's measure, a wire cm of metal, a letter ink.
    """
    if phantom.probe is None:
        return {}
    rng = stream(phantom.seed, 30)
    name, size = phantom.probe.name, phantom.probe.size / a.scale  # the canvas is not scaled
    if name == "nodule":
        return {name: _ball(canvas, size, rng)}
    if name == "wire":
        return {name: _wire(canvas, size, rng) * F32(a.scale)}
    return {"letter": _letter(canvas, name, size, rng)}


def _ball(canvas: Canvas, size: float, rng: Rng) -> Array:
    """A ball in either lung, where `lesions` puts its nodules."""
    across = _middles(FINE)
    chord = np.sqrt(np.maximum(1 - across**2 - across[:, None] ** 2, 0))
    row, column = _in_the_lung(canvas, rng)
    radius = size / 2 / canvas.pixel
    rows, columns = np.broadcast_arrays(row + radius * across[:, None], column + radius * across)
    return _spread(canvas, rows, columns, size * chord, (2 * radius / FINE) ** 2)


def _wire(canvas: Canvas, size: float, rng: Rng) -> Array:
    """A straight round wire across either lung, in any direction."""
    row, column = _in_the_lung(canvas, rng)
    turn = rng.uniform(0, np.pi)
    long, across = LENGTH / canvas.pixel, size / canvas.pixel
    count = max(FINE, int(4 * long))
    along, aside = 0.5 * long * _middles(count)[:, None], 0.5 * across * _middles(FINE)
    rows = row + np.sin(turn) * along + np.cos(turn) * aside
    columns = column + np.cos(turn) * along - np.sin(turn) * aside
    chord = np.broadcast_to(size * np.sqrt(1 - _middles(FINE) ** 2), rows.shape)
    return _spread(canvas, rows, columns, chord, long / count * across / FINE)


def _letter(canvas: Canvas, letter: str, size: float, rng: Rng) -> Array:
    """A letter in either lower corner; the film's own markers are in an upper one."""
    half = 0.5 * canvas.size * canvas.pixel
    x, y = rng.choice([-0.8, 0.8]) * half, rng.uniform(0.7, 0.8) * half
    top_left = x - size / 3, y - size / 2  # a letter is two thirds as wide as high
    return exposure.write(canvas, letter, top_left, size, 0.0)


def _in_the_lung(canvas: Canvas, rng: Rng) -> tuple[float, float]:
    """Row and column of a point that a healthy lung covers."""
    x, y = rng.choice([-1, 1]) * rng.uniform(6.0, 10.0), rng.uniform(-6.0, 4.0)
    row, column = canvas.place(np.array([x]), np.array([y]))
    return float(row[0]), float(column[0])


def _middles(count: int) -> Floats:
    """The middles of `count` equal parts of [-1, 1]."""
    return (2 * np.arange(count) + 1) / count - 1


def _spread(canvas: Canvas, rows: Floats, columns: Floats, value: Floats, area: float) -> Array:
    """[H, W] the mean over each pixel of a value that every point has on so many pixels' area."""
    return canvas.deposit(rows.ravel(), columns.ravel(), (value * area).ravel())
