"""The command line of every script: read arguments and settings, fail in one line, time the parts.

Imports nothing heavy, so that --help and a mistyped option answer at once.
"""

import argparse
import atexit
import dataclasses
import errno
import gc
import io
import json
import logging
import math
import os
import re
import signal
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import yaml

from ldm.config import ConfigError, from_dict
from ldm.system import atomic

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """Takes options by their full names; a mistake is one line on stderr and exit status 2."""

    def __init__(self, prog: str, description: str | None = None, **more: Any) -> None:
        super().__init__(prog, description=description, allow_abbrev=False, **more)

    def add_many(
        self, flag: str, dest: str, metavar: str, what: str, read: Callable[[str], Any] = str
    ) -> None:
        """An option that may be repeated; it gives a list."""
        what += "; repeat for more"
        self.add_argument(
            flag, dest=dest, action="append", default=[], metavar=metavar, type=read, help=what
        )

    def error(self, message: str) -> NoReturn:
        told = _one_line(message, 220)
        self.exit(2, f"{self.prog}: {told}; {self.prog} --help lists the options\n")


def model_arguments(parser: Parser) -> None:
    """Options: the weights, what is added to them, and where they run."""
    add = parser.add_argument
    add("--model", metavar="PATH", help="file or folder of weights (the built-in model)")
    add("--config", metavar="YAML", help="sizes of a CompVis file that is not SD v1.4")
    add("--ema", action="store_true", help="averaged weights of a CompVis file with both")
    part_arguments(parser)
    parser.add_many("--embedding", "words", "PATH", "a learned word, from textual inversion")
    parser.add_many("--lora", "loras", "PATH", "a LoRA for the U-Net")
    add("--text-encoder", metavar="PATH", help="a projection, whose encoder then reads the prompts")
    add("--device", metavar="D", help="cpu, cuda, cuda:1 or mps (the best one here)")
    add("--dtype", metavar="D", help="float32, float16 or bfloat16 (float32)")
    add("--attention", metavar="A", help="the U-Net's: sdpa, reference or fused (sdpa)")
    winograd = "convolve faster, but for rounding equal; CPU and float32 only (no)"
    add("--winograd", action=argparse.BooleanOptionalAction, help=winograd)
    tiled = "the autoencoder in tiles: a third of its memory, equal but for rounding"
    add("--tiled", action="store_true", default=None, help=tiled)
    compiled = "compile the U-Net: whole (if not said), regions, which is sooner done, or no (no)"
    add("--compile", nargs="?", const="whole", metavar="WAY", help=compiled)


def part_arguments(parser: argparse.ArgumentParser) -> None:
    """Options: parts of a model that come from elsewhere; `loading.load` takes them as `parts`."""
    for part, what in (("vae", "autoencoder"), ("unet", "U-Net"), ("text", "text tower")):
        help = f"file or folder with another {what} than the model's"
        parser.add_argument(f"--{part}", action=_Part, dest="parts", metavar="PATH", help=help)
    parser.set_defaults(parts={})


class _Part(argparse.Action):
    """Collects {"vae": path}."""

    def __call__(self, parser: Any, given: Any, path: Any, option: str | None = None) -> None:
        given.parts = {**given.parts, (option or "").lstrip("-"): path}


interrupts: list[int] = []  # the signals that Ctrl-C sent


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    interrupts.append(number)
    raise KeyboardInterrupt


def run(main: Callable[[], int], prog: str, level: int = logging.WARNING) -> int:
    """The exit status of `main`: 2 and one line on stderr for bad input, 130 when interrupted.

    level: of what is logged on stderr on the way
    """
    # else Python, when it leaves, looks through all of PyTorch for garbage: two seconds
    atexit.register(gc.freeze)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # `>&-`: what is printed goes nowhere
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not: ignored
        signal.signal(signal.SIGINT, _interrupt)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(f"{prog}: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    if isinstance(sys.stdout, io.TextIOWrapper):  # one that has only ASCII, say, shows Fr\xe9chet
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _check_working_folder()
        status = main()
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `sample.py | head -1`: whoever read stdout has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if interrupts:  # a library that was loading made another error of it
            return 130
        message = _explain(error)
        if message is None:
            raise
        sys.stderr.write(f"{prog}: {_one_line(message)}\n")
        return 2


def _check_working_folder() -> None:
    try:
        os.getcwd()
    except OSError as error:  # in which MKL ends the process
        raise OSError("the working folder is gone; change to another one") from error


SPENT = "out of memory|allocate memory|could not create a primitive$"  # says that memory is


def _explain(error: Exception) -> str | None:
    """The message for the user; None for a mistake of the program, which needs its traceback."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = str(error)
    # CUDA and Apple say "out of memory", the CPU "can't allocate memory", all as RuntimeError;
    # oneDNN finds no room for a convolution
    if isinstance(error, MemoryError) or re.search(SPENT, text):
        return "out of memory; take fewer or smaller images at once, or another device"
    return text if isinstance(error, (ValueError, OSError, FloatingPointError)) else None


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _one_line(super().format(record), 1000)


def _one_line(text: str, most: int = 270) -> str:
    """The text in one line; of a longer one its start and its end, which says what to do."""
    line = printable(" ".join(text.split()))
    if len(line) > most:  # long names first, of which the end tells most
        words = line.split(" ")
        line = " ".join(w if len(w) <= 60 else f"{w[:20]}...{w[-37:]}" for w in words)
    return line if len(line) <= most else f"{line[: most - 85]} ... {line[-80:]}"


def printable(text: str) -> str:
    """The text with what a terminal obeys, or reads from right to left, spelled out: \\x1b."""
    if text.isprintable():
        return text
    plain = (c.isprintable() or c == "\n" or unicodedata.category(c) == "Zs" for c in text)
    return "".join(c if p else ascii(c)[1:-1] for c, p in zip(text, plain, strict=True))


def given(options: Mapping[str, Any], settings: type) -> dict[str, Any]:
    """The options that the user gave, of those that are fields of the dataclass `settings`."""
    names = [field.name for field in dataclasses.fields(settings)]
    return {name: options[name] for name in names if options.get(name) not in (None, [])}


def checked(what: str, read: Callable[[str], T], fits: Callable[[T], bool]) -> Callable[[str], T]:
    """For argparse: `read`; refuses texts that it cannot read and values that do not fit."""

    def read_and_check(text: str) -> T:
        try:
            value = read(text)
        except ValueError:
            value = None
        if value is None or not fits(value):
            raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}")
        return value

    return read_and_check


LARGEST = 10**6  # of counts, which fill the memory
finite = checked("a finite number", float, math.isfinite)


def whole(minimum: int | None = None, most: int = LARGEST) -> Callable[[str], int]:
    """For argparse: reads a whole number, from `minimum` to `most` if a minimum is given."""
    if minimum is None:
        return checked("a whole number", int, lambda value: True)
    read = checked(f"a whole number of {minimum} or more", int, lambda value: value >= minimum)
    return checked(f"at most {most}", read, lambda value: value <= most)


def size(text: str) -> tuple[int, int]:
    """For argparse: reads `N` or `WxH` as (width, height)."""
    if not (match := re.fullmatch(r"([1-9]\d{0,5})(?:x([1-9]\d{0,5}))?", text)):
        raise argparse.ArgumentTypeError(f"must be pixels as N or WxH, got {text!r}")
    width, height = match.groups()
    return int(width), int(height or width)


def pixels(form: str) -> Callable[[str], tuple[int, ...]]:
    """For argparse: reads whole numbers of 0 or more, as many as `form` has, like `X,Y`."""

    def read(text: str) -> tuple[int, ...]:
        if not re.fullmatch(re.sub(r"\w+", r"\\d{1,6}", form), text):
            raise argparse.ArgumentTypeError(f"must be {form} in pixels, 0 or more, got {text!r}")
        return tuple(map(int, text.split(",")))

    return read


def _read_pair(text: str) -> tuple[float, float]:
    low, high = (float(end) for end in text.split(","))
    return low, high


# reads `LOW,HIGH`, of which HIGH may be infinite
interval = checked("LOW,HIGH with 0 <= LOW < HIGH", _read_pair, lambda x: 0 <= x[0] < x[1])


def line(text: str) -> str:
    """For argparse: reads text, which may be empty, as one line, as the tokenizer does."""
    if not (read := " ".join(text.split())).isprintable():
        raise argparse.ArgumentTypeError(f"contains characters that are not text: {text!r}")
    return read


def prompt(text: str) -> str:
    """For argparse: reads a line that is not empty."""
    if not (read := line(text)):
        raise argparse.ArgumentTypeError("is empty; describe what to draw")
    return read


def folder(text: str) -> Path:
    """For argparse: reads where to write; an empty name would mean the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; give a name")
    return Path(text)


def read_prompts(path: str | Path) -> list[str]:
    """The prompts in a text file, one a line, empty lines left out. Raises ValueError if none."""
    try:
        piped = str(path).startswith(("/dev/stdin", "/dev/fd/"))
        lines = (Path(path) if piped else regular(path)).read_text("utf-8-sig").splitlines()
        prompts = [prompt(text) for text in lines if text.strip()]
    except OSError as error:
        raise ValueError(f"cannot read the prompts in {path}: {error.strerror}") from error
    except (UnicodeDecodeError, argparse.ArgumentTypeError) as error:
        raise ValueError(f"{path} is not UTF-8 text; write one prompt a line") from error
    if not prompts:
        raise ValueError(f"{path} contains no prompt; write one a line")
    return prompts


def regular(path: str | Path) -> Path:
    """The path; OSError for a pipe, a device or a folder: the first two may never end."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return Path(path)


def parse_json(text: str | bytes) -> Any:
    """json.loads; ValueError also for what nests too deep, and for a key that is there twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(table := dict(pairs)) < len(pairs):
            raise ValueError("a key is there twice in one object")
        return table

    try:
        return json.loads(text, object_pairs_hook=once)
    except RecursionError as error:
        raise ValueError("it nests too deep") from error


class _Loader(yaml.SafeLoader):
    """Each key once, and no aliases: ten of them can stand for a billion values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="an alias; write out the value", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set[str]()
        for key, _ in node.value:
            if (name := str(key.value)) in seen:
                problem = f"{name!r} is set twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


for _kind in ("timestamp", "binary", "set"):  # stay text: JSON, which keeps settings, has none
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", lambda loader, node: str(node.value))


def parse_yaml(text: str | bytes, what: str) -> Any:
    """The value that is written so. Raises ConfigError, naming `what`, for what is no YAML."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{what} is not YAML: {' '.join(str(error).split())}") from error


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError, naming the file, when there is none."""
    try:
        values = parse_yaml(regular(path).read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings (it needs lines like `key: value`)")
    return values


def load_config(cls: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """The dataclass `cls` filled from a YAML file, then from overrides like `train.steps=100`."""
    values = read_yaml(path)
    for override in overrides:
        dotted, separator, text = override.partition("=")
        if not separator or not dotted:
            raise ConfigError(f"override {override!r} must be key=value, e.g. train.steps=100")
        *parents, last = dotted.split(".")
        table = values
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(f"override {override!r}: {parent!r} is a value, not a table")
        table[last] = parse_yaml(text, f"override {override!r}: the value")
    return from_dict(cls, values)


def check_folder(path: str | Path) -> None:
    """Raises ValueError if files cannot be written into the folder; leaves nothing behind.

    It really tries, before hours of work: permissions alone do not show a read-only disk. What
    killed writers left, there and beside it, is removed.
    """
    folder = Path(path)
    # os.path, because Path.exists and its like raise for names that are too long; lexists, because
    # a link that leads nowhere is there, too
    there = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
    try:  # under another name: somebody else may be making the same folder
        with tempfile.TemporaryDirectory(atomic.unfinished(), ".", there) as trial:
            (Path(trial) / folder.relative_to(there)).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if os.path.isfile(folder) else error.strerror
        raise ValueError(f"cannot write into {folder}: {reason}; name another folder") from error
    for place in {there, folder, folder.parent}:
        atomic.remove_leftovers(place)


@contextmanager
def no_garbage() -> Iterator[None]:
    """Exempts the objects made inside the `with` from garbage collection.

    For imports, whose million objects all stay: sample.py starts four seconds sooner.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class Stopwatch:
    """Seconds spent on each named part of the work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Adds the time spent inside the `with` to `part`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start

    def rounded(self) -> dict[str, float]:
        """The seconds of each part, to milliseconds."""
        return {part: round(seconds, 3) for part, seconds in self.seconds.items()}


def report(paths: Sequence[Path], watch: Stopwatch, as_json: bool) -> str:
    """For stdout: the paths that were written, one a line; or one JSON object, with the seconds."""
    names = [str(path) for path in paths]
    values = {"paths": names, "seconds": watch.rounded()}
    return json.dumps(values) if as_json else printable("\n".join(names))
