"""One person: lengths of the whole body, and where each limb lies. Real cm, unlike `Anatomy`.

Axes as everywhere here: x to the patient's left, y downwards, z to the front; y = 0 a little below
the carina. A limb's own frame has its origin at the joint that it hangs from, x away from the
midline, y along it, z to the front: the right limb is the left one in a mirror.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ldm.data.phantom.body import Anatomy
from ldm.data.phantom.detector import Floats
from ldm.data.phantom.findings import Phantom, Rng, stream

SIDES = ("left", "right")
# stature = slope * bone + base, with its standard error, in cm: men, women (Trotter and Gleser
# 1952, Am J Phys Anthropol 10:463, table 13)
STATURE = {
    "humerus": ((3.08, 70.45, 4.05), (3.36, 57.97, 4.45)),
    "radius": ((3.78, 79.01, 4.32), (4.74, 54.93, 4.24)),
    "ulna": ((3.70, 74.05, 4.32), (4.27, 57.76, 4.30)),
    "femur": ((2.38, 61.41, 3.27), (2.47, 54.10, 3.72)),
    "tibia": ((2.52, 78.62, 3.37), (2.90, 61.53, 3.66)),
    "fibula": ((2.68, 71.78, 3.29), (2.93, 59.61, 3.57)),
}


@dataclass(frozen=True)
class Frame:
    """Local points p lie at turn p + origin of the body; turn [3, 3] is a mirror on the right."""

    origin: Floats
    turn: Floats

    def at(self, point: tuple[float, float, float]) -> Floats:
        return self.turn @ np.asarray(point, float) + self.origin

    def bent(self, origin: tuple[float, float, float], turn: Floats) -> "Frame":
        """The frame that hangs from a local point, turned in this one."""
        return Frame(self.at(origin), self.turn @ turn)


@dataclass(frozen=True)
class Pose:
    """Angles of one side in degrees; 0 everywhere: standing, arms down, palms to the front."""

    arm_out: float = 12.0  # abduction of the shoulder
    elbow: float = 5.0  # flexion
    fingers: float = 8.0  # spread between neighbouring fingers
    curl: float = 5.0  # flexion of each joint of the fingers
    leg_out: float = 4.0  # abduction of the hip
    knee: float = 3.0  # flexion
    ankle: float = 0.0  # toes downwards


@dataclass(frozen=True)
class Person:
    """Lengths in cm. `lengths` are of the bones of `STATURE`, joint to joint or end to end."""

    seed: int
    sex: str
    age: int
    anatomy: Anatomy  # the chest, in units of its own: times `scale`, in y times `tall`, too
    height: float
    build: float  # 0 thin .. 1 obese
    mineral: float  # of bone, 1 = young adult
    lengths: dict[str, float]
    hand: float  # wrist to the tip of the middle finger
    foot: float  # heel to toe
    head: tuple[float, float, float]  # breadth, height (chin to vertex), length of the head
    hips: float  # half the distance of the hip joints
    phantom: Phantom  # whose body it is: findings, view and modality change what lies in it
    girth: float  # breadth of the bones' ends, 1 = a man of 176 cm
    joint_space: dict[str, float]  # of the knees: "left medial", "left lateral", right too
    pose: Pose = field(default_factory=Pose)

    @cached_property
    def scale(self) -> Floats:
        """[3] cm of the body for one unit of the chest's `Anatomy`."""
        a = self.anatomy
        return np.array([a.scale, a.scale * a.tall, a.scale])

    @cached_property
    def _levels(self) -> Floats:
        """[27] y of the levels of the spine, in the chest's units."""
        number = np.arange(13)
        thoracic = self.anatomy.apex + self.anatomy.rib_step * (number + 0.012 * number**2)
        neck, loins = thoracic[0] - 1.75 * np.arange(7, 0, -1), 3.45 * np.arange(1, 6)
        return np.concatenate([neck, thoracic, thoracic[-1] + np.array([*loins, 27.75, 31.25])])

    def spine(self, level: Floats | float) -> Floats:
        """[..., 3] the middle of the vertebral bodies at levels: 0 the top of C1, 7 of T1, 19 of
        L1, 24 of the sacrum, 25 its end, 26 the coccyx's tip; between them a vertebra is 1.
        """
        level, a = np.asarray(level, float), self.anatomy
        # lordosis of the neck, kyphosis of the chest, lordosis of the loins, the sacrum's bow
        knots = [0, 3.5, 7, 13, 18.5, 21.5, 24, 24.6, 25, 26]
        depth = [2.6, 3.0, 0.6, -1.6, 0.0, 2.4, 0.4, -2.6, -3.6, -1.8]
        y = np.interp(level, np.arange(27), self._levels)
        lean = a.scoliosis * np.sin(y / 9) * ((level > 5) & (level < 24))
        z = np.interp(level, knots, depth) - 0.35 * a.depth
        return np.stack([lean, y, z], -1) * self.scale

    def hip(self, side: str) -> Floats:
        """[3] the middle of the head of the femur."""
        base = self.spine(25)
        return np.array([_sign(side) * self.hips, base[1] - 0.5, base[2] + 4.5])

    def frame(self, limb: str) -> Frame:
        """Of "left upper arm", "forearm", "hand", "thigh", "shank" or "foot" of either side."""
        side, _, part = limb.partition(" ")
        mirror = np.diag([_sign(side), 1.0, 1.0])
        pose, length, wide = self.pose, self.lengths, self.girth
        if part in ("upper arm", "forearm", "hand"):
            joint = np.array([_sign(side) * 18.0, self.anatomy.shoulder + 0.5, 0.0]) * self.scale
            frame = Frame(joint, mirror @ about(2, -pose.arm_out))
            if part == "upper arm":
                return frame
            # the ends are built around these pivots: limbs.py
            elbow = (0.0, length["humerus"] - 3.65 * wide, 0.0)
            frame = frame.bent(elbow, about(0, pose.elbow) @ about(2, -8))
            if part == "forearm":
                return frame
            return frame.bent((0, length["radius"] + 0.45 * wide, 0), about(2, 4))
        # y is the line from the hip to the knee; the feet are closer together than the hips
        frame = Frame(self.hip(side), mirror @ about(2, -pose.leg_out) @ about(2, 7))
        if part == "thigh":
            return frame
        # turns about the middle of the condyles, then down to the tibia, tilted by its joint space
        frame = frame.bent((0, length["femur"] - 4.55 * wide, -1.2 * wide), about(0, -pose.knee))
        inner, outer = (self.joint_space[f"{side} {half}"] for half in ("medial", "lateral"))
        tilt = about(2, float(np.rad2deg(np.arctan((outer - inner) / (4.6 * wide)))))
        frame = frame.bent((0, 2.15 * wide + (inner + outer) / 2, 1.2 * wide), tilt)
        if part == "shank":
            return frame
        if part != "foot":
            raise ValueError(f"no such limb: {limb!r}")
        talus = (0.0, length["tibia"] + 2.3 * wide, -0.6 * wide)
        return frame.bent(talus, about(0, -pose.ankle)).bent((0, -1.95 * wide, 0), np.eye(3))


def cranium(person: Person) -> tuple[Floats, Floats]:
    """Middle and half axes [3] of the ellipsoid of the skull's inside above its base, cm.

    Shares of the head's breadth, height and length chosen by eye. Its front end is turned up by 8
    degrees.
    """
    size = np.asarray(person.head) / (15.2, 22.8, 19.6)
    return person.spine(0) + size * (0, -9.2, 0.6), size * (6.6, 5.95, 8.6)


def about(axis: int, degrees: float) -> Floats:
    """[3, 3] a turn about x, y or z; about x, what points down goes to the front."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    turn = np.eye(3)
    turn[i, i], turn[j, j], turn[i, j], turn[j, i] = c, c, -s, s
    return turn


def _sign(side: str) -> float:
    if side not in SIDES:
        raise ValueError(f"a side is left or right, got {side!r}")
    return 1.0 if side == "left" else -1.0


def draw_person(phantom: Phantom, pose: Pose | None = None) -> Person:
    """Deterministic per seed: the person of the chest film of that seed, from head to toe."""
    a, rng = Anatomy(phantom), stream(phantom.seed, 100)
    woman = phantom.sex == "F"
    # men 176 cm, women 164 (a.scale is 0.93 there), standard deviation 4 %
    height = 176.0 * a.scale
    # bones side by side err together: else one of them would overhang its joint by a cm
    errors = dict(zip(STATURE, 0.6 * np.clip(rng.normal(size=6), -2, 2), strict=True))
    errors |= {"ulna": errors["radius"], "fibula": errors["tibia"]}
    lengths = {name: _length(height, *STATURE[name][woman], errors[name]) for name in STATURE}
    stretch = height / 170
    return Person(
        seed=phantom.seed,
        sex=phantom.sex,
        age=phantom.age,
        anatomy=a,
        height=height,
        build=a.fat,
        mineral=a.bone,
        lengths=lengths,
        # breadths and lengths as shares of the height: Gordon et al., ANSUR 1988
        hand=0.108 * height * rng.normal(1, 0.03),
        foot=0.152 * height * rng.normal(1, 0.03),
        head=(
            15.2 * rng.normal(1, 0.03) * (0.96 if woman else 1),
            22.8 * rng.normal(1, 0.03) * (0.95 if woman else 1),
            19.6 * rng.normal(1, 0.03) * (0.95 if woman else 1),
        ),
        hips=8.7 * stretch**0.5 * rng.normal(1, 0.04) * (1.03 if woman else 1),
        phantom=phantom,
        girth=height / 176 * rng.normal(1, 0.03) * (0.96 if woman else 1),
        joint_space=_joint_space(phantom, rng),
        pose=pose or Pose(),
    )


def _length(height: float, slope: float, base: float, error: float, noise: float) -> float:
    """Of a bone that predicts the height, off by `noise` of the prediction's errors."""
    return float(height + noise * error - base) / slope


def _joint_space(phantom: Phantom, rng: Rng) -> dict[str, float]:
    """cm of cartilage: 4 to 5 mm in adults, less in the old; arthrosis takes most of one half.

    Chosen by eye on films of standing knees.
    """
    space = {
        f"{side} {half}": float(rng.normal(0.5, 0.04)) - 0.002 * max(phantom.age - 40, 0)
        for side in SIDES
        for half in ("medial", "lateral")
    }
    if worn := phantom.finding("arthrosis"):
        space[f"{worn.side} {worn.kind}"] *= 0.55 - 0.5 * worn.size
    return space
