"""Probes: objects of known size in a phantom, to measure how much of them a network keeps."""

import numpy as np

from ldm.data.phantom import exposure
from ldm.data.phantom.body import F32, Anatomy, Array
from ldm.data.phantom.detector import Canvas, Floats
from ldm.data.phantom.findings import LETTERS, Phantom, stream

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
    if name in LETTERS:
        # in either lower corner; the film's own markers are in an upper one
        half = 0.5 * canvas.size * canvas.pixel
        x, y = rng.choice([-0.8, 0.8]) * half, rng.uniform(0.7, 0.8) * half
        # a letter is two thirds as wide as high
        return {"letter": exposure.write(canvas, name, (x - size / 3, y - size / 2), size, 0.0)}
    # a point that a healthy lung covers
    x, y = rng.choice([-1, 1]) * rng.uniform(6.0, 10.0), rng.uniform(-6.0, 4.0)
    row, column = canvas.place(np.array([x]), np.array([y]))
    wide, across = size / canvas.pixel, _middles(FINE)
    if name == "nodule":
        down = across[:, None]
        chord = size * np.sqrt(np.maximum(1 - across**2 - down**2, 0))
        rows, columns = np.broadcast_arrays(row + wide / 2 * down, column + wide / 2 * across)
        area = (wide / FINE) ** 2  # in pixels, that each point stands for
    else:  # a round wire in any direction
        turn, long = rng.uniform(0, np.pi), LENGTH / canvas.pixel
        count = max(FINE, int(4 * long))
        along, aside = 0.5 * long * _middles(count)[:, None], 0.5 * wide * across
        rows = row + np.sin(turn) * along + np.cos(turn) * aside
        columns = column + np.cos(turn) * along - np.sin(turn) * aside
        chord = np.broadcast_to(size * np.sqrt(1 - across**2), rows.shape)
        area = long / count * wide / FINE
    depth = canvas.deposit(rows.ravel(), columns.ravel(), (chord * area).ravel())
    return {name: depth if name == "nodule" else depth * F32(a.scale)}


def _middles(count: int) -> Floats:
    """The middles of `count` equal parts of [-1, 1]."""
    return (2 * np.arange(count) + 1) / count - 1
