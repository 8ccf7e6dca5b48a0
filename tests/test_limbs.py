"""Arms and legs of a phantom person: which bones, how long, on which side, how far apart."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from ldm.data.phantom import sample_phantoms
from ldm.data.phantom.detector import Floats
from ldm.data.phantom.limbs import limb
from ldm.data.phantom.person import SIDES, Person, draw_person
from ldm.data.phantom.rays import View
from ldm.data.phantom.scene import Part
from ldm.data.phantom.solids import Groups, Solid

PARTS = ("upper arm", "forearm", "hand", "thigh", "shank", "foot")
LONG = {
    "upper arm": ("humerus",),
    "forearm": ("radius", "ulna"),
    "thigh": ("femur",),
    "shank": ("tibia", "fibula"),
}


def _person(seed: int) -> Person:
    return draw_person(sample_phantoms([seed], findings=[])[0])


def _bone(person: Person, part: str, name: str, side: str = "left") -> Part:
    return next(p for p in limb(person, side, part) if p.name == f"{side} {name}")


def _middle(person: Person, part: str, name: str, side: str) -> Floats:
    frame = person.frame(f"{side} {part}")
    solid = _bone(person, part, name, side).groups[0][0]
    return np.asarray(frame.turn @ solid.hull.mean(0) + frame.origin)


def _span(solids: list[Solid]) -> tuple[float, float]:
    """Lowest and highest y of ellipsoids, and of the axes of frustums."""
    reach = [np.linalg.norm(s.spread[1]) if len(s.hull) == 1 else 0 for s in solids]
    ends = [
        (s.hull[:, 1].min() - r, s.hull[:, 1].max() + r) for s, r in zip(solids, reach, strict=True)
    ]
    return min(e[0] for e in ends), max(e[1] for e in ends)


@pytest.mark.parametrize("side", SIDES)
def test_each_limb_has_its_bones_once(side: str) -> None:
    """8 carpals, 7 tarsals, 5 metacarpals and metatarsals, 14 phalanges each, the rest once."""
    for seed in range(10):
        person = _person(seed)
        names = Counter(p.name for part in PARTS for p in limb(person, side, part) if p.name)
        assert set(names.values()) == {1}
        assert all(name.startswith(side) for name in names)
        for part, first, short in (("hand", "metacarpal", 8), ("foot", "metatarsal", 7)):
            here = {p.name for p in limb(person, side, part) if p.name}
            assert sum(first in name for name in here) == 5
            assert sum(name.endswith(f" of the {part}") for name in here) == 14
            assert f"{side} middle phalanx 1 of the {part}" not in here
            assert len(here) == 5 + 14 + short
        assert len(names) == 8 + 7 + 2 * (5 + 14) + 6 + 1  # 6 long bones, the patella


@pytest.mark.parametrize("seed", range(6))
def test_long_bones_are_as_long_as_the_person_says(seed: int) -> None:
    """From end to end, to 3 mm; the tibia from its plateau to the ankle's."""
    person = _person(seed)
    for part, names in LONG.items():
        for name in names:
            solids = [s for group in _bone(person, part, name).groups for s in group]
            if name == "tibia":
                solids = [s for s in _bone(person, part, name).groups[0] if len(s.hull) == 2]
            low, high = _span(solids)
            assert high - low == pytest.approx(person.lengths[name], abs=0.3), name


@pytest.mark.parametrize("side", SIDES)
def test_left_is_left_and_thumb_and_fibula_lie_outside(side: str) -> None:
    """Palms to the front: thumb and fibula are away from the midline, the great toe is near it."""
    person, sign = _person(3), 1 if side == "left" else -1

    def x(part: str, name: str) -> float:
        return sign * float(_middle(person, part, name, side)[0])

    assert x("thigh", "femur") > 0
    assert x("shank", "fibula") > x("shank", "tibia") > 0
    assert x("forearm", "radius") > x("forearm", "ulna")
    assert x("hand", "metacarpal 1") > x("hand", "metacarpal 5")
    assert x("foot", "metatarsal 1") < x("foot", "metatarsal 5")


@pytest.mark.parametrize("bend", [0, 30])
@pytest.mark.parametrize(("medial", "lateral"), [(0.45, 0.45), (0.1, 0.5), (0.5, 0.2)])
@pytest.mark.parametrize("side", SIDES)
def test_knee_is_as_far_apart_as_its_joint_space(
    side: str, medial: float, lateral: float, bend: float
) -> None:
    """Along the tibia, under the middle of each condyle, to 1 mm, however the knee is bent."""
    person = _person(2)
    space = person.joint_space | {f"{side} medial": medial, f"{side} lateral": lateral}
    person = replace(person, joint_space=space, pose=replace(person.pose, knee=bend))
    groups = []
    for part, name in (("thigh", "femur"), ("shank", "tibia")):
        frame = person.frame(f"{side} {part}")
        bone = _bone(person, part, name, side).moved(frame.turn, frame.origin)
        groups.append([s for group in bone.groups for s in group])
    frame = person.frame(f"{side} shank")
    axes = np.stack([frame.turn[:, 0], frame.turn[:, 2], frame.turn[:, 1]])  # rays run down
    view = View(frame.origin, axes, 10, 200)
    gap = np.full((2, 200, 200), np.nan)
    for i, found in enumerate(view.intervals(Groups(groups))):
        assert found is not None
        box, front, back = found
        gap[i][box] = np.where(back > front, front if i else back, np.nan)
    apart = gap[1] - gap[0]
    for x, expected in ((-2.25, medial), (2.25, lateral)):
        column = int((x * person.girth + 5) / 0.05)
        assert np.nanmin(apart[60:140, column]) == pytest.approx(expected, abs=0.1)


def test_worn_knees_grow_osteophytes_on_the_worn_side_alone() -> None:
    """Two more ellipsoids, in femur and tibia, where the cartilage is gone."""
    person = _person(2)
    even = replace(person, joint_space=dict.fromkeys(person.joint_space, 0.45))
    worn = replace(person, joint_space=even.joint_space | {"left medial": 0.1})
    for part, name in (("thigh", "femur"), ("shank", "tibia")):
        before, after = (_bone(p, part, name).groups[0] for p in (even, worn))
        assert len(after) == len(before) + 1
        assert after[-1].hull[0, 0] < -3
        assert len(_bone(worn, part, name, "right").groups[0]) == len(before)


def test_persons_differ_and_seeds_do_not() -> None:
    """The same seed gives the same solids; 30 seeds give 30 femora, by their shape alone."""
    first, again = (_bone(_person(4), "thigh", "femur").groups[0][0] for _ in range(2))
    assert np.array_equal(first.quadric, again.quadric)
    shapes = {_bone(_person(s), "thigh", "femur").groups[0][1].constant for s in range(30)}
    assert len(shapes) == 30
