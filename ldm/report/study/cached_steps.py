"""A cache of the steps of a long piece of work: a finished step is found again by its inputs.

OUT/steps/NAME/ holds values.json, the files of the step, and step.json: the key (a hash of the
settings, of the code and of the keys of the steps that it needs), those settings, the hash of
every file, and the seconds that it took. A step is done again, and overwritten, if its key changed
or its files are damaged.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ldm.metrics.estimate import Estimate, as_json
from ldm.system import atomic
from ldm.system.atomic import code_version, digest

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[2]
CODE = (".py", ".cpp", ".json", ".csv")  # tables of constants count, templates of pages do not
# files that only show results, so that a new word in a caption does not repeat hours of work
SHOWS = (
    *("report/page.py", "report/study/paper_figures.py", "report/study/paper_tables.py"),
    *("report/study/rank_agreement.py", "report/study/study_page.py"),
)
VALUES, RECORD = "values.json", "step.json"


class Result(NamedTuple):
    """values: ready for JSON;  files: {name: content}"""

    values: dict[str, Any]
    files: Mapping[str, bytes] = {}


class Done(NamedTuple):
    """A finished step on the disk.

    values: of its values.json, estimates as such
    record: of its step.json; seconds: that it took;  cpu: of the work of all cores
    """

    folder: Path
    values: dict[str, Any]
    record: dict[str, Any]

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def array(self, name: str) -> np.ndarray:
        return np.load(self.folder / f"{name}.npy")


@dataclass(frozen=True)
class StudyStep:
    """settings: all that decides the result, but for the code and the steps that are needed

    work: makes the result from the steps before it;  about: how many seconds it may take
    """

    name: str
    settings: Mapping[str, Any]
    work: Callable[[Mapping[str, Done]], Result]
    needs: tuple[str, ...] = ()
    about: float = 10.0


def run(steps: Sequence[StudyStep], folder: Path) -> dict[str, Done]:
    """All of them, in their order; the log has a line for each."""
    log.setLevel(logging.INFO)  # a study takes an hour: show a line for each step
    done: dict[str, Done] = {}
    code = version()
    keys: dict[str, str] = {}
    for step in steps:  # known before anything is done
        needed = [keys[name] for name in step.needs]
        keys[step.name] = digest([step.name, step.settings, code, needed])
    waiting = [step for step in steps if find(folder / step.name, keys[step.name]) is None]
    expected, spent = sum(step.about for step in waiting), [(0.0, 0.0)]
    for number, step in enumerate(steps, start=1):
        place, where = folder / step.name, f"step {number} of {len(steps)}, {step.name}"
        found = find(place, keys[step.name])
        if found is None:
            left = time_left(expected, spent)
            log.info("%s: begins%s; about %s left", where, why(place, step, code), left)
            began = (time.monotonic(), time.process_time())
            result = step.work(done)
            took = (time.monotonic() - began[0], time.process_time() - began[1])
            found = keep(place, step, keys[step.name], code, result, took)
            spent.append((step.about, took[0]))
            left = time_left(expected, spent)
            log.info("%s: done in %.0f s; about %s left", where, took[0], left)
        else:
            log.info("%s: there already", where)
        done[step.name] = found
    return done


def time_left(expected: float, spent: Sequence[tuple[float, float]]) -> str:
    """expected: seconds of all steps;  spent: seconds of each finished one, expected and real"""
    planned, took = map(sum, zip(*spent, strict=True))
    pace = took / planned if planned else 1.0
    seconds = pace * max(0.0, expected - planned)
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def version() -> str:
    """Hash of all code and constants that results can depend on, and torch's version."""
    return _hash(lambda name: name not in SHOWS)


def core_version() -> str:
    """Hash of the code that trains and draws, all but the reports, and torch's version."""
    return _hash(lambda name: not name.startswith("report/"))


def _hash(counts: Callable[[str], bool]) -> str:
    files = sorted(file for file in PACKAGE.rglob("*") if file.suffix in CODE)
    kept = [file for file in files if counts(file.relative_to(PACKAGE).as_posix())]
    return f"{code_version(*kept)}-{torch.__version__}"


def find(folder: Path, key: str) -> Done | None:
    """The finished step of this key, if all of its files are what they were."""
    record = read_record(folder)
    if record is None or record["key"] != key:
        return None
    for name, hashed in record["files"].items():
        file = folder / name
        if not file.is_file() or code_version(file) != hashed:
            log.warning("%s is not what the step wrote; it is done again", file)
            return None
    return Done(folder, read_values(folder), record)


def read_values(folder: Path) -> dict[str, Any]:
    """values.json of a step; each object with the fields of an Estimate, and no others, is one."""

    def revive(found: dict[str, Any]) -> Any:
        return estimate_of(found) if found.keys() == set(Estimate._fields) else found

    return json.loads((folder / VALUES).read_text(), object_hook=revive)


def estimate_of(found: Mapping[str, Any]) -> Estimate:
    """An estimate from JSON, where null is a number that is not finite."""
    numbers: dict[str, Any] = {
        name: math.nan if found[name] is None else found[name] for name in Estimate._fields
    }
    return Estimate(**numbers)


def keep(
    folder: Path, step: StudyStep, key: str, code: str, result: Result, took: tuple[float, float]
) -> Done:
    """The record comes last: without it, or with that of other files, there is no step."""
    values = json.dumps(as_json(result.values), indent=1) + "\n"
    contents = {VALUES: values.encode(), **result.files}
    with atomic.whole_folder(folder) as unfinished:
        for name, content in contents.items():
            (unfinished / name).write_bytes(content)
    record = {
        "step": step.name,
        "key": key,
        "code": code,
        "needs": step.needs,
        "settings": step.settings,
        "files": {name: code_version(folder / name) for name in contents},
        "seconds": round(took[0], 1),
        "cpu": round(took[1], 1),
    }
    with atomic.whole_file(folder / RECORD) as path:
        path.write_text(json.dumps(record, indent=1) + "\n")
    return Done(folder, read_values(folder), record)


def why(folder: Path, step: StudyStep, code: str) -> str:
    """The reason why the step is done again; "" if it was never done."""
    record = read_record(folder)
    if record is None:
        return ""
    if record["settings"] != json.loads(json.dumps(step.settings)):
        return " again, for its settings changed"
    return " again, for the code changed" if record["code"] != code else " again"


def read_record(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return None
