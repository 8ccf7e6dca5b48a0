"""Masks, and where new pixels meet old ones: what is kept is kept bit for bit."""

import numpy as np
import pytest

from ldm import rng
from ldm.drawing import compositing, image_editing, latent_editing
from ldm.drawing.compositing import Box
from ldm.drawing.latent_editing import PictureBatch
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling


def test_pixels_outside_the_mask_are_kept_bit_for_bit(
    tiny: LatentDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,000 random masks, sizes, depths (8, 16 bits) and channels (1, 3), whatever is drawn.

    Soft pixels lie between old and new, and what is fully masked takes no old value.
    """
    g = np.random.default_rng(0)
    monkeypatch.setattr(image_editing, "denoiser", lambda *_: None)
    monkeypatch.setattr(image_editing, "encode", lambda *_: None)
    monkeypatch.setattr(latent_editing, "inpaint", lambda *_: None)
    for _ in range(1000):
        kind = g.choice([np.uint8, np.uint16])
        top = int(np.iinfo(kind).max)
        height, width, channels = *g.integers(8, 40, 2), int(g.choice([1, 3]))
        given = g.integers(0, top + 1, (height, width, channels), dtype=kind)
        alpha = np.zeros((height, width))
        y, x = g.integers(0, height), g.integers(0, width)
        alpha[y : y + g.integers(1, 20), x : x + g.integers(1, 20)] = g.choice([0.01, 0.5, 1.0])
        alpha[g.random((height, width)) < g.choice([0.0, 0.2])] = 0
        alpha[0, -1] = 0  # something is kept
        if not alpha.any():
            alpha[0, 0] = 1
        monkeypatch.setattr(
            image_editing,
            "decode",
            lambda pipe, z, like, g=g, top=top: [g.uniform(-top / 9, top * 10 / 9, like.shape)],
        )
        before = given.copy()
        batch = PictureBatch(tiny, [""], [0], Sampling())
        (found,) = image_editing.inpaint(batch, given, alpha)
        assert (found.dtype, found.shape) == (given.dtype, given.shape)
        assert np.array_equal(found[alpha == 0], given[alpha == 0])
        assert np.array_equal(given, before)
        most = np.ceil(alpha * top)[..., None]
        assert (np.abs(found.astype(int) - given.astype(int)) <= most).all()


def test_a_cell_with_any_pixel_to_repaint_is_repainted() -> None:
    """Max-pooling, whatever the alpha: FACTS of masks to latents, by loops."""
    alpha = (rng.gaussian(0, [0], 0, (32, 48))[0].numpy() > 2).astype(float) * 0.01
    pooled = compositing.to_latents(alpha, 8)
    assert pooled.shape == (1, 1, 4, 6)
    for y in range(4):
        for x in range(6):
            assert pooled[0, 0, y, x] == alpha[y * 8 : y * 8 + 8, x * 8 : x * 8 + 8].any()
    assert 0 < pooled.mean() < 1


def test_masks_are_inverted_first_then_grown() -> None:
    """A white pixel grown by 2 is a square of 5; soft levels spread as they are."""
    mask = np.zeros((9, 9, 1), np.uint16)
    mask[4, 4] = 13107  # a fifth of 65535
    alpha = compositing.alpha_of(mask, grow=2)
    assert (alpha[2:7, 2:7] == 0.2).all()
    assert alpha.sum() == pytest.approx(25 * 0.2)
    assert compositing.alpha_of(65535 - mask, grow=2, invert=True) == pytest.approx(alpha)
    with pytest.raises(ValueError, match="the mask is full"):
        compositing.alpha_of(mask, grow=10**9)


def test_holes_are_filled_by_laplaces_equation() -> None:
    """A plane is harmonic, so a hole in one is filled with it; maxima lie at the edge.

    At the border the image goes on level, so there the fill of a constant is the constant.
    """
    y, x = np.mgrid[:20, :30].astype(float)
    plane = np.stack([2 * x - y, x + 1], axis=2)
    hole = np.zeros((20, 30), bool)
    hole[3:15, 4:20] = hole[16:18, 25:29] = True
    broken = np.where(hole[..., None], 1e6, plane)
    np.testing.assert_allclose(compositing.harmonic(broken, hole), plane, atol=1e-9)
    corner = np.zeros((20, 30), bool)
    corner[:7, :9] = True
    values = rng.gaussian(0, [0], 0, (20, 30, 1))[0].double().numpy()
    filled = compositing.harmonic(values, corner)[corner]
    around = np.concatenate([values[7, :9], values[:7, 9]])
    assert around.min() < filled.min() < filled.max() < around.max()


def test_a_constant_offset_leaves_no_seam() -> None:
    """A picture drawn 30 levels too bright everywhere is pasted as if it were not."""
    given = image_files.to_integers(rng.gaussian(0, [0], 0, (1, 40, 40))[0] / 3)
    alpha = np.zeros((40, 40))
    alpha[10:30, 10:30] = 1
    assert np.array_equal(compositing.paste(given, given + 30.0, alpha), given)


def test_the_window_holds_the_hole_and_lies_in_the_image() -> None:
    """It has the model's size, or half of it around a larger hole, or all of a smaller image."""
    hole = np.zeros((200, 300), bool)
    hole[3:9, 290:299] = True
    assert compositing.window(hole, 64) == Box(0, 236, 64, 64)
    hole[3:100, 200] = True
    assert compositing.window(hole, 64) == Box(0, 169, 129, 131)
    assert compositing.window(hole, 512) == Box(0, 0, 200, 300)
