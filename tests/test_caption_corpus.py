"""Texts: distinct, split without overlap, the same whatever their order; bad tables are named."""

import logging
from pathlib import Path

import pytest

from ldm.config import ConfigError
from ldm.data import DataConfig, caption_corpus
from ldm.data.caption_corpus import open_shares, open_texts, split

MANY = [f"Radiograph number {i}, with a nodule" for i in range(400)]


def table(folder: Path, rows: list[str], header: str = "caption") -> Path:
    path = folder / "captions.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def quoted(rows: list[str]) -> list[str]:
    return [f'"{row}"' for row in rows]


def test_no_text_is_on_both_sides_and_a_tenth_is_held_out() -> None:
    """Of 400 distinct texts each is on one side; a tenth is held out, within four deviations."""
    found = split(MANY)
    assert sorted(found.train + found.held_out) == sorted(MANY)
    assert abs(len(found.held_out) - 40) < 4 * (400 * 0.1 * 0.9) ** 0.5


def test_a_side_depends_on_the_text_alone() -> None:
    """Other order, other neighbours, capitals and spaces: a held-out text stays held out."""
    whole, half = split(MANY), split(reversed(MANY[:200]))
    assert set(half.held_out) == set(whole.held_out) & set(MANY[:200])
    shouted = split(text.upper().replace(" ", " \n") for text in MANY)
    assert {text.lower() for text in shouted.held_out} == {t.lower() for t in whole.held_out}


def test_the_key_is_that_of_the_texts() -> None:
    """Order and repeats leave the key; another letter changes it."""
    assert split(MANY).key == split([*reversed(MANY), *MANY]).key
    assert split(MANY).key != split([*MANY[:-1], "Another"]).key


def test_phantoms_give_all_their_wordings() -> None:
    """Each caption that a phantom can have is there once, and all of them say phantom."""
    data = DataConfig(phantoms=50, phantom_seed=7)
    found = open_texts(data)
    together = found.train + found.held_out
    patients = caption_corpus.phantom.sample_phantoms(range(7, 57))
    assert set(together) == {
        caption_corpus.phantom.caption(patient, i) for patient in patients for i in range(20)
    }
    assert all("phantom" in text for text in together)


def test_a_share_below_one_adds_the_phantoms(tmp_path: Path) -> None:
    """With share 1 a table stands alone; with 0.25 it is joined by phantoms, in these shares."""
    path = str(table(tmp_path, quoted(MANY)))
    alone = open_texts(DataConfig(path=path))
    assert (alone.train, alone.held_out) == (split(MANY).train, split(MANY).held_out)
    both = DataConfig(path=path, share=0.25, phantoms=50)
    (ours, a), (phantoms, b) = open_shares(both)
    assert (a, b) == (0.25, 0.75)
    assert ours == alone
    assert phantoms == open_texts(DataConfig(phantoms=50))
    assert set(open_texts(both).train) == set(ours.train + phantoms.train)


def test_rows_of_another_split_and_empty_ones_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A validation row does not get into training, and empty rows are counted in the log."""
    rows = [f"{text},{'val' if i % 4 == 0 else 'train'}" for i, text in enumerate(quoted(MANY))]
    path = str(table(tmp_path, [*rows, " ,train"], "caption,split"))
    with caplog.at_level(logging.WARNING):
        found = open_texts(DataConfig(path=path))
    assert set(found.train + found.held_out) == {t for i, t in enumerate(MANY) if i % 4}
    assert "1 of 301 rows have no caption" in caplog.text


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("text\none\n", {}, "needs a header line with a column `caption`"),
        ("caption\none\ntwo\n", {}, "2 distinct texts are too few"),
        ('caption,split\n" ",\n"",\n', {}, "no caption in 2 rows"),
        ("caption\n", {}, "no caption in 0 rows"),
        ("caption\nR\0ntgen\n", {}, "cannot read .*captions.csv: it is no text"),
        ("caption\none\n", {"exclude": ("Effusion",)}, "needs labels"),
        (None, {}, "cannot read .*captions.csv"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, content, settings: dict, message: str) -> None:
    """No caption, too few, no text, no file, and exclude, for which there are no labels."""
    path = tmp_path / "captions.csv"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=message):
        open_texts(DataConfig(path=str(path), **settings))
