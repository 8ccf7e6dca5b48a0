"""CT and MR slices against closed forms."""

import numpy as np
import pytest

from ldm.data.phantom import tomography
from ldm.data.phantom.materials import MATERIALS
from ldm.data.phantom.rays import View
from ldm.data.phantom.scene import Part, Scene
from ldm.data.phantom.solids import ellipsoid
from ldm.data.phantom.views import AXIAL, FRONTAL

VIEW = View((0, 0, 0), FRONTAL, 12.0, 48)


def ball(material: str, radius: float = 3.0, within: str = "air", z: float = 0.0) -> Part:
    return Part(material, material, ((ellipsoid((0, 0, z), (radius,) * 3),),), within)


def hounsfield(grey: np.ndarray, window: str) -> np.ndarray:
    level, width, _ = tomography.WINDOWS[window]
    return grey * width + level - width / 2


@pytest.mark.parametrize(("material", "window"), [("water", "soft tissue"), ("lung", "lung")])
def test_a_slice_through_a_material_shows_its_ct_number(material: str, window: str) -> None:
    """Without noise the middle of a ball reads its material's HU."""
    scene, rng = Scene([ball(material)]), np.random.default_rng(0)
    grey, _ = tomography.ct(scene, VIEW, rng, window, sigma=0.0)
    assert hounsfield(grey, window)[24, 24] == pytest.approx(MATERIALS[material].hu, abs=0.5)
    values = {name: [m.hu] for name, m in MATERIALS.items()}
    (slab,), _ = tomography.painted(scene, VIEW, 0.5, values)
    assert slab[0, 0] == MATERIALS["air"].hu == -1000


def test_a_ball_that_fills_half_of_a_slice_weighs_half() -> None:
    """A slice of 2 cm whose front half lies in water is (water + air) / 2; so is its share."""
    large = Part("sea", "water", ((ellipsoid((0, 0, 500), (500, 500, 500)),),), "air")
    values = {name: [m.hu] for name, m in MATERIALS.items()}
    (slab,), named = tomography.painted(Scene([large]), VIEW, 2.0, values)
    assert slab[24, 24] == pytest.approx((5 - 1000) / 2, abs=1)
    box, share = named["sea"]
    assert share[24 - box[0].start, 24 - box[1].start] == pytest.approx(0.5, abs=1e-3)


def test_later_parts_take_the_place_of_earlier_ones_and_areas_are_those_of_circles() -> None:
    """Of a ball in a ball both shares sum to pi r^2, wherever their boxes begin."""
    parts = [ball("muscle", 4.03), ball("liver", 1.57, "muscle")]
    values = {name: [float(name == "liver")] for name in MATERIALS}
    (slab,), named = tomography.painted(Scene(parts), VIEW, 0.01, values)
    for name, radius in (("muscle", 4.03), ("liver", 1.57)):
        area = named[name][1].sum() * VIEW.pixel**2
        assert area == pytest.approx(np.pi * radius**2, rel=0.02)  # 2 samples a side per pixel
    assert slab.sum() == pytest.approx(named["liver"][1].sum(), rel=1e-5)


def test_noise_has_the_deviation_and_the_spectrum_of_filtered_back_projection() -> None:
    """sigma where pixels resolve the kernel; no power at f = 0, a peak between, none at f_c."""
    fine = View((0, 0, 0), FRONTAL, 256 / (2 * tomography.CUTOFF), 256)
    noise = tomography.grain(fine, 20.0, np.random.default_rng(1))
    assert noise.std() == pytest.approx(20, rel=0.03)
    power = np.abs(np.fft.fft2(noise)) ** 2
    f = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)) / fine.pixel
    rings = [power[(f >= lo) & (f < lo + 0.3)].mean() for lo in (0.0, 1.8, 5.6)]
    assert rings[0] < 0.2 * rings[1]
    assert rings[2] < 0.02 * rings[1]
    coarse = View((0, 0, 0), FRONTAL, 64 * 0.3, 64)
    assert tomography.grain(coarse, 20.0, np.random.default_rng(1)).std() < 12


def test_a_thinner_slice_is_noisier_by_the_root_of_its_thickness() -> None:
    """The same draw of noise: 4 times thinner, twice as much."""
    scene = Scene([ball("water", 50.0)])

    def noise(thickness: float) -> float:
        rng = np.random.default_rng(3)
        grey, _ = tomography.ct(scene, VIEW, rng, "soft tissue", thickness, sigma=10.0)
        return float(hounsfield(grey, "soft tissue")[12:36, 12:36].std())

    assert noise(0.25) == pytest.approx(2 * noise(1.0), rel=1e-3)


def test_a_couch_lies_below_the_body_of_axial_slices_alone() -> None:
    """Bright lines under the back, none in a frontal slice."""
    scene = Scene([ball("muscle", 5.0)])
    for axes, found in ((AXIAL, True), (FRONTAL, False)):
        view = View((0, 0, 0), axes, 40, 160)
        grey, _ = tomography.ct(scene, view, np.random.default_rng(5), sigma=0.0)
        assert bool((grey[103:] > 0.9).any()) is found
        assert not (grey[:40] > 0.1).any()


@pytest.mark.parametrize("material", ["fat", "white matter", "grey matter", "water", "muscle"])
def test_the_signal_is_the_spin_echo_formula(material: str) -> None:
    """T1, T2 and FLAIR of a tissue, term by term."""
    m = MATERIALS[material]
    for tr, te in ((500, 14), (4000, 90)):
        s = m.protons * (1 - np.exp(-tr / m.t1)) * np.exp(-te / m.t2)
        assert tomography.signal(m, tr, te) == pytest.approx(s)
    z = 1 - 2 * np.exp(-2350 / m.t1) + np.exp(-9000 / m.t1)
    assert tomography.signal(m, 9000, 100, 2350) == pytest.approx(
        m.protons * z * np.exp(-100 / m.t2)
    )


def test_tissues_are_as_bright_as_every_reader_knows() -> None:
    """T1: fat > white > grey > CSF; T2: CSF first; FLAIR: CSF black; agent: the tumour bright."""

    def of(sequence: str, name: str, taken: float = 0.0) -> float:
        tr, te, ti, agent = tomography.SEQUENCES[sequence]
        return abs(tomography.signal(MATERIALS[name], tr, te, ti, agent * taken))

    t1 = [of("T1", name) for name in ("fat", "white matter", "grey matter", "water")]
    assert t1 == sorted(t1, reverse=True)
    t2 = [of("T2", name) for name in ("water", "grey matter", "white matter")]
    assert t2 == sorted(t2, reverse=True)
    assert of("FLAIR", "water") < 0.05 * of("FLAIR", "grey matter")
    assert of("T1 contrast", "tumour", 1.0) > 1.5 * of("T1 contrast", "white matter")
    assert of("T1 contrast", "white matter") == of("T1", "white matter")


def test_the_agent_brightens_a_tumour_in_a_picture_as_in_the_formula() -> None:
    """Tumour over white matter around it, after the agent and before: the coils cancel."""
    scene = Scene([ball("white matter", 5.0), ball("tumour", 1.5, "white matter")])

    def ratio(sequence: str) -> float:
        grey, _ = tomography.mr(scene, VIEW, np.random.default_rng(0), sequence)
        return float(grey[22:26, 22:26].mean() / grey[22:26, [14, 15, 32, 33]].mean())

    after, before = (tomography.signal(MATERIALS["tumour"], 500, 14, 0, c) for c in (0.7, 0))
    # 16 pixels of a noise of 1-3 % each
    assert ratio("T1 contrast") / ratio("T1") == pytest.approx(after / before, rel=0.03)


def test_noise_of_a_magnitude_is_rician() -> None:
    """Mean sigma sqrt(pi / 2) without a signal, S + sigma^2 / (2 S) where it is strong."""
    rng, zero = np.random.default_rng(2), np.zeros((400, 400), np.float32)
    assert tomography.rician(zero, 2.0, rng).mean() == pytest.approx(2 * np.sqrt(np.pi / 2), 5e-3)
    assert tomography.rician(zero + 20, 2.0, rng).mean() == pytest.approx(20.1, abs=0.02)


def test_an_unknown_window_or_sequence_is_named_with_the_known_ones() -> None:
    """ValueError lists what there is."""
    scene, rng = Scene([ball("water")]), np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"window: 'liver'; there are lung, soft tissue, bone"):
        tomography.ct(scene, VIEW, rng, "liver")
    with pytest.raises(ValueError, match=r"sequence: 'DWI'; there are T1, T1 contrast, T2, FLAIR"):
        tomography.mr(scene, VIEW, rng, "DWI")


def test_a_slice_skips_what_it_does_not_meet_and_changes_nothing_else() -> None:
    """A group before and one behind: gone; one body of both ends still fills what lies between."""
    far = ball("bowel", 1.0, z=4.0)
    ends = tuple(ellipsoid((0, 0, z), (1, 1, 1)) for z in (-4, 4))
    through = Part("rod", "liver", (ends,), "air")
    found = {part.name: share for part, _, share in Scene([far, through]).amounts(VIEW, 0.5)}
    assert set(found) == {"rod"}
    assert found["rod"].max() == 1
