"""evaluate.py reconstruction: known autoencoders give known figures; what cannot be is refused."""

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from evaluation import assert_refused, measure, write_images
from test_images import Drawn, noise
from torch import Tensor

from ldm.data.phantom import Probe, sample_phantoms
from ldm.judging.extractors import Extractor
from ldm.metrics.estimate import as_json
from ldm.report import plots, probe_survival, reconstruction_verdicts, roundtrip
from ldm.report.roundtrip import HOW, ORIGINAL, Copier
from ldm.vae import Posterior


class Same:
    """An autoencoder that keeps everything, but for a blur, an offset and a posterior's width."""

    def __init__(self, std: float = 0.0, offset: float = 0.0, blur: int = 1) -> None:
        self.std, self.offset, self.blur = std, offset, blur

    def encode(self, images: Tensor) -> Posterior:
        return Posterior(images, torch.full_like(images, self.std).log() * 2)

    def decode(self, z: Tensor) -> Tensor:
        return F.avg_pool2d(z, self.blur, 1, self.blur // 2) + self.offset


MEANS = Extractor(  # sees the mean of each quarter; says yes to a bright left upper one
    "quarters",
    lambda x: F.avg_pool2d(x, x.shape[-1] // 2).flatten(1),
    32,
    channels=1,
    resize="bilinear",
    head=lambda x: x[:, :2],
    findings=("brightness", ""),
)


def pictures(count: int, level: float = 0.0) -> Tensor:
    return noise(count, 0, level, size=32) - 0.5


def test_a_perfect_autoencoder_keeps_everything() -> None:
    """RMSE 0, PSNR infinite, SSIM 1, embeddings alike, no AUC lost, every verdict the same."""
    asked = Drawn("drawn", pictures(24))
    asked.findings = lambda index: {"brightness": index % 2 == 0}  # type: ignore[method-assign]
    found = roundtrip.measure(asked, Copier(Same(), 1, 32), [MEANS])
    said = reconstruction_verdicts.measure(MEANS, found.features["quarters"], found.labels)
    for how in HOW:
        assert not found.figures[how]["RMSE"].any()
        assert np.isposinf(found.figures[how]["PSNR"]).all()
        assert found.figures[how]["SSIM"] == pytest.approx(1)
        assert found.similarity("quarters", how) == pytest.approx(1)
        assert said.found["brightness"].difference[how][:3] == (0, 0, 0)
        assert said.agreement["brightness"][how].value == 1
    assert roundtrip.summaries(found.figures["mean"])["PSNR"]["value"] == np.inf


def test_a_known_error_has_its_known_figures() -> None:
    """An offset of 0.1 is an RMSE of 102.4 of 2048 and a PSNR of 20 log10(2 / 0.1)."""
    found = roundtrip.measure(Drawn("", pictures(4)), Copier(Same(offset=0.1), 1, 32), [])
    assert found.figures["mean"]["RMSE"] == pytest.approx(102.4, rel=1e-5)
    assert found.figures["mean"]["PSNR"] == pytest.approx(20 * math.log10(20), rel=1e-5)


def test_a_sample_has_the_posteriors_noise_and_the_mean_has_none() -> None:
    """With a posterior of deviation 0.05 the sample's RMSE is 51.2, and the mean is exact."""
    found = roundtrip.measure(Drawn("", pictures(16)), Copier(Same(std=0.05), 1, 32), [])
    assert found.figures["sample"]["RMSE"].mean() == pytest.approx(51.2, rel=0.02)
    assert not found.figures["mean"]["RMSE"].any()


def test_a_reconstruction_does_not_depend_on_its_batch() -> None:
    """Image 5 has the same noise alone and among others; another seed, or index, has other."""
    shown = torch.stack([torch.zeros(1, 32, 32)] * 6)
    copier, other = Copier(Same(std=0.1), 1, 32), Copier(Same(std=0.1), 1, 32, seed=1)
    together = copier(shown, range(6))["sample"]
    assert torch.equal(copier(shown[5:], [5])["sample"][0], together[5])
    assert not torch.equal(together[4], together[5])
    assert not torch.equal(other(shown, range(6))["sample"], together)


def test_colour_and_sizes_are_brought_to_the_autoencoders() -> None:
    """An RGB autoencoder gets grey three times; an image is its central square, and grey again."""

    class Rgb(Same):
        def encode(self, images: Tensor) -> Posterior:
            assert images.shape == (1, 3, 32, 32)
            assert torch.equal(images[:, 0], images[:, 2])
            return super().encode(images)

    copier = Copier(Rgb(), 3, 32)
    wide = torch.rand(3, 40, 100) * 2 - 1
    original = copier.fit(wide)
    assert torch.equal(original, copier.fit(wide[:, :, 30:70]))
    assert copier(original[None], [0])["mean"] == pytest.approx(original[None], abs=1e-6)


def test_what_is_not_finite_is_refused() -> None:
    """A decoder of broken weights stops the measurement."""
    with pytest.raises(FloatingPointError, match="not finite"):
        Copier(Same(offset=math.nan), 1, 32)(torch.zeros(1, 1, 32, 32), [0])


def test_verdicts_leave_out_what_too_few_labels_know() -> None:
    """Images without labels count for agreement alone; four of a class are too few for an AUC."""
    scores = np.linspace(-1, 1, 40)[:, None] * [1, 1, 1, 1]
    shown = {ORIGINAL: scores, "sample": -scores, "mean": scores + 0.5}
    labels: list[dict[str, bool]] = [{"brightness": i >= 20} for i in range(30)] + [{}] * 10
    said = reconstruction_verdicts.measure(MEANS, shown, labels)
    found = said.found["brightness"]
    assert found.positive == 10
    assert found.auc[ORIGINAL] == (1, 1, 1, 30)
    assert found.auc["sample"].value == 0
    assert found.difference["sample"].value == -1
    assert found.difference["mean"].value == 0
    assert said.agreement["brightness"]["sample"].value == 0
    assert said.agreement["brightness"]["mean"][::3] == (0.75, 40)  # ten of forty rise above 0
    assert said.called == {"brightness": 20}
    few = reconstruction_verdicts.measure(MEANS, shown, [{"brightness": i < 4} for i in range(40)])
    assert few.left_out == {"brightness": "4 with it, 36 without"}
    none = reconstruction_verdicts.measure(MEANS, shown, [{}] * 40)
    assert none.left_out == {"brightness": "no label"}
    assert none.agreement == said.agreement


def test_kept_is_the_factor_that_fits_best() -> None:
    """Half the contrast is 0.5, whatever is added across it; nothing to keep is an error."""
    added, across = torch.tensor([1.0, 1.0, 2.0]), torch.tensor([1.0, -1.0, 0.0])
    assert probe_survival.kept(added, 0.5 * added) == pytest.approx((0.5, 1))
    factor, alike = probe_survival.kept(added, 0.5 * added + across)
    assert factor == pytest.approx(0.5)
    assert alike == pytest.approx(0.5 * 6 / math.sqrt(6 * (0.25 * 6 + 2)))
    with pytest.raises(ValueError, match="larger --size"):
        probe_survival.kept(0 * added, added)


@pytest.mark.parametrize(
    ("halves", "value", "low", "high"),
    [
        ((0, 40, 40), 2, 2, 2),
        ((40, 40, 40), 1, 1, 1),
        ((0, 0, 0), math.inf, math.inf, math.inf),
        ((40, 0, 40), 3, 3, 3),  # one that survives by chance below one that does not
        ((0, 22, 40), 2, 2, 3),  # 22 of 40: from 0.398 to 0.693
        ((0, 18, 40), 3, 2, 3),
    ],
)
def test_the_smallest_size_is_where_half_survives(halves, value, low, high) -> None:
    """From there on every larger size does; the interval is where those of the shares allow it."""
    rows = np.array([[0.6] * count + [0.4] * (40 - count) for count in halves])
    series = probe_survival.Series("nodule", (1, 2, 3), {"kept": rows}, torch.empty(0))
    assert probe_survival.smallest(series) == (value, low, high)


def test_a_perfect_autoencoder_keeps_every_probe() -> None:
    """All of the contrast is kept, and every letter is read, down to the smallest."""
    (phantom,) = sample_phantoms([3], findings=[])
    copier = Copier(Same(), 1, 64)
    for name in ("nodule", "wire", "L", "P"):
        found, crops = probe_survival.in_one(copier, phantom, [Probe(name, 0.3), Probe(name, 2.0)])
        for one in found:
            assert (one.kept, one.alike) == pytest.approx((1, 1))
            assert one.read == 1 or (math.isnan(one.read) and name in ("nodule", "wire"))
        assert found[1].contrast > 3
        assert torch.equal(crops[:, 0], crops[:, 1])


@pytest.mark.parametrize("name", ["nodule", "wire", "R"])
def test_a_blur_loses_the_small_first(name: str) -> None:
    """The larger a probe, the more of it a blurring autoencoder keeps."""
    blurred = Copier(Same(blur=5), 1, 64)
    sizes = [0.6, 1.5, 3.0, 5.0]  # a pixel is 0.6 cm
    for phantom in sample_phantoms([3, 4], findings=[]):
        values, _ = probe_survival.in_one(blurred, phantom, [Probe(name, size) for size in sizes])
        shares = [one.kept for one in values]
        assert shares == sorted(shares)
        assert shares[0] < 0.5 * shares[-1]


def test_sizes_beyond_the_series_are_said_in_words() -> None:
    """A probe that never survives is larger than the largest; one that always does, at most it."""
    ones = np.ones((3, 8))
    shown = {name: ones for name in probe_survival.Values._fields} | {"read": ones * math.nan}
    crops = torch.zeros(3, 2, 4, 4)
    kept = probe_survival.Series("nodule", (1, 2, 3), shown, crops)
    lost = probe_survival.Series("wire", (1, 2, 3), shown | {"kept": 0 * ones}, crops)
    _, ends = probe_survival.tables([kept, lost], 128)
    assert ends.rows == [
        ("nodule, diameter", "<= 1 mm", "<= 1 mm", "<= 1 mm"),
        ("wire, diameter", "> 3 mm", "> 3 mm", "> 3 mm"),
    ]
    assert as_json(probe_survival.summary([lost]))["wire"]["smallest"]["value"] is None


def measured(capsys, *arguments: object) -> dict:
    return measure(capsys, "reconstruction", *arguments)


def test_the_command_prints_one_object_and_writes_the_page(tmp_path: Path, capsys, start) -> None:
    """Every figure with its n; a page that stands alone; a line for each image in the CSV."""
    options = ("--model", start, "--survival", 2, "--out", tmp_path)
    values = measured(capsys, "phantoms:20", *options)
    assert values["figures"]["sample"]["SSIM"]["n"] == 20
    judged = values["extractors"]["judge"]
    assert judged["findings"]["pleural effusion"]["difference"]["mean"]["n"] == 20
    assert judged["Fréchet distance"]["floor"]["n"] == 10
    assert judged["agreement"]["cardiomegaly"]["mean"]["n"] == 20
    assert values["survival"]["letter"]["read"][0]["n"] == 2
    page = (tmp_path / "reconstruction.html").read_text()
    assert page.count("data:image/png") == 3
    assert "http" not in page
    assert "Synthetic: drawn phantoms" in page
    assert "may be patients" not in page
    rows = list(csv.DictReader(io.StringIO((tmp_path / "reconstruction.csv").read_text())))
    assert [row["id"] for row in rows] == [f"phantom-{900_000_000 + i}" for i in range(20)]
    mean = np.mean([float(row["SSIM sample"]) for row in rows])
    assert values["figures"]["sample"]["SSIM"]["value"] == pytest.approx(mean, abs=1e-5)


def test_files_of_any_size_without_labels_are_measured(tmp_path: Path, capsys, start) -> None:
    """Mixed sizes become squares, small ones are counted, and the page warns of patients."""
    source = write_images(tmp_path / "films", noise(4, 0, size=40))
    write_images(source / "small", noise(3, 1, size=20))
    options = ("--model", start, "--survival", 0, "--out", tmp_path / "out")
    values = measured(capsys, source, *options)
    assert (values["n"], values["enlarged"]) == (7, 3)
    assert "survival" not in values
    assert not values["extractors"]["judge"]["findings"]
    assert values["extractors"]["judge"]["left out"]["pleural effusion"] == "no label"
    assert values["extractors"]["judge"]["Fréchet distance"]["mean"] is None
    page = (tmp_path / "out" / "reconstruction.html").read_text()
    assert "may be patients" in page
    assert "3 of them were smaller" in page
    assert "too few images" in page


def test_a_corrupt_file_stops_it_or_is_left_out(tmp_path: Path, capsys, start) -> None:
    """Without --skip-bad nothing is written; with it n says that one is missing."""
    source = write_images(tmp_path / "films", noise(4, 0, size=40))
    (source / "1.png").write_bytes(b"no image")
    out = tmp_path / "out"
    options = (source, "--model", start, "--survival", 0, "--out", out)
    assert_refused(capsys, tmp_path, "--skip-bad", "reconstruction", *options)
    assert measured(capsys, *options, "--skip-bad")["n"] == 3
    rows = list(csv.DictReader(io.StringIO((out / "reconstruction.csv").read_text())))
    assert [row["id"] for row in rows] == ["0", "2", "3"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("phantoms:1",), "1 usable images"),
        (("phantoms:2", "--size", "34"), "multiples of 4, not 34"),
        (("nothing",), "does not exist"),
        (("phantoms:2", "--extractors", "moon"), "unknown extractor"),
        (("phantoms:2", "--device", "moon"), "unknown device"),
        (("phantoms:2", "--model", "moon"), "moon"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, capsys, start, arguments, words) -> None:
    """Exit status 2, what is wrong, and nothing written."""
    options = ("--model", start, "--survival", 0, "--out", tmp_path / "out")
    assert_refused(capsys, tmp_path, words, "reconstruction", *options, *arguments)


def test_weights_of_another_layout_are_measured(tmp_path: Path, capsys, tiny_diffusers) -> None:
    """A diffusers folder with an RGB autoencoder measures grey phantoms."""
    options = ("--model", tiny_diffusers, "--size", 64, "--survival", 0, "--out", tmp_path)
    values = measured(capsys, "phantoms:2", *options)
    assert values["figures"]["mean"]["RMSE"]["n"] == 2


@pytest.mark.slow  # 40 s: writes 4.3 GB and reads them
def test_sd_at_full_size_is_measured(tmp_path: Path, capsys, full_ckpt: Path) -> None:
    """Pseudo-random weights of SD v1.4's names and sizes give finite figures of two phantoms."""
    options = ("--model", full_ckpt, "--size", 64, "--survival", 0, "--out", tmp_path)
    values = measured(capsys, "phantoms:2", *options)
    assert values["size"] == 64
    assert values["figures"]["sample"]["RMSE"]["value"] > 0


def test_infinite_figures_are_shown_and_not_drawn() -> None:
    """A set of perfect copies has a table that says inf, and a drawing without it."""
    values = {"sample": np.array([30.0, np.inf, 40.0]), "mean": np.full(3, np.inf)}
    shown = roundtrip.quantile_table("", values)
    assert shown.rows[1] == ("mean", "inf (inf to inf)", "nan", *5 * ["inf"])
    assert shown.rows[0][5] == "40"  # the median
    assert plots.histograms({"PSNR": values, "none": {"mean": values["mean"]}})[1:4] == b"PNG"
