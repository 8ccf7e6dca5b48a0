"""The command line that the scripts share."""

import argparse
import gc
import os
import signal
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


def test_an_interrupt_that_a_library_makes_another_error_of_ends_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever error comes of Ctrl-C while a library loads: silence, and the status of Ctrl-C."""
    monkeypatch.setattr(cli, "interrupts", [])
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # nohup and its like ignore it

    def load(kind: type[Exception]) -> int:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt as error:
            raise kind("cannot be loaded") from error
        return 0

    try:
        assert cli.run(lambda: load(ValueError), "test") == 130
        assert cli.run(lambda: load(ImportError), "test") == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == ""


def test_names_of_places_that_cannot_be(tmp_path: Path) -> None:
    """A link in a circle or to nowhere is refused before any work; so is a name of spaces."""
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "nowhere").symlink_to("absent")
    for name in ("circle", "circle/out", "nowhere"):
        with pytest.raises(ValueError, match=f"cannot write into {tmp_path / name}: .*; name ano"):
            cli.check_folder(tmp_path / name)
    for name in ("", " "):
        with pytest.raises(argparse.ArgumentTypeError, match="is empty; give a name"):
            cli.folder(name)


def test_what_killed_runs_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """In the folder and beside it, where a folder that was not there yet was being written."""
    die = (
        "import os, sys; from pathlib import Path; from ldm.system import atomic\n"
        "folder = Path(sys.argv[1])\n"
        "with atomic.whole_folder(folder / 'out'), atomic.whole_file(folder / 'a') as path:\n"
        "    path.touch(); os._exit(0)\n"
    )
    for folder in (tmp_path, tmp_path / "out"):
        folder.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-c", die, str(folder)], check=True)
    assert len(list(tmp_path.rglob(".*.partial"))) == 4
    cli.check_folder(tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]


def test_a_working_folder_that_was_deleted_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any work, in one line, whatever folders are named: MKL would end the process."""
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert cli.run(lambda: 0, "test") == 2
    assert capsys.readouterr().err == "test: the working folder is gone; change to another one\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_loses_no_work(tmp_path: Path, closed: str) -> None:
    """Standard output or standard error that is closed: the work is done, without a traceback."""
    program = (
        "import sys\nfrom ldm.system import cli\n"
        "def main():\n    print(1); sys.stderr.write('2'); open(sys.argv[1], 'w').write('3')\n"
        "    return 0\n"
        "sys.exit(cli.run(main, 'test'))"
    )
    command = f"exec '{sys.executable}' -c \"$1\" '{tmp_path / 'done'}' {closed}"
    done = subprocess.run(["sh", "-c", command, "sh", program], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert (tmp_path / "done").read_text() == "3"


def python(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """What a program that has imported `cli` writes."""
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


def test_a_space_of_another_script_stays_as_it_is() -> None:
    """No terminal obeys it, and a path that is printed still names its file."""
    name = "lung\u00a0x\u3000ray\u202f1.png"
    assert cli.printable(name) == name


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
