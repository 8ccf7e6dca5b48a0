"""Anatomy by arithmetic: right on phantoms, whose truth is known, and it can be wrong."""

import numpy as np
import pytest

from ldm.data import phantom
from ldm.data.image_sets import open_set
from ldm.metrics.chest_anatomy import chest, lungs, runs
from ldm.report import anatomy_survey

DRAWN = phantom.render(phantom.sample_phantoms(range(40_000, 40_016)), 128)
GREYS = DRAWN.images[:, 0].numpy()
MASKS = {name: mask.numpy() for name, mask in DRAWN.masks.items()}


def test_lungs_are_where_the_phantom_has_them() -> None:
    """The patient's right lung is at the image's left; three quarters of a found region is lung."""
    for grey, right, left in zip(GREYS, MASKS["right lung"], MASKS["left lung"], strict=True):
        for found, truth in zip(lungs(grey), (right, left), strict=True):
            if found is not None:
                assert found[truth].sum() >= 0.75 * found.sum()


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


def test_estimates_that_fail_on_phantoms_are_not_used() -> None:
    """Of 40 phantoms lungs (two, one, none) and the heart's side are right in 36; others fail.

    The survey has the figures of believed estimates alone.
    """
    tried = anatomy_survey.trial(40)
    assert tried.measured["two lungs are two"].n == 40
    assert tried.believed == (anatomy_survey.LUNGS, anatomy_survey.HEART)
    asked = open_set("phantoms:12")
    found = anatomy_survey.survey(asked, range(12), tried.believed)
    assert found["two lungs"].value >= 0.9
    assert not [name for name in found if "ribs" in name or "ratio" in name]
    assert anatomy_survey.survey(asked, range(12), ()) == {}
