"""Images -> features: the path is one, and says what it does; each extractor guards its range."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_inception import features, picture, weights

from ldm.data import image_sets
from ldm.judging import extractors
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
    with pytest.raises(ValueError, match=r"plain expects images in \[-1, 1\], got one in"):
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
    whole = weights(network)
    state = {n: t for n, t in whole.items() if "num_batches" not in n}
    file = tmp_path / extractors.INCEPTION
    torch.save(state, file)
    shown = picture("image0", 128, 128)
    extractor = open_extractor("inception", tmp_path)
    network.load_state_dict(whole, assign=True)
    want = features(network.eval(), shown).numpy()
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
    """Random weights: normalised on [0, 1] by the model's own mean and deviation."""
    import open_clip

    made = open_clip.create_model("ViT-S-32-alt", pretrained=None).eval()
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: made)
    extractor = open_extractor("clip:ViT-B-32/openai")
    shown = torch.rand(1, 100, 80) * 2 - 1
    found = extractor([shown])
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
    x = image_files.to_channels(extractor.prepare(shown), 3)
    assert x.shape == (3, 224, 224)
    assert x.min() >= 0
