"""evaluate.py classify: known scores give known figures, and what cannot be measured is refused."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation import assert_refused, measure

from ldm.data import attributes
from ldm.data.image_sets import named_phantoms
from ldm.data.phantom import caption
from ldm.judging.extractors import Extractor, open_extractor
from ldm.metrics.estimate import Estimate
from ldm.pictures import image_files
from ldm.report import anatomy_survey, finding_calls, train_on_synthetic
from ldm.report.finding_calls import Judged

WEIGHTS = Path(__file__).parent.parent / "weights"
A, B = "pleural effusion", "cardiomegaly"
LOOKS = Extractor(
    "pixels",
    lambda x: x.flatten(1),
    size=2,
    channels=1,
    resize="bilinear",
    head=lambda features: features[:, :2],
    findings=(A, B),
)


def judged(scores: np.ndarray, rows: list[Mapping[str, bool]]) -> Judged:
    return Judged("set", list(range(len(rows))), rows, Counter(), scores, scores, 0)


def rows_of(count: int) -> list[Mapping[str, bool]]:
    """A third with A, a third with B, a third with neither."""
    return [{A: i % 3 == 0, B: i % 3 == 1} for i in range(count)]


def test_perfect_scores_have_perfect_figures() -> None:
    """Scores that are the truth: every figure is 1, and as many are called as were asked for."""
    rows = rows_of(60)
    scores = np.array([[2.0 * row[A] - 1, 2.0 * row[B] - 1] for row in rows])
    for finding in (A, B):
        found = finding_calls.verdict(judged(scores, rows), finding, LOOKS)
        assert found.auc.value == found.rivals.value == 1
        assert {e.value for e in found.decisions.values()} == {1.0}
        assert found.asked == found.called
        assert found.rivals_n == 20
        assert not finding_calls.surely_wrong(judged(scores, rows), finding, LOOKS, 8)


def test_random_scores_know_nothing() -> None:
    """The interval of the AUC holds 0.5, against all images and against other findings."""
    rows, scores = rows_of(600), np.random.default_rng(0).normal(size=(600, 2))
    found = finding_calls.verdict(judged(scores, rows), A, LOOKS)
    for area in (found.auc, found.rivals):
        assert area.low < 0.5 < area.high
    assert (found.auc.n, found.rivals.n) == (600, 400)


def test_a_finding_is_measured_in_each_group() -> None:
    """Perfect scores in women, turned round in men; a group without both classes has no AUC."""
    rows = rows_of(80)
    sexes = ["F" if i < 40 else "M" for i in range(80)]
    scores = np.array(
        [
            [(2.0 * r[A] - 1) * (1 if s == "F" else -1), 0.0]
            for r, s in zip(rows, sexes, strict=True)
        ]
    )
    told = [{"sex": s, "view": "frontal"} for s in sexes]
    every = finding_calls.by_group(judged(scores, rows)._replace(told=told), [A, "sex=F"], LOOKS)
    assert every.keys() == {A}
    found = every[A]
    assert [(k, v.split()[0]) for k, v in found.items()] == [
        ("sex: F", "1.000"),
        ("sex: M", "0.000"),
    ]
    lone = [{"sex": "F" if r[A] else "M"} for r in rows]
    few = finding_calls.by_group(judged(scores, rows)._replace(told=lone), [A], LOOKS)[A]
    assert few == {"sex: F": "too few of 27, n < 30", "sex: M": "too few of 53"}


def test_an_extractor_is_believed_as_far_as_its_own_figures_go() -> None:
    """Below 0.7 on real images nothing is measured, and without figures nothing is known."""
    own = {A: Estimate(0.75, 0.7, 0.8, 99), B: Estimate(0.65, 0.6, 0.7, 99)}
    looks = replace(LOOKS, own_auc=own)
    assert finding_calls.own_figure(looks, A) == str(own[A])
    assert finding_calls.own_figure(looks, B).endswith("not measurable")
    assert finding_calls.own_figure(LOOKS, A) == "not known"
    shipped = open_extractor("judge_body", WEIGHTS)
    assert shipped.own_auc.keys() <= set(shipped.findings)
    assert "not measurable" in finding_calls.own_figure(shipped, "consolidation")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (
            "PA chest x-ray of a 70 year old woman",
            {"view": "frontal", "beam": "PA", "sex": "F", "age": "old"},
        ),
        ("bilateral hips, frontal and lateral", {"region": "pelvis"}),
        ("ultrasound of a fetal head", {"region": "fetal head", "modality": "ultrasound"}),
        ("a film of a 20-year-old, 1000 years ago", {"age": "young adult"}),
        ("lateral view, lateral malleolus with an oblique fracture", {"view": "lateral"}),
        ("effusion in a man and a woman", {}),
    ],
)
def test_prompts_tell_attributes(prompt: str, expected: dict[str, str]) -> None:
    """By whole words: a woman is no man; what is not said, or said in two ways, is not known."""
    chest = {"region": "chest", "modality": "x-ray"} if "chest x-ray" in prompt else {}
    assert attributes.of_prompt(prompt) == chest | expected


def test_captions_of_phantoms_tell_nothing_wrong() -> None:
    """What of_prompt reads in the wordings of any phantom is what of_phantom says of it."""
    read = set()
    every = named_phantoms("phantoms:80:0:modality=xray+ct+mr+ultrasound")
    for p in [*every, *named_phantoms("phantoms:9:0")]:
        known = attributes.of_phantom(p)
        for wording in range(40):
            said = attributes.of_prompt(caption(p, wording))
            assert said.items() <= {**said, **known}.items(), (p.seed, wording)
            read |= said.keys()
    assert read == {"region", "modality", "view", "sex", "age", "beam"}


def test_other_findings_are_findings() -> None:
    """That an image is of a chest, or of a woman, makes it no image of another finding."""
    told = [{"region=chest": True, "sex=F": i % 2 == 0} for i in range(60)]
    scores = np.random.default_rng(2).normal(size=(60, 2))
    rows = [row | one for row, one in zip(rows_of(60), told, strict=True)]
    both = (judged(scores, each) for each in (rows_of(60), rows))
    plain, more = (finding_calls.cases(one, A).rivals for one in both)
    assert plain.tolist() == more.tolist()
    assert not finding_calls.cases(judged(scores, rows), "sex=F").rivals.any()


def test_style_does_not_count_against_other_findings() -> None:
    """Scores that only tell sick from well: AUC 0.75 against all, 0.5 against other findings."""
    rows = rows_of(300)
    scores = np.array([[float(row[A] or row[B])] * 2 for row in rows])
    found = finding_calls.verdict(judged(scores, rows), A, LOOKS)
    assert found.auc.value == 0.75
    assert found.rivals.value == 0.5


def test_images_nobody_labelled_are_left_out() -> None:
    """Rows that do not know the finding change no figure, and n says so."""
    rows, scores = rows_of(60), np.random.default_rng(1).normal(size=(90, 2))
    plain = finding_calls.verdict(judged(scores[:60], rows), A, LOOKS)
    more = finding_calls.verdict(judged(scores, [*rows, *[{B: True}] * 30]), A, LOOKS)
    assert plain == more


def test_the_surest_disagreements_come_first() -> None:
    """Asked for and lowest, not asked for and highest; never what is on the right side."""
    rows = [{A: True}, {A: True}, {A: True}, {A: False}, {A: False}, {A: False}]
    scores = np.array([[-1.0], [-3.0], [2.0], [1.0], [4.0], [-2.0]])
    kinds = finding_calls.surely_wrong(judged(scores, rows), A, LOOKS, 8)
    assert kinds == {"asked for, not seen": [1, 0], "seen, not asked for": [4, 3]}


def folder(path: Path, prompts: Mapping[str, int]) -> Path:
    """Grey images of noise, so many of each prompt, which the PNG text holds unless it is empty."""
    path.mkdir()
    generator = torch.Generator().manual_seed(0)
    each = [prompt for prompt, count in prompts.items() for _ in range(count)]
    for number, prompt in enumerate(each):
        text = {"synthetic": "yes"} | ({"prompt": prompt} if prompt else {})
        image = torch.rand(1, 16, 16, generator=generator)
        image_files.save(image, path / f"{number}.png", text)
    return path


DRAWN = {"lung xray with pleural effusion": 6, "lung xray with edema": 5, "lung xray": 4}


def test_the_command_reads_prompts_and_writes_the_page(tmp_path: Path, capsys, monkeypatch) -> None:
    """--json counts what was asked for; findings with too few images are named; pages say it."""
    trial = anatomy_survey.trial
    monkeypatch.setattr(anatomy_survey, "trial", lambda: trial(12))
    fake, out = folder(tmp_path / "fake", DRAWN), tmp_path / "out"
    options = ("--weights", WEIGHTS, "--train-on-synthetic", "--anatomy", "--out", out)
    values = measure(capsys, "classify", fake, "--real", "phantoms:30", *options)
    assert list(values["findings"]) == ["pleural effusion", "pulmonary edema"]
    assert "cardiomegaly" in values["left out"]
    asked = values["findings"]["pleural effusion"]["fake"]
    assert asked["asked"]["value"] == pytest.approx(6 / 15)
    assert asked["AUC, other findings"]["n"] == 11
    assert values["findings"]["pleural effusion"]["real"]["AUC"]["low"] > 0.5
    assert values["fake"]["synthetic"] == 15
    taught = values["learned"]["pleural effusion"]
    assert taught["AUC"]["fake - real"]["n"] == 30
    assert taught["n"] == 15
    assert values["anatomy"]["real"]["two lungs"]["value"] > 0.9
    page = (out / "classify.html").read_text()
    assert "pleural effusion (synthetic)" in page
    assert "lung xray with edema" in page
    assert "http" not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["one"], "none has two images with it and two without"),
        (["bare"], "has neither labels nor a prompt"),
        (["fake", "--finding", "hernia"], "does not look for hernia; it looks for pleural"),
        (["odd.csv"], "is labelled with emphysema; none of them is among"),
        (["plain.csv"], "has neither labels nor a prompt"),
        (["fake", "--real", "nothing"], "does not exist"),
        (["fake", "--train-on-synthetic"], "name them with --real"),
        (["phantoms:30:3", "--train-on-synthetic", "--real", "phantoms:30:13"], "20 images are in"),
        (["fake", "--extractor", "mirror"], "unknown extractor"),
        (["fake", "--weights", "odd"], "is no table of AUCs; benchmarks/judged.py --own"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, capsys, monkeypatch, arguments, message) -> None:
    """Exit status 2, the reason, and nothing written."""
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "fake", DRAWN)
    folder(tmp_path / "one", {"lung xray with pleural effusion": 6})
    folder(tmp_path / "bare", {"": 6})
    files = "\n".join(f"bare/{i}.png,Emphysema" for i in range(6))
    (tmp_path / "odd.csv").write_text(f"filename,labels\n{files}\n")
    (tmp_path / "plain.csv").write_text(f"filename,labels\n{files}\n".replace("Emphysema", ""))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "judge.json").write_text('{"pleural effusion": 0.9}')
    (tmp_path / "odd" / "judge.safetensors").symlink_to(WEIGHTS / "judge.safetensors")
    options = ("classify", "--weights", WEIGHTS, "--out", "out")
    assert_refused(capsys, tmp_path, message, *options, *arguments)


def features_of(labels: np.ndarray, seed: int, gap: float = 3.0) -> Judged:
    """Five features, of which the first tells the label."""
    features = np.random.default_rng(seed).normal(size=(len(labels), 5))
    features[:, 0] += gap * labels
    return judged(features, [{A: bool(label), B: not label} for label in labels])


def test_what_is_learned_from_fakes_is_tried_on_real_images() -> None:
    """Fakes like the real ones teach what those do; fakes that show the opposite, the opposite."""
    labels, patients = np.arange(100) % 2, [str(i) for i in range(100)]
    real = features_of(labels, 0)
    good, bad = (
        train_on_synthetic.learn(features_of(labels, 1, gap), real, patients, A).everything
        for gap in (3.0, -3.0)
    )
    assert good["80 fake"].value > 0.95
    assert good["80 real"].value > 0.95
    assert good["fake - real"].low < 0 < good["fake - real"].high
    assert good["all 100 fake"].n == 100
    assert bad["80 fake"].value < 0.05
    assert bad["fake - real"].high < -0.9


def test_the_table_warns_of_unknown_patients() -> None:
    """Where images do not say whose they are, the table says what that does to its figures."""
    known, unknown = (train_on_synthetic.table({A: None}, count).caption for count in (0, 7))
    assert "whose they are" not in known
    assert "7 real images do not say whose they are" in unknown


def test_patients_are_not_recognised() -> None:
    """Features that tell the patient and nothing else: no classifier of real images knows more."""
    random = np.random.default_rng(0)
    who = np.repeat(np.arange(40), 5)
    labels = random.permutation(np.arange(40) % 2)[who]
    features = random.normal(size=(40, 30))[who] + random.normal(scale=0.01, size=(200, 30))
    real = judged(features, [{A: bool(label)} for label in labels])
    found = train_on_synthetic.learn(real, real, [str(i) for i in who], A)
    alone = train_on_synthetic.learn(real, real, [str(i) for i in range(200)], A)
    assert found.everything[f"{found.n} real"].value < 0.7
    assert alone.everything[f"{alone.n} real"].value > 0.9


def test_too_few_images_teach_nothing() -> None:
    """Fewer than one for each fold are said to be too few."""
    few = features_of(np.array([1, 1, 1, *[0] * 20]), 0)
    assert train_on_synthetic.learn(few, few, [str(i) for i in range(23)], A) is None
    assert train_on_synthetic.table({A: None}).rows == [(A, "too few images", "")]
