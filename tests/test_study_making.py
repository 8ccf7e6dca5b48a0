"""A study is blinded: neither its page nor the order of its images says which are synthetic."""

import base64
import json
import re
from configparser import ConfigParser
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_one_line
from PIL import Image
from readers import assert_refused, key_of, status, study_of, write_sets

from ldm.report import page
from ldm.report.readers import giveaways, offline_page, trials
from ldm.report.study import study_page

COUNTS = ("--n", 30, "--repeats", 10, "--catch", 4, "--size", 24)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, sets: tuple[Path, Path]) -> Path:
    """The folder of a study of 30 + 30 images."""
    out = tmp_path_factory.mktemp("study")
    assert status("make", *sets, *COUNTS, "--out", out) == 0
    return out


def test_the_page_holds_the_images_of_the_key(made: Path, sets: tuple[Path, Path]) -> None:
    """Each trial's pixels are those of the image that the key names, by the one path of all."""
    study, key = study_of(made / "study.html"), key_of(made)
    assert [t["id"] for t in study["trials"]] == [t["id"] for t in key["trials"]]
    seen = {"real": 0, "synthetic": 0, "catch": 0}
    for shown, trial in zip(study["trials"], key["trials"], strict=True):
        pixels = np.frombuffer(base64.b64decode(shown["pixels"]), np.uint8).reshape(24, 24)
        seen[trial["truth"]] += trial["repeats"] is None
        if trial["truth"] != "catch":
            folder = sets[0] if trial["truth"] == "real" else sets[1]
            source = Image.open(folder / f"{trial['image']}.png")
            assert source.size == ((40, 48) if trial["truth"] == "real" else (32, 32))
            grey = np.asarray(source.convert("RGB" if source.mode == "RGB" else "I"), float)
            grey = grey[..., 0] if grey.ndim == 3 else grey / 257
            side = min(grey.shape)
            top = (grey.shape[0] - side) // 2
            small = Image.fromarray(grey[top : top + side].astype(np.float32))
            want = np.asarray(small.resize((24, 24), Image.Resampling.BICUBIC)).clip(0, 255)
            assert np.abs(pixels - want).mean() < 3  # PIL's bicubic has another constant
    assert seen == {"real": 30, "synthetic": 30, "catch": 4}


def test_the_page_says_nothing_of_where_images_come_from(
    made: Path, sets: tuple[Path, Path]
) -> None:
    """No name of a set or an image, no truth, one length of all images, no address to fetch."""
    page, key = (made / "study.html").read_text(), key_of(made)
    study = study_of(made / "study.html")
    assert study.keys() == {"study", "mode", "size", "trials"}
    assert all(trial.keys() == {"id", "pixels"} for trial in study["trials"])
    lengths = {tuple(map(len, trial.values())) for trial in study["trials"]}
    assert lengths == {(12, 24 * 24 * 4 // 3)}
    names = {trial["image"] for trial in key["trials"]} | {path.parent.name for path in sets}
    shown = page.replace(json.dumps(study), "")
    assert len(shown) < len(page)
    assert not [name for name in names if re.search(rf"\b{re.escape(name)}\b", shown)]
    assert not re.search(r"https?:|src=|@import|url\(|fetch\(|XMLHttp", shown)
    assert "default-src 'none'" in shown
    assert "not for a diagnosis" in shown
    assert "synthetic: made by a computer" in shown


def random_items(n: int, seed: int = 0) -> list[trials.Item]:
    """n real images and as many synthetic ones, of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (2 * n, 16, 16)).astype(np.uint8)
    return [
        trials.Item("real" if i < n else "synthetic", str(i), (one,))
        for i, one in enumerate(pixels)
    ]


def test_what_is_beside_the_pixels_does_not_tell() -> None:
    """A classifier of place, neighbours, names and lengths is at chance over 40 studies: a mean
    AUC that is not 0.05 above one half, 4 standard errors. If real images came first it would
    know them."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    from ldm.metrics.classification import auc

    def area(seed: int, sort: bool = False) -> float:
        _, made = trials.build("authenticity", random_items(30, seed), 10, seed, {})
        key = json.loads(made["key.json"])["trials"]
        study = study_of(made["study.html"])["trials"]
        first = [i for i, trial in enumerate(key) if not trial["repeats"]]
        labels = np.array([key[i]["truth"] == "synthetic" for i in first])
        labels = np.sort(labels) if sort else labels
        features = []
        for i in first:
            digits = [int(digit, 16) for digit in study[i]["id"]]
            length = len(study[i]["pixels"])
            features.append([i, i % 2, i % 3, length, len(digits), sum(digits), *digits[:4]])
        scaled = (features - np.mean(features, axis=0)) / (np.std(features, axis=0) + 1e-9)
        folds = StratifiedKFold(5, shuffle=True, random_state=0)  # in a row they are biased upward
        model, how = LogisticRegression(), "decision_function"
        return auc(cross_val_predict(model, scaled, labels, cv=folds, method=how), labels).value

    assert np.mean([area(seed) for seed in range(40)]) < 0.55
    assert area(0, sort=True) > 0.9


def test_order_and_names_cannot_be_drawn_again_without_the_key() -> None:
    """Another image changes order and names for the same seed; the same study stays the same."""
    items = random_items(20)
    first, again = (trials.build("authenticity", items, 5, 0, {}) for _ in range(2))
    assert first == again
    items[7].pixels[0][0, 0] ^= 1
    other = trials.build("authenticity", items, 5, 0, {})
    ids, others = (
        {trial["id"] for trial in study_of(files["study.html"])["trials"]}
        for _, files in (first, other)
    )
    assert not ids & others


@pytest.mark.parametrize("seed", range(20))
def test_repeats_come_half_the_study_later(seed: int) -> None:
    """Each repeat at least half of the first readings after its image; no catch is repeated."""
    catches = [False] * 40 + [True] * 4
    order = trials.arrange(catches, 10, seed)
    assert sorted(set(order)) == list(range(44))
    again = [i for i in set(order) if order.count(i) == 2]
    assert len(again) == 10
    assert not any(catches[i] for i in again)
    for i in again:
        first = order.index(i)
        second = order.index(i, first + 1)
        assert second - first >= 22
    assert order != trials.arrange(catches, 10, seed + 1)


def films(folder: Path, header: str, patients: list[str]) -> Path:
    """A CSV of the real images with what each row says of its patient."""
    rows = [f"real/patient-{i}.png{patient}" for i, patient in enumerate(patients)]
    (folder / "films.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder / "films.csv"


def test_one_image_of_a_patient(tmp_path: Path) -> None:
    """Of a CSV with two films of each patient one is shown."""
    _, synthetic = write_sets(tmp_path, 12)
    real = films(tmp_path, "filename,patient_id", [f",p{i // 2}" for i in range(12)])
    few = ("--n", 6, "--repeats", 0, "--catch", 0, "--out", tmp_path / "out")
    assert status("make", real, synthetic, *few) == 0
    shown = [t["image"] for t in key_of(tmp_path / "out")["trials"] if t["truth"] == "real"]
    assert {int(name.split("-")[1]) // 2 for name in shown} == set(range(6))
    assert "one of a patient at most" in (tmp_path / "out" / "made.html").read_text()


@pytest.mark.parametrize(("header", "cell"), [("filename", ""), ("filename,patient_id", ",")])
def test_unknown_patients_are_said_to_be(tmp_path: Path, header: str, cell: str) -> None:
    """No page claims one image of a patient, whether the column is absent or the cell is empty."""
    _, synthetic = write_sets(tmp_path, 12)
    few = ("--n", 12, "--repeats", 0, "--catch", 0, "--out", tmp_path / "out")
    assert status("make", films(tmp_path, header, [cell] * 12), synthetic, *few) == 0
    page = (tmp_path / "out" / "made.html").read_text()
    assert "Read from" in page
    assert "one of a patient at most" not in page
    assert "12 of 12 images do not say whose they are (column `patient_id`" in page


def test_real_images_pass_the_autoencoder_on_request(
    sets: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    """--same-path changes the real images alone, and the key says so."""
    few = ("--n", 5, "--repeats", 0, "--catch", 0, "--model", model)
    assert status("make", *sets, *few, "--out", tmp_path / "a") == 0
    assert status("make", *sets, *few, "--same-path", "--out", tmp_path / "b") == 0
    images = []
    for name in "ab":
        key, study = key_of(tmp_path / name), study_of(tmp_path / name / "study.html")
        shown = zip(key["trials"], study["trials"], strict=True)
        images.append({(t["truth"], t["image"]): each["pixels"] for t, each in shown})
        told = key["made"]["real through the autoencoder of"]
        assert told == (None if name == "a" else str(model))
    assert images[0].keys() == images[1].keys()
    for what in images[0]:
        assert (images[0][what] == images[1][what]) == (what[0] == "synthetic")


def test_cues_are_found_where_there_are_any() -> None:
    """Blur alone: sharpness tells the sets apart with an AUC of 0; the same set: nothing does."""
    random = np.random.default_rng(0)
    sharp = [random.integers(0, 256, (32, 32)).astype(np.uint8) for _ in range(30)]
    blurred = [((one.astype(int) + np.roll(one, 1, 0)) // 2).astype(np.uint8) for one in sharp]
    found = giveaways.measure(sharp, blurred)
    assert found["sharpness (mean Laplacian)"].value == 0
    same = giveaways.measure(sharp[::2], sharp[1::2])
    assert all(each.low <= 0.5 <= each.high for each in same.values())


def test_pairs_show_the_image_and_its_copy(
    sets: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    """Original and reconstruction of the same image; a catch has a spoiled copy."""
    from ldm.data.image_sets import open_set
    from ldm.report.roundtrip import open_copier

    out = tmp_path / "pairs"
    more = ("--n", 6, "--repeats", 2, "--catch", 2, "--model", model, "--out", out)
    assert status("make", "--pairs", sets[1], *more) == 0
    copier, asked = open_copier(model), open_set(str(sets[1]))
    study, key = study_of(out / "study.html"), key_of(out)
    truths = [trial["truth"] for trial in key["trials"]]
    assert sorted(truths) == ["catch"] * 2 + ["pair"] * 8
    place = truths.index("pair")
    index = [asked.sample_id(i) for i in range(len(asked))].index(key["trials"][place]["image"])
    original = copier.fit(asked.load(index))
    for image, name in ((original, "original"), (copier.means(original[None])[0], "copy")):
        shown = np.frombuffer(base64.b64decode(study["trials"][place][name]), np.uint8)
        assert (shown.reshape(copier.size, copier.size) == trials.as_pixels(image)).all()
    caught = study["trials"][truths.index("catch")]
    assert caught["original"] != caught["copy"]


TWO = ("real", "synthetic")
BAD = {
    "one set": (("real",), "make needs two sets, REAL and SYNTHETIC, or --pairs"),
    "no such set": (("real", "absent"), "absent does not exist"),
    "too few": ((*TWO, "--n", 41), "real holds 40 images, but --n needs 41"),
    "one of each": ((*TWO, "--n", 1), "a whole number of 2 or more"),
    "too many repeats": ((*TWO, "--n", 4, "--repeats", 9), "9 is too many; 12 trials can have 2"),
    "too large": ((*TWO, "--n", 30, "--size", 4000), "a page of 1579 MB, but at most 200 are"),
    "the same set twice": (("real", "real", "--n", 30), "are the same image"),
    "pairs and sets": (("real", "--pairs", "real"), "--pairs ORIGINAL takes no other set"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    sets: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: str,
) -> None:
    """Exit status 2, one line, no file."""
    monkeypatch.chdir(sets[0].parent)
    arguments, message = BAD[case]
    assert_refused(capsys, tmp_path / "out", ("make", *arguments), message)


def test_a_key_is_never_lost(
    made: Path, sets: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """A repeated command writes the same bytes; another study into that folder is refused."""
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    assert status("make", *sets, *COUNTS, "--out", made) == 0
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    capsys.readouterr()
    assert status("make", *sets, *COUNTS, "--seed", 1, "--out", made) == 2
    assert_one_line(capsys.readouterr().err, "key.json is the key of study", "name another --out")
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before


def test_pages_are_packed_with_the_code() -> None:
    """setup.cfg names every kind of file in the rooms of pages that is no Python."""
    config = ConfigParser()
    config.read(Path(__file__).parent.parent / "setup.cfg")
    for module in (page, offline_page, study_page):
        folder = Path(module.__file__).parent
        kinds = {path.suffix for path in folder.iterdir() if path.is_file()} - {".py"}
        packed = config["options.package_data"][module.__package__].split()
        assert {f"*{kind}" for kind in kinds} == set(packed)
