"""Captions in many wordings, from a row's region, modality, view, side, age, sex and labels."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ldm.data.phantom import captions

WORDS = json.loads(Path(__file__).with_name("row_captions.json").read_text(encoding="utf-8"))
T = TypeVar("T")
SIDES = {"left": "right", "right": "left"}


class Choices:
    """Picks one of several again and again, as the digits of one number say."""

    def __init__(self, number: int) -> None:
        self.number = number

    def one(self, options: Sequence[T]) -> T:
        self.number, digit = divmod(self.number, len(options))
        return options[digit]


def caption(row: Mapping[str, str], known: Mapping[str, bool], wording: int) -> str:
    """The wording number `wording` of an image: "lateral xray of the left knee, no fracture".

    A row without `region` and `modality` is a frontal chest film. Findings always have their say,
    and so has the side; view, age and sex in some wordings only.

    known: {finding: is it there?}; of chests, one that is absent is denied in some wordings
    """
    pick = Choices(wording)
    region, modality = row.get("region") or "chest", row.get("modality") or "x-ray"
    labels = [label for label in (row.get("labels") or "").split("|") if label]
    film = region == "chest" and modality == "x-ray"
    child = WORDS["children"] in row.get("collection", "")
    age = int(float(row["age"])) if row.get("age") else None
    if film and not child and pick.one(["old", "new"]) == "old":
        view, sex = row.get("view") or "", row.get("sex") or ""
        return captions.caption_from_labels(labels, view, sex, age, pick.number)
    there = _present(labels)
    place = f"{row.get('laterality') or ''} {pick.one(WORDS['regions'].get(region, [region]))}"
    kind = pick.one(WORDS["modalities"].get(modality, [modality]))
    view = pick.one(["", pick.one(WORDS["views"].get(row.get("view", ""), [""]))])
    who = pick.one(["", _person(row.get("sex") or "", age, child, pick)])
    parts = [view, *pick.one([f"{place} {kind}", f"{kind} of the {place}"]).split()]
    if who and parts[-1] != place.split()[-1]:  # not "x-ray of the knee of a woman"
        parts += ["of", who]
    elif who:
        parts += ["in", who]
    text = " ".join(filter(None, parts))
    denied = [WORDS["absent"][label] for label in labels if label in WORDS["absent"]]
    if film:
        denied = [word for word, shown in known.items() if not shown] if there else ["findings"]
        denied = [pick.one(["", "", pick.one(denied)])] if there and denied else denied
    if there:
        text += " " + pick.one(WORDS["present"]).format(_join([*map(_counted, there)]))
    if denied and denied[0]:
        text += ", " + pick.one(WORDS["negated"]).format(denied[0])
    return text


def contrast(
    text: str, known: Mapping[str, bool], asked: Sequence[str], number: int
) -> tuple[str, ...]:
    """A true and a false caption that differ by the side, or by a denial of one of `asked`.

    text: the image's caption;  number: which of the possible pairs;  () if there is none
    """
    pick = Choices(number)
    swapped = re.sub(r"\b(left|right)\b", lambda match: SIDES[match[0].lower()], text, flags=re.I)
    if pick.one(["side", "finding"]) == "side" and swapped != text:
        return text, swapped
    there = [finding for finding in asked if known.get(finding) is True]
    absent = [finding for finding in asked if known.get(finding) is False]
    several = pick.one([some for some in (there, absent) if some] or [there])
    if not several:
        return ()
    finding = pick.one(several)
    kind = re.split(r",| (?:with|showing|demonstrating|without|no) ", text)[0]
    shown, denied = (pick.one(WORDS[how]).format(finding) for how in ("present", "negated"))
    says = f"{kind} {shown}", f"{kind}, {denied}"
    return says if known[finding] else says[::-1]


def _present(labels: Sequence[str]) -> list[str]:
    """The findings among the labels: not those that are denied, nor notes of a collection."""
    found = []
    for label in labels:
        known = WORDS["labels"].get(label.lower(), "")
        if label in WORDS["absent"] or any(label.startswith(note) for note in WORDS["unsaid"]):
            continue
        found.append(known or captions.readable(label))
    return [word for word in found if word]


def _person(sex: str, age: int | None, child: bool, pick: Choices) -> str:
    if child:
        return pick.one(["a child", "a small child", "a young child"])
    if age is None and not sex:
        return ""
    who = pick.one(WORDS["people"].get(sex, WORDS["people"][""]))
    return _article(f"{age} year old {who}" if age is not None else who)


def _counted(word: str) -> str:
    return _article(word) if word in WORDS["counted"] else word


def _join(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' or noun.startswith(('8', '11 ', '18 ')) else 'a'} {noun}"
