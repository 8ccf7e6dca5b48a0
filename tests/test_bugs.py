"""lessons/bugs.py: what a planted bug does is seen, and a test says which claim is broken."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ldm.pictures import image_files
from lessons import bugs

ROOT = Path(__file__).parents[1]
FAST = {"linear-beta", "guidance-swapped"}
EACH = [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in bugs.BUGS]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in bugs.PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ")
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bugs.copy(tmp_path_factory.mktemp("bugs") / "copy")


@pytest.fixture(scope="module", autouse=True)
def code() -> Iterator[None]:
    """The checkout has no bug, before and after."""
    before = {path: path.read_bytes() for path in ROOT.glob("ldm/**/*.py")}
    yield
    assert before == {path: path.read_bytes() for path in ROOT.glob("ldm/**/*.py")}


@pytest.mark.parametrize("name", EACH)
def test_a_bug_changes_pictures_or_weights_and_is_caught_by_its_claim(
    copy: Path, name: str
) -> None:
    """With the bug the pictures or the trained weights are others, and the test of docs/bugs.md
    fails with the words of the claim; the copy is as before."""
    bug = bugs.BUGS[name]
    code = (copy / bug["file"]).read_bytes()
    effect = bugs.study(bug, copy)
    assert (copy / bug["file"]).read_bytes() == code
    assert ("train" in bug["lesson"]) == (effect.weights is not None) == (effect.levels == 0)
    assert effect.levels or effect.weights
    assert effect.levels == pytest.approx(np.abs(effect.right - effect.wrong.astype(int)).mean())
    assert effect.found.status == 1
    assert effect.found.names(bug["claim"]), effect.found.line
    row = next(row for row in ROWS if row[0] == name)
    assert effect.found.test.removeprefix("tests/").partition("[")[0] == row[2]


def test_the_page_has_a_row_for_each_bug() -> None:
    """docs/bugs.md has the bugs of tests/planted.json with a lesson, in order, and their tests."""
    assert [row[0] for row in ROWS[1:]] == list(bugs.BUGS)
    tests = [bug["test"].removeprefix("tests/") for bug in bugs.BUGS.values()]
    assert [row[2].partition("::")[0] for row in ROWS[1:]] == tests
    assert image_files.read_text(bugs.PAGE.with_suffix(".png"))["synthetic"]
    assert bugs.PAGE.with_suffix(".png").stat().st_size < 700_000


def test_names_and_cures() -> None:
    """Names of lessons differ from each other; each cure names a paper."""
    lessons = [bug["lesson"] for bug in bugs.planted.BUGS if "lesson" in bug]
    assert len({lesson["name"] for lesson in lessons}) == len(lessons) == len(bugs.BUGS)
    assert all(re.search(r"arXiv:\d{4}\.\d{4,5}", lesson["cure"]) for lesson in lessons)


def test_the_list_and_a_cure(capsys: pytest.CaptureFixture[str]) -> None:
    """All bugs are listed by number and file, without their names; --cure prints name, cure, and
    the change as a diff, by number as by name."""
    assert bugs.main([]) == 0
    files = [bug["file"] for bug in bugs.BUGS.values()]
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert listed == [[str(i), file] for i, file in enumerate(files, start=1)]
    number = 1 + list(bugs.BUGS).index("cos-and-sin")
    assert bugs.main([str(number), "--cure"]) == 0
    out = capsys.readouterr().out
    assert bugs.main(["cos-and-sin", "--cure"]) == 0
    assert capsys.readouterr().out == out
    bug = bugs.BUGS["cos-and-sin"]
    assert out.startswith(f"cos-and-sin: {bug['lesson']['cure']}")
    assert re.search(rf"^-.*{re.escape(bug['new'])}", out, re.MULTILINE)
    assert re.search(rf"^\+.*{re.escape(bug['old'])}", out, re.MULTILINE)


def test_a_sheet_shows_both_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sheet is the right pictures above those with the bug; what is printed names the test."""
    found = bugs.planted.Outcome(1, "tests/test_x.py::test_y", "", "test_y: no", "A claim.")
    right, wrong = np.full((4, 8, 8), 200, np.uint8), np.full((4, 8, 8), 100, np.uint8)
    effect = bugs.Effect(right, wrong, 100.0, None, found)
    monkeypatch.setattr(bugs, "study", lambda bug, folder: effect)
    monkeypatch.setattr(bugs, "copy", lambda folder: folder)
    out = tmp_path / "new" / "sheet.png"
    assert bugs.main(["cos-and-sin", "--out", str(out)]) == 0
    sheet = image_files.read(out)[..., 0]
    assert sheet.shape == (2 * (16 + 192), 4 * 192)
    assert (sheet[16:208] == 200).all()
    assert (sheet[224:] == 100).all()
    assert image_files.read_text(out)["synthetic"] == "yes"
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("100 grey levels", found.test, "A claim.", "no"))


def test_an_unknown_name_is_refused_in_one_line() -> None:
    """One line on stderr that names it, and exit status 2."""
    command = [sys.executable, "-m", "lessons.bugs", "nonsense"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "'nonsense'" in done.stderr
