"""The command line that the scripts share."""

import gc
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ldm.system import cli


def test_a_folder_is_tried_without_disturbing_others_who_try_it(tmp_path: Path) -> None:
    """Runs that begin at once, in one folder that is not there yet, all go on; nothing is left."""
    folders = [tmp_path / "runs" / name for name in "abcdefgh"] * 25
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(cli.check_folder, folders))  # raises what one of them raised
    assert not list(tmp_path.iterdir())


def test_nobody_looks_for_garbage_among_imports() -> None:
    """Nor later among what they made; and all is as before when an import fails."""
    before, made = gc.get_freeze_count(), []

    def fail() -> None:
        with cli.no_garbage():
            assert not gc.isenabled()
            made.extend([] for _ in range(1000))
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(made)
    gc.unfreeze()


def test_leaving_takes_no_search_for_garbage() -> None:
    """Objects are frozen before Python exits, so that it does not search them."""
    program = (
        "import atexit, gc\n"
        "from ldm.system import cli\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000))\n"
        "cli.run(lambda: 0, 'test')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stdout.split() == [b"True"]


def python(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """What a program that has imported `cli` writes; `{OUT}` at its end sends stdout elsewhere."""
    line = [sys.executable, "-c", f"import logging\nfrom ldm.system import cli\n{program}"]
    return subprocess.run([*line, *arguments], capture_output=True, env=os.environ | environment)


HOSTILE = "a\x1b]0;gone\x07\u202e\u2066b\x9b\x00c.png"
SPELLED = rb"a\x1b]0;gone\x07\u202e\u2066b\x9b\x00c.png"


def test_no_name_reaches_the_terminal_as_a_command(tmp_path: Path) -> None:
    """Control and bidirectional characters are spelled out: errors, logs, options, results."""
    program = (
        "from pathlib import Path\n"
        f"name = {HOSTILE!r}\n"
        "def main():\n"
        "    print(cli.report([Path(name)], cli.Stopwatch(), False))\n"
        "    logging.warning('%s is odd', name)\n"
        "    raise ValueError(f'{name} is bad')\n"
        "cli.run(main, 'test')\n"
    )
    done = python(program)
    assert done.stdout == SPELLED + b"\n"
    assert done.stderr == b"test: " + SPELLED + b" is odd\ntest: " + SPELLED + b" is bad\n"
    done = python("cli.Parser('test').parse_args()", HOSTILE.replace("\0", ""))
    assert b"unrecognized arguments: a\\x1b]0;gone" in done.stderr


def test_a_long_message_keeps_its_start_and_its_end() -> None:
    """What was given is clipped, not what is wrong and what to do; the line has 300 at most."""
    text = "f'train.steps is {9 * 10**6 * chr(120)}; give an int'"
    done = python(f"def main():\n  raise ValueError({text})\ncli.run(main, 'test')")
    assert done.stderr.startswith(b"test: train.steps is xxx")
    assert done.stderr.endswith(b"xxx; give an int\n")
    assert len(done.stderr) < 300


def test_a_terminal_that_has_only_ascii_is_enough() -> None:
    """Names that it cannot show are spelled; the status stays 0."""
    program = r"cli.run(lambda: print(cli.report(['R\xf6\udcff'], cli.Stopwatch(), 0)) or 0, 't')"
    done = python(program, PYTHONIOENCODING="ascii")
    assert (done.stdout, done.stderr) == (rb"R\xf6\udcff" + b"\n", b"")


def test_a_closed_standard_output_is_no_mistake() -> None:
    """`sample.py >&-`: nobody asked for the names."""
    program = "from ldm.system import cli; raise SystemExit(cli.run(lambda: print('x') or 0, 't'))"
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} >&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 10**5, "too deep"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "twice"),
        ("1" * 5000, "limit"),
    ],
)
def test_json_that_cannot_be_meant_is_a_value_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cli.parse_json(text)


def test_prompts_may_come_from_standard_input_but_from_no_other_pipe(tmp_path: Path) -> None:
    """A pipe that nobody writes to would be waited for, without end."""
    done = subprocess.run(
        [sys.executable, "-c", "from ldm.system import cli; print(cli.read_prompts('/dev/stdin'))"],
        input=b"lung xray\n",
        capture_output=True,
    )
    assert done.stdout == b"['lung xray']\n"
    os.mkfifo(tmp_path / "prompts")
    for path in (tmp_path / "prompts", tmp_path, "/dev/zero"):
        with pytest.raises(ValueError, match="it is no regular file"):
            cli.read_prompts(path)
