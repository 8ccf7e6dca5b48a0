"""evaluate.py edits: fills and figures are what they say, and nothing outside a box changes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation import assert_refused, measure, status

from ldm.data.image_sets import open_set
from ldm.drawing import image_editing
from ldm.drawing.compositing import Box
from ldm.drawing.latent_editing import PictureBatch
from ldm.metrics.chest_anatomy import Chest
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.report import edits, inpainting_trials, outpainting_trials
from ldm.weights.export import save
from ldm.weights.loading import load_parts


def test_the_mean_fill_takes_the_rim_alone() -> None:
    """All four sides of the rim, by their lengths; not the hole, its corners or what is beyond."""
    given, hole = np.full((20, 20, 1), 90, np.uint8), np.zeros((20, 20), bool)
    hole[5:10, 5:12] = True
    given[4, 5:12], given[10, 5:12] = 10, 20
    given[5:10, 4], given[5:10, 12] = 30, 40
    given[hole] = 200
    filled = inpainting_trials.mean_of_rim(given, hole)
    assert set(filled[hole].ravel()) == {(7 * 10 + 7 * 20 + 5 * 30 + 5 * 40) / 24}
    assert np.array_equal(filled[~hole], given[~hole])


def test_figures_are_of_the_box_alone() -> None:
    """A change outside of it counts for nothing; one of 51 levels inside is 20 log10(5) dB.

    The seam of an unchanged image is 1.
    """
    given = np.random.default_rng(0).integers(0, 200, (64, 64, 1)).astype(np.uint8)
    box = Box(10, 20, 16, 18)
    assert inpainting_trials.score(given, given, box)["seam"] == 1
    other = given.copy()
    other[50:] = 0
    assert inpainting_trials.score(given, other, box)["PSNR"] == np.inf
    other[box.inside] += 51
    assert inpainting_trials.score(given, other, box)["PSNR"] == pytest.approx(20 * np.log10(5))


def test_change_is_shared_out_by_the_mask() -> None:
    """Three levels inside and one outside: a quarter is outside; no change is no share."""
    before, mask = np.full((2, 2, 1), 100, np.uint8), np.array([[True, False], [False, False]])
    after = before.copy()
    after[0, 0], after[1, 1] = 103, 99
    assert outpainting_trials.outside(before, after, mask) == 0.25
    assert np.isnan(outpainting_trials.outside(before, before, mask))


def test_a_mirrored_half_has_halves_of_one_width() -> None:
    """The ratio is 1 for a mask and its mirror image, and 2 where the left reaches twice as far."""
    right, left = np.zeros((4, 20), bool), np.zeros((4, 20), bool)
    right[:, 6:9] = True
    assert outpainting_trials.ratio(right, right[:, ::-1]) == 1
    left[:, 12:18] = True
    assert outpainting_trials.ratio(right, left) == 2


def test_captions_name_what_is_there() -> None:
    """A healthy phantom has no findings, another its own, and both are called phantoms."""
    asked = open_set("phantoms:6")
    for i in range(6):
        words = inpainting_trials.words_of(asked, i)
        there = [name for name, seen in asked.findings(i).items() if seen]
        assert "phantom" in words
        assert all(name in words for name in there)
        assert ("without findings" in words) == (not there)


class Painter:
    """In the place of the model: paints 7 into the hole and, if told so, one pixel beside it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, spill: bool = False) -> None:
        pytest.importorskip("skimage", reason="the biharmonic fill needs scikit-image")
        self.words: list[str] = []
        self.spill = spill
        monkeypatch.setattr(image_editing, "inpaint", self.inpaint)
        monkeypatch.setattr(image_editing, "image_to_image", lambda batch, given, *_: [given // 2])

    def inpaint(self, batch: PictureBatch, given, alpha, *_: object) -> list[np.ndarray]:
        self.words += batch.prompts
        drawn = given.copy()
        drawn[alpha > 0] = 7
        drawn[0, 0] ^= self.spill
        return [drawn]


def painted(tiny: LatentDiffusion, prompt: str | None = None) -> inpainting_trials.Repainted:
    """Two phantoms of 64 pixels."""
    config = replace(tiny.config, image_size=64)
    pipe = LatentDiffusion(config, tiny.unet, tiny.vae, tiny.text)
    return inpainting_trials.measure(pipe, open_set("phantoms:2", 64), Sampling(), 2, prompt)


def test_a_pixel_changed_outside_is_counted(tiny: LatentDiffusion, monkeypatch) -> None:
    """One for each image and place, of all that lie outside; none where none was changed."""
    Painter(monkeypatch)
    found = painted(tiny)
    boxes = [inpainting_trials.box_of(place, 64) for place in inpainting_trials.PLACES]
    assert found.outside == 2 * sum(64 * 64 - box.height * box.width for box in boxes)
    assert found.changed == 0
    Painter(monkeypatch, spill=True)
    assert painted(tiny).changed == 2 * len(boxes)


def test_each_fill_is_measured_as_itself(tiny: LatentDiffusion, monkeypatch) -> None:
    """What is shown has the original outside the box, and its figures are those of the table."""
    Painter(monkeypatch)
    found = painted(tiny)
    for place, shown in found.shown.items():
        box, original = inpainting_trials.box_of(place, 64), shown["original"]
        hole = np.zeros(original.shape[:2], bool)
        hole[box.inside] = True
        assert (shown[inpainting_trials.MODEL][hole] == 7).all()
        assert np.array_equal(shown[inpainting_trials.PASTE][hole], original[hole] // 2)
        for method in inpainting_trials.METHODS:
            assert np.array_equal(shown[method][~hole], original[~hole])
            scored = inpainting_trials.score(original, shown[method], box)
            assert scored["PSNR"] in found.figures[place][method]["PSNR"]


def test_images_are_painted_with_their_caption_or_the_given_words(
    tiny: LatentDiffusion, monkeypatch
) -> None:
    """The same words for each of the three places."""
    painter, asked = Painter(monkeypatch), open_set("phantoms:2", 64)
    painted(tiny)
    own = [inpainting_trials.words_of(asked, i) for i in (0, 1)]
    assert painter.words == 3 * own[:1] + 3 * own[1:]
    painter = Painter(monkeypatch)
    painted(tiny, "a knee")
    assert painter.words == 6 * ["a knee"]


def test_the_table_names_who_wins() -> None:
    """Gains are the model's figure minus the other's; an interval with 0 in it names nobody."""
    figures = {
        inpainting_trials.MODEL: np.array([20.0, 21.0, 22.0]),
        inpainting_trials.MEAN: np.array([10.0, 11.5, 12.0]),
        inpainting_trials.BIHARMONIC: np.array([30.0, 31.5, 32.0]),
        inpainting_trials.PASTE: np.array([10.0, 21.0, 32.0]),
    }
    each = {m: dict.fromkeys(inpainting_trials.FIGURES, values) for m, values in figures.items()}
    table = edits.inpainting_table(inpainting_trials.Repainted(["a", "b", "c"], {"heart": each}))
    gains = {row[0].removeprefix("heart, "): row[4] for row in table.rows}
    assert gains[inpainting_trials.MODEL] == ""
    assert gains[inpainting_trials.MEAN].startswith("9.833 (")
    assert gains[inpainting_trials.MEAN].endswith(": model")
    assert gains[inpainting_trials.BIHARMONIC].endswith(f": {inpainting_trials.BIHARMONIC}")
    assert gains[inpainting_trials.PASTE].endswith(": not told apart")


def test_outpainted_chests_are_counted_beside_the_truth() -> None:
    """Three of four have two lungs, the heart of one of these is at the right; errors have no sign.

    The ratio of a chest without two lungs is no number, and left out.
    """
    chests = [*(Chest(2, shift=shift) for shift in (0.1, -0.1, -0.2)), Chest(1)]
    halves = {"drawn on": np.array([1.5, 0.5, 1, np.nan])}
    found = outpainting_trials.Extended({"drawn on": chests}, halves, np.ones(4), 0, {})
    _, values = edits.outpainting(found)
    drawn = {name: (one.value, one.n) for name, one in values["drawn on"].items()}
    assert drawn == {
        "two lungs": (3 / 4, 4),
        "ratio of widths, mean": (1, 3),
        "error of that ratio": (1 / 3, 3),
        "heart at the image's right, of two-lunged": (1 / 3, 3),
    }


def test_inversion_goes_by_50_steps_of_ddim_without_guidance(
    tmp_path: Path, capsys, wide: Path, monkeypatch
) -> None:
    """The sampling that the table's caption names, and the words for the phantom's fluid."""
    Painter(monkeypatch)
    asked = []

    def counterfactual(batch: PictureBatch, given, shown) -> list[np.ndarray]:
        asked.append((batch.sampling, shown, batch.prompts))
        return [given, given // 2]

    monkeypatch.setattr(image_editing, "counterfactual", counterfactual)
    options = ("--n", 2, "--extended", 0, "--inverted", 2, "--out", tmp_path / "out")
    assert status("edits", "phantoms:2", "--model", wide, *options) == 0
    ddim = Sampling(0, 50, "ddim", 1.0, height=64, width=64)
    sick, healthy = outpainting_trials.SICK, outpainting_trials.HEALTHY
    assert asked == 2 * [(ddim, [sick, sick], [sick, healthy])]


@pytest.fixture
def wide(tmp_path: Path, tiny_ckpt: Path, tiny_config) -> Path:
    """The tiny twin for images of 64 pixels."""
    _, parts = load_parts(tiny_ckpt, tiny_config)
    return save(tmp_path / "wide.safetensors", replace(tiny_config, image_size=64), parts)


def test_the_command_measures_every_part(tmp_path: Path, capsys, wide: Path) -> None:
    """n is what was measured, the model keeps what is outside, and the page is written."""
    pytest.importorskip("skimage", reason="the biharmonic fill needs scikit-image")
    out, n = tmp_path / "out", ("--n", 2, "--extended", 2, "--inverted", 0)
    options = ("--model", wide, *n, "--steps", 1, "--out", out)
    values = measure(capsys, "edits", "phantoms:3", *options)
    assert (values["n"], values["changed outside"]) == (2, 0)
    assert values["inpainting"]["heart, biharmonic, SSIM"]["n"] == 2
    assert values["outpainting"]["changed"] == 0
    page = (out / "edits.html").read_text()
    assert page.count("data:image/png") == 1
    assert "Synthetic" in page
    assert b"Synthetic" in (out / "sheet.png").read_bytes()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("phantoms:1",), "interval needs 2"),
        (("phantoms:2", "--extended", "1"), "must be 0 or at least 2"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, capsys, wide: Path, more, words) -> None:
    """Exit status 2, and nothing written."""
    options = ("--model", wide, "--out", tmp_path / "out")
    assert_refused(capsys, tmp_path, words, "edits", *more, *options)
