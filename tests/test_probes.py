"""Probes: one thing of a known size in a phantom, and nothing else changed."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ldm.data.phantom import PROBES, Phantom, Probe, probes, render, sample_phantoms
from ldm.data.phantom.body import Anatomy
from ldm.data.phantom.detector import Canvas


def healthy(count: int) -> list[Phantom]:
    return sample_phantoms(range(count), findings=[])


def change(phantom: Phantom, probe: Probe, size: int = 64) -> tuple[Tensor, Tensor]:
    """The change of the image by the probe, and its mask: [H, W] each."""
    twin, shown = render([phantom], size), render([dataclasses.replace(phantom, probe=probe)], size)
    return (shown.images - twin.images)[0, 0], shown.masks["probe"][0]


def drawn(phantom: Phantom, probe: Probe, size: int) -> tuple[np.ndarray, float]:
    """The probe's own map, and the film's pixel in cm of this body."""
    a = Anatomy(phantom)
    canvas = Canvas(a, size)
    found = probes.draw(canvas, a, dataclasses.replace(phantom, probe=probe))
    return next(iter(found.values())).astype(float), canvas.pixel * a.scale


@pytest.mark.parametrize("size", [64, 128, 512])
def test_a_ball_has_its_volume_and_a_wire_its_own_at_any_size(size: int) -> None:
    """Thickness summed over the film is pi d^3 / 6 for a ball, pi d^2 / 4 of length for a wire."""
    for phantom in healthy(4):
        scale = Anatomy(phantom).scale
        ball, pixel = drawn(phantom, Probe("nodule", 1.3), size)
        assert ball.sum() * scale * pixel**2 == pytest.approx(math.pi / 6 * 1.3**3, rel=5e-3)
        wire, _ = drawn(phantom, Probe("wire", 0.2), size)
        volume = math.pi / 4 * 0.2**2 * probes.LENGTH * scale
        assert wire.sum() * pixel**2 == pytest.approx(volume, rel=5e-3)


def test_a_letter_is_as_high_as_it_says() -> None:
    """On a fine film the ink spans the height that was asked for."""
    for phantom in healthy(4):
        ink, pixel = drawn(phantom, Probe("L", 3.0), 512)
        rows = np.flatnonzero((ink > 0.5).any(axis=1))
        # strokes are soft, and end half a stroke beyond their points
        assert (rows[-1] - rows[0] + 1) * pixel == pytest.approx(3.0, rel=0.15)


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_brightens_its_mask_and_leaves_the_rest(name: str) -> None:
    """Without its probe a phantom is the same picture; with it, its mask alone is brighter."""
    for phantom in healthy(4):
        added, mask = change(phantom, Probe(name, {"wire": 0.3}.get(name, 2.0)))
        around = torch.nn.functional.max_pool2d(mask[None].float(), 7, 1, 3)[0] > 0
        assert added[mask].mean() > 0.05
        # the film's window and equaliser see the probe, too, and move everything a little
        assert added[~around].abs().mean() < 0.05 * added[mask].mean()


@pytest.mark.parametrize("name", PROBES)
def test_a_larger_probe_lies_where_the_smaller_one_lay(name: str) -> None:
    """The place depends on the seed alone, so sizes can be compared in one phantom."""
    for phantom in healthy(4):
        small, large = (change(phantom, Probe(name, size))[1] for size in (1.0, 3.0))
        for axis in (0, 1):
            inner, outer = (mask.any(axis).nonzero() for mask in (small, large))
            assert outer.min() <= inner.min() <= inner.max() <= outer.max()
        assert large.sum() > small.sum()


@pytest.mark.parametrize(("name", "size"), [("cat", 1.0), ("wire", 0.0), ("wire", float("nan"))])
def test_a_wrong_probe_is_refused(name: str, size: float) -> None:
    """Another name, or no size, says which probes there are."""
    with pytest.raises(ValueError, match="a probe is one of nodule, wire, L, R, A, P"):
        Probe(name, size)
