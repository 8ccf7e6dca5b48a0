"""The lessons: they run, print the numbers that they state, and keep their form."""

import re
from pathlib import Path

import jupytext
import pytest

from lessons import outputs

TITLES = [
    *("noise", "denoiser", "samplers", "guidance", "latents", "attention", "text", "adaptation"),
    *("measuring", "editing", "the_real_thing"),
]
DECIMAL = re.compile(r"(?<![\w.:])\d+\.\d+(?![.\d]*\d{4})")


def test_all_lessons_are_there() -> None:
    """Eleven lessons, in this order."""
    assert [path.stem[3:] for path in outputs.LESSONS] == TITLES


@pytest.mark.parametrize("lesson", outputs.LESSONS, ids=lambda path: path.stem)
def test_a_lesson_keeps_its_form(lesson: Path) -> None:
    """At most 120 lines and what they print; a title, an equation of a paper, three questions with
    answers, one command to go further; every decimal number of the text is printed by a cell or
    stands in its code."""
    lines = lesson.read_text(encoding="utf-8").splitlines()
    assert sum(not line.startswith(outputs.MARK) for line in lines) <= 120
    cells = outputs.cells(lesson)
    text = "\n".join(line[2:] for cell in cells if not outputs.is_code(cell) for line in cell)
    code = "\n".join(line for cell in cells if outputs.is_code(cell) for line in cell)
    assert re.match(rf"%% \[markdown\]\n# {int(lesson.stem[:2])}\. ", text)
    assert "arXiv:" in text
    for mark in ("Q1", "Q2", "Q3", "A1", "A2", "A3"):
        assert text.count(f"**{mark}**") == 1
    assert len(re.findall(r"\*\*Go further\*\*: `[^`]+`", text)) == 1
    prose = re.sub(r"arXiv:\S+|\(\.\./\S+\)|section \S+", "", text)
    missing = [number for number in DECIMAL.findall(prose) if number not in code]
    assert not missing, f"the text states {missing}, which no cell prints or uses"


@pytest.mark.parametrize("lesson", outputs.LESSONS, ids=lambda path: path.stem)
def test_a_lesson_opens_as_a_notebook(lesson: Path) -> None:
    """Jupytext reads the cells that we run, and writes the file again as it is."""
    notebook = jupytext.read(lesson)
    kinds = ["code" if outputs.is_code(cell) else "markdown" for cell in outputs.cells(lesson)]
    assert [cell.cell_type for cell in notebook.cells] == kinds
    again = jupytext.reads(jupytext.writes(notebook, "py:percent"), "py:percent")
    assert [cell.source for cell in again.cells] == [cell.source for cell in notebook.cells]


@pytest.mark.slow
@pytest.mark.parametrize("lesson", outputs.LESSONS, ids=lambda path: path.stem)
def test_a_lesson_prints_what_it_states(lesson: Path) -> None:
    """The lines "# > ..." of a lesson are what its cells print."""
    assert not outputs.differences(lesson, outputs.printed(lesson))


@pytest.mark.parametrize(
    ("stated", "found", "same"),
    [
        ("loss 0.50 of 3", "loss 0.51 of 3", True),  # one in the last digit
        ("loss 0.50", "loss 0.52", False),
        ("loss 1000.0", "loss 1019.0", True),  # 2 %
        ("loss 1000.0", "loss 1030.0", False),
        ("0 of 20", "1 of 20", False),
        ("loss 1.0e-3", "loss 5.0e-2", False),
        ("loss 1.0e-3", "gain 1.0e-3", False),
        ("-0.5", "0.5", False),
    ],
)
def test_outputs_are_compared_by_number_and_word(stated: str, found: str, same: bool) -> None:
    """A number may differ by rounding, a word and a sign may not."""
    assert outputs.equal(stated, found) is same


def test_a_wrong_number_in_a_lesson_is_noticed(tmp_path: Path) -> None:
    """A lesson that states another number than its cell prints differs; written anew, it agrees."""
    lesson = tmp_path / "01_wrong.py"
    lesson.write_text("# %% [markdown]\n# # 1.\n\n# %%\nprint('sum', 1 + 1)\n# > sum 3.00\n\n")
    found = outputs.printed(lesson)
    assert outputs.differences(lesson, found)
    outputs.write(lesson, found)
    assert not outputs.differences(lesson, found)
    assert "# > sum 2\n" in lesson.read_text()
