"""Bones of head and trunk: how many, on which side, where and how thick."""

from dataclasses import replace

import numpy as np
import pytest

from ldm.data.phantom import sample_phantoms
from ldm.data.phantom.anatomy import parts_of
from ldm.data.phantom.axial_skeleton import Mould, mould
from ldm.data.phantom.findings import stream
from ldm.data.phantom.person import Person, about, draw_person
from ldm.data.phantom.rays import View
from ldm.data.phantom.scene import Part, Scene
from ldm.data.phantom.skeleton import rib_curves
from ldm.data.phantom.views import AXIAL, FRONTAL

SECTIONS = ("head", "neck", "girdle", "chest", "abdomen", "pelvis")


def person(seed: int) -> Person:
    return draw_person(replace(sample_phantoms([seed], findings=[])[0], region="body"))


@pytest.fixture(scope="module")
def bodies() -> list[tuple[Person, list[Part]]]:
    people = [person(seed) for seed in range(8)]
    return [(one, parts_of(one, SECTIONS, "")) for one in people]


def names_of_bones() -> list[str]:
    spine = [f"C{i}" for i in range(1, 8)] + [f"T{i}" for i in range(1, 13)]
    spine += [f"L{i}" for i in range(1, 6)] + [f"sacrum {i}" for i in range(1, 6)]
    spine += [f"coccyx {i}" for i in range(1, 5)]
    ribs = [f"{side} rib {i}" for side in ("left", "right") for i in range(1, 13)]
    pairs = [f"{s} {b}" for s in ("left", "right") for b in ("clavicle", "scapula", "hip bone")]
    return [*spine, *ribs, *pairs, "skull", "mandible", "sternum"]


def test_everyone_has_33_vertebrae_and_24_ribs(bodies: list[tuple[Person, list[Part]]]) -> None:
    """Each bone bears its name once in each person, and 32 teeth stand in the jaws."""
    for _, parts in bodies:
        bones = [part.name for part in parts if part.name and part.material == "compact bone"]
        assert sorted(bones) == sorted(names_of_bones())
        assert sum(part.material == "tooth" for part in parts) == 32


def test_left_bones_lie_at_the_left(bodies: list[tuple[Person, list[Part]]]) -> None:
    """Solids of left bones lie on the patient's left (x > 0), those of right ones on the right."""
    for one, parts in bodies:
        bones = [part for part in parts if part.material == "compact bone"]
        for side, sign in (("left ", 1), ("right ", -1)):
            for part in (part for part in bones if part.name.startswith(side)):
                x = np.concatenate([s.hull[:, 0] for group in part.groups for s in group])
                # a scoliosis carries the ribs' heads with it
                assert (sign * x > -2 * abs(one.anatomy.scoliosis) - 0.01).all(), part.name
                assert sign * x.mean() > 1


def test_stretching_in_bulk_moves_solids_as_one_by_one() -> None:
    """For a rotation, Mould.solids gives what Solid.moved gives."""
    shape = mould("hip")
    turn, shift = about(0, 20) @ about(2, 35), np.array([1.0, -2, 3])
    (plain,) = shape.solids(np.eye(3)[None], np.zeros((1, 3)))
    (bulk,) = shape.solids(turn[None], shift[None])
    for one, two in zip(plain, bulk, strict=True):
        moved = one.moved(turn, shift)
        for name in ("quadric", "linear", "constant", "hull", "normal", "low", "high"):
            np.testing.assert_allclose(getattr(two, name), getattr(moved, name), atol=1e-9)


def test_a_stretched_ball_has_the_chords_of_an_ellipsoid() -> None:
    """A ball of radius 1, stretched by 3 along the rays, is 6 cm deep in its middle."""
    shape = Mould([{"name": "*", "groups": [[{"ball": [0, 0, 0], "half": [1, 1, 1]}]]}])
    stretch = np.diag([1.0, 2, 3])[None]
    view = View((0, 0, 0), FRONTAL, 1.0, 33)  # the middle pixel's ray meets the ball's middle
    ((part, (rows, columns), depth),) = Scene(
        shape.cast(["ball"], stretch, np.zeros((1, 3)))
    ).amounts(view)
    assert part.name == "ball"
    assert rows.start == columns.start == 0
    assert depth[16, 16] == pytest.approx(6, abs=1e-4)
    away = view.at[8]  # x^2 + z^2 / 9 = 1
    assert depth[16, 8] == pytest.approx(6 * np.sqrt(1 - away**2), abs=1e-4)


def test_ribs_follow_the_curves_of_the_chest_film() -> None:
    """The axes of the tubes of the right ribs begin where the film's curves do, scaled to cm."""
    one = person(3)
    jitter = stream(one.seed, 4).normal(0, 0.08, 12)
    curve, _, _ = rib_curves(one.anatomy, -1, jitter, 10)
    parts = {part.name: part for part in parts_of(one, ("chest",), "")}
    for i in range(12):
        (group,) = parts[f"right rib {i + 1}"].groups
        ends = np.array([solid.hull for solid in group])  # a little longer than from node to node
        middles = 0.5 * (curve[i, 1:] + curve[i, :-1]) * one.scale
        np.testing.assert_allclose(ends.mean(1), middles, atol=1e-9)


def amounts(parts: list[Part], view: View, slab: float | None) -> list[tuple[Part, np.ndarray]]:
    found = []
    for part, box, amount in Scene(parts).amounts(view, slab):
        whole = np.zeros((view.size, view.size), np.float32)
        whole[box] = amount
        found.append((part, whole))
    return found


@pytest.mark.parametrize("level", [0.5, 6.5, 10.5, 15.5, 21.5, 24.2])
def test_bones_lie_inside_muscle(bodies: list[tuple[Person, list[Part]]], level: float) -> None:
    """In axial slices less than 2 % of the bones lie outside the muscle that they replace."""
    for one, parts in bodies[:3]:
        view = View(one.spine(level), AXIAL, 48, 96)
        seen = amounts([part for part in parts if part.other is None], view, 0.2)
        # shoulders and hips hold the arms' and legs' ends, whose flesh is not drawn here
        muscle = sum(a for part, a in seen if (part.material, part.within) == ("muscle", "fat"))
        bone = [a for part, a in seen if part.material == "compact bone" and part.name]
        outside = sum((a * (muscle < 0.5)).sum() for a in bone)
        assert outside < 0.02 * sum(a.sum() for a in bone)


def test_the_obturator_foramen_is_a_hole(bodies: list[tuple[Person, list[Part]]]) -> None:
    """In the frontal view a gap in the left hip bone has bone on all four sides."""
    for one, parts in bodies:
        view = View(one.hip("left"), FRONTAL, 20, 100)
        bone = next(a for part, a in amounts(parts, view, None) if part.name == "left hip bone") > 0
        row, column = 50 + int(4.2 / 0.2), 50 - int(4.3 / 0.2)
        assert not bone[row, column]
        assert bone[row:, column].any()
        assert bone[:row, column].any()
        assert bone[row, column:].any()
        assert bone[row, :column].any()


def test_the_skull_is_a_shell_of_5_to_8_mm(bodies: list[tuple[Person, list[Part]]]) -> None:
    """Half the bone that a ray from side to side meets above the base: 5 to 8 mm."""
    for one, parts in bodies:
        at = one.spine(0.0) + np.array([0, -11.0, 0])
        view = View(at, np.array([[0, 0, -1.0], [0, 1, 0], [-1, 0, 0]]), 1.0, 33)
        solid = [(p, a) for p, a in amounts(parts, view, None) if p.other is None]
        outer = next(a for p, a in solid if p.name == "skull")
        inner = next(a for p, a in solid if p.within == "compact bone")
        assert 0.5 <= float(outer[16, 16] - inner[16, 16]) / 2 <= 0.8


def test_a_head_is_as_broad_and_long_as_the_person_says(
    bodies: list[tuple[Person, list[Part]]],
) -> None:
    """The skin's outline of the vault measures the head's breadth and length within 4 %."""
    for one, parts in bodies:
        breadth, height, length = one.head
        view = View(one.spine(0.0) + np.array([0, -9.2 * height / 22.8, 0]), AXIAL, 26, 260)
        fat = next(
            a for p, a in amounts(parts, view, 0.1) if (p.material, p.within) == ("fat", "air")
        )
        wide, long = (np.ptp(np.flatnonzero((fat > 0.5).any(axis))) * 0.1 for axis in (0, 1))
        assert wide == pytest.approx(breadth, rel=0.04)
        assert long == pytest.approx(length, rel=0.04)
