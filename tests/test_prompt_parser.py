"""Prompts are read by one stated rule."""

import pytest

from ldm.data.phantom import FINDINGS, caption, captions, sample_phantoms
from ldm.data.prompt_parser import requested_findings


def named(prompt: str) -> set[str]:
    return {finding for finding, there in requested_findings(prompt).items() if there}


@pytest.mark.parametrize(
    ("prompt", "findings"),
    [
        ("lung xray with pleural effusion", {"pleural effusion"}),
        ("A photo of a lung xray with visible  Pleural Effusions", {"pleural effusion"}),
        ("lung xray, no findings", set()),
        ("a photo of a lung xray", set()),
        ("lung xray without pleural effusion", set()),
        ("lung xray with no pleural effusion", set()),
        ("lung xray without effusion or edema, cardiomegaly", {"cardiomegaly"}),
        ("no pneumothorax and no nodules but lung masses", {"lung mass"}),
        ("no findings other than cardiomegaly", {"cardiomegaly"}),
        ("chest x-ray showing edema and a pacemaker", {"pulmonary edema", "support device"}),
        ("no pneumothorax with consolidation; pneumonia", {"consolidation", "pneumonia"}),
        ("free of pneumothorax", set()),
        ("massive nonsense, notable normality", set()),
    ],
)
def test_a_prompt_asks_for_what_it_names_and_does_not_deny(prompt: str, findings: set) -> None:
    """Several findings, plurals, short words, and denials with their ends."""
    assert named(prompt) == findings


def test_captions_ask_for_what_they_were_written_for() -> None:
    """Of the wordings of phantoms' captions none names a finding that is not there.

    Some name one of two alone; the wordings that name all are read in full.
    """
    for phantom in sample_phantoms(range(60)):
        there = {captions.readable(f.name) for f in phantom.findings}
        read = [named(caption(phantom, wording)) for wording in range(8)]
        assert set().union(*read) == there
        assert all(one <= there for one in read)


def test_an_extractors_own_words_are_read() -> None:
    """A finding that no caption has is found if the extractor looks for it; one without a name, as
    torchxrayvision's networks have, leaves denials denials.
    """
    assert "fracture" not in requested_findings("lung xray with a fracture")
    assert requested_findings("lung xray with a fracture", ["fracture"])["fracture"]
    assert not requested_findings("xray, no edema", ("edema", ""))["edema"]
    assert set(requested_findings("")) >= {captions.readable(name) for name in FINDINGS}
