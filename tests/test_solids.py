"""Claims about ray sums: closed forms of spheres and cylinders, and any view of any solid."""

import numpy as np
import pytest

from ldm.data.phantom.person import about
from ldm.data.phantom.rays import View
from ldm.data.phantom.solids import Groups, Solid, ball, chain, ellipsoid, frustum

FRONT = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, -1]])
SIZE = 32


def lengths(view: View, solids: list[Solid]) -> np.ndarray:
    """[H, W] cm of each ray from the first of the solids to the last."""
    total = np.zeros((view.size, view.size))
    if found := view.intervals(Groups([solids]))[0]:
        box, front, back = found
        total[box] = np.maximum(back - front, 0)
    return total


def any_turn(rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(3, 3)))[0]


def test_a_ray_through_a_sphere_is_its_chord() -> None:
    """2 sqrt(r^2 - d^2) at distance d from the middle, from whatever side."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        view = View(rng.normal(size=3), any_turn(rng), 20, SIZE)
        centre, r = rng.normal(size=3), rng.uniform(1, 6)
        u, v, _ = view.see(centre)
        d2 = (view.u - u) ** 2 + (view.v - v) ** 2
        chord = 2 * np.sqrt(np.clip(r * r - d2, 0, None))
        np.testing.assert_allclose(lengths(view, [ball(centre, r)]), chord, atol=2e-3)


def test_a_ray_through_a_cylinder_is_its_chord_over_the_sine() -> None:
    """2 sqrt(r^2 - d^2) / sin(angle between ray and axis), away from the ends."""
    for angle in (90, 60, 35):
        c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        axis = np.array([0, s, c]) * 40
        view = View((0, 0, 0), FRONT, 8, SIZE)
        chord = 2 * np.sqrt(np.clip(4 - view.u**2, 0, None)) / s
        np.testing.assert_allclose(lengths(view, [frustum(-axis, axis, 2, 2)]), chord, atol=2e-3)


def test_along_its_axis_a_cylinder_is_as_long_as_it_is() -> None:
    view = View((0, 0, 0), FRONT, 8, SIZE)
    drawn = lengths(view, [frustum((0, 0, -3), (0, 0, 2.5), 2, 2)])
    inside = np.hypot(view.u, view.v) <= 2
    np.testing.assert_allclose(drawn, 5.5 * inside, atol=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_any_solid_from_any_side_is_what_counting_points_finds(seed: int) -> None:
    """A turned ellipsoid and a flattened cone, cut or not, against 4,000 points along each ray."""
    rng = np.random.default_rng(seed)
    view = View(rng.normal(size=3), any_turn(rng), 24, SIZE)
    half, turn, centre = rng.uniform(1, 5, 3), any_turn(rng), rng.normal(size=3)
    p, q, (r0, r1) = rng.normal(size=3) * 3, rng.normal(size=3) * 4, rng.uniform(0.5, 3, 2)
    if seed == 0:  # along the ray, where the cone is met steeper than its side
        q = p + 6 * view.axes[2]
    along = (q - p) / np.linalg.norm(q - p)
    across = np.cross(along, rng.normal(size=3))
    across /= np.linalg.norm(across)
    depths = np.linspace(-20, 20, 4001)
    rays = view.u[..., None] * view.axes[0] + view.v[..., None] * view.axes[1] + view.middle
    points = rays[..., None, :] + depths[:, None] * view.axes[2]
    in_ellipsoid = (((points - centre) @ turn / half) ** 2).sum(-1) <= 1
    in_ellipsoid &= points[..., 0] <= 1
    s = (points - p) @ along
    rest = points - p - s[..., None] * along
    deep = rest @ across
    wide = np.sqrt(np.clip((rest**2).sum(-1) - deep**2, 0, None))
    length = np.linalg.norm(q - p)
    in_cone = (s >= 0) & (s <= length)
    in_cone &= wide**2 + (deep / 0.6) ** 2 <= (r0 + (r1 - r0) * s / length) ** 2
    cut = ellipsoid(centre, half, turn).cut((1, 0, 0), high=1)
    for solid, inside in ((cut, in_ellipsoid), (frustum(p, q, r0, r1, 0.6, across), in_cone)):
        counted = inside.sum(-1) * (depths[1] - depths[0])
        np.testing.assert_allclose(lengths(view, [solid]), counted, atol=0.03)


def test_a_group_is_filled_from_its_first_solid_to_its_last() -> None:
    """Two balls on one ray, 4 cm apart: 2 + 4 + 2 cm, as for the ends of one bone."""
    view = View((0, 0, 0), FRONT, 8, SIZE)
    drawn = lengths(view, [ball((0, 0, -3), 1), ball((0, 0, 3), 1)])
    d2 = view.u**2 + view.v**2
    expected = np.where(d2 < 1, 6 + 2 * np.sqrt(np.clip(1 - d2, 0, None)), 0)
    np.testing.assert_allclose(drawn, expected, atol=1e-3)


def test_a_moved_body_seen_by_a_moved_camera_is_the_same_picture() -> None:
    """Turn, mirror and shift of all solids and of the camera change nothing."""
    rng = np.random.default_rng(3)
    bone = [*chain(rng.normal(size=(4, 3)) * 3, [1, 0.7, 0.8, 1.2], 0.7), ball((1, 2, 3), 1.5)]
    for mirror in (1.0, -1.0):
        turn = about(0, 30) @ about(1, 50) @ about(2, -70) @ np.diag([mirror, 1, 1])
        shift = np.array([5.0, -20, 8])
        here = View((0.5, 0.1, 0), FRONT, 14, SIZE)
        there = View(turn @ here.middle + shift, FRONT @ turn.T, 14, SIZE)
        moved = [solid.moved(turn, shift) for solid in bone]
        np.testing.assert_allclose(lengths(there, moved), lengths(here, bone), atol=2e-3)


def test_boxes_hold_all_of_a_solid() -> None:
    """The ray sum over a whole picture is the solid's volume: no part was left out of its box."""
    rng = np.random.default_rng(5)
    for _ in range(6):
        half = rng.uniform(0.5, 4, 3)
        view = View((0, 0, 0), any_turn(rng), 20, 128)
        volume = lengths(view, [ellipsoid(rng.normal(size=3), half, any_turn(rng))]).sum()
        assert volume * view.pixel**2 == pytest.approx(4 / 3 * np.pi * half.prod(), rel=0.01)
