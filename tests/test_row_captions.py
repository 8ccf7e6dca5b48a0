"""Captions from columns: they say what the row says, in many wordings, and deny what is absent."""

import pytest

from ldm.data.row_captions import caption, contrast

KNEE = {
    "region": "knee",
    "modality": "x-ray",
    "view": "AP",
    "laterality": "left",
    "labels": "KL2|mild osteoarthritis",
}
FILM = {"view": "PA", "sex": "F", "age": "61", "labels": "Effusion|Mass"}


def wordings(row: dict[str, str], known: dict[str, bool] | None = None) -> list[str]:
    return [caption(row, known or {}, 7919 * i) for i in range(2000)]


def test_a_side_and_a_finding_are_in_every_wording() -> None:
    """Left stays left, no note of the collection is read out, and there are many wordings."""
    texts = wordings(KNEE)
    assert all("left knee" in text and "mild osteoarthritis" in text for text in texts)
    assert not any("right" in text or "KL2" in text for text in texts)
    assert len(set(texts)) > 50
    right = wordings({**KNEE, "laterality": "right"})
    assert right == [text.replace("left", "right") for text in texts]


def test_what_is_absent_is_denied_and_never_claimed() -> None:
    """ "no fracture" is a denial in every wording; with a fracture there is none."""
    row = {"region": "hand", "modality": "x-ray", "labels": "no fracture|fracatlas:hand"}
    denials = ("no fracture", "without fracture", "no evidence of fracture")
    assert all(text.endswith(denials) for text in wordings(row))
    there = wordings({**row, "labels": "fracture|hardware|fracatlas:hand"})
    assert all("a fracture and metal fixation" in text for text in there)
    assert not any(denial in text for text in there for denial in denials)


def test_a_chest_denies_only_what_its_collection_labels() -> None:
    """A finding that is labelled and absent is denied at times; one that is there, never."""
    known = {"pleural effusion": True, "lung mass": True, "pneumothorax": False}
    texts = wordings(FILM, known)
    denied = [text for text in texts if "pneumothorax" in text]
    assert 0 < len(denied) < len(texts) / 2
    assert all(
        text.endswith(("no pneumothorax", "without pneumothorax", "no evidence of pneumothorax"))
        for text in denied
    )
    assert not any(f"no {word}" in text for text in texts for word in ("pleural", "lung mass"))
    assert "lung xray with pleural effusion" in texts  # the wording of the README


def test_a_film_without_findings_says_so() -> None:
    """Normal films are told from sick ones in words, but for the old plain wording."""
    texts = {
        text for text in wordings({"labels": "No Finding"}) if text != "a photo of a lung xray"
    }
    assert all("finding" in text or "normal" in text for text in texts)


def test_children_are_named_where_the_collection_is_of_children() -> None:
    """A collection of children has no ages; its films are sometimes said to be of a child."""
    row = {"labels": "Pneumonia", "collection": "Kermany/Guangzhou paediatric (age 1-5)"}
    texts = wordings(row)
    children = [text for text in texts if "child" in text]
    assert 0.3 < len(children) / len(texts) < 0.7
    assert not any("patient" in text or "man" in text.split() for text in texts)


@pytest.mark.parametrize(("age", "who"), [("80", "an 80 year old"), ("61", "a 61 year old")])
def test_age_and_sex_are_said_together(age: str, who: str) -> None:
    """With the right article, and of the right sex."""
    texts = [text for text in wordings({**FILM, "age": age}) if "year old" in text]
    assert texts
    assert all(who in text and ("woman" in text or "female" in text) for text in texts)


def test_a_contrast_differs_by_the_side_or_by_a_denial() -> None:
    """The true caption stands first; the other says the opposite of it, and only that."""
    known, asked = {"pneumothorax": True, "fracture": False}, ["pneumothorax", "fracture"]
    pairs = {contrast("x-ray of the left hand, in pain", known, asked, 7919 * i) for i in range(99)}
    assert ("x-ray of the left hand, in pain", "x-ray of the right hand, in pain") in pairs
    for true, false in pairs:
        if "pain" not in true:
            denied = [
                any(f" {word} " in text for word in ("no", "without")) for text in (true, false)
            ]
            assert denied == ([False, True] if "pneumothorax" in true else [True, False])
            assert true.split()[-1] == false.split()[-1]
            assert true.startswith("x-ray of the left hand")
    assert {true.split()[-1] for true, _ in pairs} == {"pain", *asked}
    assert contrast("x-ray of a hand", {"pneumothorax": True}, ["fracture"], 1) == ()
    assert contrast("upright {AP} film", {"edema": False}, ["edema"], 0)[0].startswith(
        "upright {AP}"
    )
    assert contrast("Left knee, right hand", {}, [], 0)[1] == "right knee, left hand"
