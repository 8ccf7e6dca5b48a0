"""evaluate.py as a program: what it prints and writes, and what it says to bad input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import write_reports
from evaluation import Capture, assert_refused, measure, status
from test_bert_files import small_file, write_bert

import evaluate
from ldm.pictures import image_files
from ldm.report import plots
from ldm.report.options import SUBCOMMANDS


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """The folder of a small CXR-BERT with pseudo-random weights; it has all heads."""
    (tmp_path / "bert").mkdir()
    return write_bert(tmp_path / "bert", small_file())


@pytest.fixture
def toys(tmp_path: Path) -> Path:
    return write_reports(tmp_path / "toys.csv")


def test_help_answers_without_torch() -> None:
    """--help names every subcommand; neither it nor a mistyped option imports torch or numpy."""
    code = (
        "import contextlib, sys, evaluate\n"
        "for command in ([], *([name] for name in sys.argv[1:])):\n"
        "    for option in ('--help', '--halp'):\n"
        "        with contextlib.suppress(SystemExit): evaluate.main([*command, option])\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, *SUBCOMMANDS]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(f"evaluate.py {name} [" in found.stdout for name in SUBCOMMANDS)


def test_files_and_one_json_object(
    toys: Path, bert: Path, start: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Standard output is one object, which names every file written, and again in the JSON file.

    The same command leaves the same bytes in every file.
    """
    out, encoders = tmp_path / "new" / "out", ["words", f"CLIP={start}", f"random:{start}", bert]
    command = ["text-encoders", "--reports", toys, "--encoders", *encoders, "--k", 3, "--out", out]
    printed = measure(capsys, *command)
    assert sorted(printed.pop("paths")) == sorted(map(str, out.iterdir()))
    assert printed.pop("seconds").keys() == {"measuring"}
    assert printed == json.loads((out / "text_encoders.json").read_text())
    vectors = ["IoU", *["eot", "mean", "start"] * 2, "cls", "mean", "pooler", "projection"]
    assert [row["vector"] for row in printed["rows"]] == vectors
    assert printed["n"] == 24
    assert printed["reports"] == "toys.csv"
    assert all(row["macro"]["n"] == 24 for row in printed["rows"])
    assert len(list(out.glob("tsne*.png"))) == 4  # of three encoders, and all beside each other
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert status(*command) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    shown = capsys.readouterr().out
    assert "CheXpert@3" in shown
    assert str(out / "tsne.png") in shown


HEAD = "impression,label\n"
CSVS = {
    "no text": ("text,label\na,Edema\n", "needs a header line with impression or report"),
    "no label": ("impression,text\na,Edema\n", "needs a header line with label or labels"),
    "no impression": (HEAD + ",Edema\n ,Fracture\n", "no report has an impression"),
    "one class": (HEAD + "a,Edema\n" * 12, "two or more classes are needed"),
    "too few": (HEAD + "a,Edema\nb,Fracture\n", "k must be 1 to 1, the number of other"),
    "unknown label": (HEAD + "a,Edema\nb,Smith\n", "row 3 has a label that is none of"),
    "endless text": (HEAD + "a,Edema\n" + "x " * 10_000 + ",Edema\n", "row-3 has 10000 words"),
    "a quote left open": (HEAD + 'a,Edema\n"' + "x," * 90_000 + "\n", "field larger than"),
    "control characters": (HEAD + "a,Edema\nb\x07,Fracture\n", "row-3 holds control characters"),
    "no table": ("", "needs a header line"),
}


@pytest.mark.parametrize("case", CSVS)
def test_bad_reports_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, case: str
) -> None:
    """Before any encoder is opened: one line of what and where, never a text; nothing written."""
    monkeypatch.setattr("ldm.report.report_retrieval.open_all", None)
    content, message = CSVS[case]
    (tmp_path / "bad.csv").write_text(content)
    refuse(tmp_path, capsys, message, "--reports", tmp_path / "bad.csv")


def refuse(folder: Path, capsys: Capture, message: str, *arguments: object) -> None:
    encoders = [] if "--encoders" in arguments else ["--encoders", "words"]
    out = ["--out", folder / "new/out"]
    assert_refused(capsys, folder, message, "text-encoders", *encoders, *out, *arguments)


ENCODERS = {
    "unknown": (["magic"], "unknown text encoder 'magic'; choose words, built-in"),
    "empty": ([""], "unknown text encoder ''"),
    "bytes": (["\udcff"], "contains characters that are not text"),
    "unknown vector": (["bert@first"], "unknown text encoder 'bert@first'"),
    "empty folder": (["empty"], "config.json cannot be read"),
    "no vocabulary": (["no_vocab"], "vocab.txt cannot be read"),
    "no config": (["no_config"], "config.json cannot be read"),
    "neither": (["neither"], "name the folder of a BERT, which has its config.json, vocab.txt"),
    "weights alone": (["weights_alone"], "model.safetensors has an unknown layout"),
    "no weights": (["toys.csv"], "toys.csv was refused"),
    "not an open_clip": (["open_clip:ViT-B-32/nothing"], "open_clip has no 'ViT-B-32/nothing'"),
    "another tower": (["open_clip:ViT-B-16-SigLIP/webli"], "no text tower of CLIP's kind"),
    "no such head": (["words@pooler"], "text encoder words has no pooler; choose IoU"),
    "twice": (["words", "words@IoU"], "words@IoU is named twice"),
    "none": ([], "--encoders: expected at least one argument"),
}


@pytest.mark.parametrize("case", ENCODERS)
def test_bad_encoders_are_one_line(
    toys: Path,
    bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    case: str,
) -> None:
    """Found before any text is read; nothing is written."""
    lacks = {"no_vocab": ["vocab.txt"], "no_config": ["config.json"]}
    lacks["weights_alone"] = ["vocab.txt", "config.json"]
    for name, absent in lacks.items():
        (tmp_path / name).mkdir()
        write_bert(tmp_path / name, small_file())
        for file in absent:
            (tmp_path / name / file).unlink()
    (tmp_path / "empty").mkdir()
    (tmp_path / "neither").mkdir()
    (tmp_path / "neither" / "notes.txt").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ldm.report.report_retrieval.measure", None)
    names, message = ENCODERS[case]
    refuse(tmp_path, capsys, message, "--reports", toys, "--k", 3, "--encoders", *names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: WHAT"),
        (("images-of-words",), "invalid choice: 'images-of-words'"),
        (("text-encoders", "--k", 0), "whole number of 1 or more, got '0'"),
        (("text-encoders", "--per-class", "many"), "whole number of 1"),
        (("text-encoders", "--reports", "absent.csv"), "cannot read absent.csv"),
        (("text-encoders", "--out", "toys.csv"), "toys.csv: it is a file"),
        (("text-encoders", "--report", "x"), "unrecognized arguments: --report"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("toys")
def test_bad_options_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    arguments: tuple[object, ...],
    message: str,
) -> None:
    """Mistyped and impossible options."""
    monkeypatch.chdir(tmp_path)
    assert_refused(capsys, tmp_path, message, *arguments)


def test_trouble_leaves_the_old_files(
    toys: Path,
    bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    """A run that fails late changes nothing in --out."""
    command = ["text-encoders", "--reports", toys, "--k", 3, "--out", tmp_path / "out"]
    assert status(*command, "--encoders", "words") == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def fail(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(plots, "scatter", fail)
    capsys.readouterr()
    assert status(*command, "--encoders", bert) == 2
    assert "out of memory" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    (tmp_path / "out" / "text_encoders.txt").unlink()
    (tmp_path / "out" / "text_encoders.txt").mkdir()  # the third of four files cannot be written
    assert status(*command, "--encoders", "words", "--seed", 1) == 2
    assert "text_encoders.txt: it is a folder" in capsys.readouterr().err
    for path in (path for path in before if path.suffix != ".txt"):
        assert path.read_bytes() == before[path]


@pytest.mark.parametrize(
    "arguments",
    [
        ("images", "{}@train", "{}@val"),
        ("classify", "{}@train", "--real", "{}@val"),
        ("memorization", "{}@train", "--train", "{}@train", "--held-out", "{}@val"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_patients_of_two_splits_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, arguments: tuple[str, ...]
) -> None:
    """A patient with films in both splits is a line in the log; unknown ones are no patient."""
    table = tmp_path / "films.csv"
    table.write_text(
        "filename,patient_id,split\n"
        "a.png,1,train\nb.png,2,train\nc.png,,train\nd.png,2,val\ne.png,3,val\nf.png,,val\n"
    )
    for name in "abcdef":
        image_files.save(torch.zeros(1, 64, 64), tmp_path / f"{name}.png", {})
    given = [argument.format(table) for argument in arguments]
    with pytest.raises(ValueError, match=r"too few|labels|trained on"):  # all films are alike
        evaluate.main([*given, "--out", str(tmp_path / "out")])
    assert caplog.messages == [f"patients with films in both {table}@train and {table}@val: 1"]
