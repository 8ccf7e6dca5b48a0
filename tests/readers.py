"""Small reader studies for tests: sets of pictures, a study of them, made-up answers, scores."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_one_line
from PIL import Image, PngImagePlugin

import evaluate
from ldm.system import cli


def status(*arguments: object) -> int | str | None:
    """The exit status of `python evaluate.py reader-study ...`."""
    words = ["reader-study", *map(str, arguments)]
    try:
        return cli.run(lambda: evaluate.main(words), "evaluate.py")
    except SystemExit as stop:  # argparse
        return stop.code


def write_sets(folder: Path, n: int = 40) -> tuple[Path, Path]:
    """Real: 16-bit grey of 40 x 48 px; synthetic: 8-bit colour of 32 px that says so. One chest
    could be the other's: both are smooth noise of the same law."""
    random = np.random.default_rng(0)
    text = PngImagePlugin.PngInfo()
    text.add_itxt("synthetic", "drawn by a model")
    for name in ("real", "synthetic"):
        (folder / name).mkdir(parents=True)
    for i in range(n):
        coarse = random.integers(0, 65536, (6, 5)).astype(np.float32)
        wide = Image.fromarray(coarse).resize((40, 48), Image.Resampling.BICUBIC)
        grey = np.asarray(wide).clip(0, 65535).astype(np.uint16)
        Image.fromarray(grey).save(folder / "real" / f"patient-{i}.png")
        coarse = random.integers(0, 256, (5, 5)).astype(np.uint8)
        square = Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC)
        square.convert("RGB").save(folder / "synthetic" / f"{i:05}.png", pnginfo=text)
    return folder / "real", folder / "synthetic"


def make(folder: Path, n: int, repeats: int, catch: int, model: Path | None = None) -> Path:
    """The folder of a study of n + n images, or with a model of n pairs."""
    real, synthetic = write_sets(folder, n)
    sets = ("--pairs", synthetic, "--model", model) if model else (real, synthetic)
    few = ("--n", n, "--repeats", repeats, "--catch", catch)
    assert status("make", *sets, *few, "--out", folder / "study") == 0
    return folder / "study"


def key_of(folder: Path) -> dict:
    return json.loads((folder / "key.json").read_text())


def study_of(page: Path | bytes) -> dict:
    """The study that the script of a page is given."""
    text = page.decode() if isinstance(page, bytes) else page.read_text(encoding="utf-8")
    start = text.index(">", text.index('<script id="study"')) + 1
    return json.loads(text[start : text.index("</script>", start)])


def score(study: Path, *files: object, out: Path) -> dict:
    """The figures of files of answers."""
    assert status("score", study / "key.json", *files, "--out", out) == 0
    return json.loads((out / "score.json").read_text())


def assert_refused(
    capsys: pytest.CaptureFixture[str], out: Path, arguments: Sequence[object], *words: str
) -> None:
    """Exit status 2, one line that holds these words, nothing written."""
    assert status(*arguments, "--out", out) == 2
    assert_one_line(capsys.readouterr().err, *words)
    assert not out.exists()


def answer_all(
    key: dict,
    reader: str,
    say: Callable[[dict], tuple[object, int | None]],
    path: Path,
    remark: Callable[[dict], str] = lambda trial: "",
) -> Path:
    """A file as the page saves it;  say: a trial of the key -> answer and confidence"""
    answers = []
    for i, trial in enumerate(key["trials"]):
        said, sure = say(trial)
        given = {"id": trial["id"], "answer": said, "remark": remark(trial), "seconds": 2.0 + i % 5}
        answers.append(given | ({"confidence": sure} if key["mode"] != "pairs" else {}))
    content = {
        **{"format": "ldm reader study 1", "study": key["study"], "mode": key["mode"]},
        **{"reader": reader, "trials": len(answers), "answers": answers, "open": {}},
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
