"""MeSH terms of Open-I's reports -> the classes of CheXpert."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

NO_FINDING = "No Finding"
# The 14 classes of table 3 in arXiv:2210.04133. `terms`: the MeSH terms that stand for each in
# Open-I; "opacity/lung" is the heading Opacity with "lung" among its qualifiers. These stand for
# none: scars, granulomas, calcifications, emphysema, lung markings and volumes, a blunted
# costophrenic angle, aorta, spine and diaphragm; clips, wires, sutures and stents. `wider`: the
# classes that it is an instance of, as reports often have both terms for one finding.
TABLE = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
TERMS: dict[str, list[str]] = {name: row["terms"] for name, row in TABLE.items()}
CLASSES = tuple(TERMS)
NEGATED = re.compile(r"(?:no|not|without|absent|negative|free of|normal)\b")
UNCERTAIN = re.compile(
    r"^(?:\?|(?:possible|possibly|probable|probably|likely|questionable|suspected|suspicious for|"
    r"may represent|cannot exclude|could be)\b)\s*|"
    r"\s*(?:\?|\((?:possible|probable|uncertain)\)|(?:not|cannot be) (?:excluded|ruled out))$"
)


def classes(terms: Iterable[str]) -> frozenset[str]:
    """The CLASSES that MeSH terms ("Opacity/lung/base/left") stand for, by TERMS.

    A negated term ("no evidence of pneumonia", "Pneumonia/absent", "normal heart") is passed over.
    An uncertain one ("possible pneumonia", "Cardiomegaly/borderline") counts as positive, as in the
    paper (section 2.3). No Finding holds only where no other term is left.
    """
    affirmed = [parts for term in terms if (parts := _affirmed(term))]
    found = {
        name
        for heading, *qualifiers in affirmed
        for name, patterns in TERMS.items()
        for wanted, _, qualifier in (pattern.partition("/") for pattern in patterns)
        if heading == wanted and (not qualifier or qualifier in qualifiers)
    }
    if any(heading not in TERMS[NO_FINDING] for heading, *_ in affirmed):
        found -= {NO_FINDING}
    return frozenset(found)


def narrowest(names: frozenset[str]) -> frozenset[str]:
    """Without a class that another one is an instance of: pneumonia alone, not opacity too."""
    return names - {wider for name in names for wider in TABLE[name]["wider"]}


def _affirmed(term: str) -> list[str]:
    """Heading and qualifiers in small letters, freed of doubt; none for a negated term."""
    text = UNCERTAIN.sub("", " ".join(term.lower().split()))
    parts = [part.strip() for part in text.split("/")]
    if text in TERMS[NO_FINDING]:  # "no finding" denies nothing
        return [text]
    negated = "normal" in parts[1:] or any(NEGATED.match(part) for part in parts)
    return [] if negated else parts
