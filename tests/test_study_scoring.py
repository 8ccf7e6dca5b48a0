"""Answers of readers whose skill is known are scored as such, and files that do not fit refused."""

import json
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from readers import answer_all, assert_refused, key_of, make, score
from scipy.stats import norm

from ldm.metrics.agreement import detection
from ldm.report.readers.answers import Answer, Key, Reader, Trial
from ldm.report.readers.detection import AS_FAKE, AS_REAL, measure
from ldm.report.readers.readings import POOLED, agreement, attention, gather


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of 20 + 20 images, 8 repeats and 4 catch trials."""
    return make(tmp_path_factory.mktemp("scoring"), 20, repeats=8, catch=4)


@pytest.fixture(scope="module")
def key(study: Path) -> dict:
    return key_of(study)


def by_truth(trial: dict) -> tuple[str, int]:
    return ("real", 5) if trial["truth"] == "real" else ("fake", 5)


def turned(trial: dict) -> tuple[str, int]:
    return ("fake" if trial["truth"] == "real" else "real"), 5


def at_random(seed: int) -> Callable[[dict], tuple[str, int | None]]:
    random = np.random.default_rng(seed)
    return lambda trial: (
        ("fake", 5)
        if trial["truth"] == "catch"
        else (str(random.choice(["real", "fake"])), int(random.integers(1, 6)))
    )


def test_three_readers_from_files_to_a_page(study: Path, key: dict, tmp_path: Path) -> None:
    """A perfect reader, one who turns everything around, and one who is always unsure."""
    says = {"good": by_truth, "bad": turned, "none": lambda trial: ("unsure", None)}
    files = [answer_all(key, n, say, tmp_path / f"{n}.json") for n, say in says.items()]
    found = score(study, *files, out=tmp_path / "out")
    figures = found["figures"]
    areas = {name: each["AUC"]["value"] for name, each in figures.items()}
    assert areas == {"good": 1, "bad": 0, "none": 0.5, POOLED: 0.5}
    assert figures["good"][f"d', {AS_REAL}"]["value"] == detection(20, 0, 0, 20).d_prime
    assert figures["bad"][f"d', {AS_REAL}"]["value"] == -detection(20, 0, 0, 20).d_prime
    unsure = {name: each["value"] for name, each in figures["none"].items()}
    assert unsure["synthetic called unsure"] == unsure["real called unsure"] == 1
    assert [unsure[f"sensitivity, {how}"] for how in (AS_REAL, AS_FAKE)] == [0, 1]
    assert [unsure[f"specificity, {how}"] for how in (AS_REAL, AS_FAKE)] == [1, 0]
    assert found["kappa"]["good and bad"]["value"] == -1
    assert found["kappa"]["all 3 (Fleiss)"]["n"] == 40
    caught = {name: each["caught"]["value"] for name, each in found["readers"].items()}
    assert caught == {"good": 1, "bad": 0, "none": 0}
    assert figures["good"]["AUC"]["n"] == 40  # neither repeats nor catch trials
    pictures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert pictures == ["score_roc.png", "score_times.png"]
    assert "NaN" not in (tmp_path / "out" / "score.json").read_text()


def test_who_guesses_or_says_one_thing_is_at_chance(study: Path, key: dict, tmp_path: Path) -> None:
    """Of a coin chance is within every interval; who calls all fake has every sensitivity, no
    specificity, and neither d' nor an AUC beyond chance."""
    says = {"coin": at_random(0), "constant": lambda trial: ("fake", 5)}
    files = [answer_all(key, n, say, tmp_path / f"{n}.json") for n, say in says.items()]
    figures = score(study, *files, out=tmp_path / "out")["figures"]
    for name, chance in {"sensitivity": 0.5, "specificity": 0.5, "d'": 0}.items():
        found = figures["coin"][f"{name}, {AS_REAL}"]
        assert found["low"] < chance < found["high"]
    assert figures["coin"]["AUC"]["low"] < 0.5 < figures["coin"]["AUC"]["high"]
    constant = {name: each["value"] for name, each in figures["constant"].items()}
    rates = [constant[f"{name}, {AS_REAL}"] for name in ("sensitivity", "specificity", "d'")]
    assert rates == [1, 0, 0]
    assert constant["AUC"] == 0.5


def test_who_contradicts_himself_is_told(study: Path, key: dict, tmp_path: Path) -> None:
    """A reader who turns around what comes again: no repeat is the same, all are opposite."""

    def wavering(trial: dict) -> tuple[str, int]:
        return turned(trial) if trial["repeats"] else by_truth(trial)

    file = answer_all(key, "T", wavering, tmp_path / "t.json")
    found = score(study, file, out=tmp_path / "out")
    reader = found["readers"]["T"]
    assert reader["same"]["value"] == 0
    assert len(reader["opposite"]) == reader["same"]["n"] == 8
    assert reader["kappa"]["value"] < 0
    assert found["figures"]["T"]["AUC"]["value"] == 1  # first readings alone
    assert found["kappa"] == {}


def test_remarks_and_images_that_fooled_are_listed(study: Path, key: dict, tmp_path: Path) -> None:
    """The page names an image that was taken for real, and what was said of it, escaped."""
    place = [t["truth"] for t in key["trials"]].index("synthetic")
    file = answer_all(key, "T", by_truth, tmp_path / "t.json")
    said = {"answer": "real", "remark": "ribs <b>fine</b>"}
    edit(lambda c: c["answers"][place].update(said))(file)
    score(study, file, out=tmp_path / "out")
    page = (tmp_path / "out" / "score.html").read_text()
    assert "ribs &lt;b&gt;fine&lt;/b&gt;" in page
    assert f"<td>{key['trials'][place]['image']}</td><td>synthetic</td><td>1</td>" in page


def test_the_median_time_is_of_images_that_were_no_catch(
    study: Path, key: dict, tmp_path: Path
) -> None:
    """Seconds of the file, those of catch trials left out."""
    file = answer_all(key, "T", by_truth, tmp_path / "t.json")
    kept = [t["truth"] != "catch" for t in key["trials"]]
    seconds = np.array([each["seconds"] for each in json.loads(file.read_text())["answers"]])
    found = score(study, file, out=tmp_path / "out")["readers"]["T"]["seconds"]
    assert found["value"] == np.median(seconds[kept])
    assert found["n"] == sum(kept)
    assert found["low"] < found["high"]


def test_pairs_are_scored_by_their_means(tmp_path: Path, model: Path) -> None:
    """Means, shares of each score, and kappas weighted by distance: 1 apart is worse than 0."""
    out = make(tmp_path, 12, repeats=3, catch=1, model=model)
    key = key_of(out)
    number = {t["image"]: i for i, t in enumerate(key["trials"]) if t["truth"] == "pair"}

    def scores(low: int, trial: dict) -> tuple[int, None]:
        return (1 if trial["truth"] == "catch" else low + number[trial["image"]] % 2), None

    files = [
        answer_all(key, name, partial(scores, low), tmp_path / f"{name}.json")
        for name, low in (("gen", 4), ("str", 3))
    ]
    found = score(out, *files, out=tmp_path / "out")
    first = [t for t in key["trials"] if t["truth"] == "pair" and not t["repeats"]]
    want = np.mean([scores(4, t)[0] for t in first])
    assert found["figures"]["gen"]["mean"]["value"] == pytest.approx(want)
    assert found["figures"][POOLED]["mean"]["value"] == pytest.approx(want - 0.5)
    assert found["figures"]["str"]["4 or 5"]["value"] == pytest.approx(want - 4)
    assert found["readers"]["gen"]["same"]["value"] == 1
    table = (tmp_path / "out" / "score.txt").read_text()
    assert re.search(r"readers +linear +quadratic", table)


def simulated(random: np.random.Generator, d_prime: float, n: int) -> tuple[Key, list[Reader]]:
    """Three readers of n + n images, with noise of their own and a threshold between."""
    trials = [Trial(str(i), "synthetic" if i < n else "real", str(i), None) for i in range(2 * n)]
    evidence = np.repeat([d_prime / 2, -d_prime / 2], n)
    shared = random.normal(size=2 * n)
    readers = []
    for name in "ABC":
        seen = evidence + np.sqrt(0.5) * (shared + random.normal(size=2 * n))
        sure = np.clip(np.ceil(np.abs(seen) * 2), 1, 5).astype(int)
        said = np.where(seen > 0, "fake", "real")
        answers = {str(i): Answer(str(said[i]), int(sure[i]), 1.0, "") for i in range(2 * n)}
        readers.append(Reader(name, answers))
    return Key("s", "authenticity", {}, trials), readers


def test_one_simulated_study_is_what_was_put_in() -> None:
    """2,000 + 2,000 images: d', AUC and kappa as two unit normals 1 apart have them, to 0.06."""
    key, readers = simulated(np.random.default_rng(0), 1.0, 2000)
    found = measure(key, readers)
    assert found[POOLED][f"d', {AS_REAL}"].value == pytest.approx(1.0, abs=0.06)
    assert found[POOLED]["AUC"].value == pytest.approx(norm.cdf(np.sqrt(0.5)), abs=0.03)
    seen = gather(key, readers)
    alike = np.mean(seen.said[0] == seen.said[1])
    assert agreement(key, readers)["A and B"].value == pytest.approx(2 * alike - 1, abs=0.01)
    assert attention(key, readers[0]).same is None  # nothing came again


def test_unfinished_answers_are_scored_on_request(
    study: Path, key: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused with their number; with --incomplete scored, and the page says how many."""
    whole = answer_all(key, "W", by_truth, tmp_path / "w.json")
    part = answer_all(key, "P", by_truth, tmp_path / "p.json")
    edit(lambda c: c.update(answers=c["answers"][:30]))(part)
    out, message = tmp_path / "out", "p.json answers 30 of 52 images; let reader P finish"
    arguments = ("score", study / "key.json", whole, part)
    assert_refused(capsys, out, arguments, message, "--incomplete")
    found = score(study, whole, part, "--incomplete", out=out)
    assert "Not all answered all 52: P 30." in (out / "score.txt").read_text()
    shared = found["figures"][POOLED]["AUC"]["n"]
    assert shared == found["figures"]["P"]["AUC"]["n"] < found["figures"]["W"]["AUC"]["n"] == 40


def edit(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return write


def answer(place: int, **change: object) -> Callable[[Path], None]:
    return edit(lambda content: content["answers"][place].update(change))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no JSON": (lambda path: path.write_text("{"), "a.json is no JSON"),
    "bytes": (lambda path: path.write_bytes(b"\xff\xfe"), "a.json is no JSON"),
    "a list": (lambda path: path.write_text("[]"), "a.json holds no answers"),
    "absent": (lambda path: path.unlink(), "cannot read"),
    "another study": (edit(lambda c: c.update(study="0123")), "answers study 0123, the key is of"),
    "edited id": (answer(3, id="0" * 12), "answer 4 is to an image that the study has not"),
    "twice": (edit(lambda c: c["answers"].append(c["answers"][0])), "53 is the second one to"),
    "unknown": (answer(0, answer="maybe"), "answer 1 must be real, unsure or fake, got 'maybe'"),
    "unsure how sure": (answer(1, confidence=None), "2 must have a confidence of 1 to 5, got None"),
    "endless time": (answer(0, seconds=10**400), "must have seconds of 0 or more, got 1000"),
    "a key twice": (lambda path: path.write_text('{"a": 1, "a": 2}'), "a.json is no JSON (a key"),
    "too deep": (lambda path: path.write_text("[" * 10**5), "a.json is no JSON (it nests"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "it is no regular file"),
    "negative time": (answer(0, seconds=-1), "must have seconds of 0 or more, got -1"),
    "no reader": (edit(lambda c: c.pop("reader")), "a.json has no reader"),
    "no object": (edit(lambda c: c["answers"].insert(0, 7)), "answer 1 is to an image that the st"),
}


@pytest.mark.parametrize("case", BAD)
def test_answers_that_do_not_fit_are_one_line(
    study: Path, key: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    """Exit status 2, one line that says what and where; nothing is written."""
    spoil, message = BAD[case]
    file = answer_all(key, "A", by_truth, tmp_path / "a.json")
    spoil(file)
    assert_refused(capsys, tmp_path / "out", ("score", study / "key.json", file), message)


def forge(place: str, change: Callable[[dict, list[dict]], object]) -> Callable[[dict], object]:
    """Changes the first trial of a kind: real, repeated, repeat or catch."""
    kinds = {
        "real": lambda t, again: t["truth"] == "real" and not t["repeats"] and t["id"] not in again,
        "repeat": lambda t, again: t["repeats"],
        "catch": lambda t, again: t["truth"] == "catch",
    }

    def write(key: dict) -> None:
        each = key["trials"]
        again = {t["repeats"] for t in each}
        change(next(t for t in each if kinds[place](t, again)), each)

    return write


FORGED: dict[str, tuple[Callable[[dict], object], str]] = {
    "a truth in capitals": (
        forge("real", lambda t, each: t.update(truth="Synthetic")),
        "must be real or synthetic or catch, got 'Synthetic'",
    ),
    "a truth that is a list": (forge("real", lambda t, each: t.update(truth=[])), "must be real"),
    "an id that is a number": (forge("real", lambda t, each: t.update(id=7)), "must be real"),
    "a truth of the other mode": (forge("catch", lambda t, e: t.update(truth="pair")), "'pair'"),
    "a trial twice": (forge("real", lambda t, each: each.append(t)), "53 comes twice"),
    "an image twice": (forge("real", lambda t, e: e.append(t | {"id": "x"})), "53 comes twice"),
    "a repeat of itself": (
        forge("real", lambda t, e: t.update(repeats=t["id"])),
        "comes twice, or",
    ),
    "a repeat of nothing": (forge("real", lambda t, e: t.update(repeats="x")), "comes twice, or"),
    "a repeat of another": (
        forge("repeat", lambda t, each: t.update(repeats=each[0]["id"] + "x")),
        "comes twice, or repeats another image",
    ),
    "a repeat that denies it": (
        forge("repeat", lambda t, e: t.update(repeats=None)),
        "comes twice",
    ),
    "a catch again": (forge("catch", lambda t, e: t.update(repeats=e[0]["id"])), "comes twice, or"),
    "findings that are a list": (
        forge("real", lambda t, each: t.update(findings=["edema"])),
        "must have findings that are true or false",
    ),
    "a set that is a number": (forge("real", lambda t, each: t.update(set=7)), "must be real"),
    "another mode": (lambda key: key.update(mode="Pairs"), "is no key of a reader study"),
    "a mode that is a list": (lambda key: key.update(mode=[]), "is no key of a reader study"),
    "nothing made": (lambda key: key.update(made=None), "is no key of a reader study"),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_key_is_not_scored(
    study: Path, key: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    """Each value of each trial is checked: a key that was changed is refused in one line."""
    change, message = FORGED[case]
    forged = json.loads(json.dumps(key))
    change(forged)
    (tmp_path / "key.json").write_text(json.dumps(forged))
    file = answer_all(key, "A", by_truth, tmp_path / "a.json")
    assert_refused(capsys, tmp_path / "out", ("score", tmp_path / "key.json", file), message)


def test_a_key_without_sets_and_findings_is_scored_alike(
    study: Path, key: dict, tmp_path: Path
) -> None:
    """Keys that were made before these were recorded give the same figures."""
    file = answer_all(key, "A", at_random(0), tmp_path / "a.json")
    trials = [{n: t[n] for n in ("id", "truth", "image", "repeats")} for t in key["trials"]]
    (tmp_path / "key.json").write_text(json.dumps(key | {"trials": trials}))
    old, new = (score(folder, file, out=tmp_path / "o")["figures"] for folder in (tmp_path, study))
    assert old == new


def test_what_cannot_be_scored_is_one_line(
    study: Path, key: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reader twice, answers for a key, no answers, and too few images of a kind."""
    file = answer_all(key, "A", by_truth, tmp_path / "a.json")
    again = answer_all(key, "A", at_random(0), tmp_path / "b.json")
    few = answer_all(key, "F", by_truth, tmp_path / "f.json")
    edit(lambda c: c.update(answers=c["answers"][:1]))(few)
    none = answer_all(key, "N", by_truth, tmp_path / "n.json")
    edit(lambda c: c.update(answers=[]))(none)
    there = study / "key.json"
    for arguments, message in (
        ((there, file, again), "are both of reader A; name each reader once"),
        ((file, file), "a.json is no key of a reader study"),
        ((there,), "score needs KEY and ANSWERS"),
        ((), "score needs KEY and ANSWERS"),
        ((there, file, "--counts", "x.json"), "--counts FILE takes no key"),
        ((there, few, "--incomplete"), "figures need at least two of each"),
        ((there, none, "--incomplete"), "reader N answered nothing yet"),
    ):
        assert_refused(capsys, tmp_path / "out", ("score", *arguments), message)
