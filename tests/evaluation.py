"""evaluate.py, run inside a test."""

import json
from pathlib import Path
from typing import NoReturn

import pytest
from conftest import assert_one_line
from torch import Tensor

import evaluate
from ldm.pictures import image_files
from ldm.system import cli

Capture = pytest.CaptureFixture[str]


def status(*arguments: object) -> int | str | None:
    """The exit status of `python evaluate.py ...`."""
    try:
        return cli.run(lambda: evaluate.main([str(a) for a in arguments]), "evaluate.py")
    except SystemExit as stop:  # argparse
        return stop.code


def measure(capsys: Capture, *arguments: object) -> dict:
    """What --json prints, read as every reader of JSON can: without NaN and infinity."""

    def refuse(word: str) -> NoReturn:
        raise AssertionError(word)

    assert status(*arguments, "--json") == 0
    if arguments[0] in ("classify", "images", "inpainting", "memorization", "reconstruction"):
        [page] = Path(str(arguments[arguments.index("--out") + 1])).glob("*.html")
        assert "Read from" in page.read_text()  # every page says what was read, and what was not
    return json.loads(capsys.readouterr().out, parse_constant=refuse)


def assert_refused(capsys: Capture, folder: Path, words: str, *arguments: object) -> None:
    """Exit status 2 and one line on stderr, which has the words; nothing new in the folder."""
    before = sorted(folder.rglob("*"))
    assert status(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert_one_line(shown.err, words)
    assert "Smith" not in shown.err  # a name in the texts of some tests
    assert sorted(folder.rglob("*")) == before


def write_images(path: Path, pictures: Tensor) -> Path:
    """A folder of PNGs, 0.png the first."""
    path.mkdir()
    for i, image in enumerate(pictures):
        image_files.save(image, path / f"{i}.png", {})
    return path
