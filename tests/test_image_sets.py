"""Image sets: any file is read as it is, bad ones are named, and each image has its own id."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.config import ConfigError
from ldm.data import DataConfig
from ldm.data.datasets import Phantoms, configured_phantoms
from ldm.data.file_dataset import Files
from ldm.data.image_sets import load_each, open_set
from ldm.pictures import image_files


def test_a_set_reads_any_file_as_it_is(tmp_path: Path) -> None:
    """16-bit, palette and CMYK files and other sizes are read; sheets of ours are left out."""
    grey = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(grey).save(tmp_path / "a16.png")
    colours = Image.fromarray(np.zeros((9, 7, 3), np.uint8))
    colours.convert("P").save(tmp_path / "palette.png")
    colours.convert("CMYK").save(tmp_path / "print.jpg")
    image_files.save(torch.zeros(1, 8, 8), tmp_path / "grid.png", {})
    asked = open_set(str(tmp_path))
    shapes = {asked.sample_id(i): tuple(x.shape) for i, x in load_each(asked)}
    assert shapes == {"a16": (1, 8, 8), "palette": (3, 9, 7), "print": (3, 9, 7)}


def test_a_bad_file_is_named_and_skipped_only_when_asked(tmp_path: Path, caplog) -> None:
    """A truncated file stops everything, or is left out with its id, and no path, in the log."""
    image_files.save(torch.zeros(1, 8, 8), tmp_path / "good.png", {})
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    asked = open_set(str(tmp_path))
    with pytest.raises(ValueError, match=r"bad\.png.*--skip-bad"):
        list(load_each(asked))
    assert [i for i, _ in load_each(asked, skip_bad=True)] == [1]
    assert caplog.messages == ["left out, for it cannot be read: bad"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        *((s, "phantoms:N") for s in ("phantoms:", "phantoms:0", "phantoms:3:-1", "phantoms:a")),
        *((s, "N below a million") for s in ("phantoms:1000000", "phantoms:3:" + "9" * 5000)),
        ("nowhere", "nowhere does not exist"),
        (".", "holds no images"),
    ],
)
def test_sources_that_name_no_set_are_refused(tmp_path: Path, monkeypatch, source, message) -> None:
    """Wrong numbers of phantoms, a path that does not exist and an empty folder, in one line."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        open_set(source)
    with pytest.raises(ConfigError, match=r"data\.phantoms must be at most 1000000"):
        configured_phantoms(DataConfig(phantoms=1_000_001))


def test_phantoms_are_those_of_training(tmp_path: Path) -> None:
    """Phantoms of the same seeds have the ids, findings and, but for 8 bits, images of training."""
    asked = open_set("phantoms:12:5", size=32)
    data = DataConfig(phantoms=12, phantom_seed=5, size=32, cache=str(tmp_path))
    trained = Phantoms(data, 1)
    assert asked.sample_id(0) == "phantom-5"
    for i, image in load_each(asked):
        assert asked.sample_id(i) == trained.sample_id(i)
        assert asked.findings(i) == trained.findings(i)
        assert (image - trained.images(torch.tensor([i]))[0]).abs().max() < 1 / 255


def test_images_of_one_name_have_ids_of_their_own(tmp_path: Path) -> None:
    """Files of one name, in several folders or of several kinds, are told apart by their paths;
    other ids stay as they are, in a folder, in a CSV and in training.
    """
    names = ["p1/s1/front.png", "p1/s2/front.png", "p1/s2/side.png", "x.bmp", "x.png"]
    for name in names:
        (tmp_path / "films" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / "films" / name)
    wanted = ["p1/s1/front.png", "p1/s2/front.png", "side", "x.bmp", "x.png"]
    table = tmp_path / "films" / "all.csv"
    table.write_text("\n".join(["filename", *names, names[2]]))  # one of them twice
    for source, more in ((tmp_path / "films", []), (table, ["side"])):
        data = DataConfig(path=str(source), size=8, cache=str(tmp_path / "cache"))
        for asked in (open_set(str(source)), Files(data, 1)):
            assert [asked.sample_id(i) for i in range(len(asked))] == wanted + more


def test_a_split_that_is_named_is_there(tmp_path: Path) -> None:
    """CSV@SPLIT has the rows of that split alone; without any, or without the column, none has."""
    for name in "abc":
        image_files.save(torch.zeros(1, 8, 8), tmp_path / f"{name}.png", {})
    table = tmp_path / "x.csv"
    table.write_text("filename,split\na.png,train\nb.png,val\nc.png,\n")
    asked = open_set(f"{table}@val")
    assert [asked.sample_id(i) for i in range(len(asked))] == ["b"]
    assert len(open_set(str(table))) == 3
    for content, split in ((table.read_text(), "vall"), ("filename\na.png\nb.png\n", "val")):
        table.write_text(content)
        with pytest.raises(ConfigError, match=f"no row whose column `split` is '{split}'"):
            open_set(f"{table}@{split}")
