"""The summary of a study says no more than its intervals allow."""

from pathlib import Path

import pytest

from ldm.metrics.estimate import Estimate
from ldm.report.study.cached_steps import Done
from ldm.report.study.paper_tables import LABELS, NAMES
from ldm.report.study.study_page import headline, render
from ldm.report.study.study_settings import Study

BASE, BEST = NAMES[0], NAMES[-1]


def near(value: float) -> Estimate:
    return Estimate(value, value - 0.1, value + 0.1, 100)


def made(distances: dict[str, float], accuracies: dict[str, float]) -> dict[str, Done]:
    """Every model is at 9 and at 0.5 where nothing else is said."""
    values = {
        name: {
            "distances": {"both": near(distances.get(name, 9))},
            "verdict": {"accuracy": near(accuracies.get(name, 0.5)), "AUC": near(0.5)},
        }
        for name in NAMES
    }
    return {name: Done(Path(), each, {}) for name, each in values.items()}


def test_a_best_model_whose_intervals_are_apart_has_no_rival() -> None:
    """One model is named as best at both figures, and no other one."""
    sentences = headline(made({BEST: 1}, {BEST: 0.9}))
    assert f'together is of "{LABELS[BEST]}"' in sentences
    assert "one model is best at both" in sentences
    assert "overlaps" not in sentences


def test_a_rival_that_overlaps_is_named_where_it_does() -> None:
    """Another model's distance and a third one's accuracy are within the best interval."""
    sentences = headline(made({BEST: 1, BASE: 1.15}, {BEST: 0.9, NAMES[1]: 0.75}))
    assert f'In distance the best interval overlaps with that of "{LABELS[BASE]}".' in sentences
    assert f'In accuracy the best interval overlaps with that of "{LABELS[NAMES[1]]}".' in sentences


def test_two_models_may_be_best() -> None:
    """The least distance is of one, the highest accuracy of another."""
    sentences = headline(made({BEST: 1}, {BASE: 0.9}))
    assert "one model" not in sentences
    assert f'the highest accuracy is of "{LABELS[BASE]}"' in sentences


@pytest.mark.parametrize(("n", "few"), [(7, True), (8, False)])
def test_fewer_images_than_features_is_said_only_where_it_is_so(n: int, few: bool) -> None:
    """A warning that a distance of one prompt means little, for n images and 8 features."""
    text = render("study_limits.md", study=Study(n=n), width=8)
    assert ("7 images are fewer than the 8 features" in text) == few
