"""The body of one phantom: lengths in cm, drawn from its seed, and the shapes built on them.

Axes as on a displayed film: x grows to the right of the image (the patient's left), y downwards,
z towards the patient's front. y = 0 lies a little below the carina, x = 0 in the midline.
Right lung: side -1 (left in the image); left lung: side +1.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ldm.data.phantom.findings import Phantom, stream

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
F32 = np.float32
SHAPES = json.loads(Path(__file__).with_name("chest_film.json").read_text("utf-8"))


class Anatomy:
    """Measures of one body and of how it lies before the detector (cm, radians).

    Drawn from the phantom's seed; of the findings only cardiomegaly and edema change them.
    """

    def __init__(self, phantom: Phantom) -> None:
        rng = stream(phantom.seed, 1)
        n, u = rng.normal, rng.uniform
        ap, female, age = phantom.view == "AP", phantom.sex == "F", phantom.age
        old = _limit((age - 45) / 40, 0, 1)
        self.scale = n(1, 0.04) * (0.93 if female else 1.0)  # size of the whole body
        self.fat = _limit(rng.beta(2, 3) + 0.1 * ap, 0, 1)  # 0 thin .. 1 obese
        breath = n(0, 0.8) - (1.6 if ap else 0)  # bedside films: a shallow breath, a high diaphragm
        self.heart = _limit(n(1.0 + 0.08 * ap, 0.05), 0.85, 1.18)  # its scale
        if enlarged := phantom.finding("cardiomegaly"):
            self.heart = 1.26 + 0.22 * enlarged.size + 0.04 * ap
        # cm of body shown across the image
        self.view_width = _limit(n(37 + ap, 2.8), 31.5, 45) * self.scale**0.5
        # stretch of the body in y
        self.tall = _limit(n(1 + 0.03 * (not female) - 0.03 * ap, 0.05), 0.87, 1.14)
        self.width = n(13.5, 0.7) + 0.3 * old  # half the inner width of the chest at its widest
        self.depth = n(18, 1.0) + 2 * old  # inner depth of the chest
        self.wall = n(2.6, 0.4) + 3.6 * self.fat  # soft tissue outside the ribs
        self.apex = n(-12.6, 0.6)  # y of the lung apex
        self.widest = n(8.5, 0.8)  # y where the chest is widest
        dome = 9.0 + breath
        self.dome = (dome, dome + n(1.3, 0.5))  # y of the right and the left dome of the diaphragm
        self.angle = _limit(n(5.0, 0.8), 3.5, 6.5)  # costophrenic angles: depth below the domes
        self.apex_down = n(0, 0.7) - 0.5 * ap  # how far the heart's apex lies below its usual place
        self.arch = n(1.55, 0.15) + 0.5 * old  # radius of the aortic knob
        self.unfold = _limit(old + n(0, 0.15), 0, 1)  # how far the aorta bulges out (age)
        self.bone = n(1.0, 0.1) - 0.35 * old - 0.05 * female  # mineral content, 1 = young adult
        self.rib_drop = n(9.2, 1.0) - 0.8 * ap  # fall of a rib from spine to front
        self.rib_step = n(2.35, 0.08)  # distance between ribs at the spine
        self.rib_height = n(1.2, 0.1)
        self.clavicle = n(-11.8, 1.3) - 0.8 * ap  # y of the clavicles' lateral ends
        self.scapula = u(9.5, 11.5) if ap else u(12.0, 13.6)  # x of the scapulae's medial border
        self.shoulder = n(-9.8, 0.9) - 0.6 * ap  # y of the shoulder joints
        self.elbow = (u(18.5, 26), u(20, 27)) if ap else (u(25, 36), u(4, 20))  # x, y
        # thickness of breast tissue
        self.breast = u(1.5, 4.0) * (0.8 + 0.7 * self.fat) if female else 0.0
        self.breast_y = n(8.0, 1.6) - (1.5 if ap else 0)
        self.chin = u(-20, -15.5) if ap else u(-26, -18.5)  # y of its lower edge
        self.scoliosis = n(0, 0.5) + (n(0, 0.7) * old)
        edema = phantom.finding("edema")
        wide = 0.3 + 0.4 * edema.size if edema else 0
        self.vessel = _limit(n(1.0, 0.1) + wide, 0.7, 1.8)  # calibre of the lung vessels
        self.gas = _limit(n(0.6, 0.35), 0, 1.3) * (0.6 if ap else 1.0)  # size of stomach's bubble
        self.roll = n(0, 0.045 if ap else 0.02)
        self.yaw = n(0, 0.07 if ap else 0.03)  # turn about the long axis: front against back
        # body point at the image's centre
        self.centre = (n(0, 1.2 + 0.8 * ap), n(3.0, 1.6 + 0.5 * ap) + 0.5 * breath)


def _limit(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


@dataclass(frozen=True)
class Cavity:
    """One pleural cavity per half of the image, as a solid that rays cross along z."""

    anatomy: Anatomy
    shrink: float = 0.0  # a collapsed lung: its walls lie this much inside the chest's

    def lateral(self, y: Array, grow: float = 0.0) -> Array:
        """|x| of the chest's inner wall at height y."""
        a = self.anatomy
        apex = a.apex + 1.6 * self.shrink - grow
        up = np.clip((a.widest - y) / (a.widest - apex), 0, 1)
        reach = power(np.maximum(1 - power(up, 2.4), 0), 0.56)
        down = np.clip((y - a.widest) / 8, 0, 2)  # below, the wall turns in a little
        return np.asarray(4.8 + (a.width + grow - self.shrink - 4.8) * reach - 0.5 * down**2, F32)

    def dome(self, x: Array, right: Mask) -> Array:
        """y of the diaphragm's highest line at lateral distance |x|."""
        a = self.anatomy
        # the domes meet under the heart, where no step is seen
        meet = np.minimum(x / 6, 1)
        middle = 0.5 * (a.dome[0] + a.dome[1])
        top = middle + meet * (np.where(right, F32(a.dome[0]), F32(a.dome[1])) - F32(middle))
        outer = np.clip((x - 6) / (a.width - 6), 0, 1.3)
        inner = np.maximum((6 - x) / 6, 0)
        return np.asarray(top + a.angle * power(outer, 2.6) + 1.3 * inner**2, F32)

    def path(self, x: Array, y: Array, right: Mask, soft: float = 0.3) -> tuple[Array, Array]:
        """Depth of the cavity along the ray and of the part above the dome alone.

        x: |distance from the midline|, y: [H, W] cm;  soft: height over which the dome is blurred
        """
        a = self.anatomy
        half = np.maximum(self.lateral(y) - 4.8, 1e-3)
        q = np.where(x > 4.8, (x - 4.8) / half, (4.8 - x) / (1.6 * half))
        apex = a.apex + 1.6 * self.shrink
        # shallower at the apex
        deep = a.depth * np.clip(0.3 + 0.7 * np.sqrt(np.maximum(y - apex, 0) / 13), 0, 1)
        full = deep * np.sqrt(np.maximum(1 - q * q, 0)) * (y > apex)
        # below its top the dome fills the cavity from its middle outwards: what stays is air in
        # the recesses before and behind it, 0.55 (1 - sqrt(t / reach)) of the depth at t cm below.
        # The mean over a pixel's height comes from the integral, so that the edge is no staircase
        t, half_pixel = y - self.dome(x, right), F32(0.5 * soft)
        reach = F32(a.angle + 0.8)

        def integral(t: Array) -> Array:
            inside = np.clip(t, 0, reach)
            recess = inside - inside * np.sqrt(inside) * F32(2 / 3) / np.sqrt(reach)
            return np.asarray(np.minimum(t, 0) + 0.55 * recess, F32)

        over = (integral(t + half_pixel) - integral(t - half_pixel)) / F32(soft)
        return np.asarray(full, F32), np.asarray(full * over, F32)


def power(base: Array, exponent: float) -> Array:
    """base >= 0 to that power; numpy takes ten times as long over zeros as over other numbers."""
    return np.asarray(np.maximum(base, F32(1e-9)) ** F32(exponent) * (base > 0), F32)


def rise(y: Array, start: float | F32, end: float | F32) -> Array:
    """0 above `start`, 1 below `end`, smooth between."""
    t = np.clip((y - F32(start)) / F32(end - start), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), F32)
