"""Fields of view by name: which part of a person, from where, how large."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ldm.data.phantom.findings import Phantom, stream
from ldm.data.phantom.person import Frame, Person, Pose, about
from ldm.data.phantom.rays import View
from ldm.data.phantom.solids import AXES

# rows: right, down and away in a region's frame, which is that of a person who stands and faces us
FRONTAL = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, -1]])
LATERAL = np.array([[0, 0, -1.0], [0, 1, 0], [-1, 0, 0]])  # from the left, facing left
AXIAL = np.array([[1.0, 0, 0], [0, 0, -1], [0, -1, 0]])  # seen from the feet, front side up
FLIP = np.diag([1.0, -1, -1])  # from behind and upside down: the back of a hand, fingers up
PROJECTIONS = {"frontal": FRONTAL, "lateral": LATERAL, "oblique": FRONTAL @ about(1, 45).T}
PLANES = {"axial": AXIAL, "coronal": FRONTAL, "sagittal": LATERAL}


@dataclass(frozen=True)
class Region:
    """A row of regions.json; lengths in cm, for 170 cm of height.

    Its middle is a level of the spine, `lower` and `forward` of it; or `share` of a bone's length
    (the hand's or foot's without one) down a limb of either side, and `across` it.
    """

    sections: Sequence[str]  # of `anatomy.parts_of`
    width: tuple[float, float]  # the range of the field of view
    level: float = 0.0
    lower: float = 0.0
    forward: float = 0.0
    limb: str = ""
    bone: str = ""
    share: float = 0.0
    across: float = 0.0
    from_above: bool = False  # is the frontal view one along the leg?
    flipped: bool = False  # from behind, fingers up
    bend: tuple[str, float, float] | None = None  # a joint of the pose and its range in degrees
    usual: Sequence[str] = ()  # the modalities in which it is drawn where no region is named
    windows: Sequence[str] = ("bone",)  # of CT, where none is named
    bones: Sequence[str] = ()  # that its films show, and that `without` can take away
    # the width of slices, and how much lower and farther in front they lie, where that differs
    sliced: tuple[tuple[float, float], float, float] | None = None

    def middle(self, person: Person, side: str) -> Frame:
        """The frame at the region's middle."""
        if not self.limb:
            return Frame(person.spine(self.level) + np.array([0, self.lower, self.forward]), AXES)
        frame = person.frame(f"{side} {self.limb}")
        length = person.lengths[self.bone] if self.bone else getattr(person, self.limb)
        down = self.share * length
        point = (0, 0, down) if self.limb == "foot" else (self.across, down, 0)
        return Frame(frame.at(point), frame.turn)


REGIONS = {
    name: Region(**row)
    for name, row in json.loads(Path(__file__).with_name("regions.json").read_text()).items()
}


def pose_of(phantom: Phantom) -> Pose:
    """The pose in which a region is filmed: the same from every side."""
    rng = stream(phantom.seed, 101)
    pose = {"arm_out": rng.uniform(8, 20), "fingers": rng.uniform(4, 11)}
    pose |= {"curl": rng.uniform(0, 12), "leg_out": rng.uniform(2, 7), "ankle": rng.normal(0, 4)}
    pose |= {"elbow": rng.uniform(0, 10), "knee": rng.uniform(0, 6)}
    if phantom.view == "lateral" and phantom.region == "chest":
        pose["arm_out"] = 170.0
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
