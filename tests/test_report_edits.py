"""evaluate.py edits: fills and figures are what they say, and nothing outside a box changes."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_one_line

import evaluate
from ldm import cli
from ldm.data.sets import open_set
from ldm.edit.seam import Box
from ldm.pipeline import LatentDiffusion
from ldm.report import extending, repainting


def picture(side: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 1)).astype(np.uint8)


def test_the_mean_fill_takes_the_rim_alone() -> None:
    """A rim of 10 around a hole of 200 in an image of 90 fills it with 10."""
    given, hole = np.full((20, 20, 1), 90, np.uint8), np.zeros((20, 20), bool)
    hole[5:10, 5:12] = True
    given[4:11, 4:13] = 10
    given[hole] = 200
    assert set(repainting.mean_of_rim(given, hole)[hole].ravel()) == {10.0}


def test_figures_are_of_the_box_alone() -> None:
    """A change outside of it counts for nothing; one of 51 levels inside is 20 log10(5) dB."""
    given, box = np.full((64, 64, 1), 100, np.uint8), Box(10, 20, 16, 18)
    other = given.copy()
    other[50:] = 0
    assert repainting.score(given, other, box)["PSNR"] == np.inf
    other[box.inside] += 51
    assert repainting.score(given, other, box)["PSNR"] == pytest.approx(20 * np.log10(5))


def test_a_seam_of_the_original_is_1() -> None:
    """Steps across the edge are measured against the original's."""
    given, box = picture(), Box(10, 20, 16, 18)
    assert repainting.score(given, given, box)["seam"] == 1


def test_change_is_shared_out_by_the_mask() -> None:
    """Three levels inside and one outside: a quarter is outside; no change is no share."""
    before, mask = np.full((2, 2, 1), 100, np.uint8), np.array([[True, False], [False, False]])
    after = before.copy()
    after[0, 0], after[1, 1] = 103, 99
    assert extending.outside(before, after, mask) == 0.25
    assert np.isnan(extending.outside(before, before, mask))


def test_a_mirrored_half_has_halves_of_one_width() -> None:
    """The ratio is 1 for a mask and its mirror image, and 2 where the left reaches twice as far."""
    right, left = np.zeros((4, 20), bool), np.zeros((4, 20), bool)
    right[:, 6:9] = True
    assert extending.ratio(right, right[:, ::-1]) == 1
    left[:, 12:18] = True
    assert extending.ratio(right, left) == 2


def test_captions_name_what_is_there() -> None:
    """A healthy phantom has no findings, another its own, and both are called phantoms."""
    asked = open_set("phantoms:6")
    for i in range(6):
        words = repainting.words_of(asked, i)
        there = [name for name, seen in asked.findings(i).items() if seen]
        assert "phantom" in words
        assert all(name in words for name in there)
        assert ("without findings" in words) == (not there)


@pytest.fixture
def wide(tmp_path: Path, tiny_ckpt: Path, tiny_config) -> Path:
    """The tiny twin for images of 64 pixels."""
    from dataclasses import replace

    from ldm.export import save
    from ldm.weights import load_parts

    _, parts = load_parts(tiny_ckpt, tiny_config)
    return save(tmp_path / "wide.safetensors", replace(tiny_config, image_size=64), parts)


def test_the_command_measures_every_part(tmp_path: Path, capsys, wide: Path) -> None:
    """n is what was measured, the model keeps what is outside, and the page is written."""
    pytest.importorskip("skimage", reason="the biharmonic fill wants scikit-image")
    out, n = tmp_path / "out", ("--n", "2", "--extended", "2", "--inverted", "0")
    words = ["edits", "phantoms:3", "--model", str(wide), *n, "--steps", "1"]
    assert evaluate.main([*words, "--out", str(out), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["n"], values["changed outside"]) == (2, 0)
    assert values["inpainting"]["heart, biharmonic, SSIM"]["n"] == 2
    assert values["outpainting"]["changed"] == 0
    page = (out / "edits.html").read_text()
    assert page.count("data:image/png") == 1
    assert "Synthetic" in page
    assert b"Synthetic" in (out / "sheet.png").read_bytes()


@pytest.mark.parametrize(
    ("more", "words"),
    [(("phantoms:1",), "interval wants 2"), (("phantoms:2", "--extended", "1"), "2 or more")],
)
def test_bad_input_is_one_line(tmp_path: Path, capsys, wide: Path, more, words) -> None:
    """Exit status 2, and nothing written."""
    line = ["edits", *more, "--model", str(wide), "--out", str(tmp_path / "out")]
    assert cli.run(lambda: evaluate.main(line), "evaluate.py") == 2
    assert_one_line(capsys.readouterr().err, words)
    assert not (tmp_path / "out").exists()


def test_the_built_in_size_holds_every_box(tiny: LatentDiffusion) -> None:
    """Boxes lie in the image with a rim around them."""
    for place in repainting.PLACES:
        top, left, height, width = repainting.box_of(place, 128)
        assert min(top, left) > 0
        assert max(top + height, left + width) < 128
