"""What judges name in pictures of an asked region: region, modality, view, a fracture, bones."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ldm.data.attributes import MODALITIES
from ldm.data.image_sets import UNSEEN, ImageSet, open_set
from ldm.data.phantom.views import REGIONS
from ldm.judging.extractors import Array, Extractor, batches
from ldm.metrics.classification import auc, wilson
from ldm.metrics.estimate import Estimate

FIRST = UNSEEN + 70_000_000  # nothing else is measured on these
TRIED = 150  # phantoms on which a judge of bones is tried, of each prompt
BELIEVED = 0.9  # AUC of a bone that is counted
SETTING = {name: setting for setting, name in MODALITIES.items()}  # a phantom's word for it


class Asked(NamedTuple):
    """A prompt, and what its picture must be; an empty view or finding is not asked for."""

    prompt: str
    region: str
    modality: str
    view: str = ""
    finding: str = ""

    def words(self, phantoms: bool) -> str:
        """The prompt as a model of phantoms knows it: "phantom x-ray of the hand"."""
        return f"phantom {self.prompt.split(maxsplit=1)[1]}" if phantoms else self.prompt

    def twins(self, count: int, lacking: bool = False) -> ImageSet:
        """Unseen phantoms of the same; lacking: each may lack one of its bones"""
        where = {
            "region": self.region,
            "modality": SETTING.get(self.modality, self.modality),
            "view": self.view or ("frontal" if self.modality == "x-ray" else ""),
            "finding": self.finding or "none",
            "without": "+".join(["none", *self.bones]) if lacking else "",
        }
        settings = ",".join(f"{name}={value}" for name, value in where.items() if value)
        return open_set(f"phantoms:{count}:{FIRST}:{settings}")

    @property
    def bones(self) -> Sequence[str]:
        """The bones that belong on it and can be looked for."""
        plain = self.modality == "x-ray" and not self.finding
        return REGIONS[self.region].bones if plain else ()

    def fits(self, told: Mapping[str, str]) -> bool:
        """Is an image of these attributes one of those asked for?"""
        asked = {"region": self.region, "modality": self.modality, "view": self.view}
        return all(told.get(name) == word for name, word in asked.items() if word)


@cache
def prompts() -> tuple[Asked, ...]:
    """Those of Adams et al. (arXiv:2209.13696), figures 1 and 2, and lateral and fractured ones."""
    table = json.loads(Path(__file__).with_name("asked_regions.json").read_text("utf-8"))
    return tuple(Asked(**row) for rows in table.values() for row in rows)


class Calls(NamedTuple):
    """features: [n, d];  scores: [n, K], one for each of the extractor's findings"""

    features: Array
    scores: Array

    @property
    def n(self) -> int:
        return len(self.scores)


def call(extractor: Extractor, pictures: Sequence[Tensor]) -> Calls:
    parts = [extractor(batch) for _, batch in batches(enumerate(pictures))]
    features = np.concatenate(parts)
    return Calls(features, extractor.scores(features))


def named(found: Calls, extractor: Extractor, attribute: str) -> list[str]:
    """The word of an attribute with the highest score, for each picture."""
    words = {
        name.partition("=")[2]: column
        for column, name in enumerate(extractor.findings)
        if name.startswith(f"{attribute}=")
    }
    best = found.scores[:, list(words.values())].argmax(axis=1)
    return [list(words)[i] for i in best]


def right(found: Calls, extractor: Extractor, asked: Asked) -> dict[str, NDArray[np.bool_]]:
    """[n] of each attribute asked for: does the judge name it?"""
    return {
        attribute: np.array([word == asked_for for word in named(found, extractor, attribute)])
        for attribute in ("region", "modality", "view")
        if (asked_for := getattr(asked, attribute))
    }


def confused(found: Calls, extractor: Extractor) -> Counter[str]:
    """How many pictures are called "x-ray of the hand" and so on."""
    both = (named(found, extractor, name) for name in ("modality", "region"))
    return Counter(f"{modality} of the {region}" for modality, region in zip(*both, strict=True))


def bones_seen(found: Calls, judge: Extractor, least: Mapping[str, float]) -> NDArray[np.bool_]:
    """[n, bones]: is the judge's score of the bone above its `least`?"""
    columns = [judge.findings.index(f"bone={bone}") for bone in least]
    return np.asarray(found.scores[:, columns] > np.array(list(least.values())))


class BoneTrial(NamedTuple):
    """On phantoms that may lack a bone: the AUC of each, and of those that are believed the rest.

    least: the score that parts bones there from bones lacking, found on every other phantom
    there, lacking: on the rest: bones there that are seen, bones lacking that are not
    """

    areas: dict[str, Estimate]
    least: dict[str, float]
    there: Estimate | None
    lacking: Estimate | None


def try_bones(judge: Extractor, asked: Asked, count: int) -> BoneTrial:
    """A judge of bones on `count` unseen phantoms of what is asked for."""
    tried = asked.twins(count, lacking=True)
    found = call(judge, [tried.load(i) for i in range(count)])
    areas: dict[str, Estimate] = {}
    least: dict[str, float] = {}
    hits: list[NDArray[np.bool_]] = []
    rejected: list[NDArray[np.bool_]] = []
    for bone in asked.bones:
        scores = found.scores[:, judge.findings.index(f"bone={bone}")]
        there = np.array([tried.findings(i)[f"bone={bone}"] for i in range(count)])
        if min(there[::2].sum(), (~there[::2]).sum()) < 2:
            continue
        areas[bone] = auc(scores, there)
        if areas[bone].value < BELIEVED:
            continue
        # the most of both shares together (Youden, Cancer 3(1), 1950)
        x, y = scores[::2], there[::2]
        gains = [(x[y] > c).mean() + (x[~y] <= c).mean() for c in x]
        least[bone] = float(x[int(np.argmax(gains))])
        seen, truth = scores[1::2] > least[bone], there[1::2]
        hits.append(seen[truth])
        rejected.append(~seen[~truth])
    joined = [np.concatenate(each) if each else np.zeros(0) for each in (hits, rejected)]
    rates = [wilson(int(each.sum()), len(each)) if len(each) else None for each in joined]
    return BoneTrial(areas, least, *rates)
