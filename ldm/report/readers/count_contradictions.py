"""Published counts of a reader study: their contradictions, and the figures they allow."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from ldm.metrics.agreement import detect
from ldm.metrics.classification import wilson
from ldm.metrics.estimate import Estimate
from ldm.report import Report, page
from ldm.report.page import Block, Table
from ldm.report.readers.answers import SAID, read_json

TITLE = "Published counts of a reader study"
FORM = (
    'must be {"source": "...", "groups": [{"name", "truth": "synthetic" or "real", "shown": n, '
    '"readers": {"A": {"real": n, "unsure": n, "fake": n}}, "all": {"real": n}}]}'
)
MOST = 100_000  # images that a count may be of


class Group(NamedTuple):
    """Images of one kind. readers: how many each called what;  all: how many all readers did"""

    name: str
    truth: str
    shown: int
    readers: dict[str, dict[str, int]]
    all: dict[str, int]


def run(path: str) -> Report:
    source, groups = read(path)
    wrong = list(chain.from_iterable(map(contradictions, groups)))
    figures = {group.name: rates(group) for group in groups}
    skill = detection(groups)
    blocks: list[Block] = [
        source,
        "Contradictions: " + (" ".join(wrong) if wrong else "none found."),
        *(table(group, figures[group.name]) for group in groups),
        detection_block(groups, skill),
    ]
    values = {"source": source, "contradictions": wrong, "rates": figures, "detection": skill}
    return page.report("counts", TITLE, blocks, values)


def read(path: str) -> tuple[str, list[Group]]:
    """Raises ValueError, in one line, for a file of another form."""
    content = read_json(path)
    try:
        groups = [_group(each) for each in content["groups"]]
        if not groups or len({group.name for group in groups}) < len(groups):
            raise ValueError("each group must have its own name")
        return str(content["source"]), groups
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is no table of counts ({str(error)[:40]}); it {FORM}") from error


def _group(each: Mapping[str, Any]) -> Group:
    readers = {str(name): _counts(counts) for name, counts in each["readers"].items()}
    group = Group(each["name"], each["truth"], each["shown"], readers, _counts(each.get("all", {})))
    if group.truth not in ("synthetic", "real"):
        raise ValueError(f"truth {group.truth!r}")
    if type(group.shown) is not int or not 1 <= group.shown <= MOST:
        raise ValueError(f"shown {group.shown!r}")
    if not isinstance(group.name, str):
        raise ValueError(f"name {group.name!r}")
    if not readers:
        raise ValueError("no readers")
    return group


def _counts(counts: Mapping[str, Any]) -> dict[str, int]:
    for word, count in counts.items():
        if word not in SAID or type(count) is not int or not 0 <= count <= MOST:
            raise ValueError(f"{word}: {count!r}")
    return dict(counts)


def contradictions(group: Group) -> Iterator[str]:
    """Sentences about counts that cannot be true together."""
    readers = group.readers
    for name, counts in readers.items():
        if (total := sum(counts.values())) != group.shown:
            yield f"{group.name}: reader {name} answered {total} of {group.shown} images shown."
    for word, together in group.all.items():
        called = {name: counts.get(word, 0) for name, counts in readers.items()}
        start = f"{group.name}: {together} called {word} by all readers, but"
        if fewer := [f"reader {name} called {n}" for name, n in called.items() if n < together]:
            yield f"{start} {' and '.join(fewer)} {word}."
        least = sum(called.values()) - (len(called) - 1) * group.shown
        if together < least:
            yield f"{start} so many were called so that {least} at least must be."
    if sum(group.all.values()) > group.shown:
        yield f"{group.name}: all readers agree on more images than were shown."


def rates(group: Group) -> dict[str, dict[str, Estimate]]:
    """{reader: {word: its share}}, of what the reader answered."""
    return {
        name: {word: wilson(counts.get(word, 0), total) for word in SAID}
        for name, counts in group.readers.items()
        if (total := sum(counts.values()))
    }


def detection(groups: list[Group]) -> dict[str, dict[str, Estimate]]:
    """{reader: d' and specificity}, of who saw real and synthetic images; unsure counts as real."""
    found = {}
    for name in dict.fromkeys(name for group in groups for name in group.readers):
        called, truth = [], []
        for group in groups:
            counts = group.readers.get(name, {})
            fake, total = counts.get("fake", 0), sum(counts.values())
            called += [True] * fake + [False] * (total - fake)
            truth += [group.truth == "synthetic"] * total
        if len(set(truth)) == 2:
            d_prime, criterion = detect(called, truth)
            kept = ~np.array(called)[~np.array(truth)]
            specificity = wilson(int(kept.sum()), len(kept))
            found[name] = {"specificity": specificity, "d'": d_prime, "criterion": criterion}
    return found


def table(group: Group, found: Mapping[str, Mapping[str, Estimate]]) -> Table:
    caption = f"{group.name}: {group.shown} {group.truth} images; shares called so, Wilson, 95 %."
    rows = [(name, *(str(each[word]) for word in SAID)) for name, each in found.items()]
    return Table(caption, ("reader", *SAID), rows)


def detection_block(groups: list[Group], skill: Mapping[str, Mapping[str, Estimate]]) -> Block:
    if skill:
        rows = [(name, *map(str, each.values())) for name, each in skill.items()]
        header = ("reader", *next(iter(skill.values())))
        return Table("Over all groups; unsure counts as real.", header, rows)
    return page.passage("one_kind", kind=groups[0].truth)
