"""Captions in the wording of radiology prompts, for phantoms and for labelled films alike."""

import json
from collections.abc import Sequence
from pathlib import Path

from ldm.data.phantom.findings import Finding, Phantom

EFFUSION = "pleural effusion"
WORDS = json.loads(Path(__file__).with_name("caption_words.json").read_text(encoding="utf-8"))
# ChestX-ray14's label names; what is not listed is only lowered and freed of underscores
READABLE: dict[str, str] = WORDS["readable"]


def readable(label: str) -> str:
    """The words for one label, "" for No Finding: "Pleural_Thickening" -> "pleural thickening"."""
    key = label.strip().lower()
    if key in WORDS["no_finding"]:
        return ""
    return READABLE.get(key, key.replace("_", " "))


def caption_from_labels(
    labels: Sequence[str],
    view: str,
    sex: str,
    age: int | None,
    index: int,
    phantom: bool = False,
    details: Sequence[str] | None = None,
) -> str:
    """The wording number `index` (they repeat) of one film's caption.

    view: "PA", "AP", "lateral", ... or "";  sex: "M", "F" or "";  age: years or None
    details: longer words for the same labels ("large left pleural effusion"), in some wordings
    """
    words = [word for word in map(readable, labels) if word]
    long = [word for word in (details or words) if word]
    wordings = [*(_with_findings(words, long) if words else WORDS["without_findings"])]
    who = {"M": "man", "F": "woman"}.get(sex, "patient")
    years = f"{age} year old " if age is not None else ""
    kind, what = f"{view} chest x-ray".strip(), ", ".join(long) or "no findings"
    wordings += [f"{kind} of {_article(years + who)}, {what}", f"{kind}, {what}"]
    text = wordings[index % len(wordings)]
    if view not in ("", "PA", "AP"):  # a lateral film is no frontal one
        text = text.replace("frontal", view)
    return _name_phantom(text) if phantom else text


def caption(phantom: Phantom, index: int = 0) -> str:
    """The wording number `index` of the phantom's caption; it always says "phantom"."""
    labels, details = [f.name for f in phantom.findings], [*map(_detail, phantom.findings)]
    if not phantom.is_chest_film:
        return _name_phantom(_picture(phantom, details, index))
    return caption_from_labels(
        labels, phantom.view, phantom.sex, phantom.age, index, phantom=True, details=details
    )


def _picture(phantom: Phantom, details: Sequence[str], index: int) -> str:
    """Of any other picture: one of the forms of its modality, with or without the patient."""
    forms = WORDS["pictures"][phantom.modality]
    form = forms[index % len(forms)]
    rest = index // len(forms)
    who = WORDS["patients"][rest % len(WORDS["patients"])]
    rest //= len(WORDS["patients"])
    what = WORDS["present" if details else "absent"]
    person = f"{phantom.age} year old {'man' if phantom.sex == 'M' else 'woman'}"
    return (form + who + what[rest % len(what)]).format(
        where=_where(phantom),
        view=phantom.view,
        kind=phantom.kind,
        who=_article(person),
        findings=_join(details) if details else "",
    )


def _where(phantom: Phantom) -> str:
    """ "left knee"; of a part of the whole body, "body at the knees" """
    if phantom.region == "body" and phantom.width:
        return f"body at the {part_at(phantom.at[1])}"
    return f"{phantom.side} {phantom.region}".strip()


def part_at(down: float) -> str:
    """The part of a standing body that lies `down` mm below its middle, in a person of 170 cm."""
    parts: dict[str, float] = WORDS["parts"]
    return next(name for name, lowest in parts.items() if down < lowest)


def _with_findings(words: Sequence[str], long: Sequence[str]) -> list[str]:
    first = EFFUSION if EFFUSION in words else words[0]
    side = next((_side(text) for text in long if EFFUSION in text), "")
    visible = (
        f"a photo of a lung xray with {'a ' if first in WORDS['counted'] else ''}visible {first}"
    )
    return [
        f"lung xray with {first}",
        f"{visible}{side}" if first == EFFUSION else visible,
        visible,
        f"frontal chest radiograph, {', '.join(words)}",
        f"chest x-ray showing {_join(long)}",
        f"lung xray with {_join(words)}",
    ]


def _name_phantom(text: str) -> str:
    """The word "phantom" before the noun: "normal chest x-ray" -> "normal phantom chest x-ray"."""
    for start in ("a photo of a ", "normal "):
        if text.startswith(start):
            return f"{start}phantom {text.removeprefix(start)}"
    return f"phantom {text}"


def _detail(found: Finding) -> str:
    """ "large left pleural effusion", "pacemaker", "mild pulmonary edema" """
    if found.name == "support device" and found.kind:
        return found.kind
    if found.name == "fracture":
        return f"{found.kind} fracture"
    if found.name == "arthrosis":
        return f"{found.kind} arthrosis"
    grades = {EFFUSION: ("small", "moderate", "large"), "edema": ("mild", "moderate", "severe")}
    grade = grades.get(found.name, ("", "", ""))[min(int(found.size * 3), 2)]
    side = found.side if found.name != "edema" else ""
    return " ".join(filter(None, (grade, side, readable(found.name))))


def _side(text: str) -> str:
    if "bilateral" in text:
        return " on both sides"
    return next((f" on the {side}" for side in ("left", "right") if side in text.split()), "")


def _join(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _article(noun: str) -> str:
    vowel = noun[0] in "aeiou" or noun.startswith(("8", "11 ", "18 "))
    return f"{'an' if vowel else 'a'} {noun}"
