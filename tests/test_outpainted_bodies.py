"""From one window to the whole body: figures, prompts, what is kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation import assert_refused, measure
from scipy import ndimage

from ldm.drawing import image_editing, outpainting
from ldm.drawing.compositing import Box
from ldm.drawing.latent_editing import PictureBatch
from ldm.metrics.chest_anatomy import Chest
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.report import outpainted_bodies, outpainting_trials
from ldm.report.outpainted_bodies import MEAN, MODEL, OTHER, PART, TRUTH
from ldm.weights.export import save
from ldm.weights.loading import load_parts

SIDE = 64
GIVEN = outpainted_bodies.box_at("knees", SIDE)


@pytest.fixture(scope="module")
def bodies() -> np.ndarray:
    """[4, 320, 128, 1]"""
    return outpainted_bodies.truths(SIDE, 4)


def score(drawn: np.ndarray, truth: np.ndarray) -> dict:
    return outpainted_bodies.score(drawn[..., None], truth[..., None], truth[..., None], GIVEN)


def test_the_truth_in_the_models_place_has_no_error(bodies) -> None:
    """Error and drift 0, the rest 1; another person and the mean are worse."""
    paint = lambda truth, *_: truth  # noqa: E731  (the shortest painter)
    figures, _ = outpainted_bodies.travel(paint, bodies, 3, GIVEN, False)
    assert list(figures) == [MODEL, TRUTH, OTHER, MEAN]
    for name, values in figures[MODEL].items():
        if name != PART:
            expected = 0 if name.startswith(("error", "drift")) else 1
            np.testing.assert_allclose(values, expected, atol=1e-9)
        if name.startswith("error"):
            assert (figures[OTHER][name] > 1).all()
            assert (figures[MEAN][name] > 1).all()
    assert figures[TRUTH][PART].mean() > 0.5  # chance is 1 / 9
    first = outpainted_bodies.table(figures, "").rows[0]
    assert [cell.endswith(": worse") for cell in first[1:]] == [False, False, True, True]


def test_a_part_is_right_at_its_own_height(bodies) -> None:
    """Each window is most like its own place in the same body, none if moved half a window down.

    The uppermost then has the feet in it, and is left out.
    """
    for down, share in ((0, 1), (SIDE // 2, 0)):
        moved = np.roll(bodies[2], down, axis=0)
        found = outpainted_bodies.score(moved, bodies[2], bodies[2], GIVEN)
        assert np.mean(found[PART][1:]) == share


def test_figures_are_of_pixels_beyond_the_given_window() -> None:
    """5 levels more everywhere: an error of 5 at each distance, whatever the window has."""
    truth = np.random.default_rng(0).uniform(0, 200, (320, 128))
    drawn = truth + 5
    drawn[GIVEN.inside] = 0
    figures = score(drawn, truth)
    errors = [value for name, value in figures.items() if name.startswith("error")]
    assert errors == pytest.approx([5] * 4)
    assert figures["drift"] == pytest.approx(0, abs=1e-9)


def test_bare_film_has_no_sharpness() -> None:
    """Where the truth is black its detail is no denominator; the error stands."""
    truth = np.random.default_rng(0).uniform(0, 99, (320, 128))
    truth[:80] = 0
    figures = score(truth + np.arange(128) % 2, truth)
    assert figures["error over 80 cm"] == pytest.approx(0.5**0.5, rel=1e-3)
    assert np.isnan([figures["sharpness over 80 cm"], figures["correlation over 80 cm"]]).all()
    summary = outpainted_bodies.summary({name: np.array([np.nan, 1]) for name in ("a",)})
    assert summary == {}


def test_drift_is_the_slope_for_10_cm() -> None:
    """One grey level more for each 10 cm of distance."""
    truth = np.random.default_rng(0).uniform(0, 99, (320, 128))
    outside = np.ones(truth.shape, bool)
    outside[GIVEN.inside] = False
    away = ndimage.distance_transform_edt(outside) * 40 / SIDE
    assert score(truth + away / 10, truth)["drift"] == pytest.approx(1)


def test_seams_are_those_of_the_windows() -> None:
    """A step at the given window's upper edge raises it; one 10 pixels above does not."""
    truth = np.add.outer(np.arange(320.0), np.arange(128.0))
    edge, within = truth.copy(), truth.copy()
    edge[: GIVEN.top] += 50
    within[: GIVEN.top - 10] += 50
    assert score(edge, truth)["seam"] > 2
    assert score(within, truth)["seam"] == score(truth, truth)["seam"] == 1


def test_another_body_is_aligned_at_the_given_window(bodies) -> None:
    """The same body, moved by two pixels and darker, comes back but for rounding."""
    other = np.roll(bodies[0], (2, -1), (0, 1)) * 0.5 + 20
    back = outpainted_bodies.aligned(other, bodies[0], GIVEN)
    np.testing.assert_array_equal(back[10:-10, 10:-10], bodies[0][10:-10, 10:-10])


def test_each_window_has_the_prompt_of_its_height() -> None:
    """From head to feet, each part once; shuffled, each window has another's."""
    boxes = [Box(top, 32, SIDE, SIDE) for top in range(0, 257, 32)]
    parts = ["head", "shoulders", "chest", "abdomen", "pelvis", "thighs", "knees", "shins", "feet"]
    words = outpainted_bodies.prompts(boxes)
    assert words == [f"phantom x-ray of the body at the {part}" for part in parts]
    assert not any(map(str.__eq__, words, outpainted_bodies.prompts(boxes, True)))


def test_windows_are_drawn_with_their_own_prompts(
    tiny: LatentDiffusion, bodies, monkeypatch
) -> None:
    """In the order of painting; what is given stays."""
    asked: list[str] = []

    def inpaint(batch: PictureBatch, picture, alpha, resample) -> list[np.ndarray]:
        asked.extend(batch.prompts)
        return [np.where(alpha[..., None] > 0, np.uint8(9), picture)]

    monkeypatch.setattr(image_editing, "inpaint", inpaint)
    board, known, boxes = outpainted_bodies.windows(bodies[0], GIVEN)
    words = outpainted_bodies.prompts(boxes)
    batch = PictureBatch(tiny, words, [0], Sampling())
    *_, canvas = outpainting.outpaint(batch, board, known, boxes)
    assert len(set(words)) == 9
    assert asked == words
    assert np.array_equal(canvas[known], bodies[0][known])
    assert (canvas[~known] == 9).all()


def test_outpainted_chests_are_counted_beside_the_truth() -> None:
    """Three of four have two lungs, the heart of one of these is at the right; errors have no sign.

    The ratio of a chest without two lungs is no number, and left out.
    """
    chests = [*(Chest(2, shift=shift) for shift in (0.1, -0.1, -0.2)), Chest(1)]
    halves = {"drawn on": np.array([1.5, 0.5, 1, np.nan])}
    found = outpainting_trials.Extended({"drawn on": chests}, halves, np.ones(4), 0, {})
    _, values = outpainting_trials.half_table(found)
    drawn = {name: (one.value, one.n) for name, one in values["drawn on"].items()}
    assert drawn == {
        "two lungs": (3 / 4, 4),
        "ratio of widths, mean": (1, 3),
        "error of that ratio": (1 / 3, 3),
        "heart at the image's right, of two-lunged": (1 / 3, 3),
    }


@pytest.fixture
def wide(tmp_path: Path, tiny_ckpt: Path, tiny_config) -> Path:
    """The tiny twin for images of 64 pixels."""
    _, parts = load_parts(tiny_ckpt, tiny_config)
    return save(tmp_path / "wide.safetensors", replace(tiny_config, image_size=SIDE), parts)


def test_a_second_run_draws_nothing_and_says_the_same(
    tmp_path: Path, capsys, wide: Path, monkeypatch
) -> None:
    """n as asked, nothing given is changed, the pictures say that they are synthetic."""
    monkeypatch.setattr(outpainted_bodies, "LEAST", 3)
    out = tmp_path / "out"
    options = ("--model", wide, "--n", 2, "--others", 0, "--halves", 0, "--steps", 1, "--out", out)
    values = measure(capsys, "outpainting", *options)
    assert (values["knees"]["n"], values["knees"]["changed"]) == (2, 0)
    assert values["knees"][MODEL]["seam"]["n"] == 2
    assert "pelvis" not in values
    assert b"Synthetic" in (out / "sheet.png").read_bytes()
    monkeypatch.setattr(image_editing, "inpaint", None)  # a call would be an error
    again = measure(capsys, "outpainting", *options)
    assert again["knees"] == values["knees"]


def test_bad_input_is_one_line(tmp_path: Path, capsys, wide: Path) -> None:
    """Exit status 2, and nothing written."""
    options = ("--model", wide, "--others", 1, "--out", tmp_path / "out")
    assert_refused(capsys, tmp_path, "must be 0 or at least 2", "outpainting", *options)
