"""The study of arXiv:2210.04133 as a whole: kept step by step, and every figure in its step."""

import gc
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import assert_one_line, write_reports
from test_evaluate import status

from ldm.pictures import image_files
from ldm.report import Report, study
from ldm.report.page import Table
from ldm.report.study import cached_steps, study_page, study_plan
from ldm.report.study.adapted_rows import METHODS, content, run_of, train
from ldm.report.study.cached_steps import Done, Result, StudyStep
from ldm.report.study.study_settings import FULL_RATES, QUICK, Study
from ldm.unet import UNet
from ldm.weights.loading import load_parts


class Killed(BaseException):
    """The end of a process, which nothing catches."""


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
        sampling_steps=2,
        guidance=2.0,
        training=("train.steps=2", "data.phantoms=60"),
        out=tmp_path / "out",
    )


def tables_of(report: Report) -> dict[str, bytes]:
    return {name: report.files[name] for name in ("tables.md", "tables.json")}


def untraced(table: Table, done: Mapping[str, Done]) -> list[str]:
    """Figures of ours in a table that none of the steps that it names has in its values.json."""
    named = re.search(r"Steps: ([\w, ]+)\.$", table.caption)
    assert named, table.caption
    known: set[str] = set()
    for name in named[1].split(", "):
        values = (done[name].folder / "values.json").read_text()
        for x in map(float, re.findall(r"(?<=: )-?[\d.]+(?:e-?\d+)?", values)):
            known |= {f"{x:.0f}", *(f"{x:.{d}f}" for d in (1, 3)), f"{100 * x:.1f}"}
    ours = [cell for row in table.rows for cell in row[1:] if "(" in cell]
    return [x for cell in ours for x in re.findall(r"-?\d+(?:\.\d+)?", cell) if x not in known]


KILLED = ("reconstruction", "reference", "projection_token", "unet_prior", "copies")


@pytest.mark.slow
def test_a_whole_study_killed_five_times(
    tiny_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the work of a step and before it is kept, it goes on to the same tables.

    Every figure of ours in them is in values.json of a step that the table names.
    """
    whole = study.make(tiny_study)
    kept, other = cached_steps.keep, replace(tiny_study, out=tmp_path / "other")
    calls: list[str] = []

    def keep(folder: Path, *arguments: Any) -> Done:
        calls.append(folder.name)
        if folder.name in KILLED and calls.count(folder.name) == 1:
            raise Killed
        return kept(folder, *arguments)

    monkeypatch.setattr(cached_steps, "keep", keep)
    for _ in KILLED:
        with pytest.raises(Killed):
            study.make(other)
    assert tables_of(study.make(other)) == tables_of(whole)
    assert len(calls) == len(METHODS) + 4 + len(KILLED)  # nothing else was done again
    done = cached_steps.run(study_plan.plan(other, load_parts(other.model)[0]), other.out / "steps")
    blocks = study_page.blocks(other, done, study_page.comparisons(done))
    shown = [block for block in blocks if isinstance(block, Table)]
    assert len(shown) == 11
    assert [x for table in shown[1:] for x in untraced(table, done)] == []  # the first is of orders


@pytest.mark.slow
def test_the_full_tier_takes_films_and_reports_of_its_own(
    tiny_study: Study, tmp_path: Path, start: Path, encoder: Path
) -> None:
    """From end to end, with one image of each prompt, one step of training and a small model.

    Distances and verdicts of one image are none, and the page says so.
    """
    out, films = tmp_path / "full", write_films(tmp_path)
    command = ["study", "--tier", "full", "--model", start, "--data", films]
    command += ["--reports", str(tiny_study.reports), "--encoder", encoder, "--n", 1]
    command += ["--distance-by", "judge", "--classified-by", "judge", "--sampling-steps", 1]
    command += ["--training", "train.steps=1", "data.phantoms=40", "--out", out]
    assert status(*command) == 0
    page = (out / "study.md").read_text()
    assert "too few images" in page
    assert "keep this page where they may be kept" in page  # it shows films
    assert "QUICK RUN" not in page


def write_films(folder: Path) -> Path:
    """A CSV of twenty images in each split, half of them with an effusion."""
    (folder / "images").mkdir()
    rows = ["filename,labels,split"]
    for i in range(40):
        image = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(i)) * 2 - 1
        image_files.save(image, folder / "images" / f"{i}.png", {})
        rows.append(f"{i}.png,{('Effusion', 'No Finding')[i % 2]},{('val', 'train')[i // 20]}")
    (folder / "films.csv").write_text("\n".join(rows) + "\n")
    return folder / "films.csv"


def test_nothing_of_a_training_stays_in_memory(
    tiny_study: Study, request: pytest.FixtureRequest
) -> None:
    """Its networks are gone before the next are loaded: two of Stable Diffusion's do not fit."""

    def networks() -> int:
        return sum(type(one) is UNet for one in gc.get_objects())

    method = next(method for method in METHODS if method.name == "unet")
    run = run_of(method, tiny_study, 32, content(tiny_study))
    gc.collect()
    before = networks()
    gc.disable()
    request.addfinalizer(gc.enable)
    train(run)
    assert networks() == before


def test_quick_trainings_are_short_in_the_full_tier(tiny_study: Study) -> None:
    """--quick shortens every training, whatever the tier, and the full tier keeps its rates."""
    quick = replace(tiny_study, tier="full", steps=QUICK.steps, training=())
    for method in METHODS[1:]:
        run = run_of(method, quick, 32, content(quick))
        want = 1 if method.name == "projection_none" else QUICK.steps[method.config]
        assert run.train.steps == want, method.name
        if method.config in FULL_RATES:
            assert run.train.learning_rate == FULL_RATES[method.config]


# --- steps alone ---

PLAIN = {"a": 1, "b": 1, "c": 1}


def chain(settings: Mapping[str, int], log: list[str]) -> list[StudyStep]:
    """a -> b, and c beside them; each adds up what it rests on."""

    def work(name: str, needs: str, done: Mapping[str, Done]) -> Result:
        log.append(name)
        total = settings[name] + sum(done[need].values["sum"] for need in needs)
        return Result({"sum": total}, {"sum.txt": str(total).encode()})

    return [
        StudyStep(name, {"add": settings[name]}, partial(work, name, needs), tuple(needs))
        for name, needs in (("a", ""), ("b", "a"), ("c", ""))
    ]


def sums(settings: Mapping[str, int], log: list[str], folder: Path) -> dict[str, int]:
    """The sums that the steps of a chain wrote."""
    done = cached_steps.run(chain(settings, log), folder)
    return {name: int(step.read("sum.txt")) for name, step in done.items()}


def test_a_changed_setting_is_done_again_with_what_rests_on_it(tmp_path: Path) -> None:
    """And nothing else is; back at the old settings, it is done once more."""
    log: list[str] = []
    for a, expected in ((1, "abc"), (1, ""), (2, "ab"), (1, "ab")):
        log.clear()
        found = sums({"a": a, "b": 10, "c": 100}, log, tmp_path)
        assert found == {"a": a, "b": a + 10, "c": 100}
        assert "".join(log) == expected


def test_changed_code_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every step is done again, and the log says why; code that only shows results is left out."""
    assert all((cached_steps.PACKAGE / name).is_file() for name in cached_steps.SHOWS)
    log: list[str] = []
    sums(PLAIN, log, tmp_path)
    monkeypatch.setattr(cached_steps, "SHOWS", cached_steps.SHOWS[1:])
    sums(PLAIN, log, tmp_path)
    assert "".join(log) == "abcabc"
    assert caplog.text.count("again, for the code changed") == 3


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("report/chambon.json", True),
        ("text/names.csv", True),
        ("report/passages.md", False),
        ("report/page.py", False),
    ],
)
def test_published_figures_count_as_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, counts: bool
) -> None:
    """A step that stores such figures is done again if one changes; wording does not count."""
    monkeypatch.setattr(cached_steps, "PACKAGE", tmp_path)
    file = tmp_path / name
    file.parent.mkdir()
    versions = set()
    for text in ("1", "2"):
        file.write_text(text)
        versions.add(cached_steps.version())
    assert len(versions) == (2 if counts else 1)


@pytest.mark.parametrize("damage", ["write_bytes", "unlink"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    """A step whose files are not what it wrote does not count as done."""
    log: list[str] = []
    sums(PLAIN, log, tmp_path)
    file = tmp_path / "a" / "sum.txt"
    file.write_bytes(b"7") if damage == "write_bytes" else file.unlink()
    assert sums(PLAIN, log, tmp_path) == {"a": 1, "b": 2, "c": 1}
    assert "".join(log) == "abca"  # b rests on what a is made of, which is the same


def test_a_step_killed_while_it_is_kept_is_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old record and new files: neither is taken for the other."""
    log: list[str] = []
    sums(PLAIN, log, tmp_path)

    def kill(path: Path) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(cached_steps.atomic, "whole_file", kill)
        with pytest.raises(Killed):
            sums(PLAIN | {"a": 2}, log, tmp_path)
    log.clear()
    assert sums(PLAIN, log, tmp_path)["a"] == 1
    assert "".join(log) == "a"


# --- what is refused ---

FULL = "--tier full needs --model (weights of SD v1.4, such as sd-v1-4.ckpt) and --reports"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tier", "full", "--data", "x.csv"), FULL),
        (("--distance-by", "magic"), "unknown extractor 'magic'"),
        (("--training", "train.steps"), "must be key=value"),
        (("--data", "absent.csv"), "absent.csv"),
        (("--data", "."), "--data must be a CSV with labels and split, got ."),
        (("--data", "{films}"), "2 images are in split val and in split train"),
        (("--reports", "absent.csv"), "absent.csv"),
        (("--encoder", "absent"), "absent"),
        (("--encoders", "magic"), "unknown text encoder 'magic'"),
        (("--model", "absent.ckpt"), "absent.ckpt does not exist"),
        (("--size", "33"), "--size must be a multiple of"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    """Exit status 2 before the first step begins; nothing is written."""
    monkeypatch.setattr(cached_steps, "run", None)
    films = tmp_path / "films.csv"  # without a column `split`
    films.write_text("filename,labels\na.png,Effusion\nb.png,No Finding\n")
    for name in "ab":
        image_files.save(torch.zeros(1, 32, 32), tmp_path / f"{name}.png", {})
    given = [argument.replace("{films}", str(films)) for argument in arguments]
    assert status("study", "--out", tmp_path / "out", *given) == 2
    assert_one_line(capsys.readouterr().err, message)
    assert not list((tmp_path / "out").glob("*.*"))  # there may be a cache of films
