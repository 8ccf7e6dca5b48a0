"""The study of arXiv:2210.04133 as a whole: kept step by step, and every figure in its step."""

from pathlib import Path

import pytest
from conftest import write_reports

from ldm.report import Report, study
from ldm.report.study.settings import Study


@pytest.fixture
def tiny_study(tmp_path: Path, start: Path, encoder: Path) -> Study:
    """Two steps of every training, ten images of each prompt, a small model of random weights."""
    return Study(
        model=str(start),
        reports=str(write_reports(tmp_path / "reports.csv", 12)),
        encoder=str(encoder),
        encoders=("words", f"CLIP={start}"),
        n=10,
        real=10,
        reconstructed=40,
        guidance=2.0,
        training=("train.steps=2", "data.phantoms=60"),
        out=tmp_path / "out",
    )


def tables_of(report: Report) -> dict[str, bytes]:
    return {name: report.files[name] for name in ("tables.md", "tables.json")}


class Killed(BaseException):
    """As a process that ends; nothing catches it."""


def test_speed(tiny_study: Study) -> None:
    study.make(tiny_study)
