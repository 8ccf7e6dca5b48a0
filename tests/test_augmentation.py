"""Random changes keep the range, and left and right."""

import numpy as np
import pytest
import torch
from conftest import GOLDENS

from ldm.data.augmentation import VERSION, augment, augment_strongly, crop


@pytest.mark.parametrize("change", [augment, augment_strongly])
def test_augmentation_keeps_the_range_and_left_left(change) -> None:
    """Each image is changed in its own way, is in [-1, 1], and a bright spot stays on its side."""
    x = torch.full((64, 1, 64, 64), -0.6)
    x[..., 16:48, 44:60] = 0.9
    y = change(x, torch.Generator().manual_seed(0))
    assert -1 <= y.min() < y.max() <= 1
    assert (y[..., 32:].mean(dim=(1, 2, 3)) > y[..., :32].mean(dim=(1, 2, 3))).all()
    assert len({round(v, 4) for v in y.mean(dim=(1, 2, 3)).tolist()}) > 60


def test_changes_are_those_that_the_version_names() -> None:
    """Means of 8 x 8 blocks, made with version 980c2b0eaee5; see the test of the phantoms'."""
    made = np.load(GOLDENS / "augmented.npz")
    x = torch.linspace(-1, 1, 32 * 32).reshape(1, 1, 32, 32).repeat(4, 1, 1, 1)
    y = augment(x, torch.Generator().manual_seed(0))
    blocks = torch.nn.functional.avg_pool2d(y, 8)[:, 0].numpy()
    np.testing.assert_allclose(blocks, made[f"version_{VERSION}"], atol=1e-4)


def test_a_crop_is_a_piece_of_the_image() -> None:
    """Neighbours stay neighbours; a crop larger than the image is the image."""
    x = torch.arange(64.0).reshape(1, 1, 8, 8)
    y, mask = crop(x, x > 20, 3, torch.Generator().manual_seed(1))
    assert torch.equal(mask, y > 20)
    assert y.shape == (1, 1, 3, 3)
    assert (y.diff(dim=-1) == 1).all()
    assert (y.diff(dim=-2) == 8).all()
    assert crop(x, None, 9, torch.Generator()) == (x, None)


def test_crops_come_from_everywhere() -> None:
    """Of the 36 places of 3 x 3 in 8 x 8 all are drawn: each corner, each row and column."""
    x = torch.arange(64.0).reshape(1, 1, 8, 8)
    g = torch.Generator().manual_seed(0)
    places = {int(crop(x, None, 3, g)[0][0, 0, 0, 0]) for _ in range(500)}
    assert places == {8 * y + x for y in range(6) for x in range(6)}, "a crop may lie anywhere"
