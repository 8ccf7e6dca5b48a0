"""Claims about scenes: overlaps count once, slices take shares, the inside takes its place."""

import numpy as np
import pytest

from ldm.data.phantom.materials import MATERIALS
from ldm.data.phantom.radiograph import attenuation
from ldm.data.phantom.rays import View
from ldm.data.phantom.scene import Cloud, Field, Part, Scene
from ldm.data.phantom.solids import ball, ellipsoid, frustum

FRONT = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, -1]])
VIEW = View((0, 0, 0), FRONT, 12, 48)


def amount(parts: list[Part], thickness: float | None = None) -> np.ndarray:
    """[H, W] of the last part."""
    total = np.zeros((VIEW.size, VIEW.size))
    for part, box, value in Scene(parts).amounts(VIEW, thickness):
        if part is parts[-1]:
            total[box] = value
    return total


def chord(radius: float, x: float = 0.0) -> np.ndarray:
    return 2 * np.sqrt(np.clip(radius**2 - (VIEW.u - x) ** 2 - VIEW.v**2, 0, None))


def test_where_two_groups_overlap_a_ray_counts_once() -> None:
    """Two balls of 2 cm whose middles lie 1 cm apart along the ray: 5 cm in the middle, not 8."""
    both = Part("", "fat", ((ball((0, 0, 0), 2),), (ball((0, 0, 1), 2),)), "air")
    near = np.hypot(VIEW.u, VIEW.v) < 1.7
    np.testing.assert_allclose(amount([both])[near], (chord(2) + 1)[near], atol=1e-3)


def test_three_groups_in_one_place_count_once() -> None:
    same = Part("", "fat", ((ball((0, 0, 0), 2),),) * 3, "air")
    np.testing.assert_allclose(amount([same]), chord(2), atol=1e-3)


def test_a_clip_leaves_what_lies_in_both() -> None:
    """A ball clipped to the half x >= 0 by a large box: nothing on the left, all on the right."""
    half = ellipsoid((0, 0, 0), (50, 50, 50)).cut((1, 0, 0), low=0)
    clipped = amount([Part("", "fat", ((ball((0, 0, 0), 2),),), "air", (half,))])
    np.testing.assert_allclose(clipped, chord(2) * (VIEW.u > 0), atol=1e-3)


def test_a_slice_holds_the_share_that_the_solid_covers() -> None:
    """0.5 cm through the middle of a ball is full; a slice that it half reaches is half full."""
    through = amount([Part("", "fat", ((ball((0, 0, 0), 3),),), "air")], 0.5)
    assert through[24, 24] == pytest.approx(1)
    reached = amount([Part("", "fat", ((ball((0, 0, -3), 3),),), "air")], 0.5)
    assert reached[24, 24] == pytest.approx(0.5, abs=0.02)
    assert amount([Part("", "fat", ((ball((0, 0, 9), 3),),), "air")], 0.5).max() == 0


def test_a_field_and_solids_of_one_shape_have_one_picture() -> None:
    """A ball as a function of points, summed over planes, against its chord."""
    shape = Field(
        lambda p, soft: np.clip((2.5 - np.linalg.norm(p, axis=-1)) / soft + 0.5, 0, 1).astype("f4"),
        np.zeros(3),
        np.full(3, 2.7),
    )
    summed = amount([Part("", "lung", (), "muscle", other=shape)])
    inside = np.hypot(VIEW.u, VIEW.v) < 2.0
    np.testing.assert_allclose(summed[inside], chord(2.5)[inside], atol=0.12)
    assert shape.volume() == pytest.approx(4 / 3 * np.pi * 2.5**3, rel=0.02)
    cut = amount([Part("", "lung", (), "muscle", other=shape)], 0.5)
    assert cut[24, 24] == pytest.approx(1)
    assert cut[24, 12] == 0


def test_a_cloud_keeps_its_volume() -> None:
    """The sum of a cloud's path lengths over all pixels is the volume of its points."""
    rng = np.random.default_rng(0)
    cloud = Cloud(rng.normal(size=(500, 3)), rng.uniform(0, 0.1, 500), 0.2)
    drawn = amount([Part("", "blood", (), "lung", other=cloud)])
    assert drawn.sum() * VIEW.pixel**2 == pytest.approx(cloud.volume.sum(), rel=0.01)


def test_attenuation_is_that_of_what_lies_innermost() -> None:
    """Through the middle of flesh, bone and marrow: each length times its own mu, by hand."""
    ends = (0, -20, 0), (0, 20, 0)
    parts = [
        Part("", "muscle", ((frustum(*ends, 4, 4),),), "air"),
        Part("left femur", "compact bone", ((frustum(*ends, 1.5, 1.5),),)),
        Part("", "spongy bone", ((frustum(*ends, 1, 1),),), "compact bone"),
    ]
    path, named = attenuation(Scene(parts), VIEW)
    mu = {name: material.mu for name, material in MATERIALS.items()}
    by_hand = mu["muscle"] * (8 - 3) + mu["compact bone"] * (3 - 2) + mu["spongy bone"] * 2
    # the middle lies between two pixels of 0.25 cm
    assert path[24, 24] == pytest.approx(by_hand, rel=0.02)
    assert list(named) == ["left femur"]


def test_an_unknown_material_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'butter'.*muscle"):
        Part("", "butter", ((ball((0, 0, 0), 1),),))
