"""Published counts of a reader study: their contradictions, and the figures they allow."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from ldm.metrics.agreement import detect
from ldm.metrics.classification import wilson
from ldm.metrics.estimate import Estimate
from ldm.report import Report, page
from ldm.report.page import Block, Table
from ldm.report.readers.answers import SAID, read_json
from ldm.report.readers.remark_findings import findings_in

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
    remarks: Sequence[str] = ()


def run(path: str) -> Report:
    source, groups = read(path)
    wrong = list(chain.from_iterable(map(contradictions, groups)))
    whole = together(groups)
    figures = {group.name: rates(group) for group in [*groups, *whole]}
    skill, bounds = detection(groups), kappas(groups, whole)
    remarks = [(r, g.name, ", ".join(findings_in(r))) for g in groups for r in g.remarks]
    blocks: list[Block] = [
        source,
        "Contradictions: " + (" ".join(wrong) if wrong else "none found."),
        *(
            Table.of(f"{g.name}: {g.shown} {g.truth} images, Wilson, 95 %.", "", figures[g.name])
            for g in [*groups, *whole]
        ),
        Table.of("Over all groups; unsure counts as real.", "", skill)
        if skill
        else page.passage("one_kind", kind=groups[0].truth),
        *([Table.of(page.passage("kappa_bounds"), "", bounds)] if bounds else []),
        *([Table("Published remarks.", ("remark", "of", "names"), remarks)] if remarks else []),
    ]
    values: dict[str, object] = {"source": source, "contradictions": wrong, "rates": figures}
    values |= {"detection": skill, "kappa, least to most": bounds, "remarks": remarks}
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
    everyone, remarks = _counts(each.get("all", {})), [str(r) for r in each.get("remarks", [])]
    group = Group(each["name"], each["truth"], each["shown"], readers, everyone, remarks)
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


def together(groups: Sequence[Group]) -> list[Group]:
    """All groups as one, where several are of one truth and of the same readers; else none."""
    _, truth, _, readers, *_ = groups[0]
    if len(groups) < 2 or any((g.truth, [*g.readers]) != (truth, [*readers]) for g in groups):
        return []
    sums = {r: {w: sum(g.readers[r].get(w, 0) for g in groups) for w in SAID} for r in readers}
    name = " and ".join(g.name for g in groups)
    return [Group(name, truth, sum(g.shown for g in groups), sums, {})]


def kappas(groups: Sequence[Group], whole: Sequence[Group]) -> dict[str, dict[str, str]]:
    """{what is used: {group: Cohen's kappa, least to most}} of two readers who answered all."""
    if any(len(g.readers) != 2 or any(contradictions(g._replace(all={}))) for g in groups):
        return {}
    found: dict[str, dict[str, str]] = {}
    pairs = [[*group.readers.values()] for group in [*groups, *whole]]
    for what in ("each reader's counts", "and the number both called real"):
        real = [group.all.get("real") if found else None for group in groups]
        ranges = [agreed(a, b, m) for (a, b), m in zip(pairs, real, strict=False)]
        ranges.append([sum(e) for e in zip(*ranges, strict=True)] if all(ranges) else [])
        found[what] = {}
        for group, (a, b), ends in zip([*groups, *whole], pairs, ranges, strict=False):
            n = group.shown
            chance = sum(a.get(word, 0) * b.get(word, 0) for word in SAID) / n**2
            values = [f"{(e / n - chance) / (1 - chance):.3f}" for e in ends if chance < 1]
            found[what][group.name] = " to ".join(values) or "no kappa"
    return found


def agreed(a: Mapping[str, int], b: Mapping[str, int], real: int | None = None) -> list[int]:
    """The least and the most images that two readers can have called the same; [] if none fit.

    real: how many both called real, if that is known; the rest has no other such image
    """
    (r, u, f), (s, v, g) = ([each.get(word, 0) for word in SAID] for each in (a, b))
    n = r + u + f
    if real is None:
        return [max(0, r + s - n, u + v - n, f + g - n), min(r, s) + min(u, v) + min(f, g)]
    if not r + s - n <= real <= min(r, s):
        return []
    rest = n - real
    most = min(min(u, v) + min(f, g), rest - (r - real) - (s - real))
    return [real + max(0, u + v - rest, f + g - rest), real + most]


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
