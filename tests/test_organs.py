"""Claims about the organs: the film's chest in 3D, published sizes, left is left."""

from dataclasses import replace

import numpy as np
import pytest

from ldm.data.phantom import Phantom, lesions, sample_phantoms
from ldm.data.phantom.body import Array, Cavity
from ldm.data.phantom.findings import stream
from ldm.data.phantom.organs import ORGANS
from ldm.data.phantom.person import Person, draw_person
from ldm.data.phantom.rays import View
from ldm.data.phantom.scene import Part, Scene
from ldm.data.phantom.thorax import Thorax
from ldm.data.phantom.vessels import mediastinum
from ldm.data.phantom.views import AXIAL, FRONTAL

WIDTH = 60.0  # cm
# mean volumes in ml of adults of both sexes, by the masses of ICRP Publication 89 (2002), women to
# men; the cerebrum has 0.85 of the brain, the heart holds its blood
VOLUMES = {
    "brain": (1050, 1350), "cerebellum": (120, 190), "heart": (560, 900), "liver": (1250, 1850),
    "spleen": (120, 220), "left kidney": (120, 170), "right kidney": (120, 170),
    "pancreas": (50, 145),
}  # fmt: skip


def person_of(seed: int, *findings: str, **changes: object) -> Person:
    phantom = sample_phantoms([seed], findings=list(findings))[0]
    return draw_person(replace(phantom, **changes))


def maps(parts: list[Part], size: int = 120, middle: tuple[float, ...] = (0, 0, 0)) -> dict:
    """{name: [H, W] cm along z} of the named parts; x to the right, y downwards, from `middle`."""
    view = View(middle, FRONTAL, WIDTH, size)
    found: dict[str, Array] = {}
    for part, box, amount in Scene(parts).amounts(view):
        whole = found.setdefault(part.name, np.zeros((size, size), np.float32))
        whole[box] += amount
    return found


def film(person: Person, size: int) -> tuple[Array, Array, Array]:
    """x of the pixels of `maps`, air along z less the mediastinum, and the heart's share, in cm."""
    a, pixel = person.anatomy, WIDTH / size
    at = (np.arange(size) + 0.5 - size / 2) * pixel
    x, y = (grid.astype(np.float32) for grid in np.meshgrid(at, at))
    u, v = x / np.float32(person.scale[0]), y / np.float32(person.scale[1])
    middle = u - a.scoliosis * np.sin(v / 9)
    _, air = Cavity(a).path(np.abs(middle), v, middle < 0)
    front, back, hila, heart = mediastinum(u, v, a, stream(person.seed, 9))
    return x, np.clip(air - front - back - sum(hila), 0, None) * person.scale[2], heart


@pytest.mark.parametrize("seed", [0, 3, 8])
def test_the_lungs_have_the_ray_sums_of_the_film(seed: int) -> None:
    """Summed along z, both lungs are Cavity.path's air less the mediastinum of the same person."""
    person = person_of(seed)
    drawn = maps(ORGANS["chest"](person))
    x, air, _ = film(person, 120)
    both = drawn["left lung"] + drawn["right lung"]
    # edges lie between columns 0.25 cm apart; inside, planes 0.6 cm apart leave a few mm
    off = np.abs(both - air)
    assert off[air > 1].mean() < 0.25
    assert np.quantile(off[air > 1], 0.95) < 1.0
    assert both.sum() == pytest.approx(air.sum(), rel=0.01)
    for side, outside in (("left", x < -2), ("right", x > 2)):
        assert drawn[f"{side} lung"][outside].max() == 0


def test_the_heart_covers_the_films_heart() -> None:
    """The heart's frontal mask and the film's share at least 0.9 of their union, lungs aside."""
    for seed in (1, 5):
        person = person_of(seed)
        heart = film(person, 120)[2] > 0
        drawn = maps(ORGANS["chest"](person))["heart"] > 0.5
        assert (heart & drawn).sum() > 0.9 * (heart | drawn).sum()


def test_volumes_are_those_of_adults() -> None:
    """Means over 12 persons lie within the published ranges; each person differs from the next."""
    volumes: dict[str, list[float]] = {}
    for seed in range(12):
        person = person_of(seed, modality="mr")
        for name, build in ORGANS.items():
            level = {"head": -3, "abdomen": 20}.get(name, 12)
            for organ, path in maps(build(person), 100, person.spine(level)).items():
                volumes.setdefault(organ, []).append(float(path.sum()) * (WIDTH / 100) ** 2)
    for organ, (low, high) in VOLUMES.items():
        assert low < np.mean(volumes[organ]) < high, organ
        assert np.std(volumes[organ]) > 0.04 * np.mean(volumes[organ]), organ


def test_left_is_left() -> None:
    """Of each pair the left one lies at larger x; liver and caval vein right, spleen left."""
    person = person_of(4)
    for name, build in ORGANS.items():
        middle = person.spine({"head": -3, "abdomen": 20, "pelvis": 24}.get(name, 12))
        at = (np.arange(120) + 0.5 - 60) * WIDTH / 120 + middle[0]
        place = {k: (m.sum(0) @ at) / m.sum() for k, m in maps(build(person), 120, middle).items()}
        for organ in place:
            if organ.startswith("left "):
                assert place[organ] > place[organ.replace("left", "right")] + 1, organ
        if name == "abdomen":
            assert place["liver"] < -2 < place["vena cava"] < 0 < place["aorta"] < place["spleen"]


def test_nodules_lie_where_the_film_has_them() -> None:
    """Each ball's middle is at the x and y that `lesions.nodules` draws, its depth in the lung."""
    person = person_of(7, "nodule")
    found = person.phantom.findings[0]
    drawn = lesions.nodules(found, stream(person.seed, 50 + len("nodule")))
    balls = [part for part in ORGANS["chest"](person) if part.name == "nodule"]
    assert len(balls) == len(drawn)
    for part, (x, y, *_) in zip(balls, drawn, strict=True):
        middle = part.groups[0][0].hull[0]
        np.testing.assert_allclose(middle[:2], np.array([x, y]) * person.scale[:2])
        chest = Thorax(person)
        column = np.argmin(np.hypot(chest.x - x, chest.y - y))
        low, high = (edge.ravel()[column] for edge in chest.rear)
        assert low < middle[2] / person.scale[2] < high


def test_fluid_sinks_down_or_to_the_back() -> None:
    """Standing, effusion lies in the lower part of its lung; on the back, below a level of z."""
    for seed in range(3):
        person = person_of(seed, "pleural effusion", region="chest")
        lying = replace(person, phantom=replace(person.phantom, modality="ct"))
        fluid = [p for p in ORGANS["chest"](person) if p.name == "pleural effusion"]
        lung = maps([p for p in ORGANS["chest"](person) if p.name.endswith(" lung")])
        wet = maps(fluid)["pleural effusion"].sum(1)
        dry = sum(lung.values()).sum(1)
        rows = np.arange(120)
        assert (rows @ wet) / wet.sum() > (rows @ dry) / dry.sum() + 4
        view = View((0, 0, 0), AXIAL, WIDTH, 120)
        slab = [
            amount
            for part, _, amount in Scene(ORGANS["chest"](lying)).amounts(view, 0.5)
            if part.name == "pleural effusion"
        ]
        shapes = [p.other for p in ORGANS["chest"](lying) if p.name == "pleural effusion"]
        z = np.linspace(-9, 9, 60)
        for shape in shapes:
            line = np.stack([np.full(60, shape.middle[0]), np.full(60, shape.middle[1]), z], 1)
            inside = shape.share(line.astype(np.float32), 0.1) > 0.5
            assert not (np.flatnonzero(inside).size and inside[-10:].any())
        assert slab or not shapes


def test_air_and_fluid_keep_to_their_side() -> None:
    """One-sided findings lie on the side that the phantom names."""
    bare = sample_phantoms([2], findings=[])[0]
    for name in ("pneumothorax", "consolidation", "pleural effusion"):
        for side, sign in (("left", 1), ("right", -1)):
            phantom = Phantom(2, bare.view, bare.sex, bare.age, (lesions.Finding(name, side),))
            parts = [p for p in ORGANS["chest"](draw_person(phantom)) if p.name == name]
            path = maps(parts)[name]
            at = (np.arange(120) - 59.5) * sign
            assert path[:, at < -4].max() == 0
            assert path.sum() * 0.25 > 20  # ml
