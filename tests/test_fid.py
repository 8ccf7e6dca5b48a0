"""The measurements against independent references, closed forms and their usual mistakes.

Goldens: goldens/metrics.json and .npz, made with scikit-image, scikit-learn, torchmetrics and
80-bit arithmetic from the same pseudo-random inputs.
"""

import json

import numpy as np
import pytest
from conftest import GOLDENS
from pseudo import unit
from scipy.stats import binom, norm

from ldm.metrics import classification, fid, image_quality
from ldm.metrics.estimate import Estimate

WANT = json.loads((GOLDENS / "metrics.json").read_text())
CASES = sorted(set(WANT["distances"]["cases"]) - {"c"})  # c is large; see the slow test
CLOSED = WANT["closed_forms"]


def arrays() -> dict[str, np.ndarray]:
    with np.load(GOLDENS / "metrics.npz") as stored:
        return dict(stored)


def sets(case: str) -> tuple[np.ndarray, np.ndarray, dict]:
    """Features of `real` and `generated` images, and what they must give."""
    n, m, d = WANT["distances"]["sizes"][case]
    scale, shift = WANT["distances"]["scale_shift"][case]

    def u(name: str, *shape: int) -> np.ndarray:
        return unit(f"dist.{case}.{name}", shape).astype(np.float64)

    x, y = u("x", n, d), u("y", m, d)
    if case == "c":  # decaying variances, mixed
        weights = np.arange(1, d + 1) ** -0.75
        mix = u("mix_x", d, d)
        x = (x * weights) @ mix
        y = (y * scale * weights) @ (0.7 * mix + 0.3 * u("mix_y", d, d)) + shift
    else:
        y = y * scale + shift
    return x, y, WANT["distances"]["cases"][case]


# --- sets of images ---


@pytest.mark.parametrize("case", [*CASES, pytest.param("c", marks=pytest.mark.slow)])
def test_distances_equal_the_references(case: str) -> None:
    """Fréchet to 1e-8 (1e-7 for n < d), KID to 1e-10, CMMD to 1e-8; a divisor of n would show."""
    x, y, want = sets(case)
    close = 1e-7 if case == "b" else 1e-8
    assert fid.frechet(x, y) == pytest.approx(want["frechet"], rel=close)
    assert abs(want["wrong_ddof"] / want["frechet"] - 1) > 1e-4
    assert fid.kid(x, y) == pytest.approx(want["kid"], rel=1e-10)
    assert fid.cmmd(x, y) == pytest.approx(want["cmmd"], rel=1e-8)
    rows = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y)]
    assert fid.cmmd(*rows) == pytest.approx(want["cmmd_normalised"], rel=1e-8)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("case", CASES)
def test_neighbourhoods_count_as_the_reference_does(case: str, k: int, monkeypatch) -> None:
    """Precision, recall, density and coverage to the last count, also when rows come in parts."""
    monkeypatch.setattr(fid, "ROWS", 37)
    x, y, want = sets(case)
    counts, found = want["counts"][f"k={k}"], fid.neighbourhoods(x, y, k)
    assert round(found.precision * len(y)) == counts["precision"]
    assert round(found.recall * len(x)) == counts["recall"]
    assert round(found.density * k * len(y)) == counts["density"]
    assert round(found.coverage * len(x)) == counts["coverage"]


@pytest.mark.parametrize("case", CLOSED, ids=lambda c: c["name"])
def test_frechet_of_known_gaussians(case: dict) -> None:
    """Closed forms, one dimension and singular covariances among them."""
    both = []
    for i in ("1", "2"):
        moments = fid.Moments(len(case[f"mu{i}"]))
        moments.count, moments.mean = 10**6, np.array(case[f"mu{i}"])
        moments.scatter = np.array(case[f"sigma{i}"]) * (10**6 - 1)
        both.append(moments)
    assert fid.frechet_of_moments(*both) == pytest.approx(case["exact"], abs=1e-6)


def test_streamed_moments_give_the_same_distance() -> None:
    """Batches of any size, far from the origin, give what the whole array gives."""
    x, y, _ = sets("a")
    x, y = x + 1e4, y + 1e4
    both = [fid.Moments(64), fid.Moments(64)]
    for moments, z in zip(both, (x, y), strict=True):
        for part in np.split(z, [1, 100, 250]):
            moments.update(part)
        np.testing.assert_allclose(moments.covariance(), np.cov(z, rowvar=False), atol=1e-9)
    assert fid.frechet_of_moments(*both) == pytest.approx(fid.frechet(x, y), rel=1e-8)


def test_tenths_give_the_jackknife_of_all_features() -> None:
    """Moments of ten groups, filled in batches of any size, give value and interval at once."""
    x, y, _ = sets("a")
    y[:, 5] = x[:, 5] = 3.0  # a feature that never varies makes the covariance singular
    both = [fid.Tenths(64), fid.Tenths(64)]
    for tenths, z in zip(both, (x, y), strict=True):
        for part in np.split(z, [1, 100, 250]):
            tenths.update(part)
    found, want = fid.frechet_of_tenths(*both), fid.jackknife(fid.frechet, x, y)
    assert found.n == want.n
    np.testing.assert_allclose(found[:3], want[:3], rtol=1e-7)  # a zero's root is rounding


def test_a_set_is_no_distance_from_itself() -> None:
    """Fréchet and CMMD are 0 and precision and recall 1, for many images and for few."""
    for case in ("a", "b"):
        x = sets(case)[0]
        assert fid.frechet(x, x) == pytest.approx(0, abs=1e-9)
        assert fid.cmmd(x, x) == pytest.approx(0, abs=1e-9)
        assert fid.neighbourhoods(x, x)[:2] == (1, 1)


def test_features_that_cannot_be_measured_are_refused() -> None:
    """Not finite, no table, a single image, fewer images than features: each says so."""
    x = sets("e")[0]
    broken = x.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match="features of 1 of 250 images are not finite"):
        fid.frechet(x, broken)
    with pytest.raises(ValueError, match=r"shape \[n, d\]"):
        fid.kid(x, x[0])
    with pytest.raises(ValueError, match="n >= 2"):
        fid.cmmd(x[:1], x)
    few = fid.Moments(8)
    few.update(x[:8])
    with pytest.raises(ValueError, match="8 images are too few for 8 features"):
        fid.frechet_of_moments(few, few)


# --- pairs of images ---


@pytest.mark.parametrize("name", sorted(WANT["image"]))
def test_images_equal_the_references(name: str) -> None:
    """RMSE, PSNR and SSIM as scikit-image to 1e-9, MS-SSIM as torchmetrics to 1e-7."""
    want, stored = WANT["image"][name], arrays()
    pair = ("noise.a", "noise.a") if name == "identical" else (f"{name}.a", f"{name}.b")
    a, b = (stored[key] / 255 for key in pair)
    assert image_quality.rmse(a, b) == pytest.approx(want["rmse"], rel=1e-9, abs=0)
    # JSON has no infinity: PSNR of equal images
    psnr = float("inf") if name == "identical" else want["psnr"]
    assert image_quality.psnr(a, b, 1) == pytest.approx(psnr, rel=1e-9)
    assert image_quality.ssim(a, b, 1) == pytest.approx(want["ssim"], rel=1e-9)
    assert image_quality.ms_ssim(a, b, 1) == pytest.approx(want["ms_ssim"], rel=1e-7)


def test_figures_do_not_depend_on_the_unit() -> None:
    """Grey levels in any unit, with the span in the same unit, are the same image; for PSNR black
    may be anywhere; the wrong span is 6 dB off.
    """
    stored = arrays()
    a, b = (stored[f"noise.{x}"] / 255 for x in "ab")
    for figure in (image_quality.psnr, image_quality.ssim, image_quality.ms_ssim):
        assert figure(255 * a, 255 * b, 255) == pytest.approx(figure(a, b, 1))
    assert image_quality.psnr(2 * a - 1, 2 * b - 1, 2) == pytest.approx(image_quality.psnr(a, b, 1))
    assert image_quality.psnr(a, b, 2) > image_quality.psnr(a, b, 1) + 6


def test_images_that_cannot_be_compared_are_refused() -> None:
    """Other shapes, a channel axis, too small for the window or for five scales."""
    with pytest.raises(ValueError, match="one shape"):
        image_quality.ssim(np.zeros((20, 20)), np.zeros((20, 21)), 1)
    with pytest.raises(ValueError, match=r"\[H, W\]"):
        image_quality.psnr(np.zeros((1, 20, 20)), np.zeros((1, 20, 20)), 1)
    with pytest.raises(ValueError, match="11 pixels"):
        image_quality.ssim(np.zeros((8, 20)), np.zeros((8, 20)), 1)
    with pytest.raises(ValueError, match="176 pixels"):
        image_quality.ms_ssim(np.zeros((128, 128)), np.zeros((128, 128)), 1)


# --- scores ---


@pytest.mark.parametrize("case", WANT["wilson"], ids=lambda c: f"{c['k']} of {c['n']}")
def test_wilson_equals_the_reference(case: dict) -> None:
    """Also at 0 and n hits, where the end is exactly 0 or 1."""
    found = classification.wilson(case["k"], case["n"], case["confidence"])
    assert found.low == pytest.approx(case["low"], abs=1e-12)
    assert found.high == pytest.approx(case["high"], abs=1e-12)
    assert (found.low == 0) == (case["k"] == 0)
    assert (found.high == 1) == (case["k"] == case["n"])


@pytest.mark.parametrize("case", WANT["auc"], ids=lambda c: c["name"])
def test_auc_and_delongs_interval_equal_the_reference(case: dict) -> None:
    """With ties, apart, below chance, continuous scores; of all tied, nothing is known."""
    positives, negatives = case["positives"], case["negatives"]
    if positives is None:
        stored = arrays()
        positives, negatives = stored["continuous_pos"], stored["continuous_neg"]
        if "rounded" in case["name"]:
            positives, negatives = (np.rint(2 * z) / 2 for z in (positives, negatives))
    labels = [True] * len(positives) + [False] * len(negatives)
    found = classification.auc(np.concatenate([positives, negatives]), labels)
    assert found.value == pytest.approx(case["auc"], abs=1e-12)
    ends = [0, 1] if case["name"] == "all tied" else case["delong_95_clipped"]
    assert [found.low, found.high] == pytest.approx(ends, abs=1e-12)
    assert found.n == len(labels)


def test_scores_that_are_all_alike_say_nothing_of_an_auc() -> None:
    """A constant has the AUC 0.5 by its ties, and DeLong's error of 0 is no certainty."""
    labels = np.repeat([1, 0], [8, 12])
    assert classification.auc(np.zeros(20), labels) == Estimate(0.5, 0.0, 1.0, 20)
    readers = [np.zeros(20), labels, labels]  # 5 / 6, whose rounding is no spread
    found = classification.auc_of_readers(readers, labels)
    assert found.value == pytest.approx(5 / 6)
    assert (found.low, found.high) == (0, 1)


def test_two_scores_on_the_same_cases_are_compared_in_pairs() -> None:
    """DeLong's paired interval uses the covariance: narrower here than if they were independent."""
    stored, want = arrays(), WANT["auc_paired"]
    one, two = (
        np.concatenate([stored[f"continuous{x}_pos"], stored[f"continuous{x}_neg"]])
        for x in ("", "_b")
    )
    labels = [True] * 157 + [False] * 243
    found = classification.auc_difference(one, two, labels)
    assert found.value == pytest.approx(want["auc_a"] - want["auc_b"], abs=1e-12)
    error = np.sqrt(want["var_a"] + want["var_b"] - 2 * want["cov"])
    assert found.high - found.value == pytest.approx(1.9599639845400545 * error, abs=1e-12)


def test_scores_that_cannot_be_judged_are_refused() -> None:
    """One class alone, other lengths, scores that are not finite, impossible counts."""
    with pytest.raises(ValueError, match="two cases of each class"):
        classification.auc([1, 2, 3], [True, True, False])
    with pytest.raises(ValueError, match="one finite score for each label"):
        classification.auc([1, 2], [True, False, True])
    with pytest.raises(ValueError, match="one finite score for each label"):
        classification.auc([1, np.nan, 2, 3], [True, False, True, False])
    with pytest.raises(ValueError, match="0 or 1 each"):
        classification.auc([1, 2, 3, 4], [1, 0, np.nan, 1])
    for hits, n in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="a proportion wants"):
            classification.wilson(hits, n)


def test_decisions_equal_scikit_learns() -> None:
    """Accuracy, F1, precision and recall of a random case, and of one with nothing called."""
    from sklearn import metrics

    rng = np.random.default_rng(0)
    labels = rng.random(50) < 0.4
    scores = labels + rng.normal(0, 1, 50) - 0.5
    found = classification.decisions(scores, labels)
    called = scores > 0
    expected = {
        "accuracy": metrics.accuracy_score(labels, called),
        "F1": metrics.f1_score(labels, called),
        "precision": metrics.precision_score(labels, called),
        "recall": metrics.recall_score(labels, called),
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-12)
        assert found[name].low < value < found[name].high
    none = classification.decisions(np.full(50, -1.0), labels)
    assert none["precision"] == Estimate(0.0, 0.0, 1.0, 0)
    assert none["F1"].value == none["recall"].value == 0


def test_the_jackknife_covers_a_known_distance() -> None:
    """Of two Gaussian sets a known mean apart, 95 % of intervals for the mean distance hold it."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        x, y = rng.normal(0, 1, (100, 1)), rng.normal(2, 1, (100, 1))
        found = fid.jackknife(lambda a, b: float(abs(a.mean() - b.mean())), x, y)
        inside += found.low < 2 < found.high
    assert inside / 2000 == pytest.approx(0.95, abs=0.02)  # 4 standard errors; 0.915 with 1.96


def test_steps_across_an_edge_are_told_from_those_outside() -> None:
    """By hand: a masked pixel in the middle of 3 x 3 has four steps across, eight lie outside."""
    picture = np.arange(9).reshape(3, 3) ** 2
    across, outside = image_quality.edge_steps(picture, np.arange(9).reshape(3, 3) == 4)
    assert sorted(across) == [7, 9, 15, 33]  # 16 - 9, 25 - 16, 16 - 1, 49 - 16
    assert sorted(outside) == [1, 3, 9, 13, 15, 21, 27, 39]


# --- several readers of the same images ---


def test_a_proportion_of_readers_is_between_two_of_wilsons() -> None:
    """Copies of one reader tell what one tells; readers who differ at random, as much as all."""
    random = np.random.default_rng(0)
    one = random.random(200) < 0.3
    alone, copies = (
        classification.wilson(int(one.sum()), 200),
        classification.wilson_of_groups([one] * 4),
    )
    assert copies[:3] == pytest.approx(alone[:3], rel=0.01)
    assert copies.n == 800
    apart = random.random((4, 200)) < 0.3
    together = classification.wilson(int(apart.sum()), 800)
    found = classification.wilson_of_groups(apart)
    assert found.high - found.low == pytest.approx(together.high - together.low, rel=0.1)
    nobody = classification.wilson_of_groups(np.zeros((4, 200)))
    assert nobody[:3] == classification.wilson(0, 200)[:3]


def test_one_readers_proportion_is_wilsons() -> None:
    """A group of one case is a case."""
    hits = np.arange(30) < 12
    assert classification.wilson_of_groups(hits)[:3] == pytest.approx(
        classification.wilson(12, 30)[:3]
    )


@pytest.mark.parametrize("n", [6, 9, 30])
def test_a_median_lies_between_two_values_as_the_sign_test_has_them(n: int) -> None:
    """In 95 % of 2,000 samples or more; the next values inward would hold in fewer."""
    random = np.random.default_rng(0)
    found = [classification.median(random.exponential(size=n)) for _ in range(2000)]
    assert sum(each.low <= np.log(2) <= each.high for each in found) >= 1880
    ends = classification.median(np.arange(n))
    inside = sum(binom.pmf(k, n, 0.5) for k in range(int(ends.low) + 1, int(ends.high) + 1))
    assert inside >= 0.95
    fewer = sum(binom.pmf(k, n, 0.5) for k in range(int(ends.low) + 2, int(ends.high)))
    assert fewer < 0.95


def test_a_proportion_of_simulated_readers_is_recovered() -> None:
    """In 93 % of 1,000 runs: three readers of 60 images who agree by a kappa of 0.5."""
    random, hits = np.random.default_rng(0), 0
    for _ in range(1000):
        shares = random.beta(0.3, 0.7, 60)
        found = classification.wilson_of_groups(random.random((3, 60)) < shares)
        hits += found.low <= 0.3 <= found.high
    assert hits >= 930


def test_the_mean_auc_of_simulated_readers_is_recovered() -> None:
    """In 93 % of 1,000 runs: three who share half of their noise; one's AUC is that of `auc`."""
    random, hits = np.random.default_rng(0), 0
    truth = np.repeat([True, False], 40)
    for _ in range(1000):
        noise = random.normal(size=80) + random.normal(size=(3, 80))
        found = classification.auc_of_readers(truth * 1.5 + noise / np.sqrt(2), truth)
        hits += found.low <= norm.cdf(1.5 / np.sqrt(2)) <= found.high
    assert hits >= 930
    assert (
        classification.auc_of_readers(noise[0], truth).value
        == classification.auc(noise[0], truth).value
    )


def test_an_auc_of_one_has_an_interval() -> None:
    """Twenty and thirty cases apart: as sure as twenty hits of twenty."""
    labels = np.repeat([1, 0], [20, 30])
    assert (
        classification.auc_of_readers([labels, labels], labels)[:3]
        == classification.wilson(20, 20)[:3]
    )
    assert classification.auc_of_readers(-labels, labels)[:3] == classification.wilson(0, 20)[:3]
