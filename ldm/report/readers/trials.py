"""The trials of a reader study: which images, in which order and under which names; the key."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ldm import rng
from ldm.config import ConfigError
from ldm.data.image_sets import ImageSet, patients
from ldm.pictures import image_files
from ldm.report.readers import offline_page
from ldm.report.readers.offline_page import Pixels

KEY = "ldm reader study key 1"  # the format of the key
REAL, SYNTHETIC, PAIR, CATCH = "real", "synthetic", "pair", "catch"
SPOILED = ("pixels shuffled", "rows shuffled")  # what catch trials show


@dataclass(frozen=True)
class Item:
    """One image of a study, or a pair of them.

    truth: REAL, SYNTHETIC, PAIR or CATCH;  name: of the image in its set;  pixels: one or two
    set: the images it is scored with, "" for those of its truth
    findings: {finding: is it there?} of those that are known
    """

    truth: str
    name: str
    pixels: tuple[Pixels, ...]
    set: str = ""
    findings: Mapping[str, bool] = field(default_factory=dict)


def choose(asked: ImageSet, n: int, seed: int, purpose: str) -> list[int]:
    """The numbers of n images drawn at random, one of each patient at most.

    An image whose patient is not known counts as another patient's.
    """
    names, unknown = patients(asked, range(len(asked)))
    order = torch.randperm(len(asked), generator=rng.generator(seed, "reader study", purpose))
    chosen: dict[str, int] = {}
    for index in order.tolist():
        chosen.setdefault(names[index], index)
    if len(chosen) < n:
        of = "" if unknown else f" of {len(chosen)} patients"
        raise ConfigError(f"{asked.name} holds {len(asked)} images{of}, but --n needs {n} of them")
    return list(chosen.values())[:n]


def spoil(pixels: Pixels, number: int, seed: int) -> Pixels:
    """The grey levels of a radiograph in an order that nobody takes for one: SPOILED, in turn."""
    generator = rng.generator(seed, "reader study, catch", number)
    if number % len(SPOILED) == 0:
        order = torch.randperm(pixels.size, generator=generator).numpy()
        return pixels.ravel()[order].reshape(pixels.shape)
    return pixels[torch.randperm(len(pixels), generator=generator).numpy()]


def catch_trials(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """Trials that show a spoiled image of an item, alone or as the copy in a pair."""
    found = []
    for number in range(count):
        first, *copy = items[number % len(items)].pixels
        spoiled = spoil(first, number, seed)
        shown = (first, spoiled) if copy else (spoiled,)
        found.append(Item(CATCH, SPOILED[number % len(SPOILED)], shown))
    return found


def check_apart(items: Sequence[Item]) -> None:
    """ConfigError if two items show the same image: readers would see that it comes again."""
    seen: dict[bytes, Item] = {}
    for item in items:
        same = seen.setdefault(item.pixels[0].tobytes(), item)
        if same is not item:
            raise ConfigError(
                f"{same.name} ({same.truth}) and {item.name} ({item.truth}) are the same image; "
                "leave one of them out"
            )


def build(
    mode: str, items: Sequence[Item], repeats: int, seed: int, made: dict[str, Any]
) -> tuple[str, dict[str, bytes]]:
    """The id of a study, and {study.html, key.json}, of items in random order.

    made: settings to record in the key. Order and names are keyed by the pixels, too: whoever has
    the page alone cannot draw them again from a guessed seed.
    """
    size = len(items[0].pixels[0])
    offline_page.check_size((len(items) + repeats) * len(items[0].pixels), size)
    digest = hashlib.sha256(b"".join(part.tobytes() for item in items for part in item.pixels))
    purpose = ("reader study", digest.hexdigest())
    order = arrange([item.truth == CATCH for item in items], repeats, seed, *purpose)
    ids = [_name(seed, *purpose, place) for place in range(len(order))]
    study = hashlib.sha256("".join(ids).encode()).hexdigest()[:16]
    shown = [items[i].pixels for i in order]
    trials = []
    for place, i in enumerate(order):
        first = order.index(i)
        repeated = ids[first] if first < place else None
        item: dict[str, Any] = {
            "truth": items[i].truth,
            "image": items[i].name,
            "set": items[i].set,
        }
        item |= {"findings": dict(items[i].findings)}
        trials.append({"id": ids[place], **item, "repeats": repeated})
    key = {"format": KEY, "study": study, "mode": mode, "made": made, "trials": trials}
    return study, {
        "study.html": offline_page.html(study, mode, size, ids, shown),
        "key.json": (json.dumps(key, indent=1) + "\n").encode(),
    }


def arrange(catches: Sequence[bool], repeats: int, seed: int, *purpose: str) -> list[int]:
    """The order in which items are shown; repeats come half the study later or more.

    catches: which items are catch trials; these are not repeated
    """
    generator, n = rng.generator(seed, *purpose, "order"), len(catches)
    if repeats > (most := max(0, n // 2 - sum(catches))):
        raise ConfigError(
            f"--repeats {repeats} is too many; {n} trials can have {most}, as a repeat comes half "
            "the study after its image"
        )
    order = torch.randperm(n, generator=generator).tolist()
    half = [place for place in range(n // 2) if not catches[order[place]]]
    again = torch.randperm(len(half), generator=generator)[:repeats].tolist()
    lags = torch.rand(repeats, generator=generator).tolist()
    places = [(float(place), order[place]) for place in range(n)]
    for chosen, lag in zip(again, lags, strict=True):
        place = half[chosen]
        earliest = place + n // 2
        places.append((earliest + lag * (n - earliest), order[place]))
    return [item for _, item in sorted(places)]


def as_pixels(image: torch.Tensor) -> Pixels:
    """[1, H, W] in [-1, 1]"""
    return image_files.to_integers(image)[..., 0]


def _name(seed: int, *purpose: str | int) -> str:
    drawn = torch.randint(16, (12,), generator=rng.generator(seed, *purpose, "id"))
    return "".join(f"{digit:x}" for digit in drawn.tolist())
