"""Published counts that contradict each other are named, and the plan's page adds up."""

import json
from collections import defaultdict
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from readers import assert_refused, status

from ldm.metrics.agreement import detection
from ldm.report.readers.answers import SAID
from ldm.report.readers.count_contradictions import Group, agreed, contradictions

LUNGS = Path(__file__).parent.parent / "docs" / "spot_the_fake_lungs.json"
GOOD = {
    "source": "made up",
    "groups": [
        {
            "name": truth,
            "truth": truth,
            "shown": 10,
            "readers": {"A": {"real": 9 - fake, "unsure": 1, "fake": fake}},
        }
        for truth, fake in (("real", 2), ("synthetic", 7))
    ],
}


def test_the_contradictions_of_spot_the_fake_lungs_are_found(tmp_path: Path) -> None:
    """arXiv:2211.00902: three CT real by both, of which B has two; four both were unsure of,
    though B never was and A of no CT. All images were synthetic: no specificity, no d'."""
    assert status("score", "--counts", LUNGS, "--out", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "counts.json").read_text())
    assert found["contradictions"] == [
        "X-ray: 2 called unsure by all readers, but reader B called 0 unsure.",
        "CT: 3 called real by all readers, but reader B called 2 real.",
        "CT: 2 called unsure by all readers, but reader A called 0 and reader B called 0 unsure.",
    ]
    assert found["detection"] == {}
    assert found["rates"]["X-ray"]["A"]["fake"]["value"] == 0.2
    assert found["rates"]["CT"]["B"]["fake"]["n"] == 20
    assert "neither specificity nor d' can be had" in (tmp_path / "out/counts.txt").read_text()
    assert found["rates"]["X-ray and CT"]["A"]["real"]["value"] == 17 / 40
    # 5 both real leave 15, of which A is unsure of 2 and calls 4 fake, and B 10: one is shared at
    # most, so 5 or 6 of 20 agree, where (14 * 10 + 4 * 10) / 400 = 0.45 would by chance
    low, high = ((agree / 20 - 0.45) / 0.55 for agree in (5, 6))
    kappa = found["kappa, least to most"]["and the number both called real"]
    nothing = "no kappa"
    assert kappa == {"X-ray": f"{low:.3f} to {high:.3f}", "CT": nothing, "X-ray and CT": nothing}
    assert ["Left lower lobe effusions", "X-ray", "pleural effusion"] in found["remarks"]


def test_the_published_page_is_what_the_command_writes(tmp_path: Path) -> None:
    """docs/spot_the_fake_lungs.md is the command's own, byte by byte."""
    assert status("score", "--counts", LUNGS, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "counts.md").read_bytes() == LUNGS.with_suffix(".md").read_bytes()


def test_the_least_and_the_most_agreement_are_those_of_all_tables() -> None:
    """Of the C(12, 8) = 495 tables of 4 images with these margins, and with the first cell too."""
    found: defaultdict[tuple, list[int]] = defaultdict(list)
    for cells in product(range(5), repeat=8):
        if sum(cells) <= 4:
            table = np.array([*cells, 4 - sum(cells)]).reshape(3, 3)
            margins = tuple(table.sum(axis=1)), tuple(table.sum(axis=0))
            for real in (None, int(table[0, 0])):
                found[(*margins, real)].append(int(np.trace(table)))
    assert sum(map(len, found.values())) == 2 * 495
    for (*margins, real), traces in found.items():
        a, b = (dict(zip(SAID, each, strict=True)) for each in margins)
        assert agreed(a, b, real) == [min(traces), max(traces)]
    assert agreed({"real": 2, "fake": 3}, {"real": 3, "fake": 2}, 3) == []


def test_counts_of_both_kinds_give_d_prime(tmp_path: Path) -> None:
    """Seven of ten synthetic and two of ten real called fake, unsure counting as real."""
    (tmp_path / "counts.json").write_text(json.dumps(GOOD))
    out = tmp_path / "out"
    assert status("score", "--counts", tmp_path / "counts.json", "--out", out) == 0
    found = json.loads((out / "counts.json").read_text())
    assert found["contradictions"] == []
    assert found["detection"]["A"]["d'"]["value"] == pytest.approx(detection(7, 3, 2, 8).d_prime)
    assert found["detection"]["A"]["specificity"]["value"] == 0.8


@pytest.mark.parametrize(
    ("readers", "together", "message"),
    [
        ({"A": (5, 0, 5), "B": (6, 0, 4)}, {"real": 5, "fake": 4}, None),
        ({"A": (5, 0, 4), "B": (6, 0, 4)}, {}, "reader A answered 9 of 10 images shown"),
        ({"A": (9, 0, 1), "B": (9, 0, 1)}, {"real": 7}, "8 at least must be"),
        ({"A": (9, 0, 1), "B": (9, 0, 1)}, {"real": 8}, None),
        ({"A": (9, 0, 1), "B": (9, 0, 1)}, {"real": 10}, "A called 9 and reader B called 9 real"),
        ({"A": (9, 2, 0), "B": (9, 2, 0)}, {"real": 9, "unsure": 2}, "more images than were shown"),
    ],
    ids=str,
)
def test_bounds_of_what_two_readers_can_share(
    readers: dict, together: dict, message: str | None
) -> None:
    """Ten images: no more in common than each has, no less than must overlap."""
    counts = {n: dict(zip(("real", "unsure", "fake"), c, strict=True)) for n, c in readers.items()}
    found = list(contradictions(Group("g", "synthetic", 10, counts, together)))
    if message is None:
        assert found == []
    else:
        assert any(message in sentence for sentence in found)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.pop("groups"),
        lambda c: c.update(groups=[]),
        lambda c: c["groups"][0].pop("shown"),
        lambda c: c["groups"][0].update(shown="ten"),
        lambda c: c["groups"][0].update(truth="maybe"),
        lambda c: c["groups"][0]["readers"]["A"].update(fake=-1),
        lambda c: c["groups"][0]["readers"]["A"].update(forged=1),
        lambda c: c["groups"][0].update(readers=[]),
        lambda c: c["groups"][1].update(name="real"),
        lambda c: c["groups"][0].update(name=7),
        lambda c: c["groups"][0].update(shown=10**9),
        lambda c: c["groups"][0]["readers"]["A"].update(fake=10**400),
        lambda c: c["groups"][0].update(all={"real": 10**12}),
    ],
)
def test_another_form_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[dict], object]
) -> None:
    """Exit status 2, and the line shows the form."""
    content = json.loads(json.dumps(GOOD))
    spoil(content)
    (tmp_path / "counts.json").write_text(json.dumps(content))
    arguments = ("score", "--counts", tmp_path / "counts.json")
    message = "counts.json is no table of counts"
    assert_refused(capsys, tmp_path / "out", arguments, message, 'it must be {"source"', '"groups"')


def test_the_plan_needs_what_its_table_says(tmp_path: Path) -> None:
    """Half widths fall with images; the images that are needed lie between the table's rows."""
    more = ("--readers", 4, "--kappa-within", 0.13, "--out", tmp_path / "out")
    assert status("plan", *more) == 0
    found = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert found["half widths"].keys() == found["needed"].keys() == found["wanted"].keys()
    for name, each in found["half widths"].items():
        widths = list(each.values())
        assert widths == sorted(widths, reverse=True)
        enough = {int(n) for n, half in each.items() if half <= found["wanted"][name]}
        assert all((n >= found["needed"][name]) == (n in enough) for n in map(int, each))


@pytest.mark.parametrize(
    "arguments",
    [("--rate", 1), ("--kappa", -0.1), ("--kappa", 1), ("--d-prime", 9), ("--rate-within", 0)],
    ids=str,
)
def test_plans_that_cannot_be_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple
) -> None:
    """Exit status 2, nothing written."""
    message = "plan needs a rate between 0 and 1"
    assert_refused(capsys, tmp_path / "out", ("plan", *arguments), message)
