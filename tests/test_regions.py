"""evaluate.py regions: pictures of what was asked for are named so, and others are not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation import measure
from torch import Tensor

from ldm.judging.extractors import Extractor
from ldm.report import region_calls, regions
from ldm.report.adapted_models import AdaptedModel
from ldm.report.region_calls import Asked, Calls, prompts

NAMES = ("region=hand", "region=knee", "modality=x-ray", "modality=CT", "view=lateral")
BONES = ("bone=patella", "bone=femur", "bone=tibia", "bone=fibula")


def judge(names: tuple[str, ...] = NAMES) -> Extractor:
    return Extractor("judge", lambda x: x, 8, 1, "bicubic", findings=names)


def calls(*scores: tuple[float, ...]) -> Calls:
    return Calls(np.zeros((len(scores), 1)), np.array(scores))


@pytest.mark.parametrize("asked", prompts(), ids=lambda asked: asked.prompt)
def test_phantoms_in_the_models_place_are_what_the_prompt_asks_for(asked: Asked) -> None:
    """Region, modality, view and finding; and the judges know what they are asked about."""
    twins = asked.twins(3)
    for i in range(3):
        assert asked.fits(twins.attributes(i))
        assert twins.findings(i).get("fracture", False) == (asked.finding == "fracture")
    assert asked.words(phantoms=True).startswith("phantom ")
    assert asked.region in asked.prompt
    assert not any(asked.fits({**twins.attributes(0), "region": other}) for other in ("elbow", ""))


def test_the_highest_score_of_an_attribute_names_it() -> None:
    """Scores of other attributes do not count, however high they are."""
    found = calls((2, 1, 5, 9, 0), (1, 2, 9, 5, 0))
    assert region_calls.named(found, judge(), "region") == ["hand", "knee"]
    hits = region_calls.right(found, judge(), Asked("", "knee", "x-ray"))
    assert {name: hit.tolist() for name, hit in hits.items()} == {
        "region": [False, True],
        "modality": [False, True],
    }
    assert region_calls.confused(found, judge()) == {"CT of the hand": 1, "x-ray of the knee": 1}


def test_bones_are_counted_by_their_own_scores() -> None:
    """In the order asked for, each above its own score; not in the order of the judge."""
    found = calls((1, -1, 1, -1), (1, 1, -1, -1))
    seen = region_calls.bones_seen(found, judge(BONES), {"femur": 0.0, "patella": 2.0})
    assert seen.tolist() == [[False, False], [True, False]]


def test_a_bone_is_counted_where_the_judge_knows_it(monkeypatch) -> None:
    """One that scores the tibia by the truth, and the others at random, is believed of it alone."""
    asked = Asked("an x-ray of the knee", "knee", "x-ray")
    truth = [asked.twins(80, lacking=True).findings(i)["bone=tibia"] for i in range(80)]
    scores = np.random.default_rng(0).normal(size=(80, 4))
    # all scores are high: a threshold of 0 would see every tibia
    scores[:, BONES.index("bone=tibia")] = np.where(truth, 5, 4)
    monkeypatch.setattr(region_calls, "call", lambda _, x: Calls(np.zeros((80, 1)), scores))
    trial = region_calls.try_bones(judge(BONES), asked, 80)
    assert trial.least == {"tibia": 4}
    rest = truth[1::2]
    assert (trial.there.value, trial.there.n) == (1, sum(rest))
    assert (trial.lacking.value, trial.lacking.n) == (1, 40 - sum(rest))


def test_shuffled_prompts_have_the_share_of_their_regions() -> None:
    """Two of three prompts ask for a hand: each hand is right for one of its two others."""
    asked = [Asked("", region, "x-ray") for region in ("hand", "hand", "knee")]
    hand, knee = (1, 0, 0, 0, 0), (0, 1, 0, 0, 0)
    values: dict = {}
    found = [calls(hand), calls(hand), calls(knee)]
    regions.shuffled(found, judge(), asked, values)
    assert values["shuffled"].value == pytest.approx((0.5 + 0.5 + 0) / 3)


def test_prompts_not_pictures_are_drawn_in_the_row_of_all() -> None:
    """Pictures of one prompt that are all alike count once, so the interval is a wide one."""
    alike = [np.full(30, i % 2 == 0) for i in range(4)]
    wide, narrow = regions.pooled(alike), regions.pooled([np.arange(30) % 2 == 0] * 4)
    assert wide.value == narrow.value == 0.5
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_phantoms_pass_and_a_model_of_another_region_fails(
    tmp_path: Path, capsys, model: Path, monkeypatch
) -> None:
    """In the model's place: other phantoms of what is asked for, or chests whatever is asked for.

    A second run writes the same bytes.
    """
    asked = tuple(one for one in prompts() if one.region in ("knee", "chest"))[:4]
    chest = next(one for one in asked if one.region == "chest")
    monkeypatch.setattr(region_calls, "prompts", lambda: asked)
    monkeypatch.setattr(region_calls, "TRIED", 24)
    twins = replace_first(asked)

    def draw(self: AdaptedModel, words: list[str], first: int) -> Tensor:
        one = twins[first // regions.APART] if truthful else replace_first([chest])[0]
        return torch.stack(regions.load(one.twins(len(words)), range(len(words))))

    monkeypatch.setattr(AdaptedModel, "draw", draw)
    shares = {}
    for truthful in (True, False):
        out = tmp_path / f"{truthful}"
        values = measure(capsys, "regions", "--quick", "--model", model, "--out", out)
        shares[truthful] = values["region"]["drawn"]["all of 4 prompts"]["value"]
        html = (out / "regions.html").read_text()
        assert "A quick run" in html
        # bones are counted in knees alone, and the chests in their place are none
        assert ("no picture is named right" in html) != truthful
    assert shares[True] > 0.9
    assert shares[False] == sum(one.region == "chest" for one in asked) / 4
    before = (out / "regions.json").read_bytes()
    measure(capsys, "regions", "--quick", "--model", model, "--out", out)
    assert (out / "regions.json").read_bytes() == before


def replace_first(asked: list[Asked] | tuple[Asked, ...]) -> list[Asked]:
    """The same prompts, whose phantoms are other persons."""

    class Others(Asked):
        def twins(self, count: int, lacking: bool = False):
            images = super().twins(count, lacking)
            images.phantoms = [replace(p, seed=p.seed + 1000) for p in images.phantoms]
            return images

    return [Others(*one) for one in asked]
