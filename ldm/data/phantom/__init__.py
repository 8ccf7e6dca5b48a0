"""Procedural chest radiographs with known truth: patients, findings, projection, captions."""

from ldm.data.phantom.captions import caption, caption_from_labels
from ldm.data.phantom.findings import (
    FINDINGS,
    LETTERS,
    PROBES,
    Finding,
    Phantom,
    Probe,
    sample_phantoms,
)
from ldm.data.phantom.renderer import Rendered, render

__all__ = [
    "FINDINGS",
    "LETTERS",
    "PROBES",
    "Finding",
    "Phantom",
    "Probe",
    "Rendered",
    "caption",
    "caption_from_labels",
    "render",
    "sample_phantoms",
]
