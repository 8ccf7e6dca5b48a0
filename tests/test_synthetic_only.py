"""A study of synthetic images alone (arXiv:2211.00902): what it can say, and what it cannot."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from readers import answer_all, assert_refused, key_of, score, status, write_sets

CT = "phantoms:20:0:region=chest,modality=ct,window=lung"
FILMS = "phantoms:20:0"
FEW = ("--n", 20, "--repeats", 4, "--catch", 2, "--size", 32)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's 20 films and 20 CT slices, of phantoms."""
    out = tmp_path_factory.mktemp("alone")
    assert status("make", "--synthetic-only", FILMS, CT, *FEW, "--out", out) == 0
    return out


def test_the_paper_s_design_is_made_and_says_what_it_cannot_say(study: Path) -> None:
    """20 of each set, none real; the readers' page names no set; made.html has no d'."""
    shown = [t for t in key_of(study)["trials"] if not t["repeats"] and t["truth"] != "catch"]
    assert {t["truth"] for t in shown} == {"synthetic"}
    assert [sum(t["set"] == name for t in shown) for name in (FILMS, CT)] == [20, 20]
    assert "phantom" not in (study / "study.html").read_text()
    made = (study / "made.txt").read_text()
    assert "neither specificity nor d' nor AUC can be computed" in made
    assert "40 of 40 images say in their file that they are synthetic" in made


def sure(word: str) -> Callable[[dict], tuple[str, int]]:
    return lambda trial: ("fake" if trial["truth"] == "catch" else word, 5)


def guess(seed: int) -> Callable[[dict], tuple[str, int]]:
    random = np.random.default_rng(seed)
    return lambda trial: (str(random.choice(["real", "fake"])), 3)


def by_set(trial: dict) -> tuple[str, int]:
    return ("real" if trial["set"] == FILMS else "fake"), 4


def test_readers_are_scored_by_set_without_d_prime(study: Path, tmp_path: Path) -> None:
    """One takes every film for real and no slice, one all for fake, one guesses at one half."""
    key, says = key_of(study), {"films": by_set, "fake": sure("fake"), "coin": guess(0)}
    files = [answer_all(key, n, say, tmp_path / f"{n}.json") for n, say in says.items()]
    found = score(study, *files, out=tmp_path / "out")
    figures = found["figures"]
    real = {
        who: [each[f"{kind} called real"]["value"] for kind in (FILMS, CT, "all sets")]
        for who, each in figures.items()
    }
    assert real["films"] == [1, 0, 0.5]
    assert real["fake"] == [0, 0, 0]  # a constant reader looks perfect
    coin = figures["coin"]["all sets called real"]
    assert coin["low"] < 0.5 < coin["high"]
    assert coin["n"] == 40
    assert not [name for each in figures.values() for name in each if "called" not in name]
    assert found["kappa by set"][f"of {CT}"]["films and fake"]["n"] == 20
    text = (tmp_path / "out" / "score.txt").read_text()
    assert "neither specificity nor d' can be had" in text
    assert not (tmp_path / "out" / "score_roc.png").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--same-path",), "--synthetic-only SET takes no real set and no --same-path"),
        (("--pairs", "drawn"), "--pairs ORIGINAL takes no other set"),
        (("other/drawn",), "two sets of --synthetic-only have one name"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple, message: str
) -> None:
    """Exit status 2, nothing written."""
    out = tmp_path / "out"
    assert_refused(capsys, out, ("make", "--synthetic-only", "drawn", *more), message)


def test_folders_are_sets_and_may_share_file_names(tmp_path: Path) -> None:
    """Two folders whose files are called alike: each set has its own images in the key."""
    first = write_sets(tmp_path / "a", 6)[1]
    second = write_sets(tmp_path / "b", 12)[0]
    for i, path in enumerate(sorted(second.iterdir())[:6]):
        path.rename(second / f"{i:05}.png")
    out = tmp_path / "out"
    few = ("--n", 6, "--repeats", 1, "--catch", 0, "--out", out)
    assert status("make", "--synthetic-only", first, second, *few) == 0
    assert {t["set"] for t in key_of(out)["trials"]} == {"synthetic", "real"}
    assert {t["truth"] for t in key_of(out)["trials"]} == {"synthetic"}
    says = {"A": sure("real"), "B": sure("fake")}
    files = [answer_all(key_of(out), n, say, tmp_path / f"{n}.json") for n, say in says.items()]
    found = score(out, *files, out=tmp_path / "s")
    assert found["figures"]["A"]["all sets called real"]["n"] == 12
    for name in ("synthetic", "real"):  # of this folder alone, though all are synthetic
        assert found["kappa by set"][f"of {name}"]["A and B"]["n"] == 6
