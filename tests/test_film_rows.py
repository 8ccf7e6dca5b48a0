"""Which films of a folder or a table are used: names, sidecars, what is no film, and the count."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from ldm.config import ConfigError
from ldm.data import DataConfig
from ldm.data.file_dataset import Files
from ldm.data.film_rows import read_rows
from ldm.data.image_sets import open_set
from ldm.pictures import image_files

CASES = json.loads(Path(__file__).with_name("film_cases.json").read_text(encoding="utf-8"))
HIDDEN, BESIDE, COUNTED = (CASES[name] for name in ("hidden", "beside", "counted"))


def film(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8)).save(path)
    return path


@pytest.mark.parametrize(("named", "there"), CASES["names"])
def test_a_film_is_found_however_its_name_is_spelled(tmp_path: Path, named, there) -> None:
    """Other Unicode forms, Windows' strokes, paths of another machine, folders above the set."""
    path = film(tmp_path / "学習 set" / there)
    table = tmp_path / "学習 set" / "t.csv"
    table.write_text(f"filename,caption\n{named},x\n", encoding="utf-8")
    assert [row["path"] for row in read_rows(table, DataConfig())[0]] == [str(path)]


@pytest.mark.parametrize(("named", "there"), CASES["strangers"])
def test_no_film_stands_in_for_another(tmp_path: Path, named: str, there: str) -> None:
    """A file of the same name in another patient's folder is not the one that a table names."""
    film(tmp_path / there)
    (tmp_path / "t.csv").write_text(f"filename,caption\n{named},x\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"none of 1 rows is usable.* not found"):
        read_rows(tmp_path / "t.csv", DataConfig())


@pytest.mark.parametrize("named", ["../v.png", "{}/v.png", "images/../../v.png", "..\\v.png"])
def test_a_table_reads_no_film_elsewhere_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """Neither by .. nor by a whole path; data.root or the environment says where films may lie."""
    film(tmp_path / "v.png")
    film(tmp_path / "set" / "images" / "a.png")
    table = tmp_path / "set" / "t.csv"
    table.write_text(f"filename,caption\n{named.format(tmp_path)},x\na.png,y\n", encoding="utf-8")
    count = read_rows(table, DataConfig())[1]
    assert (
        "1 skipped: 1 outside of the table's folder (see data.root, LDM_DATA_ROOT) (row 2)"
        in str(count)
    )
    assert read_rows(table, DataConfig(root=str(tmp_path)))[1].films == 2
    (tmp_path.parent / f"{tmp_path.name}-link").symlink_to(tmp_path)
    linked = DataConfig(root=f"{tmp_path}-link")  # what leads to the folder is the folder
    assert read_rows(table, linked)[1].films == 2
    monkeypatch.setenv("LDM_DATA_ROOT", str(tmp_path))
    assert len(open_set(str(table))) == 2


@pytest.mark.parametrize("name", HIDDEN + CASES["other"])
def test_what_systems_leave_beside_films_is_no_film(tmp_path: Path, name: str) -> None:
    """It is left out of training and measuring alike, and counted."""
    film(tmp_path / "f.png")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"\0\5\26\7Mac OS X")
    for count in (open_set(str(tmp_path)).count, str(read_rows(tmp_path, DataConfig())[1])):
        assert count.startswith("1 films; ")
        assert ("1 skipped: 1 hidden" in count) == (name in HIDDEN)
        assert ("other files: 1 " in count) == (name not in HIDDEN)


@pytest.mark.parametrize("name", BESIDE)
def test_captions_beside_images_are_read(tmp_path: Path, name: str) -> None:
    """As other trainers want them, or a table of the folder."""
    film(tmp_path / "a.png")
    (tmp_path / name.strip()).write_text(BESIDE[name], encoding="utf-8")
    [row], count = read_rows(tmp_path, DataConfig())
    assert row["caption"] == "a knee"
    assert "without caption" not in str(count)
    (tmp_path / name.strip()).unlink()
    assert str(read_rows(tmp_path, DataConfig())[1]) == "1 films; 1 without caption or labels"


def test_a_folder_that_was_drawn_has_its_prompts(tmp_path: Path) -> None:
    """The prompts in our PNGs are captions; the sheets beside them are no films."""
    for name in ("00000.png", "grid.png", "trajectory.png", "00000_words.png"):
        image_files.save(
            torch.zeros(1, 8, 8), tmp_path / name, {"prompt": "lung xray", "seed": "1"}
        )
    found, count = read_rows(tmp_path, DataConfig(strict=True))
    assert [row["caption"] for row in found] == ["lung xray"]
    assert str(count) == "1 films; 3 skipped: 3 sample sheet"


@pytest.mark.parametrize("said", COUNTED)
def test_what_is_not_read_is_counted_with_its_reason(tmp_path: Path, said: str) -> None:
    """And data.strict makes an error of each skip that nobody asked for."""
    film(tmp_path / "a.png")
    header = "filename,labels,view,sex,age,split,quality_flag"
    more = ",camera" if "camera" in said else ""
    lines = [header + more, "a.png,Effusion,PA,M,61,train,", *COUNTED[said]]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    found, count = read_rows(tmp_path / "t.csv", DataConfig())
    assert said.strip() in str(count)
    assert "a.png" not in str(count)  # the name may be a patient's
    total = sum(map(len, count.skipped.values()))
    assert len(found) + total == len(lines) - 1
    assert open_set(str(tmp_path / "t.csv")).count.startswith(
        f"{len(lines) - 1 - total + ('other split' in said)} films"
    )
    if "skipped" in said and "other split" not in said:
        with pytest.raises(ConfigError, match=r"data\.strict lets nothing be skipped"):
            read_rows(tmp_path / "t.csv", DataConfig(strict=True))
    else:
        assert len(read_rows(tmp_path / "t.csv", DataConfig(strict=True))[0]) == len(found)


def test_another_page_of_a_table_is_another_picture(tmp_path: Path) -> None:
    """The cache of pixels knows the column file_frame, 1.0 of pandas, too."""
    pages = [Image.new("L", (32, 32), level) for level in (0, 255)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    means = []
    for frame in ("0", "1.0"):
        (tmp_path / "t.csv").write_text(f"filename,file_frame\na.tif,{frame}\n")
        config = DataConfig(path=str(tmp_path / "t.csv"), size=32, cache=str(tmp_path / "c"))
        means.append(Files(config, 1).images(torch.tensor([0])).mean().item())
    assert means == [-1, 1]


@pytest.mark.parametrize("age", ["61 Jahre", "61 ans", "61e", "abc", "999Y"])
def test_an_age_of_another_kind_is_dropped_and_counted(tmp_path: Path, age: str) -> None:
    film(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text(f"filename,labels,age\na.png,Effusion,{age}\n")
    rows, count = read_rows(tmp_path / "t.csv", DataConfig())
    assert rows[0]["age"] == ""
    assert "1 with unknown age" in str(count)


def test_splits_of_gzipped_tables_and_of_folders_are_kept_apart(tmp_path: Path) -> None:
    """train.csv.gz and test.csv.gz name their splits; FOLDER@test are the films of one."""
    head = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema\n"
    for split in ("train", "valid"):
        film(tmp_path / f"{split}.png")
        content = gzip.compress(f"{head}{split}.png,Female,61,Frontal,PA,1,0\n".encode())
        (tmp_path / f"{split}.csv.gz").write_bytes(content)
    rows, _ = read_rows(tmp_path, DataConfig(split="train"))
    assert [Path(row["path"]).stem for row in rows] == ["train"]
    assert open_set(f"{tmp_path}@val").ids == ["valid"]
    with pytest.raises(ConfigError, match=r"no row whose column `split` is 'test'|none of"):
        open_set(f"{tmp_path}@test")


def test_a_window_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    film(tmp_path / "a.png")
    with pytest.raises(ValueError, match="window must be lung, soft, bone or L,W"):
        read_rows(tmp_path, DataConfig(window="lungs"))
