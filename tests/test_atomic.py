"""Files of a folder appear together or not at all."""

from pathlib import Path

import pytest

from ldm import atomic


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
