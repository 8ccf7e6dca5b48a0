"""Small reader studies for tests: two folders of pictures, a study of them, made-up answers."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
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


def study_of(page: Path) -> dict:
    return given_to(page.read_text(encoding="utf-8"))


def given_to(page: str) -> dict:
    """The study that the script of a page is given."""
    start = page.index(">", page.index('<script id="study"')) + 1
    return json.loads(page[start : page.index("</script>", start)])


def answer_all(
    key: dict, reader: str, say: Callable[[dict], tuple[object, int | None]], path: Path
) -> Path:
    """A file as the page saves it;  say: a trial of the key -> answer and confidence"""
    answers = []
    for i, trial in enumerate(key["trials"]):
        said, sure = say(trial)
        given = {"id": trial["id"], "answer": said, "remark": "", "seconds": 2.0 + i % 5}
        answers.append(given | ({"confidence": sure} if key["mode"] != "pairs" else {}))
    content = {
        **{"format": "ldm reader study 1", "study": key["study"], "mode": key["mode"]},
        **{"reader": reader, "trials": len(answers), "answers": answers, "open": {}},
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
