"""evaluate.py memorization: planted copies are found, new images are not called copies."""

from pathlib import Path

import pytest
import torch
from evaluation import assert_refused, measure, write_images
from torch import Tensor

from ldm.data.image_sets import open_set
from ldm.judging.extractors import open_extractor
from ldm.pictures import image_files
from ldm.report import copy_search
from ldm.report.copy_search import Finder, Square, TrainedImages, with_versions
from train import main as train

WEIGHTS = Path(__file__).parent.parent / "weights"


@pytest.fixture(scope="module")
def finder() -> Finder:
    return Finder.open(str(WEIGHTS), open_extractor("judge", WEIGHTS))


def numbered(pictures: Tensor) -> Square:
    return Square(pictures, [str(i) for i in range(len(pictures))])


def test_planted_duplicates_are_found_at_one_percent_false_alarms(finder, monkeypatch) -> None:
    """Of training images drawn through the autoencoder 99 % are found; new ones are not copies.

    In pixels and in latents; features of a network that looks for findings know less of it.
    """
    monkeypatch.setattr(copy_search, "VERSIONS", 60)
    sources = ("phantoms:30:100", "phantoms:30:500", "phantoms:60:900")
    train, new, held_out = (finder.read(open_set(source)) for source in sources)
    samples = torch.cat([finder.through(train.pictures[:20]), new.pictures])
    _, spaces = finder.find(numbered(samples), train, held_out)
    for space in spaces[:2]:
        assert space.planted.value >= 0.99
        found = space.audit.samples
        assert found.which[:20].tolist() == list(range(20)), space.name
        assert (found.distance[:20] < space.audit.threshold).all(), space.name
        assert (found.distance[20:] < space.audit.threshold).mean() < 0.1, space.name
        assert space.false_alarms.low < 0.05, space.name


def test_a_copy_of_a_changed_version_is_a_copy() -> None:
    """What a model saw shifted and zoomed is among the versions that samples are compared with."""
    few = numbered(torch.rand(3, 1, 32, 32) * 2 - 1)
    versions = with_versions(few)
    assert len(versions.pictures) == 3 * 65
    assert torch.equal(versions.pictures[:3], few.pictures)
    assert versions.ids[3:6] == ["0", "1", "2"]
    nearest = (versions.pictures[3:] - few.pictures.repeat(64, 1, 1, 1)).flatten(1).norm(dim=1)
    assert nearest.min() > 0
    many = numbered(torch.zeros(copy_search.VERSIONS, 1, 2, 2))
    assert len(with_versions(many).pictures) == copy_search.VERSIONS


def test_a_run_knows_what_it_was_trained_on(tmp_path: Path, monkeypatch, capsys) -> None:
    """Images that sample.py drew with a run lead to the very images that its config picks."""
    monkeypatch.chdir(tmp_path)
    run = Path("runs/few")
    root = Path(__file__).parent.parent
    settings = [f"model.path={WEIGHTS}", "data.phantoms=40", "train.steps=1", "method.variants=1"]
    settings += [f"train.out={run}", "train.sample_every=0"]
    assert train([str(root / "configs/unet_no_findings.yaml"), *settings]) == 0
    capsys.readouterr()
    folder = tmp_path / "drawn"
    folder.mkdir()
    text = {"model": "few", "weights": copy_search.hash_of(run)}
    image_files.save(torch.zeros(1, 128, 128), folder / "00000.png", text)
    taught = copy_search.trained_on(open_set(str(folder)))
    assert isinstance(taught, TrainedImages)
    assert len(taught) == 5
    assert not any(any(taught.findings(i).values()) for i in range(5))
    seed = int(taught.sample_id(0).removeprefix("phantom-"))
    assert torch.allclose(taught.load(0), open_set(f"phantoms:1:{seed}").load(0), atol=1 / 255)
    assert copy_search.open_held_out(None, taught).name.startswith("phantoms:300:")
    (folder / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"cannot read the image .*1\.png.*; --skip-bad goes on"):
        copy_search.trained_on(open_set(str(folder)))
    assert copy_search.trained_on(open_set(str(folder)), skip_bad=True) is not None
    (folder / "00000.png").rename(tmp_path / "00000.png")  # none is left that can be read
    assert copy_search.trained_on(open_set(str(folder)), skip_bad=True) is None
    words = "is not known; name it with --train"
    assert_refused(capsys, tmp_path, words, "memorization", folder, "--skip-bad", "--out", "none")
    (folder / "1.png").unlink()
    # a report on something else audits it unasked
    monkeypatch.setattr(copy_search, "VERSIONS", 10)
    monkeypatch.setattr(copy_search, "PHANTOMS", 20)
    for i in range(12):
        image_files.save(torch.full((1, 128, 128), i / 12), folder / f"{i:05d}.png", text)
    options = ("--few", "--weights", WEIGHTS, "--out", "out")
    audited = measure(capsys, "images", "phantoms:12", folder, *options)["memorization"]
    assert audited["train"] == {"set": str(run), "n": 5, "with versions": 10}
    assert (tmp_path / "out" / "pairs_pixels.png").exists()
    image_files.save(torch.zeros(1, 128, 128), folder / "00000.png", {**text, "weights": "other"})
    assert copy_search.trained_on(open_set(str(folder))) is None


def test_the_command_names_the_copies(tmp_path: Path, capsys, monkeypatch) -> None:
    """A folder with two training images in it: the CSV says which, the page shows them."""
    monkeypatch.setattr(copy_search, "VERSIONS", 20)
    train_set, out = "phantoms:10:100", tmp_path / "out"
    some = [open_set(source).load(i) for source in (train_set, "phantoms:3:500") for i in (0, 1)]
    fake = write_images(tmp_path / "fake", torch.stack(some))
    sets = (fake, "--train", train_set, "--held-out", "phantoms:20:900")
    options = ("--weights", WEIGHTS, "--model", WEIGHTS, "--out", out)
    values = measure(capsys, "memorization", *sets, *options)
    assert values["spaces"]["pixels"]["copies"]["value"] == 0.5
    assert values["spaces"]["pixels"]["copies"]["n"] == 4
    rows = [row.split(",") for row in (out / "memorization.csv").read_text().splitlines()]
    named = [(row[0], row[2], row[5]) for row in rows if row[1] == "pixels"]
    assert named[:2] == [("0", "phantom-100", "1"), ("1", "phantom-101", "1")]
    assert [copy for _, _, copy in named[2:]] == ["0", "0"]
    assert "patients" in (out / "memorization.html").read_text()
    assert (out / "pairs_pixels.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name it with --train"),
        (["--train", "nowhere"], "does not exist"),
        (["--train", "fake"], "name images like it that were not trained on with --held-out"),
        (["--train", "fake.csv"], "no row whose column `split` is 'val'"),
        (["--train", "phantoms:4", "--model", "fake"], "no folder of weights"),
        (["--train", "phantoms:30:7", "--held-out", "phantoms:30:30"], "7 of 30 held-out images"),
        (["--train", "phantoms:4:7", "--held-out", "phantoms:1:30"], "1 held-out images are too"),
    ],
)
def test_what_is_not_known_is_asked_for(tmp_path: Path, capsys, monkeypatch, arguments, message):
    """Exit status 2, one line, nothing written."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "fake", torch.zeros(2, 1, 128, 128))
    (tmp_path / "fake.csv").write_text("filename\nfake/0.png\nfake/1.png\n")
    given = ("--model", WEIGHTS, "--weights", WEIGHTS, "--out", "out")
    assert_refused(capsys, tmp_path, message, "memorization", "fake", *given, *arguments)
