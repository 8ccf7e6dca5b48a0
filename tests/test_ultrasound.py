"""Ultrasound against closed forms, and the fetal head against Hadlock."""

import numpy as np
import pytest

from ldm.data.phantom import fetus, ultrasound
from ldm.data.phantom.rays import View
from ldm.data.phantom.scene import Part, Scene
from ldm.data.phantom.solids import ellipsoid
from ldm.data.phantom.views import AXIAL, LATERAL


def block(*more: Part) -> Scene:
    """A large body of liver with its skin at z = 6, and what lies in it."""
    body = Part("", "liver", ((ellipsoid((0, 0, -54), (200, 200, 60)),),), "air")
    return Scene([body, *more])


def ball(material: str, z: float, radius: float, x: float = 0.0) -> Part:
    return Part(material, material, ((ellipsoid((x, 0, z), (radius,) * 3),),), "liver")


def test_speckle_is_rayleigh_distributed() -> None:
    """mean / std = sqrt(pi / (4 - pi)) = 1.91, and the quantiles are sqrt(-ln(1 - q))."""
    amplitude = np.abs(ultrasound.speckle((800, 600), 2.0, 1.5, np.random.default_rng(0)))
    assert amplitude.mean() / amplitude.std() == pytest.approx(1.913, rel=0.02)
    levels = np.array([0.1, 0.5, 0.9, 0.99])
    found = np.quantile(amplitude, levels)
    # 20,000 independent grains
    np.testing.assert_allclose(found, np.sqrt(-np.log(1 - levels)), rtol=0.04)


def test_a_homogeneous_medium_keeps_the_statistics_of_speckle() -> None:
    """The envelope of an even medium without loss has mean / std = 1.91, too."""
    shape = (512, 192)
    radius, angle = np.linspace(5, 15, shape[0]), np.linspace(-0.6, 0.6, shape[1])
    even, none = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    rng = np.random.default_rng(1)
    sound = ultrasound.envelope(even, none, none, radius, angle, 3.5, rng)
    assert sound.mean() / sound.std() == pytest.approx(1.913, rel=0.03)


def test_echoes_fall_by_twice_the_loss_per_cm_and_mhz() -> None:
    """0.5 dB / (cm MHz) at 3 MHz, there and back: 3 dB per cm of depth."""
    shape = (1024, 192)
    radius, angle = np.linspace(5, 15, shape[0]), np.linspace(-0.6, 0.6, shape[1])
    even, none = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    sound = ultrasound.envelope(
        even, even * 0.5, none, radius, angle, 3.0, np.random.default_rng(2)
    )
    decibel = 20 * np.log10(sound).mean(1)
    slope = np.polyfit(radius, decibel, 1)[0]
    assert slope == pytest.approx(-3.0, abs=0.15)


def test_a_mirror_is_seen_when_the_beam_meets_it_square() -> None:
    """A step of impedance across the beam echoes with R times a mirror's; along it, not at all."""
    shape = (600, 200)
    radius, angle = np.linspace(20, 26, shape[0]), np.linspace(-0.1, 0.1, shape[1])
    none = np.zeros(shape, np.float32)
    rng = np.random.default_rng(0)
    square, along = none.copy(), none.copy()
    square[300:] = np.log(2.0)
    along[:, 100:] = np.log(2.0)
    top = ultrasound.envelope(none, none, square, radius, angle, 3.0, rng)
    # a jump is shared by two samples: the pulse sums them
    assert top.max() == pytest.approx(ultrasound.SPECULAR / 3, rel=0.1)
    assert 298 <= top[:, 50].argmax() <= 301
    assert ultrasound.envelope(none, none, along, radius, angle, 3.0, rng).max() < 1e-3


def test_an_oblique_mirror_echoes_with_cos_8_of_its_angle() -> None:
    """A surface at 45 degrees to the beam: 1/16 of the coefficient, spread over a slope."""
    shape = (600, 200)
    radius, angle = np.linspace(40, 46, shape[0]), np.linspace(-0.05, 0.05, shape[1])
    none, rng = np.zeros(shape, np.float32), np.random.default_rng(0)

    def loudest(slope: float) -> float:  # in the middle of a rise that is wider than the beam
        far = radius[:, None] - 43 + slope * 43 * angle
        ramp = np.clip(far / 4 + 0.5, 0, 1) * np.log(2.0)
        return float(ultrasound.envelope(none, none, ramp, radius, angle, 3.0, rng)[300, 100])

    assert loudest(1.0) == pytest.approx(loudest(0.0) / 16, rel=0.1)


@pytest.mark.parametrize("material", ["compact bone", "air"])
def test_behind_bone_and_gas_lies_a_shadow_and_behind_fluid_none(material: str) -> None:
    """The column behind is darker than beside it; behind fluid it is brighter."""
    view = View((0, 0, 0), AXIAL, 12, 96)

    def behind(what: str) -> float:
        scene = block(ball(what, 2.5, 0.8))
        grey, _ = ultrasound.scan(scene, view, np.random.default_rng(4))
        return float(grey[52:80, 46:50].mean() - grey[52:80, 60:64].mean())

    assert behind(material) < -0.2
    assert behind("water") > 0.03


def test_the_picture_begins_at_the_skin_and_ends_with_the_sector() -> None:
    """Black above the skin and beside the fan; masks, too, end there."""
    scene = block(Part("deep", "kidney", ((ellipsoid((0, 0, -54), (190, 190, 59)),),), "liver"))
    view = ultrasound.aimed(scene, View((0, 0, 0), AXIAL, 20, 80), np.random.default_rng(0))
    assert view.middle[2] + 10 == pytest.approx(6.3)  # 3 mm of gel above the skin at z = 6
    grey, named = ultrasound.scan(scene, view, np.random.default_rng(0))
    assert not grey[:, 0][:30].any()
    box, share = named["deep"]
    mask = np.zeros_like(grey)
    mask[box] = share
    assert mask[40, 40] == pytest.approx(1)
    assert mask[:30, 0].max() == 0


def test_a_sagittal_scan_has_the_front_above_and_the_head_on_the_left() -> None:
    """Right is down the body (y), down is to the back (-z); aiming again changes nothing."""
    scene = block()
    view = ultrasound.aimed(scene, View((0, 0, 0), LATERAL, 15, 64), np.random.default_rng(0))
    np.testing.assert_allclose(view.axes[:2], [[0, 1, 0], [0, 0, -1]], atol=1e-12)
    again = ultrasound.aimed(scene, view, np.random.default_rng(1))
    np.testing.assert_allclose(again.middle, view.middle, atol=1e-9)
    np.testing.assert_allclose(again.axes, view.axes, atol=1e-12)


def test_hadlock_gives_the_size_of_a_head() -> None:
    """The regressions of 1984 are inverted: their weeks come back; 20 and 40 weeks as known."""
    for weeks in (18, 25, 33, 40):
        d, c = fetus.biparietal(weeks), fetus.circumference(weeks)
        assert 9.54 + 1.482 * d + 0.1676 * d**2 == pytest.approx(weeks)
        assert 8.96 + 0.540 * c + 0.0003 * c**3 == pytest.approx(weeks)
    assert fetus.biparietal(20) == pytest.approx(4.6, abs=0.1)
    assert fetus.circumference(20) == pytest.approx(17.5, abs=0.3)


def test_the_truth_of_a_fetal_head_is_measured_in_its_mask() -> None:
    """Area and width of the drawn head give the biparietal diameter and the circumference."""
    for seed in range(5):
        parts, truth = fetus.fetal_head(seed)
        view = View((0, 0, 0), AXIAL, truth["view_width_cm"], 200)
        [head] = [
            (box, share) for p, box, share in Scene(parts).amounts(view, 0.02)
            if p.name == "fetal head"
        ]  # fmt: skip
        a = truth["occipitofrontal_mm"] / 20
        area = head[1].sum() * view.pixel**2
        b = area / np.pi / a
        assert 20 * b == pytest.approx(truth["biparietal_mm"], rel=0.06)  # to the inner edge
        assert 10 * fetus.perimeter(a, b) == pytest.approx(truth["circumference_mm"], rel=0.01)
        assert 0.65 < b / a < 0.95
    assert fetus.perimeter(3, 3) == pytest.approx(6 * np.pi)
