"""Plant a classic mistake of latent diffusion in a copy of the project, and see what it does.

    python -m lessons.bugs               the bugs: those of tests/planted.json with a "lesson"
    python -m lessons.bugs N             the pictures with and without it, and the test that fails
    python -m lessons.bugs N --cure      what is wrong, the right equation, and the change
    python -m lessons.bugs --table       measure all again for docs/bugs.md; some minutes

ldm is imported in functions only: the processes that test a copy import this file first.
"""

import difflib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from safetensors.numpy import load_file

try:
    from tests import planted
except ModuleNotFoundError as error:  # pytest, which the plain installation lacks
    print(f"python -m lessons.bugs: {error}; pip install -e '.[test]'", file=sys.stderr)
    sys.exit(2)

BUGS = {bug["lesson"]["name"]: bug for bug in planted.BUGS if "lesson" in bug}
DRAW = ("sample.py", "--prompt=lung xray with pleural effusion", "--steps=8", "--device=cpu")
TRAIN = "train.steps=3 train.warmup=0 train.sample_every=0 train.batch_size=2 train.device=cpu"
PAGE = planted.ROOT / "docs" / "bugs.md"


class Effect(NamedTuple):
    right: np.ndarray  # uint8 [4, H, W], four pictures
    wrong: np.ndarray
    levels: float  # mean |wrong - right|, of 255 grey levels
    weights: float | None  # |wrong - right| / |right - start|, of weights after three steps
    found: planted.Outcome

    def __str__(self) -> str:
        weights = "" if self.weights is None else f"; weights by {self.weights:.3g}"
        return f"{self.levels:.3g} grey levels{weights}"


@cache
def run(folder: Path, command: tuple[str, ...], bug: str = "") -> np.ndarray:
    """Four pictures [4, H, W], or all trained weights, from a script of the copy with that bug."""
    out, draws = Path(tempfile.mkdtemp(dir=folder)), command[0] == "sample.py"
    more = ["--out", str(out)] if draws else [f"train.out={out}", f"data.cache={out}/cache"]
    own = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, *command, *more]
    done = subprocess.run(line, cwd=folder, env=os.environ | own, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{command[0]}: {(done.stderr.splitlines() or ['it was killed'])[-1]}")
    if draws:
        return np.stack([np.asarray(Image.open(out / f"0000{i}.png")) for i in range(4)])
    tensors = load_file(out / "model.safetensors")
    return np.concatenate([tensors[name].ravel() for name in sorted(tensors)], dtype=float)


def copy(folder: Path) -> Path:
    """A copy of the project; with a drawn chest and a mask, white on the left, for editing bugs."""
    planted.copy(folder)
    Image.fromarray(run(folder, DRAW)[0]).save(folder / "chest.png")
    Image.fromarray(np.tile(np.uint8([255, 0]).repeat(64), (128, 1))).save(folder / "mask.png")
    return folder


def study(bug: dict[str, Any], folder: Path) -> Effect:
    """Draw, and train if the lesson says so, with and without the bug; then run its tests."""
    draw = (*DRAW, *bug["lesson"].get("draw", "").split())
    train = ("train.py", *bug["lesson"].get("train", "").split(), *TRAIN.split())
    commands = [draw, train] if "train" in bug["lesson"] else [draw]
    right = [run(folder, command) for command in commands]
    with planted.plant(bug, folder):
        wrong = [run(folder, command, bug["name"]) for command in commands]
        found = planted.outcome(folder, bug["test"])
    levels, weights = float(np.abs(wrong[0].astype(float) - right[0]).mean()), None
    if len(commands) == 2:
        way = np.linalg.norm(right[1] - run(folder, (*train, "train.learning_rate=0")))
        weights = float(np.linalg.norm(wrong[1] - right[1]) / way)
    return Effect(right[0], wrong[0], levels, weights, found)


def save(rows: dict[str, Sequence[np.ndarray]], size: int, path: Path) -> None:
    """Write rows of square pictures, uint8 [H, W], each below its label, as one PNG."""
    from ldm.pictures import image_files

    strips = []
    for label, row in rows.items():
        ImageDraw.Draw(head := Image.new("L", (size * len(row), 16))).text((4, 2), label, 255)
        tiles = [np.asarray(Image.fromarray(x).resize((size, size))) for x in row]
        strips += [np.asarray(head), np.hstack(tiles)]
    image_files.save(np.vstack(strips)[..., None], path, {"synthetic": "yes"})


def write_table(effects: dict[str, Effect]) -> None:
    """Replace the rows of docs/bugs.md and its picture."""
    text, rows = "".join(PAGE.read_text(encoding="utf-8").partition("|---|\n")[:2]), {}
    for name, effect in effects.items():
        message = effect.found.message[:90].strip().replace("|", "\\|").replace("`", "'")
        test = effect.found.test.removeprefix("tests/").partition("[")[0]
        text += f"| {name} | {effect} | {test} | `{message}` |\n"
        rows[f"{name}: right, with the bug; {effect}; synthetic"] = [*effect.right, *effect.wrong]
    PAGE.write_text(text, encoding="utf-8")
    save(rows, 64, PAGE.with_suffix(".png"))


def main(arguments: list[str] | None = None) -> int:
    from ldm.system import cli

    parser = cli.Parser("python -m lessons.bugs", "Plant a classic mistake; see what it does.")
    parser.add_argument("bug", nargs="?", metavar="N", help="its number or name (all are listed)")
    parser.add_argument("--cure", action="store_true", help="what is wrong, and the equation")
    parser.add_argument("--out", type=Path, metavar="PNG", help="(runs/lessons/bug_N.png)")
    parser.add_argument("--table", action="store_true", help="write the table of docs/bugs.md")
    given = parser.parse_args(arguments)
    numbers = {str(i): name for i, name in enumerate(BUGS, start=1)}
    name = numbers.get(given.bug, given.bug)
    bug = BUGS.get(name)
    if name is not None and bug is None:
        parser.error(f"there is no bug {name!r}; python -m lessons.bugs lists them")
    with tempfile.TemporaryDirectory() as place:
        if given.table:
            folder = copy(Path(place, "copy"))
            write_table({name: study(bug, folder) for name, bug in BUGS.items()})
        elif name is None:  # without their names, which would say what to find
            print(*(f"{i:>2} {BUGS[name]['file']}" for i, name in numbers.items()), sep="\n")
        elif given.cure:
            code = (planted.ROOT / bug["file"]).read_text(encoding="utf-8")
            texts = code.replace(bug["old"], bug["new"]).splitlines(), code.splitlines()
            print(f"{name}: {bug['lesson']['cure']}")
            print(*difflib.unified_diff(*texts, "bug", bug["file"], n=1, lineterm=""), sep="\n")
        else:
            out = given.out or Path("runs", "lessons", f"bug_{given.bug}.png")
            out.parent.mkdir(parents=True, exist_ok=True)
            effect = study(bug, copy(Path(place, "copy")))
            rows = {"right (all is synthetic)": effect.right, "with the bug": effect.wrong}
            save(rows, 192, out)
            print(f"a bug in {bug['file']}\n{out}: right above, with the bug below")
            print("drawn by", *DRAW, bug["lesson"].get("draw", ""))
            if not effect.levels:
                print("the pictures do not change: this bug spoils training")
            print(f"change: {effect}\n{effect.found.test}\nclaims:", *effect.found.claim.split())
            print("and fails:", effect.found.message)
    return 0


if __name__ == "__main__":
    from ldm.system.cli import run as run_script

    sys.exit(run_script(main, "python -m lessons.bugs"))
