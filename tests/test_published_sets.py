"""Published sets by their paths alone, on forged copies: labels, views, splits, what is left."""

import csv
from collections import Counter
from pathlib import Path

import pytest
from forged_sets import SETS, forge

from benchmarks import published_sets
from ldm.config import ConfigError
from ldm.data import DataConfig
from ldm.data.csv_tables import read_table
from ldm.data.film_rows import read_rows
from ldm.data.image_sets import FileSet, open_set

DATA = Path(__file__).parents[2] / "shared" / "data"


def columns(rows: list[dict[str, str]], *names: str) -> list[tuple[str, ...]]:
    return [tuple(row.get(name, "") for name in names) for row in rows]


def names_of(asked: FileSet) -> list[str]:
    """Of the films, as their set calls them; the ids of DICOM are hashes of these."""
    names = [Path(row["path"]).stem for row in asked.rows]
    hashed = [Path(row["path"]).suffix == ".dicom" or "dcm" in row["path"] for row in asked.rows]
    return [n if h else i for n, i, h in zip(names, asked.ids, hashed, strict=True)]


@pytest.mark.parametrize("name", SETS)
def test_a_published_set_is_read_by_its_path(tmp_path: Path, name: str) -> None:
    """The folder, and its table alone, are recognised; cells are in our spelling."""
    wanted = SETS[name]
    some = wanted["labels, view, sex, age, patient, split"]
    root = forge(tmp_path, name)[name]
    asked = open_set(str(root))
    assert len(asked) == wanted["read"]
    assert wanted["said"] in asked.count
    rows = columns(asked.rows, "labels", "view", "sex", "age", "patient_id", "split")
    found = dict(zip(names_of(asked), map(list, rows), strict=True))
    assert {key: found[key] for key in some} == some
    if table := wanted["table"]:
        alone, count = read_rows(root / table, DataConfig(split=None))
        assert "recognised" in str(count)
        assert {row["path"] for row in alone} <= {row["path"] for row in asked.rows}
        assert len(alone) >= len(read_table(root / table)) // 3 - 1


def test_captions_are_impressions_or_else_findings(tmp_path: Path) -> None:
    """Of MIMIC's reports by study, and of Open-I's in both of its layouts."""
    places = forge(tmp_path, "MIMIC-CXR-JPG", "Open-I", "Open-I, tables")
    each = [open_set(str(place)).rows for place in places.values()]
    mimic, xml, tables = ([row["caption"] for row in rows] for rows in each)
    heart = "The heart is of normal size. There is a small left effusion."
    assert mimic == ["Small left effusion."] * 2 + [heart] * 2 + [""] * 2
    assert xml == ["Normal chest."] * 2 + ["Clear lungs."]
    assert tables == ["Normal chest x-XXXX."] * 2 + ["A line, in place."]


@pytest.mark.parametrize(
    ("uncertain", "labels", "finding"),
    [("positive", "Edema", True), ("negative", "", None), ("unknown", "", None)],
)
def test_uncertain_marks_are_a_setting(tmp_path: Path, uncertain, labels, finding) -> None:
    """-1 of CheXpert is present, absent or unknown, and the count says which."""
    root = forge(tmp_path, "CheXpert")["CheXpert"]
    rows, count = read_rows(root, DataConfig(uncertain=uncertain))
    assert rows[1]["labels"] == labels
    assert rows[1].get("uncertain", "") == ("Edema" if uncertain == "unknown" else "")
    assert f"1 with uncertain findings ({uncertain} by data.uncertain)" in str(count)


def test_a_minority_of_readers_can_be_unknown(tmp_path: Path) -> None:
    """A finding that is uncertain in a film is neither there nor absent in it."""
    root = forge(tmp_path, "VinDr-CXR")["VinDr-CXR"]
    rows, count = read_rows(root, DataConfig(split=None, uncertain="unknown"))
    rows[0]["labels"] += "|interstitial lung disease"
    asked = FileSet(rows, root, str(count))
    known = dict(zip(names_of(asked), map(asked.findings, range(5)), strict=True))
    assert known["50a418190"]["interstitial lung disease"] is True
    assert known["50a418191"]["interstitial lung disease"] is False
    assert "interstitial lung disease" not in known["50a418192"]
    assert known["50a418192"]["pneumothorax"] is False
    assert known["50a418190"]["pneumothorax"] is True


def test_no_film_of_another_patient_stands_in(tmp_path: Path) -> None:
    """All of CheXpert's films have the same few names; one that is missing is missing."""
    root = forge(tmp_path, "CheXpert")["CheXpert"]
    for path in [*root.glob("train/patient00001/**/*.jpg"), *root.glob("train/*3/**/*.jpg")]:
        path.unlink()
    rows, count = read_rows(root, DataConfig())
    assert [row["patient_id"] for row in rows] == ["patient00002"] * 2
    assert "2 not found (row 2, 5)" in str(count)
    root = forge(tmp_path, "VinDr-CXR")["VinDr-CXR"]  # three rows of its table are one film
    (root / "train" / "50a418191.dicom").unlink()
    assert "1 skipped: 1 not found;" in open_set(str(root)).count


def test_a_damaged_report_and_strictness_are_errors(tmp_path: Path) -> None:
    """In one line each."""
    places = forge(tmp_path, "Open-I", "PadChest")
    with pytest.raises(ConfigError, match=r"strict lets nothing be skipped, .* 2 marked exclude"):
        read_rows(places["PadChest"], DataConfig(strict=True))
    (places["Open-I"] / "ecgen-radiology" / "2.xml").write_text("<eCitation>")
    with pytest.raises(ConfigError, match=r"cannot read the report .*2\.xml"):
        read_rows(places["Open-I"], DataConfig())


@pytest.mark.parametrize("name", ["nih_cxr", "chest", "body"])
def test_our_own_sets_are_read_by_path_alone(name: str) -> None:
    """Counts by split and reason are those that the csv module alone gives."""
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not there")
    with (DATA / name / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kept = [row for row in rows if row["quality_flag"] in ("", "0")]
    flagged = [row for row in rows if row["split"] == "train" and row not in kept]
    train = [row for row in kept if row["split"] == "train"]
    asked, count = read_rows(DATA / name, DataConfig())
    assert len(asked) == count.films == len(train)
    assert {reason: len(at) for reason, at in count.skipped.items()} == {
        "other split": sum(row["split"] != "train" for row in rows),
        "quality_flag": len(flagged),
    }
    assert Counter(columns(asked, "filename", "labels", "view")) == Counter(
        columns(train, "filename", "labels", "view")
    )
    assert len(read_rows(DATA / name, DataConfig(split=None))[0]) == len(kept)


def test_the_page_has_the_table_of_the_command(tmp_path: Path) -> None:
    """docs/films.md shows what is read of the forged copies today."""
    page = (Path(__file__).parents[1] / "docs" / "films.md").read_text(encoding="utf-8")
    assert published_sets.table(forge(tmp_path)) in page
