"""The manifest lists drawn pictures under the names that CheXGenBench reads, and nothing else."""

import csv
from pathlib import Path

import pytest
import torch
from conftest import assert_one_line

from ldm.drawing import manifest
from ldm.pictures import image_files
from ldm.system import cli


def test_each_picture_has_its_prompt_under_the_names_of_chexgenbench(
    tmp_path: Path, capsys
) -> None:
    """By its README and by the defaults of its scripts; a prompt may hold commas and quotes.

    Sheets are left out, and a picture without a prompt is counted.
    """
    (tmp_path / "more").mkdir()
    prompts = {"00000.png": "lung xray, no findings", "more/1.png": 'a "normal" film'}
    for name, prompt in {**prompts, "grid.png": "lung xray", "film.png": ""}.items():
        text = {"prompt": prompt} if prompt else {}
        image_files.save(torch.zeros(1, 8, 8), tmp_path / name, text)
    assert manifest.main([str(tmp_path)]) == 0
    assert "2 images; 1 without a prompt or not PNG" in capsys.readouterr().out
    with (tmp_path / "prompt_INFO.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for text in ("prompt", "annotated_prompt"):
        for picture in ("img_savename", "synthetic_filename"):
            assert {row[picture]: row[text] for row in rows} == prompts


@pytest.mark.parametrize(
    ("name", "message"), [("films", "no PNG that holds a prompt"), ("films/0.png", "is no folder")]
)
def test_what_cannot_be_listed_is_one_line(tmp_path: Path, capsys, name, message) -> None:
    """Exit status 2, and no CSV."""
    (tmp_path / "films").mkdir()
    image_files.save(torch.zeros(1, 8, 8), tmp_path / "films" / "0.png", {})
    assert cli.run(lambda: manifest.main([str(tmp_path / name)]), "manifest") == 2
    assert_one_line(capsys.readouterr().err, message)
    assert not list(tmp_path.rglob("*.csv"))
