"""Findings that readers name in remarks, beside what images show (arXiv:2211.00902, task 2)."""

from collections.abc import Sequence

import numpy as np

from ldm.data.image_sets import ImageSet
from ldm.data.prompt_parser import requested_findings
from ldm.metrics.classification import wilson
from ldm.report.readers.answers import Key, Reader
from ldm.report.readers.trials import CATCH


def known(images: ImageSet, index: int) -> dict[str, bool]:
    """{finding: is it there?} by the labels of an image or else by its prompt; {} if it has none"""
    prompt = images.text(index).get("prompt")
    found = images.findings(index) or (requested_findings(prompt) if prompt else {})
    return {name: there for name, there in found.items() if "=" not in name}  # no bone=...


def findings_in(remark: str, words: Sequence[str] = ()) -> list[str]:
    return [name for name, asked in requested_findings(remark, words).items() if asked]


def measure(key: Key, reader: Reader) -> dict[str, object]:
    """{figure: estimate, share or count} of the first readings of images with known findings."""
    words = sorted({name for trial in key.trials for name in trial.findings})
    first = [t for t in key.trials if t.truth != CATCH and t.repeats is None]
    seen = [t for t in first if t.findings and t.id in reader.answers]
    remarks = [reader.answers[t.id].remark for t in seen]
    named = [set(findings_in(remark, words)) for remark in remarks]
    shown = [{name for name, there in t.findings.items() if there} for t in seen]
    known_of = [t.findings.keys() for t in seen]
    wrong = [a & b - c for a, b, c in zip(named, known_of, shown, strict=True)]
    ill = [place for place, each in enumerate(shown) if each]
    found: dict[str, object] = {}
    if ill:
        hits = np.array([[shown[i] <= said for said in named] for i in ill])
        found["all findings named"] = wilson(int(hits[range(len(ill)), ill].sum()), len(ill))
        found["the same, remarks dealt at random"] = f"{hits.mean():.3f}"
    if seen:
        found["a finding named that is not there"] = wilson(sum(map(bool, wrong)), len(seen))
    written = [said for said, remark in zip(named, remarks, strict=True) if remark.strip()]
    unknown = sum(len(a - b) for a, b in zip(named, known_of, strict=True))
    return found | {
        "remarks": len(written),
        "remarks without a known finding": sum(not said for said in written),
        "findings named of which the key says nothing": unknown,
        "images without known findings, left out": sum(not t.findings for t in first),
    }
