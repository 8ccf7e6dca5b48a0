"""The table of drawn pictures has a row for each that says its prompt, with its file's name."""

import csv
from pathlib import Path

import pytest
import torch

from ldm.config import ConfigError
from ldm.drawing import manifest
from ldm.pictures import image_files


def test_each_picture_has_its_own_prompt(tmp_path: Path, caplog) -> None:
    """Commas and quotes survive; a picture without a prompt is counted, not listed."""
    grey = torch.zeros(1, 8, 8)
    prompts = {"00000.png": 'lung xray, "large" effusion', "00001.png": "a knee"}
    for name, prompt in prompts.items():
        image_files.save(grey, tmp_path / name, {"prompt": prompt})
    image_files.save(grey, tmp_path / "other.png", {})
    caplog.set_level("INFO")
    assert manifest.write(tmp_path) == 2
    assert "1 without a prompt" in caplog.text
    with (tmp_path / manifest.NAME).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["img_savename"]: row["prompt"] for row in rows} == prompts
    assert {row["synthetic_filename"]: row["annotated_prompt"] for row in rows} == prompts
    assert all((tmp_path / row["img_savename"]).is_file() for row in rows)


def test_a_folder_of_other_pictures_is_refused(tmp_path: Path) -> None:
    image_files.save(torch.zeros(1, 8, 8), tmp_path / "film.png", {})
    with pytest.raises(ConfigError, match="no picture says its prompt"):
        manifest.write(tmp_path)
    assert not (tmp_path / manifest.NAME).exists()
