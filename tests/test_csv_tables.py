"""Tables: any mark, encoding and spelling of the header is read, and nothing is lost in silence."""

import gzip
import json
import os
import random
from pathlib import Path

import pytest
from PIL import Image

from ldm.config import ConfigError
from ldm.data import DataConfig
from ldm.data.csv_tables import read_table
from ldm.data.film_rows import read_rows

CASES = json.loads(Path(__file__).with_name("film_cases.json").read_text(encoding="utf-8"))


def write(path: Path, text: str, how: str) -> None:
    """how: "latin-1", so that any bytes can be given, or "raw", which gzips nothing"""
    content = text.encode("latin-1")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" and how != "raw" else content)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("case", CASES["same"])
def test_the_same_table_in_any_form_gives_the_same_caption(tmp_path, film, case) -> None:
    """Marks, encodings, ends of lines, names of other programs: one film, its own caption."""
    name, *content = CASES["same"][case]
    write(tmp_path / name, *content)
    [row], count = read_rows(tmp_path / name, DataConfig())
    assert (row["path"], row["caption"]) == (str(film), "Röntgenbild des Thorax")
    assert count.films == 1
    assert "without" not in str(count).replace("without a meaning", "")


@pytest.mark.parametrize("case", CASES["bad"])
def test_a_table_that_cannot_be_used_is_one_line(tmp_path, film, case) -> None:
    """Which file, which row, what to do."""
    name, *content, message = CASES["bad"][case]
    write(tmp_path / name, *content)
    with pytest.raises(ConfigError) as error:
        read_rows(tmp_path / name, DataConfig())
    assert message in str(error.value)
    assert "t." in str(error.value)
    assert "\n" not in str(error.value)


def test_short_rows_and_other_encodings_are_told(tmp_path, film, caplog) -> None:
    """What is guessed is said once, with its number."""
    (tmp_path / "t.csv").write_bytes(
        "filename,caption\na.png\nb.png\nc.png,für\n".encode("latin-1")
    )
    assert [row["caption"] for row in read_table(tmp_path / "t.csv")] == ["", "", "für"]
    assert [message.partition(" ")[2] for message in caplog.messages] == [
        "is not UTF-8; it is read as Windows-1252 (Latin-1)",
        "2 rows have fewer cells than the header; the rest is empty",
    ]


def test_rows_over_several_lines_are_told(tmp_path, film, caplog) -> None:
    """A stray quotation mark makes one row of several; the log has their number and the first."""
    (tmp_path / "t.csv").write_text('filename,caption\na.png,x\nb.png,"y\nc.png,z"\nd.png,x\n')
    assert len(read_table(tmp_path / "t.csv")) == 3
    assert "1 rows go over several lines, the first is row 3" in caplog.text


def test_a_table_that_is_a_pipe_is_refused_at_once(tmp_path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(ConfigError, match="it is no regular file"):
        read_table(tmp_path / "t.csv")


COLUMNS = ["labels", "view", "sex", "age", "caption", "split", "uncertain", "class", "path"]
COLUMNS += ["report_file", "quality_flag", "patient_id", "reader", "notes"]
CELLS = [
    "",
    "a.png",
    "no.png",
    "NaN",
    "999",
    "PA",
    "train",
    "Effusion",
    "a; b",
    "061Y",
    "é" * 90,
    "val",
]
PIECES = [*CELLS, *"|;,\t\"'[]\n\0ü\\/{}=", "\r\n", "filename", "labels", "['a']", "\ufeff", ".."]


@pytest.mark.parametrize("seed", range(200))
def test_no_table_is_a_traceback_or_a_silent_skip(tmp_path, film, seed) -> None:
    """A fuzzed table is refused in one line, or each of its rows is read or counted."""
    draw = random.Random(seed)
    columns = ["filename", *draw.sample(COLUMNS, 3)]
    lines = [",".join(draw.choice(CELLS) if i else "a.png" for i in range(4)) for _ in range(6)]
    text = "\n".join([",".join(columns), *lines])
    changes = draw.randint(0, 3)
    for _ in range(changes):
        place = draw.randrange(len(text))
        text = text[:place] + draw.choice(PIECES) + text[place + draw.randint(0, 3) :]
    content = text.encode(draw.choice(["utf-8", "utf-16", "utf-8-sig"]))
    table = tmp_path / draw.choice(["t.csv", "t.csv", "t.tsv", "t.jsonl"])
    if table.suffix == ".jsonl" and draw.random() < 0.5:
        content = json.dumps(dict(zip(columns, PIECES, strict=False))).encode() + b"\n" + content
    table.write_bytes(content)
    refused, rows = "", []
    try:
        rows, count = read_rows(table, DataConfig())
    except ConfigError as error:
        refused = str(error)
    assert bool(rows) != bool(refused)
    assert len(refused.splitlines()) <= 1
    if rows:
        total = sum(map(len, count.skipped.values()))
        assert count.films == len(rows) > 0
        assert len(rows) + total == (len(read_table(table)) if changes else 6)
        assert (f"{total} skipped" in str(count)) == (total > 0)
