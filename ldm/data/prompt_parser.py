"""The findings that a prompt asks for, by the words that captions have for them."""

import re
from collections.abc import Sequence

from ldm.data.phantom import FINDINGS, captions
from ldm.data.phantom.findings import DEVICES

ALSO = ("atelectasis", "emphysema", "pneumonia")  # ChestX-ray14's labels that are words as they are


def vocabulary(findings: Sequence[str] = ()) -> dict[str, str]:
    """{word in a prompt: finding}, those of phantoms, of ChestX-ray14 and `findings`."""
    names = {*map(captions.readable, FINDINGS), *captions.READABLE.values(), *ALSO, *findings}
    # "": where torchxrayvision's networks have no label;  "sex=F": see attributes.of_prompt
    names = {name for name in names if name and "=" not in name}
    short = {label.replace("_", " "): name for label, name in captions.READABLE.items()}
    return short | dict.fromkeys(DEVICES, "support device") | {name: name for name in names}


def requested_findings(prompt: str, findings: Sequence[str] = ()) -> dict[str, bool]:
    """{finding: does the prompt ask for it?} for all of the vocabulary, whatever the case.

    A denial ("no", "not", "without", "free of") holds up to the next comma, semicolon or full
    stop, or to "with", "showing", "but", "except" or "other than"; so it holds across "or" and
    "and". A finding that is both named and denied is asked for. Plurals count; a word that no
    caption has names nothing.
    """
    words = vocabulary(findings)
    longest_first = sorted(words, key=len, reverse=True)
    token = re.compile(
        r"\b(?P<denial>no|not|without|free of)\b"
        r"|(?P<end>[,;.]|\b(?:with|showing|but|except|other than)\b)"
        rf"|\b(?P<name>{'|'.join(map(re.escape, longest_first))})(?:e?s)?\b"
    )
    found, denied = dict.fromkeys(words.values(), False), False
    for match in token.finditer(" ".join(prompt.lower().split())):
        if match["name"]:
            found[words[match["name"]]] |= not denied
        else:
            denied = bool(match["denial"])
    return found
