"""Steps of a long piece of work: each is kept once it is done, and found again by what it rests on.

OUT/steps/NAME/ holds values.json, the files of the step, and step.json: the key (a hash of the
settings, of the code and of the keys of the steps that it needs), those settings, the hash of
every file, and the seconds that it took. A step whose key is another one is done anew, and so is
one whose files are damaged; what was done for other settings before is overwritten.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ldm.metrics.estimate import as_json
from ldm.system import atomic
from ldm.system.fingerprint import code_version, digest

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[2]
_PAGES = ("adapted", "figures", "order", "story", "summary", "tables")
# what only shows results, so that a new word in a caption does not cost an hour
SHOWS = (
    "report/page.py",
    "report/chambon.py",
    *(f"report/study/{name}.py" for name in _PAGES),
)
VALUES, RECORD = "values.json", "step.json"


class Result(NamedTuple):
    """values: ready for JSON;  files: {name: content}"""

    values: dict[str, Any]
    files: Mapping[str, bytes] = {}


class Done(NamedTuple):
    """A finished step, on the disk;  seconds: that it took;  cpu: the same of all cores' work"""

    folder: Path
    key: str
    values: dict[str, Any]
    seconds: float
    cpu: float

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


@dataclass(frozen=True)
class StudyStep:
    """settings: all that decides the result, but for the code and the steps that are needed

    work: makes it of the steps before;  about: how long it may take, in seconds, for the estimate
    """

    name: str
    settings: Mapping[str, Any]
    work: Callable[[Mapping[str, Done]], Result]
    needs: tuple[str, ...] = ()
    about: float = 10.0


@dataclass
class Clock:
    """What is left, by the steps that were done so far and how long they were thought to take."""

    expected: float
    done: float = 0.0
    spent: float = 0.0
    names: list[str] = field(default_factory=list)

    def tick(self, step: StudyStep, seconds: float) -> None:
        self.names.append(step.name)
        self.done += step.about
        self.spent += seconds

    def left(self) -> str:
        pace = self.spent / self.done if self.done else 1.0
        seconds = pace * max(0.0, self.expected - self.done)
        return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def run(steps: Sequence[StudyStep], folder: Path) -> dict[str, Done]:
    """All of them, in their order; the log has a line for each."""
    log.setLevel(logging.INFO)  # a line for each step is what whoever waits for an hour wants
    done: dict[str, Done] = {}
    code = version()
    keys: dict[str, str] = {}
    for step in steps:  # known before anything is done
        keys[step.name] = digest(
            [step.name, step.settings, code, [keys[name] for name in step.needs]]
        )
    waiting = [s for s in steps if find(folder / s.name, keys[s.name]) is None]
    clock = Clock(sum(step.about for step in waiting))
    for number, step in enumerate(steps, start=1):
        place, where = folder / step.name, f"step {number} of {len(steps)}, {step.name}"
        found = find(place, keys[step.name])
        if found is None:
            log.info("%s: begins%s; about %s left", where, why(place, step, code), clock.left())
            began = (time.monotonic(), time.process_time())
            result = step.work(done)
            took = (time.monotonic() - began[0], time.process_time() - began[1])
            found = keep(place, step, keys[step.name], code, result, took)
            clock.tick(step, found.seconds)
            log.info("%s: done in %.0f s; about %s left", where, found.seconds, clock.left())
        else:
            log.info("%s: there already", where)
        done[step.name] = found
    return done


def version() -> str:
    """Of all code of the package that results can depend on, and of torch."""
    files = [f for f in PACKAGE.rglob("*.py") if str(f.relative_to(PACKAGE)) not in SHOWS]
    return f"{code_version(*sorted(files))}-{torch.__version__}"


def core_version() -> str:
    """The same of what trains and draws: all but the reports."""
    files = [f for f in PACKAGE.rglob("*.py") if f.relative_to(PACKAGE).parts[0] != "report"]
    return f"{code_version(*sorted(files))}-{torch.__version__}"


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
    values = json.loads((folder / VALUES).read_text())
    return Done(folder, key, values, record["seconds"], record["cpu"])


def keep(
    folder: Path, step: StudyStep, key: str, code: str, result: Result, took: tuple[float, float]
) -> Done:
    """The record comes last: without it, or with that of other files, there is no step."""
    values = json.dumps(as_json(result.values), indent=1) + "\n"
    contents = {VALUES: values.encode(), **result.files}
    with atomic.whole_folder(folder) as unfinished:
        for name, content in contents.items():
            (unfinished / name).write_bytes(content)
    seconds, cpu = (round(one, 1) for one in took)
    record = {
        "step": step.name,
        "key": key,
        "code": code,
        "needs": step.needs,
        "settings": step.settings,
        "files": {name: code_version(folder / name) for name in contents},
        "seconds": seconds,
        "cpu": cpu,
    }
    with atomic.whole_file(folder / RECORD) as path:
        path.write_text(json.dumps(record, indent=1) + "\n")
    return Done(folder, key, json.loads(values), seconds, cpu)


def why(folder: Path, step: StudyStep, code: str) -> str:
    """What changed since the step was last done."""
    record = read_record(folder)
    if record is None:
        return ""
    if record["settings"] != json.loads(json.dumps(step.settings)):
        return " again, for its settings changed"
    return " again, for the code changed" if record["code"] != code else " again"


def read_record(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((folder / RECORD).read_text())
        return found
    except (OSError, ValueError):
        return None
