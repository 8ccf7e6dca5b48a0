"""Images -> features: the path is one, and says what it does; each extractor guards its range."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_inception import picture, weights

from ldm.config import ConfigError
from ldm.data import image_sets
from ldm.data.data_config import DataConfig
from ldm.data.radiographs import Files
from ldm.judging import extractors, inception
from ldm.judging.extractors import Extractor, open_extractor
from ldm.judging.inception import Inception
from ldm.judging.judge import load_judge
from ldm.pictures import image_files

WEIGHTS = Path(__file__).parent.parent / "weights"


def plain(**changes: object) -> Extractor:
    """Hands back what the network is shown."""
    settings = {"size": 8, "channels": 1, "resize": "bilinear"} | changes
    return Extractor("plain", lambda x: x.flatten(1), **settings)  # type: ignore[arg-type]


def test_every_image_is_brought_to_the_extractors_size_channels_and_range() -> None:
    """Grey of any size becomes RGB of 8 px on [-1024, 1024]; black and white stay the ends."""
    extractor = plain(channels=3, low=-1024, high=1024)
    found = extractor([torch.full((1, 20, 30), -1.0), torch.full((1, 8, 8), 1.0)])
    assert found.shape == (2, 3 * 64)
    assert set(found[0]) == {-1024.0}
    assert set(found[1]) == {1024.0}


def test_an_image_that_is_no_square_is_cropped_or_stretched_as_stated() -> None:
    """The middle of a wide image is all that a cropping extractor sees, and it says so."""
    wide = torch.full((1, 8, 24), -1.0)
    wide[..., 8:16] = 1.0
    assert set(plain()([wide])[0]) == {1.0}
    assert plain(crop=False)([wide]).mean() < 0
    assert "central square" in str(plain())
    assert "stretched" in str(plain(crop=False))


def test_antialiasing_is_what_the_extractor_says() -> None:
    """One white line in sixteen is lost or kept by points, and averaged when antialiased."""
    lines = torch.full((1, 64, 64), -1.0)
    lines[:, ::16] = 1.0
    aliased, smooth = (plain(resize=r)([lines]) for r in ("bilinear", "bilinear, antialiased"))
    assert smooth.std() < 0.3 * lines.std().item()
    assert aliased.mean() != pytest.approx(lines.mean().item(), abs=0.05)
    assert smooth.mean() == pytest.approx(lines.mean().item(), abs=0.05)


@pytest.mark.parametrize("bad", [torch.full((1, 8, 8), 255.0), torch.full((1, 8, 8), torch.nan)])
def test_another_range_is_refused(bad: torch.Tensor) -> None:
    """Grey levels of 0 to 255, or NaN, name the extractor and what came."""
    with pytest.raises(ValueError, match=r"plain wants images in \[-1, 1\], got one in"):
        plain()([bad])


def test_the_judge_gives_its_features_and_its_verdicts() -> None:
    """Features and scores of the extractor are those of the network itself."""
    shown = [image for _, image in image_sets.load_each(image_sets.open_set("phantoms:4"))]
    extractor, judge = open_extractor("judge", WEIGHTS), load_judge(WEIGHTS / "judge.safetensors")
    found = extractor(shown)
    with torch.inference_mode():
        want = judge(torch.stack(shown)).numpy()
    np.testing.assert_allclose(extractor.scores(found), want, atol=1e-5)
    assert extractor.findings == judge.config.findings


def test_inception_is_opened_strictly(tmp_path: Path) -> None:
    """The published file's names open, without its counters too; one name less does not."""
    with torch.device("meta"):
        network = Inception()
    state = {n: t for n, t in weights(network).items() if "num_batches" not in n}
    file = tmp_path / extractors.INCEPTION
    torch.save(state, file)
    shown = picture("image0", 128, 128)
    extractor = open_extractor("inception", tmp_path)
    network.load_state_dict(weights(network), assign=True)
    with torch.inference_mode():
        want = network.eval()(inception.prepare(shown[None])).numpy()
    np.testing.assert_allclose(extractor([shown]), want, atol=1e-5)
    del state["fc.bias"]
    save_file({**state, "other": torch.zeros(1)}, tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").rename(file)
    with pytest.raises(ValueError, match=r"lacks fc\.bias and has other beyond it; fetch it from"):
        open_extractor("inception", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("inception", "fetch it from https://github.com/mseitzer"),
        ("densenet121-res224-moon", "known: densenet121-res224-all"),
        ("clip:ViT-B-32/moon", "open_clip knows no ViT-B-32/moon"),
        ("moon", "known: judge, inception"),
    ],
)
def test_what_is_missing_says_where_it_comes_from(tmp_path: Path, name: str, message: str) -> None:
    """An extractor without weights, or none at all, is one line that says what to do."""
    with pytest.raises(ValueError, match=message) as caught:
        open_extractor(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_densenet_of_torchxrayvision_sees_its_own_range(tmp_path: Path) -> None:
    """Random weights in its file: our path gives what its own forward pass gives."""
    import torchxrayvision

    name = "densenet121-res224-nih"
    url = torchxrayvision.models.model_urls[name]["weights_url"]
    torch.manual_seed(0)
    classes = len(torchxrayvision.models.model_urls[name]["labels"])
    network = torchxrayvision.models.DenseNet(num_classes=classes).eval()
    torch.save(network, tmp_path / url.rpartition("/")[2])
    extractor = open_extractor(name, tmp_path)
    assert "pleural effusion" in extractor.findings
    shown = torch.rand(1, 224, 224) * 2 - 1
    found = extractor.scores(extractor([shown]))
    theirs = torchxrayvision.models.DenseNet(weights=name, cache_dir=str(tmp_path))
    with torch.inference_mode():
        want = theirs(shown[None] * 1024).numpy()
    known = np.array([label != "" for label in theirs.targets])
    np.testing.assert_allclose(found[:, known], want[:, known], atol=1e-5)


def test_a_clip_tower_gives_unit_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights of ViT-B-32: normalised on [0, 1] by the model's own mean and deviation."""
    import open_clip

    made = open_clip.create_model("ViT-B-32", pretrained=None).eval()
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: made)
    extractor = open_extractor("clip:ViT-B-32/openai")
    shown = torch.rand(1, 100, 80) * 2 - 1
    found = extractor([shown])
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
    x = image_files.to_channels(extractor.prepare(shown), 3)
    assert x.shape == (3, 224, 224)
    assert x.min() >= 0


def test_a_set_reads_any_file_as_it_is(tmp_path: Path) -> None:
    """16-bit, palette and CMYK files and other sizes are read; sheets of ours are left out."""
    grey = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(grey).save(tmp_path / "a16.png")
    colours = Image.fromarray(np.zeros((9, 7, 3), np.uint8))
    colours.convert("P").save(tmp_path / "palette.png")
    colours.convert("CMYK").save(tmp_path / "print.jpg")
    image_files.save(torch.zeros(1, 8, 8), tmp_path / "grid.png", {})
    asked = image_sets.open_set(str(tmp_path))
    shapes = {asked.sample_id(i): tuple(x.shape) for i, x in image_sets.load_each(asked)}
    assert shapes == {"a16": (1, 8, 8), "palette": (3, 9, 7), "print": (3, 9, 7)}


def test_a_bad_file_is_named_and_skipped_only_when_asked(tmp_path: Path, caplog) -> None:
    """A truncated file stops everything, or is left out with its id, and no path, in the log."""
    image_files.save(torch.zeros(1, 8, 8), tmp_path / "good.png", {})
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    asked = image_sets.open_set(str(tmp_path))
    with pytest.raises(ValueError, match=r"bad\.png.*--skip-bad"):
        list(image_sets.load_each(asked))
    assert [i for i, _ in image_sets.load_each(asked, skip_bad=True)] == [1]
    assert caplog.messages == ["left out, for it cannot be read: bad"]


@pytest.mark.parametrize("source", ["phantoms:", "phantoms:0", "phantoms:3:-1", "phantoms:a"])
def test_phantoms_want_numbers(source: str) -> None:
    """Anything but phantoms:N and phantoms:N:FIRST_SEED says what is wanted."""
    with pytest.raises(ValueError, match="phantoms:N"):
        image_sets.open_set(source)


def test_phantoms_know_their_truth() -> None:
    """The set of given seeds has the images and findings that training would see."""
    asked = image_sets.open_set("phantoms:12:5")
    assert [asked.sample_id(0), asked.sample_id(11)] == ["phantom-5", "phantom-16"]
    truths = [asked.findings(i)["pleural effusion"] for i in range(len(asked))]
    assert 0 < sum(truths) < 12
    assert asked.load(0).shape == (1, 128, 128)


def test_images_of_one_name_have_ids_of_their_own(tmp_path: Path) -> None:
    """Where files of several folders, or of several kinds, have one name, their paths tell them
    apart; other ids stay as they are, in a folder, in a CSV and in training.
    """
    names = ["p1/s1/front.png", "p1/s2/front.png", "p1/s2/side.png", "x.bmp", "x.png"]
    for name in names:
        (tmp_path / "films" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / "films" / name)
    wanted = ["p1/s1/front.png", "p1/s2/front.png", "side", "x.bmp", "x.png"]
    table = tmp_path / "films" / "all.csv"
    table.write_text("\n".join(["filename", *names, names[2]]))  # one of them twice
    for source, more in ((tmp_path / "films", []), (table, ["side"])):
        data = DataConfig(path=str(source), size=8, cache=str(tmp_path / "cache"))
        for asked in (image_sets.open_set(str(source)), Files(data, 1)):
            assert [asked.sample_id(i) for i in range(len(asked))] == wanted + more


def test_a_split_that_is_named_is_there(tmp_path: Path) -> None:
    """CSV@SPLIT has the rows of that split alone; without any, or without the column, none has."""
    for name in "abc":
        image_files.save(torch.zeros(1, 8, 8), tmp_path / f"{name}.png", {})
    table = tmp_path / "x.csv"
    table.write_text("filename,split\na.png,train\nb.png,val\nc.png,\n")
    asked = image_sets.open_set(f"{table}@val")
    assert [asked.sample_id(i) for i in range(len(asked))] == ["b"]
    assert len(image_sets.open_set(str(table))) == 3
    with pytest.raises(ConfigError, match=r"x\.csv has no row of split 'vall'"):
        image_sets.open_set(f"{table}@vall")
    table.write_text("filename\na.png\nb.png\n")
    with pytest.raises(ConfigError, match=r"x\.csv has no column `split`"):
        image_sets.open_set(f"{table}@val")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    """No image, no set."""
    with pytest.raises(ValueError, match="holds no images"):
        image_sets.open_set(str(tmp_path))
