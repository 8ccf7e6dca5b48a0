"""Findings that readers name in remarks are scored against what the images show."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from readers import answer_all, key_of, score, status

from ldm.data.image_sets import open_set
from ldm.report.readers.answers import Answer, Key, Reader, Trial
from ldm.report.readers.remark_findings import known, measure

FILMS = "phantoms:60:0"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("remarks")
    few = ("--n", 60, "--repeats", 4, "--catch", 2, "--size", 32, "--out", out)
    assert status("make", "--synthetic-only", FILMS, *few) == 0
    return out


def truth(trial: dict) -> str:
    there = [name for name, shown in trial["findings"].items() if shown]
    return f"I see {' and '.join(there)}." if there else "lungs clear"


def test_who_copies_the_truth_scores_one_and_shuffled_remarks_score_chance(
    study: Path, tmp_path: Path
) -> None:
    """Perfect: all named, none wrong. Shuffled: the expected share is in the interval of what
    is found, and less than a half. Silent: nothing is named. The readers' page has no finding."""
    key = key_of(study)
    trials = key["trials"]
    order = np.random.default_rng(1).permutation(len(trials))
    dealt = {t["id"]: truth(trials[i]) for t, i in zip(trials, order, strict=True)}
    says = {"perfect": truth, "shuffled": lambda t: dealt[t["id"]], "silent": lambda t: ""}
    files = [
        answer_all(key, name, lambda t: ("fake", 5), tmp_path / f"{name}.json", remark)
        for name, remark in says.items()
    ]
    found = score(study, *files, out=tmp_path / "out")["remarks"]
    perfect, shuffled, silent = (found[name] for name in says)
    assert perfect["all findings named"]["value"] == 1
    assert perfect["a finding named that is not there"]["value"] == 0
    named, chance = shuffled["all findings named"], shuffled["the same, remarks dealt at random"]
    assert named["low"] < float(chance) < named["high"] < 0.5
    assert shuffled["a finding named that is not there"]["low"] > 0.1
    assert silent["all findings named"]["value"] == silent["remarks"] == 0
    shown = [t for t in trials if not t["repeats"] and t["truth"] != "catch"]
    assert perfect["all findings named"]["n"] == sum(any(t["findings"].values()) for t in shown)
    assert perfect["remarks without a known finding"] == sum(
        truth(t) == "lungs clear" for t in shown
    )
    assert "effusion" not in (study / "study.html").read_text()


def test_a_small_case_by_hand() -> None:
    """Two images with one finding each and one without: one of two named, one of three wrong; of
    the 2 x 3 deals of remarks to images two name all findings."""
    both = {"pneumothorax": False, "pleural effusion": False}
    shows = (both | {"pneumothorax": True}, both | {"pleural effusion": True}, both)
    said = ("Pneumothorax, no effusion", "pneumothorax?", "pneumonia, ribs unusual")
    trials = [Trial(str(i), "synthetic", str(i), None, "", shown) for i, shown in enumerate(shows)]
    trials.append(Trial("3", "synthetic", "3", None))
    answers = {str(i): Answer("fake", 1, 1.0, remark) for i, remark in enumerate((*said, ""))}
    found = measure(Key("s", "authenticity", {}, trials), Reader("A", answers))
    assert found.pop("all findings named").value == 1 / 2
    assert found.pop("a finding named that is not there").value == pytest.approx(1 / 3)
    assert list(found.values()) == [f"{2 / 6:.3f}", 3, 0, 1, 1]


def test_what_an_image_shows_is_read_from_its_prompt(tmp_path: Path) -> None:
    """A PNG without labels by the prompt that drew it; one without a prompt is not known."""
    for name, prompt in (("a", "chest x-ray with cardiomegaly, no effusion"), ("b", None)):
        text = PngImagePlugin.PngInfo()
        if prompt:
            text.add_itxt("prompt", prompt)
        Image.new("L", (32, 32)).save(tmp_path / f"{name}.png", pnginfo=text)
    drawn = open_set(str(tmp_path))
    first = known(drawn, 0)
    assert [name for name, there in first.items() if there] == ["cardiomegaly"]
    assert first["pleural effusion"] is False
    assert known(drawn, 1) == {}
