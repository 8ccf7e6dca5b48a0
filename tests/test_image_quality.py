"""RMSE, PSNR, SSIM and MS-SSIM against independent references.

Goldens: goldens/metrics.json and .npz, made with scikit-image and torchmetrics.
"""

import json

import numpy as np
import pytest
from conftest import GOLDENS

from ldm.metrics.image_quality import edge_steps, ms_ssim, psnr, rmse, ssim

WANT = json.loads((GOLDENS / "metrics.json").read_text())["image"]


def pair(name: str) -> list[np.ndarray]:
    with np.load(GOLDENS / "metrics.npz") as stored:
        names = ("noise.a", "noise.a") if name == "identical" else (f"{name}.a", f"{name}.b")
        return [stored[key] / 255 for key in names]


@pytest.mark.parametrize("name", sorted(WANT))
def test_images_equal_the_references(name: str) -> None:
    """RMSE, PSNR and SSIM as scikit-image to 1e-9, MS-SSIM as torchmetrics to 1e-7."""
    want, images = WANT[name], pair(name)
    assert rmse(*images) == pytest.approx(want["rmse"], rel=1e-9, abs=0)
    # JSON has no infinity: PSNR of equal images
    decibels = float("inf") if name == "identical" else want["psnr"]
    assert psnr(*images, 1) == pytest.approx(decibels, rel=1e-9)
    assert ssim(*images, 1) == pytest.approx(want["ssim"], rel=1e-9)
    assert ms_ssim(*images, 1) == pytest.approx(want["ms_ssim"], rel=1e-7)


def test_figures_do_not_depend_on_the_unit() -> None:
    """Grey levels in any unit, with the span in the same unit, are the same image; for PSNR black
    may be anywhere; the wrong span is 6 dB off.
    """
    a, b = pair("noise")
    for figure in (psnr, ssim, ms_ssim):
        assert figure(255 * a, 255 * b, 255) == pytest.approx(figure(a, b, 1))
    assert psnr(2 * a - 1, 2 * b - 1, 2) == pytest.approx(psnr(a, b, 1))
    assert psnr(a, b, 2) > psnr(a, b, 1) + 6


@pytest.mark.parametrize(
    ("figure", "one", "other", "message"),
    [
        (ssim, (20, 20), (20, 21), "one shape"),
        (psnr, (1, 20, 20), (1, 20, 20), r"\[H, W\]"),
        (ssim, (8, 20), (8, 20), "11 pixels"),
        (ms_ssim, (128, 128), (128, 128), "176 pixels"),
    ],
)
def test_images_that_cannot_be_compared_are_refused(figure, one, other, message: str) -> None:
    """Other shapes, a channel axis, too small for the window or for five scales."""
    with pytest.raises(ValueError, match=message):
        figure(np.zeros(one), np.zeros(other), 1)


def test_steps_across_an_edge_are_told_from_those_outside() -> None:
    """By hand: a masked pixel in the middle of 3 x 3 has four steps across, eight lie outside."""
    picture = np.arange(9).reshape(3, 3) ** 2
    across, outside = edge_steps(picture, np.arange(9).reshape(3, 3) == 4)
    assert sorted(across) == [7, 9, 15, 33]  # 16 - 9, 25 - 16, 16 - 1, 49 - 16
    assert sorted(outside) == [1, 3, 9, 13, 15, 21, 27, 39]
