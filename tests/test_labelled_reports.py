"""Reports are read, cut and chosen by the stated rules. All report texts here are made up."""

import io
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ldm.data import labelled_reports
from ldm.data.labelled_reports import (
    RadiologyReport,
    balanced,
    impression,
    read_csv,
    read_openi,
    single_label,
)
from ldm.data.mesh_terms import CLASSES
from ldm.metrics.retrieval import chexpert_at_k, shared_words

# --- the impression of a raw report ---

RAW = {
    "FINDINGS: Clear lungs.\n\nIMPRESSION: No acute disease.": "No acute disease.",
    "IMPRESSION:\n 1. Small effusion.\n 2. Stable\n heart.": "1. Small effusion. 2. Stable heart.",
    "impression: normal": "normal",
    "IMPRESSION\nNormal chest.\n\nTECHNIQUE: PA.": "Normal chest.",
    "FINDINGS: Clear. IMPRESSION: Normal. RECOMMENDATION: None.": "Normal.",
    "FINDINGS AND IMPRESSION: Left effusion.": "Left effusion.",
    "FINAL IMPRESSION: Normal.": "Normal.",
    "IMPRESSION (PRELIMINARY): Normal.": "Normal.",
    "IMPRESSIONS: Normal.": "Normal.",
    # all in capitals; a heading nobody foresaw ends it, at the start of a line
    "HISTORY: COUGH.\nIMPRESSION: NORMAL CHEST.\nSIGNED BY: X": "NORMAL CHEST.",
    "IMPRESSION: Tube at 3 cm.\nCRITICAL RESULTS: called.": "Tube at 3 cm.",
    # an empty one does not count; of several the last does
    "IMPRESSION: Old.\nADDENDUM: Read again.\nIMPRESSION: New.": "New.",
    "IMPRESSION: Kept.\nIMPRESSION:\n": "Kept.",
    "IMPRESSION:\n\nRECOMMENDATION: CT.": None,
    # ratios, times and numbered lines are no headings; Windows line ends
    "IMPRESSION: Ratio 1:2, read at 10:30.\r\n1. Lungs: clear.": "Ratio 1:2, read at 10:30. 1. "
    "Lungs: clear.",
    # prose is no heading
    "My impression is that nothing changed: stable.": None,
    "": None,
}


@pytest.mark.parametrize(("text", "expected"), RAW.items(), ids=range(len(RAW)))
def test_the_impression_ends_at_the_next_heading(text: str, expected: str | None) -> None:
    """Whatever the letters, spaces and lines of the heading; None where there is none."""
    assert impression(text) == expected


# --- one label per report ---


def made_up(labels: list[str], text: str | None = "Text.", name: str = "a") -> RadiologyReport:
    return RadiologyReport(name, None, text, frozenset(labels))


def test_reports_without_exactly_one_label_are_left_out_and_counted() -> None:
    """Each report is either kept or counted under one reason."""
    found = single_label(
        [
            made_up(["Edema"], name="kept"),
            made_up(["Edema", "Lung Opacity"], name="kept too"),
            made_up(["Edema", "Fracture"]),
            made_up([]),
            made_up(["Edema"], None),
            made_up([], None),
        ]
    )
    assert found.ids == ["kept", "kept too"]
    assert found.labels.tolist() == [CLASSES.index("Edema")] * 2
    assert found.left_out == {"no impression": 2, "no label": 1, "several labels": 1}
    assert sum(found.counts().values()) == 2


def test_balanced_takes_at_most_so_many_of_each_class_in_order() -> None:
    """The seed decides which; texts and labels stay together, small classes stay whole."""
    names = ["Edema"] * 30 + ["Fracture"] * 4
    everything = single_label(made_up([names[i % 34]], f"Text {i}.", str(i)) for i in range(68))
    found, again, other = (balanced(everything, 10, seed) for seed in (0, 0, 1))
    assert (found.counts()["Edema"], found.counts()["Fracture"]) == (10, 8)
    assert found.ids == again.ids != other.ids
    assert [int(i) for i in found.ids] == sorted(int(i) for i in found.ids)
    for name, text, label in zip(found.ids, found.texts, found.labels, strict=True):
        assert text == f"Text {name}."
        assert CLASSES[label] == names[int(name) % 34]
    assert found.left_out["not drawn"] == 50


# --- files ---

XML = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><uId id="{0}"/><Abstract>
<AbstractText Label="FINDINGS">{1}</AbstractText><AbstractText Label="IMPRESSION">{2}</AbstractText>
</Abstract><MeSH>{3}</MeSH></eCitation>"""


def archive(path: Path, *contents: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for i, content in enumerate(contents):
            member = tarfile.TarInfo(f"folder/{i}.xml")
            member.size = len(content.encode())
            tar.addfile(member, io.BytesIO(content.encode()))
    return path


def test_open_is_files_are_read(tmp_path: Path) -> None:
    """Sections on one line, an empty one as None, terms people chose but not the automatic ones."""
    terms = "<major>Cardiomegaly/mild</major><automatic>Pneumonia</automatic>"
    path = archive(
        tmp_path / "reports.tgz",
        XML.format("A1", "Large\n heart.", "Large heart.", terms),
        XML.format("A2", "", " ", "<major>normal</major>"),
    )
    assert read_openi(path) == [
        RadiologyReport("A1", "Large heart.", "Large heart.", frozenset({"Cardiomegaly"})),
        RadiologyReport("A2", None, None, frozenset({"No Finding"})),
    ]


def test_a_csv_is_read(tmp_path: Path) -> None:
    """Impressions given or cut from reports, one label or several, in any letters."""
    path = tmp_path / "reports.csv"
    path.write_text(
        "\ufeffstudy_id,report,impression,labels\n"
        's1,"FINDINGS: x\nIMPRESSION: Left effusion.",,pleural_effusion\n'
        "s2,IMPRESSION: Not this.,This.,No Finding|Support Devices\n"
        ",No heading here.,,Edema | fracture\n"
        "s4,,Text.,\n",
        encoding="utf-8",
    )
    assert read_csv(path) == [
        RadiologyReport("s1", None, "Left effusion.", frozenset({"Pleural Effusion"})),
        RadiologyReport("s2", None, "This.", frozenset({"Support Devices"})),
        RadiologyReport("row-4", None, None, frozenset({"Edema", "Fracture"})),
        RadiologyReport("s4", None, "Text.", frozenset()),
    ]
    path.write_text("impression,label\nNormal.,no finding\n", encoding="utf-8")
    assert read_csv(path) == [RadiologyReport("row-2", None, "Normal.", frozenset({"No Finding"}))]


def test_files_that_cannot_be_read_are_refused(tmp_path: Path, monkeypatch) -> None:
    """One line that names the file and row, and never what a report says."""
    path = tmp_path / "x.csv"
    for content, message in {
        "text,label\na,Edema\n": "impression or report",
        "report,class\na,Edema\n": "label or labels",
        "report,label\n": "and reports",
        "impression,label\na,Edema\nb,Mr Smith coughs\n": "row 3 has a label that is none of",
    }.items():
        path.write_text(content)
        with pytest.raises(ValueError, match=message) as error:
            read_csv(path)
        assert "\n" not in str(error.value)
        assert "Smith" not in str(error.value)
    with pytest.raises(ValueError, match="cannot read"):
        read_csv(tmp_path / "absent.csv")
    whole = archive(tmp_path / "whole.tgz", XML.format("A1", "x" * 5000, "x", "")).read_bytes()
    (tmp_path / "cut.tgz").write_bytes(whole[: len(whole) // 2])
    for bad in (path, archive(tmp_path / "broken.tgz", "<eCitation>"), tmp_path / "cut.tgz"):
        with pytest.raises(ValueError, match="cannot read the reports in"):
            read_openi(bad)
    monkeypatch.setattr(labelled_reports, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install torchxrayvision"):
        read_openi()


# --- Open-I itself ---


@pytest.mark.skipif(find_spec("torchxrayvision") is None, reason="torchxrayvision is missing")
def test_open_i_is_there_and_the_baseline_beats_chance() -> None:
    """3,955 reports, 3,921 with an impression; the counts that figures from them rest on."""
    everything = read_openi()
    assert len(everything) == len({report.id for report in everything}) == 3955
    assert sum(report.impression is not None for report in everything) == 3921
    assert sum(report.findings is not None for report in everything) == 3425
    assert sum("No Finding" in report.labels for report in everything) == 1391
    found = single_label(everything)
    assert len(found.ids) + sum(found.left_out.values()) == 3955
    assert len(found.ids) == 2212
    few = balanced(found)
    score = chexpert_at_k(shared_words(few.texts), few.labels, k=10)
    assert score.macro.low > 2 * score.macro_chance
    rng, words = np.random.default_rng(0), shared_words(few.texts)
    by_chance = [
        chexpert_at_k(words, rng.permutation(few.labels), 10, draws=1).macro.value
        for _ in range(20)
    ]
    # their standard deviation is 0.005
    assert np.mean(by_chance) == pytest.approx(score.macro_chance, abs=0.004)


def test_torchxrayvision_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding its files does not start it, which takes seconds."""
    monkeypatch.delitem(sys.modules, "torchxrayvision", raising=False)
    labelled_reports.installed()
    assert "torchxrayvision" not in sys.modules
