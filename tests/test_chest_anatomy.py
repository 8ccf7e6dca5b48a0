"""Anatomy by arithmetic: right on phantoms, whose truth is known, and it can be wrong."""

import numpy as np
import pytest

from ldm.data import phantom
from ldm.data.image_sets import open_set
from ldm.metrics.chest_anatomy import chest, lungs, runs
from ldm.report import anatomy_survey

COUNT = 40
DRAWN = phantom.render(phantom.sample_phantoms(range(40_000, 40_000 + COUNT)), 128)
GREYS = DRAWN.images[:, 0].numpy()
MASKS = {name: mask.numpy() for name, mask in DRAWN.masks.items()}


def test_phantoms_have_two_lungs_and_a_painted_over_one_is_missed() -> None:
    """Of 40 phantoms at least 36 are counted right with two lungs, with one and with none."""
    assert sum(lungs(grey).seen == 2 for grey in GREYS) >= 36
    assert anatomy_survey.covered(GREYS, MASKS, 1) >= 36
    assert anatomy_survey.covered(GREYS, MASKS, 2) >= 36


def test_lungs_are_where_the_phantom_has_them() -> None:
    """The patient's right lung is at the image's left; nine tenths of what is found is lung."""
    for grey, right, left in zip(GREYS, MASKS["right lung"], MASKS["left lung"], strict=True):
        for found, truth in zip(lungs(grey), (right, left), strict=True):
            if found is not None:
                assert found[truth].sum() >= 0.75 * found.sum()


def test_a_mirrored_phantom_has_its_heart_on_the_other_side() -> None:
    """The heart is found at the image's right in nine of ten, at the left in their mirror image."""
    shifts = [(chest(grey).shift, chest(grey[:, ::-1]).shift) for grey in GREYS]
    both = np.array([pair for pair in shifts if None not in pair])
    assert len(both) >= 36
    assert (both[:, 0] > 0).mean() >= 0.9
    assert (both[:, 1] < 0).mean() >= 0.9


def test_grey_levels_do_not_matter() -> None:
    """Brighter or of more contrast, an image gives the same figures."""
    for grey in GREYS[:8]:
        one, other = chest(grey.astype(np.float64)), chest(3 * grey.astype(np.float64) + 5)
        assert one.lungs == other.lungs
        assert one.ribs == other.ribs


def test_an_empty_image_has_no_lungs() -> None:
    """Nor has one that darkens towards a side; and what is not found has no figures."""
    for grey in (np.zeros((128, 128)), np.broadcast_to(np.arange(128.0), (128, 128))):
        assert chest(grey) == (0, None, None, None)
    with pytest.raises(ValueError, match=r"images \[128, 128\], got \(64, 64\)"):
        chest(np.zeros((64, 64)))


@pytest.mark.parametrize(
    ("line", "count"), [("", 0), ("...", 0), ("###", 1), ("#.##..#", 3), (".#.", 1)]
)
def test_runs_are_counted(line: str, count: int) -> None:
    """Stretches at either end count as those in the middle do."""
    assert runs(np.array([letter == "#" for letter in line], bool)) == count


def test_what_fails_on_phantoms_is_not_used() -> None:
    """The trial names every claim with its n; the survey has only figures that are believed."""
    tried = anatomy_survey.trial(20)
    assert tried.measured["two lungs are two"].n == 20
    assert anatomy_survey.LUNGS in tried.believed
    assert anatomy_survey.RIBS not in tried.believed
    assert anatomy_survey.RATIO not in tried.believed
    asked = open_set("phantoms:12")
    found = anatomy_survey.survey(asked, range(12), tried.believed)
    assert found["two lungs"].value >= 0.9
    assert not [name for name in found if "ribs" in name or "ratio" in name]
    assert anatomy_survey.survey(asked, range(12), ()) == {}
