"""evaluate.py images: known sets give known figures, and what cannot be measured is refused."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation import assert_refused, measure, write_images
from torch import Tensor

from ldm.data.image_sets import open_set
from ldm.judging.extractors import Extractor
from ldm.metrics import fid
from ldm.pictures import image_files
from ldm.report import set_distances
from ldm.report.images import table
from ldm.report.set_distances import Seen


class Drawn:
    """A set of given images."""

    def __init__(self, name: str, pictures: Tensor, told: Sequence[dict[str, str]] = ()) -> None:
        self.name, self.pictures, self.told = name, pictures, told

    def __len__(self) -> int:
        return len(self.pictures)

    def load(self, index: int) -> Tensor:
        return self.pictures[index]

    def sample_id(self, index: int) -> str:
        return str(index)

    def findings(self, index: int) -> dict[str, bool]:
        return {}

    def attributes(self, index: int) -> dict[str, str]:
        return self.told[index] if self.told else {}

    def text(self, index: int) -> dict[str, str]:
        return {}


def noise(count: int, seed: int, level: float = 0.0, size: int = 3) -> Tensor:
    drawn = torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(seed))
    return (drawn * 0.5 + level).clamp(-1, 1)


PIXELS = Extractor("pixels", lambda x: x.flatten(1), 3, channels=1, resize="bilinear")


def test_figures_are_those_of_the_features() -> None:
    """Read in batches and halves, a set gives what the whole feature arrays give."""
    a, b = noise(101, 0), noise(80, 1, 0.1)
    real, fake = (Seen(Drawn(n, x), [PIXELS]).views["pixels"] for n, x in (("a", a), ("b", b)))
    found = set_distances.distances(real, fake, few=False)
    x, y = (z.flatten(1).double().numpy() for z in (a, b))
    assert found["Fréchet distance"].value == pytest.approx(fid.frechet(x, y), rel=1e-6)
    assert found["KID"].value == pytest.approx(fid.kid(x, y), rel=1e-6)
    assert found["precision"].value == fid.neighbourhoods(x, y).precision
    even, odd = real.halves()
    floor = set_distances.distances(even, odd, few=False)
    assert floor["Fréchet distance"].value == pytest.approx(fid.frechet(x[::2], x[1::2]), rel=1e-6)
    assert even.n == 51


def test_the_floor_is_below_another_set() -> None:
    """Brighter images are farther from the real ones than real ones are among themselves."""
    real, fake = (
        Seen(Drawn("", x), [PIXELS]).views["pixels"] for x in (noise(400, 0), noise(400, 1, 0.3))
    )
    found, floor = (
        set_distances.distances(real, fake, False),
        set_distances.distances(*real.halves(), False),
    )
    for name in ("Fréchet distance", "KID", "CMMD"):
        assert found[name].low > floor[name].high, name


def test_pixels_decide_what_two_sets_share() -> None:
    """Three images taken over are counted; the same images in another order are refused."""
    a, b = noise(20, 0), noise(20, 1)
    b[5:8] = a[:3]
    real, fake, turned = (Seen(Drawn(n, x), []) for n, x in (("a", a), ("b", b), ("c", a.flip(0))))
    assert set_distances.shared(real, fake) == 3
    with pytest.raises(ValueError, match="a and c hold the same images"):
        set_distances.shared(real, turned)


def test_large_sets_are_measured_by_images_from_all_of_them(monkeypatch) -> None:
    """Of images in the order of their prompts, KID and MS-SSIM see both kinds, and say how many."""
    monkeypatch.setattr(set_distances, "KEPT", 100)
    monkeypatch.setattr(set_distances, "PAIRS", 10)
    a, b = (torch.cat([noise(200, seed, -0.5), noise(200, seed + 1)]) for seed in (0, 2))
    seen = [Seen(Drawn(n, x), [PIXELS]) for n, x in (("a", a), ("b", b))]
    real, fake = (one.views["pixels"] for one in seen)
    for view in (real, fake):
        assert len(view.features) == 100
        assert 0.3 < (view.features.mean(axis=1) > 0).mean() < 0.7
    assert 0.2 < np.mean([one.mean() > 0.5 for one in seen[0].small]) < 0.8
    halves = real.halves()
    found, floor = (set_distances.distances(*pair, False) for pair in ((real, fake), halves))
    rows = {row[0]: row[2::2] for row in table(PIXELS, (real, fake), found, halves, floor).rows}
    assert rows["Fréchet distance"] == ("400 against 400", "200 against 200")
    assert rows["KID"] == rows["coverage"] == ("100 against 100", "50 against 50")


def test_diversity_tells_copies_from_different_images() -> None:
    """MS-SSIM is 1 for a set of one image repeated, and less for varied ones."""
    varied = Seen(Drawn("", noise(12, 0, -0.3, size=64)), [])
    same = Seen(Drawn("", noise(1, 0, size=64).repeat(12, 1, 1, 1)), [])
    assert set_distances.diversity(same).value == pytest.approx(1)
    assert set_distances.diversity(varied).value < 0.5
    assert set_distances.diversity(varied).n == 6


def test_groups_are_compared_with_their_own_kind() -> None:
    """Women are near the women of the other set and far from its men; a few images say so."""
    told = [{"sex": "F" if i < 40 else "M"} for i in range(52)]
    pictures = torch.cat([noise(40, 0), noise(12, 1, 0.4)])
    real = Seen(Drawn("real", pictures, told), [PIXELS])
    same = torch.cat([noise(40, 2), noise(12, 3, 0.4)])
    found = set_distances.by_group(real, Seen(Drawn("fake", same, told), [PIXELS]), "pixels")
    assert [(k, v["n, real"], v["n, fake"], v[""]) for k, v in found.items()] == [
        ("sex: F", 40, 40, ""),
        ("sex: M", 12, 12, "n < 30"),
    ]
    # a set that tells no sex is compared as a whole, and lies off both
    whole = set_distances.by_group(real, Seen(Drawn("fake", same), [PIXELS]), "pixels")
    assert [v["n, fake"] for v in whole.values()] == [52, 52]
    assert all(whole[k]["KID"].value > found[k]["KID"].value for k in found)
    # if it tells some, those of which it tells nothing count for neither
    some = Seen(Drawn("some", same, [*told[:30], *[{}] * 22]), [PIXELS])
    counts = [v["n, fake"] for v in set_distances.by_group(real, some, "pixels").values()]
    assert counts == [30, 0]
    few = Seen(Drawn("few", same[:52], [{"sex": "F"}] * 50 + [{"sex": "M"}] * 2), [PIXELS])
    assert set_distances.by_group(real, few, "pixels")["sex: M"]["KID"] == "too few images"


def test_a_drawn_image_is_of_what_its_prompt_says(tmp_path: Path) -> None:
    """Not of a chest, as a film in a folder is whose table says nothing."""
    image_files.save(noise(1, 0)[0], tmp_path / "0.png", {"prompt": "xray of a hand"})
    image_files.save(noise(1, 0)[0], tmp_path / "1.png", {})
    one, other = (set_distances.attributes_of(open_set(str(tmp_path)), i) for i in (0, 1))
    assert (one["region"], other["region"]) == ("hand", "chest")


def test_the_command_prints_one_object_and_writes_the_page(tmp_path: Path, capsys) -> None:
    """--json gives every figure with its interval and n; the page stands alone.

    A file that cannot be read is left out with --skip-bad, and n says so.
    """
    real = write_images(tmp_path / "real", noise(24, 0, size=16))
    fake = write_images(tmp_path / "fake", noise(21, 1, -0.2, size=20))
    (fake / "3.png").write_bytes(b"no image")
    out = tmp_path / "out"
    values = measure(capsys, "images", real, fake, "--few", "--skip-bad", "--out", out)
    found = values["extractors"]["judge"]["fake to real"]
    assert found["Fréchet distance (fewer images than features)"]["low"] > 0
    assert found["KID"]["n"] == 24
    assert values["fake"]["n"] == 20
    page = (out / "images.html").read_text()
    assert "judge (central square, 128 px, bicubic, antialiased, [-1, 1])" in page
    assert "http" not in page
    assert json.loads((out / "images.json").read_text())["MS-SSIM"]["fake"]["n"] == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["real", "fake"], "too few for a Fréchet distance of the 196 features"),
        (["real", "real", "--few"], "hold the same images"),
        (["real", "nothing", "--few"], "does not exist"),
        (["real", "one", "--few"], "1 usable images"),
        (["real", "bad", "--few"], "cannot read the image"),
    ],
)
def test_bad_sets_are_one_line(tmp_path: Path, capsys, monkeypatch, arguments, message) -> None:
    """Exit status 2, the reason, and nothing written."""
    monkeypatch.chdir(tmp_path)
    for seed, (name, count) in enumerate({"real": 12, "fake": 12, "one": 1, "bad": 12}.items()):
        write_images(tmp_path / name, noise(count, seed, size=16))
    (tmp_path / "bad" / "3.png").write_bytes(b"no image")
    weights = Path(__file__).parent.parent / "weights"
    options = ("--weights", weights, "--out", "out")
    assert_refused(capsys, tmp_path, message, "images", *arguments, *options)


def test_numbers_that_are_not_finite_are_refused() -> None:
    """An extractor that gives NaN stops the measurement."""
    broken = Extractor("broken", lambda x: x.flatten(1) * np.nan, 3, channels=1, resize="bilinear")
    with pytest.raises(ValueError, match="not finite"):
        Seen(Drawn("", noise(12, 0)), [broken])
