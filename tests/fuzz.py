"""Hostile and clumsy inputs of every kind: each is read or refused in one line, and nothing else.

    python -m tests.fuzz [--count 10000] [--seconds 60] [--family NAME ...] [--seed 0]

Case i of a family and a seed is always the same: a whole input of `fuzz_inputs.py` with a file
damaged, or its command changed. Cases run in forks of this process, which has imported everything,
one in a hundred as a command of its own. Prints a table by family; a case at fault is kept in
OUT/kept, with what it read and printed, and `sh command.sh` there runs it again.
REUSE=1 keeps the whole inputs of the run before.
"""

import argparse
import contextlib
import gc
import hashlib
import importlib
import io
import json
import logging
import os
import pkgutil
import random
import re
import resource
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.fuzz_damage import NAMES, WORDS, Damage, spoil

FAULTS = ("traceback", "hang", "memory", "control", "line", "leftover", "outside", "silent")
SECONDS, BYTES, CHARACTERS = 20, 2 * 10**9, 300  # no case takes more, no refusal is longer
LOGGED = 1_030  # characters of a line of the log, at most
ROOT = Path(__file__).resolve().parent.parent
FAMILIES = ["weights", "configs", "adapters", "runs", "caches", "trainings", "prompts", "tables"]
FAMILIES += ["images", "recalled", "dicom", "readers", "outpainting", "reports"]
FAMILIES += ["commands", "names"]  # of the inputs of all others
MODULES = {  # {program: the module that has its main}
    **{"sample.py": "sample", "train.py": "train", "evaluate.py": "evaluate"},
    **{"python -m ldm.weights": "ldm.weights.conversion"},
    **{"table": "fuzz", "image": "fuzz"},
}
# tensors that no drawing depends on
UNUSED = r"(^|\.)encoder\.(conv|down|mid|norm)|quant_conv|embedding|position|betas|alphas|\*"


class Result(NamedTuple):
    status: int  # minus the number of the signal that ended it
    out: str
    err: str
    bytes: int


class Case(NamedTuple):
    program: str
    arguments: list[str]
    damage: Damage


def is_fine(family: str, case: Case, result: Result, seeds: Path) -> bool:
    """Of a case that ended with 0: is what came out what must come out?"""
    (how, key, value), whole = case.damage, seeds / "whole"
    if family in ("weights", "adapters"):
        drawn = case.program == "sample.py" and not re.search(UNUSED, str(key))
        drawn = drawn and "--unet" not in case.arguments
        return how != "cut" and not (how == "nan" and drawn)
    if family == "configs":
        numbers = key in ("scale_factor", "scaling_factor", "guidance", "beta_start", "beta_end")
        return not (numbers and isinstance(value, float) and not abs(value) < 1e6)
    if family in ("runs", "caches") and how != "forged":
        found = Path("run/model.safetensors").read_bytes()
        return found == (whole / "finished/model.safetensors").read_bytes()
    if family in ("trainings", "runs"):
        from safetensors.torch import load_file

        states = [load_file(file) for file in Path().rglob("model.safetensors")]
        return all(tensor.isfinite().all() for state in states for tensor in state.values())
    if family == "tables":
        read, skipped = map(int, result.out.split())
        ways = {"twice": False, "elsewhere": read < 6, "quote": read + skipped == 6}
        return ways.get(how, True)
    if family == "images" and case.arguments == ["big.png"]:
        return result.out == (whole / "big.txt").read_text()
    if family == "readers":
        forged = how == "value" and key in ("truth", "repeats") and value is not None
        return not (forged or (how == "double" and "truth" in value))
    if family == "outpainting":
        return Path("out/00000.png").read_bytes() == (whole / "painted/00000.png").read_bytes()
    return how != "no folder"


@cache
def options_of(program: str, *words: str) -> list[str]:
    """The options that --help names, but for those that take minutes or write elsewhere."""
    text = io.StringIO()
    out, err = contextlib.redirect_stdout(text), contextlib.redirect_stderr(text)
    with out, err, contextlib.suppress(SystemExit):
        main_of(program)([*words, "--help"])
    slow = {"--compile", "--winograd", "--no-winograd", "--out", "--help", "--training"}
    return sorted(set(re.findall(r"--[a-z][a-z-]+", text.getvalue())) - slow)


def make_case(family: str, seed: int, number: int, seeds: Path, work: Path) -> Case:
    """Write what the case reads into the folder `work`; the same for the same numbers."""
    draw = random.Random(f"{family} {seed} {number}")
    source = draw.choice(FAMILIES[:-2]) if family in FAMILIES[-2:] else family
    shutil.copytree(draw.choice(sorted((seeds / source).iterdir())), work, symlinks=True)
    os.chdir(work)
    pattern, program, *arguments = json.loads(Path("command.json").read_text())
    Path("command.json").unlink()
    if family == "commands":
        words = [word for word in arguments[:2] if re.fullmatch("[a-z]+(-[a-z]+)*", word)]
        for _ in range(draw.choice((1, 1, 2, 3))):
            more = [draw.choice([*options_of(program, *words), "-x"])] * (draw.random() < 0.9)
            more += [draw.choice(WORDS)] * (draw.random() < 0.9)
            arguments[len(words) : len(words)] = more
        if program == "sample.py" and draw.random() < 0.05:
            return Case(program, [*arguments, "--out", draw.choice(("", " "))], Damage("no folder"))
        return Case(program, arguments, Damage(""))
    files = sorted(path for path in Path().glob(pattern) if path.is_file())
    if not files:
        return Case(program, arguments, Damage(""))
    if family == "names":
        name, file = draw.choice(NAMES), draw.choice(sorted(Path().iterdir()))
        file.rename(name if draw.random() < 0.7 else "elsewhere")
        return Case(program, [word.replace(str(file), name) for word in arguments], Damage("name"))
    return Case(program, arguments, spoil(draw, draw.choice(files), seeds))


# --- running and checking ---


def main_of(program: str) -> Callable[[list[str]], int]:
    """What a program does, in this process."""
    from ldm.system import cli

    if program == "python -m ldm.weights":
        return importlib.import_module(MODULES[program]).main
    ways = {"table": read_table, "image": read_image}
    main = ways.get(program) or importlib.import_module(MODULES[program]).main
    level = logging.INFO if program == "train.py" else logging.WARNING
    return lambda arguments: cli.run(lambda: main(arguments), program, level)


def read_table(arguments: list[str]) -> int:
    """Prints how many rows were read, and how many left out."""
    from ldm.data import DataConfig, film_rows

    rows, count = film_rows.read_rows(Path(arguments[0]), DataConfig())
    print(len(rows), sum(map(len, count.skipped.values())))
    return 0


def read_image(arguments: list[str]) -> int:
    """Prints what the levels of an image hash to."""
    from ldm.pictures import image_files

    print(hashlib.sha256(image_files.load(arguments[0]).numpy().tobytes()).hexdigest())
    return 0


def words_of(case: Case) -> list[str]:
    module = {"python -m ldm.weights": ["-m", "ldm.weights"]}.get(case.program)
    own = ["-m", "tests.fuzz", case.program] if case.program in ("table", "image") else None
    return [sys.executable, *(module or own or [str(ROOT / case.program)]), *case.arguments]


def run(work: Callable[[], int], log: Path, seconds: int = 0, memory: int = 0) -> int:
    """Start a fork that ends with the status that `work` returns; returns its process."""
    if process := os.fork():
        return process
    status = 1
    try:
        signal.alarm(seconds)
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
            resource.setrlimit(resource.RLIMIT_FSIZE, (2 * BYTES, 2 * BYTES))
        for fd, name in enumerate((os.devnull, f"{log}.out", f"{log}.err")):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), fd)
        logging.root.handlers.clear()
        sys.stdout = open(1, "w", errors="surrogateescape")  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
        status = work()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        os._exit(status)


def faults(program: str, result: Result) -> list[str]:
    """Those of FAULTS that a status, printed text and memory show."""
    lines, hung = result.err.splitlines(), result.status == -signal.SIGALRM
    ours, refused = re.compile(rf"{re.escape(program)}[\w -]*: "), result.status == 2
    crash = not hung and (result.status not in (0, 2) or "Traceback" in result.err)
    odd = [c for c in result.out + result.err if not c.isprintable() and c != "\n"]
    long = any(len(line) > LOGGED for line in lines)
    long |= refused and not 0 < len("".join(lines[-1:])) <= CHARACTERS
    line = not hung and not crash and (long or not all(map(ours.match, lines)))
    flags = crash, hung, result.bytes > BYTES, odd, line
    return [name for name, flag in zip(FAULTS, flags, strict=False) if flag]


def tree(*places: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of every file."""
    paths = [path for place in places for path in [place, *place.rglob("*")]]
    return [(str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths]


def unfinished(work: Path) -> set[Path]:
    return set(work.rglob("*.partial"))


def prepare(out: Path) -> Path:
    """Import everything, make the whole inputs; returns their folder."""
    os.environ |= {"TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    os.environ |= {"HOME": str(out / "home"), "TMPDIR": str(out / "tmp"), "MPLBACKEND": "agg"}
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(out / "home")  # what libraries keep is not ours
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import fuzz_inputs

    import ldm

    for module in pkgutil.walk_packages(ldm.__path__, "ldm."):
        if "__main__" not in module.name and "flash_attention" not in module.name:
            importlib.import_module(module.name)
    for name in ("sample", "train", "evaluate", "matplotlib.pyplot"):
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    importlib.import_module("ldm.clip").tokenizer()
    gc.freeze()
    for folder in ("kept", "cases", "tmp", *([] if os.environ.get("REUSE") else ["inputs"])):
        shutil.rmtree(out / folder, ignore_errors=True)
    for folder in ("home", "tmp", "cases", "kept"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    seeds = out / "inputs"
    if not seeds.exists():
        process = run(lambda: fuzz_inputs.write(seeds) or 0, out / "inputs_log")
        if os.waitpid(process, 0)[1]:
            raise SystemExit(f"the inputs cannot be made, see {out}/inputs_log.err")
    return seeds


def check(options: argparse.Namespace) -> dict[str, Counter[str]]:
    """Run cases of the families in turn; returns {family: how often what happened}."""
    out, seed, families = options.out.resolve(), options.seed, options.family
    seeds, table = prepare(out), {family: Counter[str]() for family in families}
    running: dict[int, tuple[int, str, Case, set[Path]]] = {}
    end, calm = time.monotonic() + options.seconds, tree(seeds, out / "tmp")
    numbers = iter(range(options.count))
    while True:
        ready = len(running) < options.jobs and time.monotonic() < end
        if ready and (number := next(numbers, None)) is not None:
            family, work = families[number % len(families)], out / "cases" / str(number)
            case = make_case(family, seed, number, seeds, work)
            main, before = main_of(case.program), unfinished(work)
            given = (
                lambda case=case, main=main: main(case.arguments),
                work,
                options.limit,
                5 * BYTES,
            )
            if number % 100 == 99:
                words = words_of(case)
                given = (
                    lambda words=words: os.execv(words[0], words),
                    work,
                    3 * options.limit,
                    5 * BYTES,
                )
            running[run(*given)] = number, family, case, before
            continue
        if not running:
            return table
        process, status, used = os.wait4(-1, 0)
        number, family, case, before = running.pop(process)
        work = out / "cases" / str(number)
        texts = [
            Path(f"{work}.{end}").read_bytes().decode(errors="replace") for end in ("out", "err")
        ]
        result = Result(os.waitstatus_to_exitcode(status), *texts, used.ru_maxrss * 1024)
        found, now = faults(case.program, result), tree(seeds, out / "tmp")
        after = unfinished(work)
        found += ["leftover"] * bool(after - before and "hang" not in found)
        if case.damage.key in ("data", "model", "phantoms", "steps", "train"):  # as long as it says
            found = [fault for fault in found if fault not in ("hang", "memory")]
        changed = [name for name, *_ in {*now} ^ {*calm}] + [str(p) for p in before - after]
        found += [f"outside {changed[:3]}"] * bool(changed)
        os.chdir(work)
        if result.status == 0:
            try:
                found += ["silent"] * (not is_fine(family, case, result, seeds))
            except Exception as error:
                found += [f"silent {error!r}"]
        os.chdir(out)
        calm = now
        table[family].update(["n", f"exit {result.status}", *(name.split()[0] for name in found)])
        shutil.rmtree(work)
        kept = out / "kept" / f"{family}-{seed}-{number}"
        if found:
            make_case(family, seed, number, seeds, kept)
            words = " ".join(map(shlex.quote, words_of(case)))
            (kept / "command.sh").write_bytes(
                os.fsencode(f'cd "$(dirname "$0")" && PYTHONPATH={ROOT} exec {words}\n')
            )
            (kept / "faults").write_text(f"{found} {case.damage!r:.200}\n")
        for end_ in ("out", "err"):
            text = Path(f"{work}.{end_}")
            text.rename(kept / f"std{end_}") if found else text.unlink()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--count", type=int, default=10**9)
    add("--seconds", type=float, default=float("inf"))
    add("--family", choices=FAMILIES, nargs="+", default=FAMILIES)
    add("--seed", type=int, default=0)
    add("--jobs", type=int, default=2)
    add("--limit", type=int, default=SECONDS, help="seconds of a case; more on a busy machine")
    add("--out", type=Path, default=Path("runs/fuzz"))
    options = parser.parse_args(arguments)
    began, table = time.monotonic(), check(options)
    columns = ["n", "exit 0", "exit 2", *FAULTS]
    print("| family |", " | ".join(columns), "|\n" + "|---" * (len(columns) + 1) + "|")
    total = sum(table.values(), Counter[str]())
    for name, row in [*table.items(), ("all", total)]:
        print("|", " | ".join([name, *(str(row[column]) for column in columns)]), "|")
    bad, seconds = sum(total[fault] for fault in FAULTS), time.monotonic() - began
    print(
        f"{total['n']:,} cases, {bad} faults, {seconds:.0f} s; those at fault: {options.out}/kept"
    )
    return int(bad > 0)


if __name__ == "__main__":
    if sys.argv[1:2] in (["table"], ["image"]):
        sys.exit(main_of(sys.argv[1])(sys.argv[2:]))
    sys.exit(main())
