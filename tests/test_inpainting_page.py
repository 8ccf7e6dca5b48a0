"""evaluate.py inpainting: fills and figures are what they say; nothing outside a box changes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation import assert_refused, measure, status

from ldm.data import phantom
from ldm.data.image_sets import open_set
from ldm.drawing import image_editing
from ldm.drawing.compositing import Box
from ldm.drawing.latent_editing import PictureBatch
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.report import inpainting, inpainting_trials, outpainting_trials, painted_findings
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

    The seam of an unchanged image is 1, its distance 0; 51 levels are half of 102.
    """
    given = np.random.default_rng(0).integers(0, 200, (64, 64, 1)).astype(np.uint8)
    box = Box(10, 20, 16, 18)
    same = inpainting_trials.score(given, given, box, 102)
    assert (same["seam"], same["distance"]) == (1, 0)
    other = given.copy()
    other[50:] = 0
    assert inpainting_trials.score(given, other, box, 102)["PSNR"] == np.inf
    other[box.inside] += 51
    assert inpainting_trials.score(given, other, box, 102)["PSNR"] == pytest.approx(
        20 * np.log10(5)
    )
    assert inpainting_trials.score(given, other, box, 102)["distance"] == 0.5


def test_the_distance_between_persons_is_to_all_others() -> None:
    """Levels 0, 30 and 40 in the box: the first is sqrt((30^2 + 40^2) / 2) from the others."""
    flat = [np.full((32, 32, 1), level, np.uint8) for level in (0, 30, 40)]
    films = [inpainting_trials.Film(i, picture, "") for i, picture in enumerate(flat)]
    box = Box(4, 4, 16, 16)
    found = [inpainting_trials.distance_of_others(films, i, box) for i in range(3)]
    assert found == pytest.approx([1250**0.5, 500**0.5, 850**0.5])


@pytest.mark.parametrize(
    ("region", "place", "bone"),
    [
        ("ankle", "ankle joint", "talus"),
        ("knee", "patella", "patella"),
        ("wrist", "carpals", "capitate"),
        ("spine", "vertebrae", "L2"),
    ],
)
def test_boxes_hold_the_bone_that_they_name(region: str, place: str, bone: str) -> None:
    """Of frontal phantoms, the bone's middle."""
    box = inpainting_trials.box_of(place, 128)
    hole = inpainting_trials.mask_of(box, np.zeros((128, 128, 1), np.uint8))
    source = f"phantoms:4:900000000:region={region},view=frontal"
    for p in open_set(source).phantoms:
        masks = phantom.render([p], 128).masks
        [mask] = [m[0].numpy() for name, m in masks.items() if name.split(" ")[-1] == bone]
        y, x = (round(float(where.mean())) for where in np.nonzero(mask))
        assert hole[y, x]


def test_films_are_chosen_by_region_and_the_rest_is_counted(tmp_path: Path) -> None:
    """A CT, a lateral film, an elbow, a patient's second film, one too many, an only one."""
    rows = [
        "filename,region,modality,view,patient_id",
        "0.png,knee,x-ray,frontal,a",
        "1.png,knee,CT,axial,b",
        "2.png,knee,x-ray,lateral,c",
        "3.png,elbow,x-ray,frontal,d",
        "4.png,knee,x-ray,frontal,a",
        "5.png,knee,x-ray,frontal,e",
        "6.png,knee,x-ray,frontal,f",
        "7.png,ankle,x-ray,frontal,g",
    ]
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    for i in range(8):
        image_files.save(torch.zeros(1, 64, 64), tmp_path / f"{i}.png", {})
    asked = open_set(str(tmp_path / "labels.csv"))
    films, left_out = inpainting_trials.choose(asked, 2, 64, False)
    assert {region: [film.at for film in each] for region, each in films.items()} == {
        "knee": [0, 5]
    }
    assert left_out == {
        "no film": 1,
        "not frontal": 1,
        "no box for elbow": 1,
        "of a person who has one": 1,
        "beyond 2 of a region": 1,
        "the only one of a region": 1,
    }


def test_a_painted_difference_is_compared_with_the_true_one() -> None:
    """Twice the true difference correlates at 1, its opposite at -1, none at 0; the box alone."""
    rng = np.random.default_rng(0)
    truth = rng.integers(100, 120, (20, 20, 1)).astype(np.uint8)
    given = np.full_like(truth, 100)
    more = (given + 2 * (truth - given)).astype(np.uint8)
    more[15:] = 0
    like, box = painted_findings.correlation, Box(0, 0, 15, 20)
    assert like(more, given, truth, given, box) == pytest.approx(1)
    assert like(given, more, truth, given, box) == pytest.approx(-1)
    assert like(given, given, truth, given, box) == 0


def test_the_box_of_a_finding_is_cut_at_the_border() -> None:
    """Six pixels around the mask, fewer at the image's edge."""
    mask = np.zeros((40, 50), bool)
    mask[2:10, 20:31] = True
    assert painted_findings.around(mask) == Box(0, 14, 16, 23)


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
    knees = open_set("phantoms:1:0:region=knee,view=frontal,side=left,finding=none")
    assert inpainting_trials.words_of(knees, 0) == "phantom frontal left knee xray"


def test_captions_of_films_name_region_and_findings(tmp_path: Path) -> None:
    """A chest without labels is not said to be healthy; a knee's fracture is told."""
    rows = ["filename,region,laterality,labels", "0.png,,,", "1.png,knee,left,fracture"]
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    for i in range(2):
        image_files.save(torch.zeros(1, 64, 64), tmp_path / f"{i}.png", {})
    asked = open_set(str(tmp_path / "labels.csv"))
    chest, knee = (inpainting_trials.words_of(asked, i) for i in range(2))
    assert chest == inpainting_trials.PLAIN
    assert all(word in knee for word in ("left knee", "fracture"))


class Painter:
    """In the place of the model: paints 7 into the hole and, if told so, one pixel beside it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, spill: bool = False) -> None:
        pytest.importorskip("skimage", reason="the biharmonic fill needs scikit-image")
        self.words: list[str] = []
        self.spill = spill
        monkeypatch.setattr(image_editing, "inpaint", self.inpaint)

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
    boxes = [inpainting_trials.box_of(place, 64) for place in inpainting_trials.PLACES["chest"]]
    assert found.outside == 2 * sum(64 * 64 - box.height * box.width for box in boxes)
    assert found.changed == 0
    Painter(monkeypatch, spill=True)
    assert painted(tiny).changed == 2 * len(boxes)


def test_each_fill_is_measured_as_itself(tiny: LatentDiffusion, monkeypatch) -> None:
    """What is shown has the original outside the box, and its figures are those of the table."""
    Painter(monkeypatch)
    found = painted(tiny)
    for place, shown in found.shown.items():
        box, original = inpainting_trials.box_of(place, 64), shown[inpainting_trials.ORIGINAL]
        hole = np.zeros(original.shape[:2], bool)
        hole[box.inside] = True
        assert (shown[inpainting_trials.MODEL][hole] == 7).all()
        for method, figures in found.figures["chest"][place].items():
            assert np.array_equal(shown[method][~hole], original[~hole])
            scored = inpainting_trials.score(original, shown[method], box, 1)
            assert scored["PSNR"] in figures["PSNR"]


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
        inpainting_trials.OTHER: np.array([10.0, 21.0, 32.0]),
    }
    each = {m: dict.fromkeys(inpainting_trials.FIGURES, values) for m, values in figures.items()}
    table = inpainting.inpainting_table("chest", {"heart": each})
    gains = {row[0].removeprefix("heart, "): row[5] for row in table.rows}
    assert gains[inpainting_trials.MODEL] == ""
    assert gains[inpainting_trials.MEAN].startswith("9.833 (")
    assert gains[inpainting_trials.MEAN].endswith(": model")
    assert gains[inpainting_trials.BIHARMONIC].endswith(f": {inpainting_trials.BIHARMONIC}")
    assert gains[inpainting_trials.OTHER].endswith(": not told apart")


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
    options = ("--n", 2, "--findings", 0, "--inverted", 2, "--out", tmp_path / "out")
    assert status("inpainting", "phantoms:2", "--model", wide, *options) == 0
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
    out, n = tmp_path / "out", ("--n", 2, "--findings", 2, "--inverted", 0)
    options = ("--model", wide, *n, "--steps", 1, "--quick", "--out", out)
    films = "phantoms:5:900000000:region=chest+ankle,view=frontal"
    values = measure(capsys, "inpainting", films, *options)
    assert values["left out"] == {"beyond 2 of a region": 1}
    assert values["changed outside"] == 0
    assert values["inpainting"]["heart, biharmonic, SSIM"]["n"] == 2
    assert values["inpainting"]["ankle joint, the original itself, distance"]["value"] == 0
    told = values["findings"]
    assert told["pleural effusion"]["painted: AUC, with against without"]["n"] == 4
    # the built-in judge does not know a fracture
    assert [*told["fracture"]] == ["correlation of the painted difference with the phantoms'"]
    page = (out / "inpainting.html").read_text()
    assert page.count("data:image/png") == 1
    assert page.count("QUICK RUN") == 1
    assert "Synthetic" in page
    assert b"Synthetic" in (out / "sheet.png").read_bytes()
    before = [(out / f"inpainting.{kind}").read_bytes() for kind in ("html", "md", "json")]
    assert status("inpainting", films, *options) == 0
    again = [(out / f"inpainting.{kind}").read_bytes() for kind in ("html", "md", "json")]
    assert again == before


def test_the_next_persons_patch_is_as_far_as_persons_are(
    tiny: LatentDiffusion, monkeypatch
) -> None:
    """Of two films each is the other's only other: the distance is 1, and the original's 0."""
    Painter(monkeypatch)
    for figures in painted(tiny).figures["chest"].values():
        assert figures[inpainting_trials.OTHER]["distance"] == pytest.approx([1, 1], abs=0.01)
        assert not figures[inpainting_trials.ORIGINAL]["distance"].any()


def test_opencvs_fill_continues_a_flat_picture() -> None:
    """A picture of one level stays so but for OpenCV's rounding, whatever was in the hole."""
    pytest.importorskip("cv2", reason="Telea's fill needs opencv-python")
    given, hole = np.full((20, 20, 1), 90, np.uint8), np.zeros((20, 20), bool)
    hole[5:10, 5:12] = True
    given[hole] = 200
    assert abs(inpainting_trials.open_telea()(given, hole) - 90).max() <= 3


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("phantoms:1",), "an interval needs them"),
        (("phantoms:2", "--findings", "1"), "must be 0 or at least 2"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, capsys, wide: Path, more, words) -> None:
    """Exit status 2, and nothing written."""
    options = ("--model", wide, "--out", tmp_path / "out")
    assert_refused(capsys, tmp_path, words, "inpainting", *more, *options)
