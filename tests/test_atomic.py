"""Files of a folder appear together or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ldm.system import atomic


def write(folder: Path, **contents: str | None) -> None:
    with atomic.whole_folder(folder) as partial:
        for name, content in contents.items():
            (partial / name).write_text(content)


def test_files_move_in_together_and_others_stay(tmp_path: Path) -> None:
    """A new folder with its parents; in an old one files of the same name are replaced."""
    folder = tmp_path / "new" / "out"
    write(folder, a="1", b="2")
    write(folder, b="3", c="4")
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert found == {"a": "1", "b": "3", "c": "4"}
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_failure_leaves_nothing_and_changes_nothing(tmp_path: Path) -> None:
    """Neither a half-written file nor a new folder, when the second of two cannot be written."""
    with pytest.raises(TypeError):
        write(tmp_path / "new" / "out", a="1", b=None)
    assert not list(tmp_path.iterdir())
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError, match="b: it is a folder"):
        write(tmp_path, a="1", b="2")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def of(process: int) -> str:
    """The end of what another process of this machine writes."""
    return atomic.unfinished().replace(str(os.getpid()), str(process), 1)


def test_a_pipe_or_a_device_does_not_become_a_file(tmp_path: Path) -> None:
    """`convert IN /dev/null` would replace it for everybody, where root gives the command."""
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(IsADirectoryError, match="pipe: it is no regular file"),
        atomic.whole_file(tmp_path / "pipe") as path,
    ):
        path.touch()
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.skipif(os.name != "posix", reason="nobody tells whether a process lives")
def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """Their files and folders; not those of a living process, nor what others call .partial."""
    die_while_writing = (
        "import os, sys; from pathlib import Path; from ldm.system import atomic\n"
        "folder = Path(sys.argv[1])\n"
        "with atomic.whole_folder(folder) as partial, atomic.whole_file(folder / 'b') as path:\n"
        "    (partial / 'a').touch(); path.touch(); os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", die_while_writing, str(tmp_path)], check=True)
    assert len(list(tmp_path.iterdir())) == 2
    elsewhere = ".foo.99999999@another machine.partial"
    stay = {".foo.partial", ".foo.x7.partial", f".foo{atomic.unfinished()}", elsewhere}
    for name in stay:
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / f".foo{of(99999999)}").touch()  # perhaps another program's
    atomic.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == stay | {"below"}
    assert list((tmp_path / "below").iterdir())


@pytest.mark.skipif(os.name != "posix", reason="nobody tells whether a process lives")
def test_a_process_is_asked_whether_it_lives(tmp_path: Path, monkeypatch) -> None:
    """Somebody else's, which refuses the signal, does; no /proc is needed, which macOS lacks."""

    def refuse(process: int, signal: int) -> None:
        assert signal == 0
        raise PermissionError

    (tmp_path / f".foo{of(99999999)}").touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", refuse)
        atomic.remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    atomic.remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="needs flock")
def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    """Held by a living process, it is refused to any other; a kill frees it."""
    hold = (
        "import sys, time; from pathlib import Path; from ldm.system import atomic\n"
        "with atomic.locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(OSError, match="another process is at work"), atomic.locked(tmp_path):
            pass
        process.kill()
    with atomic.locked(tmp_path):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("whole", [atomic.whole_file, atomic.whole_folder])
def test_a_full_disk_names_what_was_written(tmp_path: Path, whole) -> None:
    """The error of a write names no file of itself."""
    with (
        pytest.raises(OSError, match=r"No space left.*out"),
        whole(tmp_path / "out"),
        open("/dev/full", "w") as file,
    ):
        file.write("x")
    assert not list(tmp_path.iterdir())
