"""What an image is of, beside findings: region, modality, view, beam, sex and age, where known."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ldm.data.phantom.findings import Phantom
from ldm.data.row_captions import WORDS

MODALITIES = {"xray": "x-ray", "ct": "CT", "mr": "MRI"}  # phantoms' words: those of tables
VIEWS = ("frontal", "lateral", "oblique", "axial", "coronal", "sagittal")
ASKED = {"region": WORDS["regions"], "modality": WORDS["modalities"], **WORDS["asked"]}
AGES = {18: "child", 40: "young adult", 65: "adult", 200: "old"}  # by the years that end each


def of_row(row: Mapping[str, str]) -> dict[str, str]:
    """Of a row of a table; one without `region` and `modality` is a chest film."""
    age, view = row.get("age") or "", row.get("view") or ""
    child = WORDS["children"] in row.get("collection", "")
    found = {
        "region": row.get("region") or "chest",
        "modality": row.get("modality") or "x-ray",
        "view": "frontal" if view in ("PA", "AP") else view if view in VIEWS else "",
        "beam": view if view in ("PA", "AP") and not row.get("region") else "",
        "sex": row.get("sex") or "",
        "age": "child" if child else age_band(float(age)) if age else "",
        "collection": row.get("collection") or "",
    }
    return {name: word for name, word in found.items() if word}


def of_phantom(p: Phantom) -> dict[str, str]:
    """Of a phantom; its wrist counts as a hand, as tables have both in one class."""
    beam = {"beam": p.view} if p.view in ("PA", "AP") else {}
    person = {"sex": p.sex, "age": age_band(p.age)} if p.region != "fetal head" else {}
    return {
        "region": "hand" if p.region == "wrist" else p.region,
        "modality": MODALITIES.get(p.modality, p.modality),
        "view": "frontal" if beam else p.view,
        **beam,
        **person,
    }


def of_prompt(prompt: str) -> dict[str, str]:
    """What a prompt says by the words of row_captions.json, in the terms of `of_row`.

    An attribute is unknown where the prompt says nothing of it, or two things ("frontal and
    lateral"). Of words within words the longest counts: a fetal head is no head, and an oblique
    fracture, listed under "", no view.
    """
    text, found = " ".join(prompt.lower().split()), {}
    for attribute, table in ASKED.items():
        names = {name.lower(): word for word, each in table.items() for name in each}
        longest = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
        said = {names[name] for name in re.findall(rf"\b({longest})s?\b", text)}
        if attribute == "age":
            said |= {age_band(float(n)) for n in re.findall(r"\b(\d{1,2})[ -]years?\b", text)}
        said -= {""}
        if len(said) == 1:
            found[attribute] = said.pop()
    return found


def groups(told: Sequence[Mapping[str, str]]) -> dict[str, list[int]]:
    """{"sex: F": places of its images}, of each attribute that has two words or more."""
    found: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, one in enumerate(told):
        for name, word in one.items():
            found[name][word].append(place)
    return {
        f"{name}: {word}": places
        for name, words in found.items()
        if len(words) > 1
        for word, places in sorted(words.items())
    }


def age_band(years: float) -> str:
    """One of AGES."""
    return next(band for end, band in AGES.items() if years < end)


def told(attributes: Mapping[str, str], names: Sequence[str]) -> dict[str, bool]:
    """{"region=knee": is it?} of the names of that form whose attribute is known."""
    pairs = [(name, *name.split("=", 1)) for name in names if "=" in name]
    return {name: attributes[key] == word for name, key, word in pairs if key in attributes}
