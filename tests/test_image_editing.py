"""Edited pictures: they come back as they were given, the same in any batch, or are refused."""

from dataclasses import replace

import numpy as np
import pytest
from test_latent_editing import OTHER, PROMPT, SAMPLING, picture

from ldm.drawing import compositing, image_editing, outpainting
from ldm.drawing.latent_editing import PictureBatch
from ldm.pipeline import LatentDiffusion


def test_padding_mirrors_and_is_cropped_away(tiny: LatentDiffusion) -> None:
    """Sides become multiples, only right and below, with nothing that is not in the image."""
    given = picture(70, 65)
    whole = compositing.padded(given, 16)
    assert whole.shape == (80, 80, 1)
    assert np.array_equal(whole[:70, :65], given)
    assert np.array_equal(whole[70:, :65], given[60:][::-1])
    z = image_editing.encode(tiny, given)
    assert image_editing.decode(tiny, z, given)[0].shape == given.shape


@pytest.mark.parametrize(
    ("size", "channels", "bits"), [((32, 32), 1, 8), ((37, 50), 1, 16), ((53, 34), 3, 8)]
)
def test_pictures_come_back_as_they_were_given(
    tiny: LatentDiffusion, size: tuple[int, int], channels: int, bits: int
) -> None:
    """Size, depth and channels are kept by every way of editing, with a model of RGB."""
    given = picture(*size, channels, bits)
    alpha = np.zeros(size)
    alpha[20:30, 10:30] = 1
    batch = PictureBatch(tiny, [PROMPT], [0], replace(SAMPLING, steps=1, sampler="ddim"))
    for (found,) in (
        image_editing.image_to_image(batch, given, 0.9),
        image_editing.counterfactual(batch, given, [OTHER]),
        image_editing.inpaint(batch, given, alpha),
    ):
        assert (found.dtype, found.shape) == (given.dtype, given.shape)
        assert not np.array_equal(found, given)
    assert np.array_equal(found[alpha == 0], given[alpha == 0])


def test_what_is_repainted_leaves_no_trace(tiny: LatentDiffusion) -> None:
    """Two images that differ only under the mask give the same picture."""
    given, alpha = picture(32, 32), np.zeros((32, 32))
    alpha[5:15, 10:25] = 1
    other = given.copy()
    other[5:15, 10:25] = 255 - other[5:15, 10:25]
    batch = PictureBatch(tiny, [PROMPT], [0], SAMPLING)
    found = [image_editing.inpaint(batch, x, alpha)[0] for x in (given, other)]
    assert np.array_equal(*found)


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "bits"), [(1, 16), (3, 8)])
def test_sd_at_full_size_edits(full: LatentDiffusion, channels: int, bits: int) -> None:
    """With SD v1.4's names and sizes, pseudo-random weights: what is kept is kept bit for bit.

    Two steps at 64 pixels; the picture changes where it may, by every way of editing.
    """
    given = picture(64, 72, channels, bits)
    sampling = replace(SAMPLING, steps=2, height=64, width=64)
    alpha = np.zeros((64, 72))
    alpha[20:40, 10:30] = 1
    batch = PictureBatch(full, [PROMPT], [0], sampling)
    (redrawn,) = image_editing.image_to_image(batch, given, 0.5)
    ddim = replace(batch, sampling=replace(sampling, sampler="ddim", guidance=1.0))
    (inverted,) = image_editing.counterfactual(ddim, given, [OTHER], 0.5)
    (inpainted,) = image_editing.inpaint(batch, given, alpha, 2)
    board, known = outpainting.place(given, (96, 64), (24, 0))
    boxes = outpainting.plan(known, 64)
    *_, extended = outpainting.outpaint(batch, board, known, boxes)
    for found in (redrawn, inverted, inpainted):
        assert (found.dtype, found.shape) == (given.dtype, given.shape)
        assert not np.array_equal(found, given)
    assert np.array_equal(inpainted[alpha == 0], given[alpha == 0])
    assert np.array_equal(extended[:, 24:], given)
    assert extended[:, :24].any()


# --- any batch ---


@pytest.mark.parametrize("way", ["image to image", "inversion", "inpainting"])
def test_image_7_is_the_same_edit_in_any_company(tiny: LatentDiffusion, way: str) -> None:
    """99.9 % of the pixels are equal and none is off by 2, beside others and alone."""
    given, alpha = picture(32, 32), np.zeros((32, 32))
    alpha[8:20, 8:24] = 1
    sampling = replace(SAMPLING, sampler="ddim" if way == "inversion" else "ddpm", steps=2)

    def edit(prompts: list[str], indices: list[int]) -> list[compositing.Levels]:
        batch = PictureBatch(tiny, prompts, indices, sampling)
        if way == "inpainting":
            return image_editing.inpaint(batch, given, alpha, 2)
        if way == "inversion":
            return image_editing.counterfactual(batch, given, [OTHER] * len(prompts))
        return image_editing.image_to_image(batch, given, 0.7)

    alone = edit([PROMPT], [7])[0].astype(int)
    among = edit([OTHER, PROMPT, "edema"], [3, 7, 8])
    off = np.abs(among[1] - alone)
    assert off.max() <= 1
    assert (off == 0).mean() >= 0.999
    assert not np.array_equal(among[0], among[1])
