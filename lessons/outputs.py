"""Run lessons and compare what their cells print with the lines "# > ..." below each cell.

    python -m lessons.outputs [--write] [LESSON ...]        all lessons, if none is named

Numbers with a decimal point may differ by 2 % or by one in their last digit, as processors round
differently; whole numbers and words may not. --write puts what was printed into the lesson.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LESSONS = sorted(FOLDER.glob("[01][0-9]_*.py"))
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
MARK, END = "# > ", "\x1e"


def cells(lesson: Path) -> list[list[str]]:
    """The lines of each percent cell, the line "# %%" first."""
    found: list[list[str]] = []
    for line in lesson.read_text(encoding="utf-8").splitlines():
        if line.startswith("# %%"):
            found.append([])
        found[-1].append(line)
    return found


def is_code(cell: list[str]) -> bool:
    return "[markdown]" not in cell[0]


def stated(cell: list[str]) -> list[str]:
    return [line[len(MARK) :] for line in cell if line.startswith(MARK)]


def printed(lesson: Path) -> list[list[str]]:
    """What each cell of code prints, in a process of its own; raises RuntimeError if it fails."""
    codes = ["\n".join(cell) for cell in cells(lesson) if is_code(cell)]
    script = f"\nprint({END!r}, flush=True)\n".join(codes)
    paths = os.pathsep.join([str(FOLDER), str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": paths, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{lesson.name}: {done.stderr[-2000:]}")
    return [part.strip("\n").splitlines() for part in done.stdout.split(END)]


def equal(a: str, b: str) -> bool:
    """The same words and whole numbers, and others within 2 % or one in their last digit."""
    if NUMBER.sub("#", a) != NUMBER.sub("#", b):
        return False
    for x, y in zip(NUMBER.findall(a), NUMBER.findall(b), strict=True):
        digits, _, exponent = x.partition("e")
        digit = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
        near = max(1.001 * digit, 0.02 * abs(float(x))) if "." in x + y else 0
        if abs(float(x) - float(y)) > near:
            return False
    return True


def differences(lesson: Path, found: list[list[str]]) -> list[str]:
    told = [stated(cell) for cell in cells(lesson) if is_code(cell)]
    return [
        f"{lesson.name} states {a or ['nothing']}, printed {b or ['nothing']}"
        for a, b in zip(told, found, strict=True)
        if len(a) != len(b) or not all(map(equal, a, b))
    ]


def write(lesson: Path, found: list[list[str]]) -> None:
    outputs, lines = iter(found), []
    for cell in cells(lesson):
        kept = [line for line in cell if not line.startswith(MARK)]
        if is_code(cell):
            end = len("\n".join(kept).rstrip("\n").split("\n"))  # the last line that is not empty
            kept[end:end] = [MARK + line for line in next(outputs)]
        lines += kept
    lesson.write_text("\n".join(lines).rstrip("\n") + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lessons.outputs")
    parser.add_argument("lessons", nargs="*", type=Path, default=LESSONS, metavar="LESSON")
    parser.add_argument("--write", action="store_true", help="put what is printed into the lesson")
    given = parser.parse_args()
    failed = 0
    for lesson in given.lessons:
        began = time.perf_counter()
        found = printed(lesson)
        wrong = differences(lesson, found)
        if given.write:
            write(lesson, found)
        print(f"{lesson.name}: {time.perf_counter() - began:.0f} s", *wrong, sep="\n  ", flush=True)
        failed += bool(wrong) and not given.write
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
