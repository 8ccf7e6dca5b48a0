"""Cached rows: made once and only when asked for, kept through interruptions."""

from pathlib import Path

import numpy as np
import pytest

from ldm.data.cache import CachedRows

SHAPE = (5, 2, 3)


def row(index: int) -> np.ndarray:
    return np.arange(6, dtype=np.float32).reshape(2, 3) + 10 * index


class Maker:
    """Makes rows and remembers which; `trouble` is raised instead of making row 2."""

    def __init__(self, trouble: BaseException | None = None) -> None:
        self.made: list[int] = []
        self.trouble = trouble

    def __call__(self, index: int) -> np.ndarray:
        if index == 2 and self.trouble is not None:
            raise self.trouble
        self.made.append(index)
        return row(index)


def rows(path: Path, maker: Maker) -> CachedRows:
    return CachedRows(path / "rows", SHAPE, np.float32, maker)


def test_rows_are_made_when_asked_for_and_only_once(tmp_path) -> None:
    """Nothing at the opening; each row once, though asked for twice; none after opening again."""
    maker = Maker()
    cache = rows(tmp_path, maker)
    assert maker.made == []
    found = cache[np.array([3, 1, 3])]
    assert maker.made == [1, 3]
    assert np.array_equal(found, [row(3), row(1), row(3)])
    again = Maker()
    assert np.array_equal(rows(tmp_path, again)[np.array([1, 0, 3])], [row(1), row(0), row(3)])
    assert again.made == [0]


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), ValueError("x.png is damaged")], ids=repr)
def test_an_interruption_keeps_the_rows_made_before(tmp_path, trouble: BaseException) -> None:
    """Filling again makes only what is missing, the row that was being made among it."""
    first, second = Maker(trouble), Maker()
    with pytest.raises(type(trouble)):
        rows(tmp_path, first).fill()
    cache = rows(tmp_path, second)
    cache.fill()
    assert (first.made, second.made) == ([0, 1], [2, 3, 4])
    assert np.array_equal(cache[np.arange(5)], [row(i) for i in range(5)])


def test_a_row_cut_off_while_written_is_made_again(tmp_path, monkeypatch) -> None:
    """A row counts as made only after it is whole in the file."""
    cache = rows(tmp_path, Maker())
    write = cache._write

    def cut(place: int, content: bytes) -> None:
        write(place, content[: max(1, len(content) // 2)])
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "_write", cut)
    with pytest.raises(KeyboardInterrupt):
        cache[np.array([4])]
    maker = Maker()
    assert np.array_equal(rows(tmp_path, maker)[np.array([4])], [row(4)])
    assert maker.made == [4]


def test_two_at_once_fill_one_file(tmp_path) -> None:
    """What one opening makes, another that was open before sees."""
    one, two = Maker(), Maker()
    first, second = rows(tmp_path, one), rows(tmp_path, two)
    first[np.array([0, 1])]
    assert np.array_equal(second[np.array([1, 2])], [row(1), row(2)])
    assert np.array_equal(first[np.array([2])], [row(2)])
    assert (one.made, two.made) == ([0, 1], [2])


def test_a_link_in_the_place_of_a_cache_is_refused(tmp_path) -> None:
    """What it leads to may be something else than a cache, and stays as it is."""
    (tmp_path / "film").write_bytes(b"a film")
    (tmp_path / "rows.rows").symlink_to("film")
    with pytest.raises(OSError, match=r"rows\.rows"):
        CachedRows(tmp_path / "rows", (2, 3), np.uint8, lambda index: np.ones(3, np.uint8))
    assert (tmp_path / "film").read_bytes() == b"a film"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path) -> None:
    """OSError with the path and the reason, where a mapped file would kill the process."""
    cache = rows(tmp_path, Maker())
    cache.file = open("/dev/full", "r+b", buffering=0)  # noqa: SIM115 - lives as long as the cache
    with pytest.raises(OSError, match=r"No space left.*rows"):
        cache[np.array([0])]


def damage(path: Path, how: str) -> None:
    """Change the file of rows: cut off its end, or flip a bit of its last row."""
    (file,) = path.iterdir()
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(content if how == "a flipped bit" else content[: -24 if how == "a row" else 0])


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize(("how", "lost"), [("a flipped bit", 1), ("a row", 1), ("all", 5)])
def test_damaged_rows_are_made_again(tmp_path, caplog, how: str, lost: int, opened: bool) -> None:
    """A changed or shortened file, while it is open, too: no row of it is taken, and a line says so
    (an empty file is a new one).
    """
    cache = rows(tmp_path, Maker())
    assert cache.fill() == 5
    digest = cache.digest()
    damage(tmp_path, how)
    cache = cache if opened else rows(tmp_path, Maker())
    assert cache.fill() == lost
    assert np.array_equal(cache[np.arange(5)], [row(i) for i in range(5)])
    assert cache.digest() == digest
    assert caplog.text.count("is damaged") == (how != "all")
