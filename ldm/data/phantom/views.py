"""Fields of view by name: which part of a person, from where, how large."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ldm.data.phantom.findings import Phantom, stream
from ldm.data.phantom.person import Frame, Person, Pose, about, cranium
from ldm.data.phantom.solids import View

# rows: right, down and away in a region's frame, which is that of a person who stands and faces us
FRONTAL = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, -1]])
LATERAL = np.array(
    [[0, 0, -1.0], [0, 1, 0], [-1, 0, 0]]
)  # from the left, facing the picture's left
AXIAL = np.array([[1.0, 0, 0], [0, 0, -1], [0, -1, 0]])  # seen from the feet, front side up
FLIP = np.diag([1.0, -1, -1])  # from behind and upside down: the back of a hand, fingers up
PROJECTIONS = {
    "frontal": FRONTAL,
    "lateral": LATERAL,
    "oblique": FRONTAL @ about(1, 45).T,
}
PLANES = {"axial": AXIAL, "coronal": FRONTAL, "sagittal": LATERAL}


@dataclass(frozen=True)
class Region:
    """middle: (person, side) -> the frame at the region's middle;  width: cm for 170 cm of height

    sections: the parts of `anatomy.SECTIONS` in the picture; those of a limb begin with "limb "
    """

    middle: Callable[[Person, str], Frame]
    width: tuple[float, float]
    sections: tuple[str, ...]
    paired: bool = False  # is there one on each side?
    from_above: bool = False  # is the frontal view one along the leg?
    sliced: tuple[tuple[float, float], float, float] | None = None  # the width of slices, and how
    # much lower and farther in front they lie, where that differs
    flipped: bool = False
    bend: tuple[str, float, float] | None = None  # a joint of the pose and its range in degrees


def _trunk(level: float, forward: float) -> Callable[[Person, str], Frame]:
    def middle(person: Person, side: str) -> Frame:
        return Frame(person.spine(level) + np.array([0, 0, forward]), np.eye(3))

    return middle


def _head(person: Person, side: str) -> Frame:
    return Frame(cranium(person)[0] + np.array([0, 3.5, 0]), np.eye(3))


def _limb(part: str, share: float, bone: str = "", across: float = 0.0) -> Callable[..., Frame]:
    """A point along a limb, `share` of the bone's (else the hand's or foot's) length down it."""

    def middle(person: Person, side: str) -> Frame:
        frame = person.frame(f"{side} {part}")
        length = person.lengths[bone] if bone else getattr(person, part)
        point = (0, 0, share * length) if part == "foot" else (across, share * length, 0)
        return Frame(frame.at(point), frame.turn)

    return middle


REGIONS = {
    "head": Region(_head, (24, 30), ("head", "neck"), sliced=((19, 24), -3.5, 0)),
    "neck": Region(_trunk(4.0, 4.0), (19, 25), ("head", "neck", "girdle", "chest")),
    "chest": Region(_trunk(12.5, 7.0), (36, 42), ("chest", "girdle", "abdomen")),
    "abdomen": Region(_trunk(21.0, 7.0), (36, 44), ("abdomen", "pelvis", "lower chest")),
    "spine": Region(
        _trunk(21.3, 4.0), (22, 28), ("abdomen", "pelvis", "lower chest"),
        sliced=((22, 28), 0, -4),
    ),
    "pelvis": Region(_trunk(24.6, 6.0), (36, 44), ("abdomen", "pelvis", "limb thigh")),
    "shoulder": Region(
        _limb("upper arm", 0.12, "humerus", -3.0), (22, 30),
        ("chest", "girdle", "limb upper arm"), True, bend=("arm_out", 8, 45),
    ),
    "arm": Region(
        _limb("upper arm", 0.45, "humerus", -3.0), (38, 48),
        ("chest", "girdle", "abdomen", "limb upper arm", "limb forearm"), True,
        bend=("arm_out", 8, 30),
    ),
    "elbow": Region(
        _limb("forearm", 0.05, "radius"), (16, 30), ("limb upper arm", "limb forearm"), True,
        bend=("elbow", 5, 95),
    ),
    "forearm": Region(
        _limb("forearm", 0.5, "radius"), (28, 38),
        ("limb upper arm", "limb forearm", "limb hand"), True,
    ),
    "wrist": Region(
        _limb("hand", 0.1), (11, 15), ("limb forearm", "limb hand"), True, flipped=True
    ),
    "hand": Region(
        _limb("hand", 0.42), (20, 27), ("limb forearm", "limb hand"), True, flipped=True
    ),
    "thigh": Region(
        _limb("thigh", 0.5, "femur"), (38, 48), ("pelvis", "limb thigh", "limb shank"), True
    ),
    "knee": Region(
        _limb("shank", 0.0, "tibia"), (13, 24), ("limb thigh", "limb shank"), True,
        bend=("knee", 0, 35),
    ),
    "leg": Region(
        _limb("shank", 0.45, "tibia"), (38, 46),
        ("limb thigh", "limb shank", "limb foot"), True, bend=("knee", 0, 20),
    ),
    "ankle": Region(
        _limb("shank", 0.97, "tibia"), (17, 30), ("limb shank", "limb foot"), True,
        bend=("ankle", -5, 45),
    ),
    "foot": Region(
        _limb("foot", 0.35), (26, 32), ("limb shank", "limb foot"), True,
        from_above=True, bend=("ankle", 15, 40),
    ),
    "body": Region(
        _trunk(22.5, 6.0), (186, 192),
        ("head", "neck", "chest", "girdle", "abdomen", "pelvis", "limb upper arm",
         "limb forearm", "limb hand", "limb thigh", "limb shank", "limb foot"),
    ),
}  # fmt: skip


def pose_of(phantom: Phantom) -> Pose:
    """The pose in which a region is filmed: the same from every side."""
    rng = stream(phantom.seed, 101)
    pose = {
        "arm_out": rng.uniform(8, 20),
        "fingers": rng.uniform(4, 11),
        "curl": rng.uniform(0, 12),
    }
    pose |= {"leg_out": rng.uniform(2, 7), "ankle": rng.normal(0, 4), "elbow": rng.uniform(0, 10)}
    pose |= {"knee": rng.uniform(0, 6)}
    if bend := REGIONS[phantom.region].bend:
        pose[bend[0]] = rng.uniform(bend[1], bend[2])
    return Pose(**pose)


def view_of(phantom: Phantom, person: Person, size: int) -> View:
    """The rays of the phantom's picture; a little off the middle and askew, as films are."""
    region, rng = REGIONS[phantom.region], stream(phantom.seed, 102)
    middle = region.middle(person, phantom.side)
    # a right limb's frame is a mirror; a film is not
    upright = middle.turn @ np.diag([np.linalg.det(middle.turn), 1, 1])
    width = rng.uniform(*region.width) * person.height / 170
    askew = about(2, rng.normal(0, 4)) @ about(1, rng.normal(0, 5)) @ about(0, rng.normal(0, 3))
    away = rng.normal(0, 0.025, 3) * width
    if phantom.view in PLANES:
        axes = PLANES[phantom.view] @ upright.T
        if region.sliced:
            widths, lower, forward = region.sliced
            width = rng.uniform(*widths)
            away = away + np.array([0, lower, forward])
        reach = {"axial": 0.22, "coronal": 0.08, "sagittal": 0.06}[phantom.view]
        away = away + rng.uniform(-reach, reach) * width * axes[2]
    else:
        axes = PROJECTIONS[phantom.view] @ upright.T
        if phantom.view == "frontal":
            axes = (AXIAL if region.from_above else FRONTAL) @ upright.T
        elif phantom.view == "lateral" and phantom.side == "right":
            axes = np.diag([-1.0, 1, -1]) @ axes  # the limb's outer side lies on the detector
        if region.flipped:
            axes = FLIP @ axes
    if phantom.width:
        width = phantom.width / 10
    shift = np.asarray(phantom.at, float) / 10
    return View(middle.origin + away + shift, askew @ axes, width, size)
