"""Radiology reports with one label each: Open-I's, and those of a CSV.

Open-I (Demner-Fushman et al., J. Am. Med. Inform. Assoc. 23, 2016) is 3,955 reports, for which
people chose MeSH terms after reading findings and impression. torchxrayvision brings them along.
"""

import re
import tarfile
import unicodedata
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray

from ldm.data.csv_tables import read_table
from ldm.data.mesh_terms import CLASSES, NO_FINDING, classes, narrowest
from ldm.rng import generator

_TITLE = (
    r"(?:FINAL |PRELIMINARY )?(?:FINDINGS?[ \t]*(?:AND|&|/)[ \t]*)?IMPRESSIONS?"
    r"(?:[ \t]*(?:AND|&|/|\()[^\n:]{0,40})?"
)
_OTHERS = (
    r"(?:FINDINGS?|CONCLUSIONS?|RECOMMENDATIONS?|INDICATIONS?|(?:CLINICAL )?HISTORY|TECHNIQUE|"
    r"COMPARISONS?|EXAM(?:INATION)?|NOTIFICATIONS?|ADDENDUM|FINAL REPORT|ATTESTATION|"
    r"(?:ELECTRONICALLY )?SIGNED(?: BY)?|DICTATED(?: BY)?)"
)
# in capitals anywhere before a colon; in any letters at the start of a line; alone on a line
_HEADING = r"\b{0}[ \t]*:|^[ \t]*(?i:{0})[ \t]*(?::|$)"
_START = re.compile(_HEADING.format(_TITLE), re.MULTILINE)
_FINDINGS = re.compile(_HEADING.format("FINDINGS?"), re.MULTILINE)
_END = re.compile(
    "|".join([_START.pattern, _HEADING.format(_OTHERS), r"^[ \t]*[A-Z][A-Z &/()-]{2,40}:"]),
    re.MULTILINE,
)


LONGEST = 1000  # words of an impression; Open-I's longest has 130


class RadiologyReport(NamedTuple):
    """findings, impression: None where the report has none;  labels: of CLASSES, perhaps none."""

    id: str
    findings: str | None
    impression: str | None
    labels: frozenset[str]


class Labelled(NamedTuple):
    """Impressions with one label each; labels: [n], places in CLASSES; left_out: how many, why."""

    ids: list[str]
    texts: list[str]
    labels: NDArray[np.int64]
    left_out: dict[str, int]

    def counts(self) -> dict[str, int]:
        return {c: int((self.labels == i).sum()) for i, c in enumerate(CLASSES)}


def openi() -> Labelled:
    """The impressions of Open-I that have exactly one label, ready for CheXpert@k."""
    return single_label(read_openi())


def single_label(reports: Iterable[RadiologyReport]) -> Labelled:
    """Those with an impression and exactly one label, as CheXpert@k compares one with one.

    A class that another of the same report is an instance of (an opacity that is pneumonia) does
    not count. Reports of several labels even so are left out rather than given one of them.
    """
    kept: list[tuple[str, str, int]] = []
    left_out = {"no impression": 0, "no label": 0, "several labels": 0}
    for report in reports:
        names = sorted(narrowest(report.labels))
        if not report.impression:
            left_out["no impression"] += 1
        elif len(names) != 1:
            left_out["several labels" if names else "no label"] += 1
        else:
            kept.append((report.id, report.impression, CLASSES.index(names[0])))
    ids, texts, labels = map(list, zip(*kept, strict=True)) if kept else ([], [], [])
    return Labelled(ids, texts, np.array(labels, np.int64), left_out)


def checked(labelled: Labelled) -> Labelled:
    """The impressions; ValueError if there are none, or naming the first that cannot be one.

    Far too many words mean an unclosed quotation mark, control characters another kind of file.
    """
    if not labelled.ids:
        counts = ", ".join(f"{reason} {count}" for reason, count in labelled.left_out.items())
        raise ValueError(f"no report has an impression and exactly one label ({counts})")
    for name, text in zip(labelled.ids, labelled.texts, strict=True):
        if (count := len(text.split())) > LONGEST:
            raise ValueError(
                f"the impression of report {name} has {count} words, over {LONGEST}; look for a "
                "missing quotation mark in the table"
            )
        if any(unicodedata.category(character) == "Cc" for character in text):
            raise ValueError(
                f"the impression of report {name} holds control characters; save it as plain text"
            )
    return labelled


def balanced(labelled: Labelled, per_class: int = 50, seed: int = 0) -> Labelled:
    """At most `per_class` reports of each class, drawn by the seed: the paper has 50 of each.

    They keep their order: sorted by class, ties between neighbours would favour some classes.
    """
    chosen: list[int] = []
    for c in np.unique(labelled.labels):
        members = np.flatnonzero(labelled.labels == c)
        order = torch.randperm(len(members), generator=generator(seed, "reports", int(c)))
        chosen += members[order[:per_class].numpy()].tolist()
    chosen.sort()
    left_out = {**labelled.left_out, "not drawn": len(labelled.ids) - len(chosen)}
    ids, texts = ([values[i] for i in chosen] for values in (labelled.ids, labelled.texts))
    return Labelled(ids, texts, labelled.labels[chosen], left_out)


def impression(report_text: str) -> str | None:
    """The impression of a raw report on one line; None if it has none.

    From the heading ("IMPRESSION:", "Impression :", "FINDINGS AND IMPRESSION:") to the next one,
    or the end. The last that is not empty: an addendum or a preliminary reading comes before.
    """
    return _section(_START, report_text)


def findings(report_text: str) -> str | None:
    """The findings of a raw report, as `impression` gives the impression."""
    return _section(_FINDINGS, report_text)


def _section(heading: re.Pattern[str], report_text: str) -> str | None:
    found = None
    for start in heading.finditer(report_text):
        end = _END.search(report_text, start.end())
        found = _line(report_text[start.end() : end.start() if end else None]) or found
    return found


def read_openi(archive: str | Path | None = None) -> list[RadiologyReport]:
    """All of Open-I's reports, in the archive's order; by default the one of torchxrayvision."""
    path = Path(archive) if archive else installed()
    try:
        with tarfile.open(path) as tar:
            files = [file for member in tar if (file := tar.extractfile(member))]
            return [parse_report(ElementTree.parse(file).getroot()) for file in files]
    except (OSError, EOFError, tarfile.TarError, ElementTree.ParseError) as error:
        raise ValueError(f"cannot read the reports in {path}: {error}") from error


def read_csv(path: str | Path) -> list[RadiologyReport]:
    """The reports of a CSV, such as one made of MIMIC-CXR's.

    Columns: `impression`, or `report` to cut it from; `label`, or `labels` separated by |, of
    CLASSES in any letters; perhaps `id`, `study_id` or `findings`. No Finding beside another label
    is dropped.
    """
    rows = read_table(path)
    for wanted in (("impression", "report"), ("label", "labels")):
        if not rows or not set(wanted) & set(rows[0]):
            raise ValueError(f"{path} needs a header line with {' or '.join(wanted)}, and reports")
    reports = []
    for number, row in enumerate(rows, start=2):
        names = (row.get("label") or row.get("labels") or "").split("|")
        reports.append(
            RadiologyReport(
                row.get("id") or row.get("study_id") or f"row-{number}",
                _line(row.get("findings")),
                _line(row.get("impression")) or impression(row.get("report") or ""),
                _named(names, f"{path}, row {number}"),
            )
        )
    return reports


def installed() -> Path:
    """Open-I's reports in torchxrayvision's folder of data."""
    spec = find_spec("torchxrayvision")  # not imported, which takes seconds
    if spec is None or spec.origin is None:
        raise ValueError("Open-I's reports come with torchxrayvision; pip install torchxrayvision")
    return Path(spec.origin).parent / "data" / "NLMCXR_reports.tgz"


def parse_report(root: ElementTree.Element) -> RadiologyReport:
    """One of Open-I's reports, an eCitation."""
    sections = {node.get("Label"): _line(node.text) for node in root.iter("AbstractText")}
    uid = root.find("uId")
    return RadiologyReport(
        "" if uid is None else uid.get("id", ""),
        sections.get("FINDINGS"),
        sections.get("IMPRESSION"),
        classes(node.text or "" for node in root.findall("MeSH/major")),
    )


def _named(names: Sequence[str], where: str) -> frozenset[str]:
    known = {name.lower(): name for name in CLASSES}
    wanted = {" ".join(name.replace("_", " ").lower().split()) for name in names} - {""}
    if not wanted <= known.keys():  # not repeated: in a mixed-up table it may be a patient's text
        raise ValueError(f"{where} has a label that is none of {', '.join(CLASSES)}")
    found = frozenset(known[name] for name in wanted)
    return found - {NO_FINDING} or found


def _line(text: str | None) -> str | None:
    """The text on one line; None for none."""
    return " ".join((text or "").split()) or None
