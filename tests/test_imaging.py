"""Claims about pictures of a whole body: left is left, counts are right, truth is what is drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import GOLDENS

from ldm.data.phantom import BODY_VERSION, Phantom, Rendered, render
from ldm.data.phantom.anatomy import parts_of
from ldm.data.phantom.person import draw_person
from ldm.data.phantom.selection import parse, select, usual
from ldm.data.phantom.views import PLANES, PROJECTIONS, REGIONS

ALL = REGIONS["body"].sections


def drawn(where: str, seed: int = 0, size: int = 96) -> tuple[Phantom, Rendered]:
    phantom = select([seed], parse(where))[0]
    return phantom, render([phantom], size)


def column(mask: torch.Tensor) -> float:
    """The mean column of a mask [1, H, W]."""
    return float((mask[0].sum(0) * torch.arange(mask.shape[-1])).sum() / mask.sum())


def bones(seed: int) -> list[str]:
    person = draw_person(select([seed], parse("region=body,finding=none"))[0])
    return [part.name for part in parts_of(person, ALL, "") if part.is_bone]


def check_counts(names: list[str]) -> None:
    def count(*words: str) -> int:
        return sum(all(word in name.split() for word in words) for name in names)

    assert len(names) == len(set(names))
    spine = [f"C{i}" for i in range(1, 8)] + [f"T{i}" for i in range(1, 13)]
    spine += [f"L{i}" for i in range(1, 6)] + [f"sacrum {i}" for i in range(1, 6)]
    spine += [f"coccyx {i}" for i in range(1, 5)]
    assert sum(name in spine for name in names) == 33
    assert count("rib") == 24
    carpals = [
        "scaphoid",
        "lunate",
        "triquetrum",
        "pisiform",
        "trapezium",
        "trapezoid",
        "capitate",
        "hamate",
    ]
    tarsals = ["talus", "calcaneus", "navicular", "cuboid"]
    for side in ("left", "right"):
        assert sum(f"{side} {name}" in names for name in carpals) == 8
        assert sum(f"{side} {name}" in names for name in tarsals) + count(side, "cuneiform") == 7
        assert count(side, "phalanx", "hand") == count(side, "phalanx", "foot") == 14
        assert count(side, "metacarpal") == count(side, "metatarsal") == 5
        for name in ("humerus", "radius", "ulna", "femur", "patella", "tibia", "fibula"):
            assert count(side, name) == 1
        assert count(side, "clavicle") == count(side, "scapula") == count(side, "hip") == 1


def test_a_body_has_all_its_bones() -> None:
    """8 carpals and 7 tarsals a side, 24 ribs, 33 vertebrae with sacrum and coccyx, and so on."""
    for seed in range(3):
        check_counts(bones(seed))


@pytest.mark.slow
def test_500_bodies_have_all_their_bones() -> None:
    for seed in range(500):
        check_counts(bones(seed))


def golden_pictures() -> np.ndarray:
    """[20, 8, 8] means of blocks of 8 x 8 pixels."""
    wheres = [f"region={region}" for region in usual("xray")]
    wheres += [f"region={r},modality={m}" for m in ("ct", "mr", "ultrasound") for r in usual(m)]
    pictures = torch.cat([drawn(where, 21, 64)[1].images for where in wheres])
    return torch.nn.functional.avg_pool2d(pictures, 8)[:, 0].numpy()


def test_a_seed_gives_the_pixels_that_the_body_version_names() -> None:
    """Made with version 1. If they change on purpose, BODY_VERSION changes, or caches and
    checkpoints would pass for those of other pixels.
    """
    made = np.load(GOLDENS / "phantoms.npz")
    np.testing.assert_allclose(golden_pictures(), made[f"body_{BODY_VERSION}"], atol=5e-3)


def test_left_is_left_in_every_view_of_a_trunk() -> None:
    """The patient's left lies on the right of a frontal picture, an axial and a coronal slice."""
    for region, part in (("pelvis", "hip bone"), ("chest", "lung"), ("abdomen", "kidney")):
        for view in ("frontal", "axial", "coronal"):
            modality = "xray" if view == "frontal" else "ct"
            where = f"region={region},modality={modality},view={view},finding=none"
            for seed in range(3):
                masks = drawn(where, seed)[1].masks
                if f"left {part}" in masks and f"right {part}" in masks:
                    assert column(masks[f"left {part}"]) > column(masks[f"right {part}"]) + 5


def test_the_thumb_is_on_the_side_of_its_hand() -> None:
    """Seen from its back, as in a PA film, the left hand has its thumb on the picture's right."""
    for side in ("left", "right"):
        for seed in range(3):
            masks = drawn(f"region=hand,view=frontal,side={side},finding=none", seed)[1].masks
            thumb = column(masks[f"{side} distal phalanx 1 of the hand"])
            little = column(masks[f"{side} distal phalanx 5 of the hand"])
            assert (thumb > little) == (side == "left")


def test_the_fibula_is_on_the_outer_side() -> None:
    for side in ("left", "right"):
        masks = drawn(f"region=knee,view=frontal,side={side},finding=none", 1)[1].masks
        outwards = column(masks[f"{side} fibula"]) - column(masks[f"{side} tibia"])
        assert (outwards > 3) == (side == "left")
        assert (outwards < -3) == (side == "right")


def test_the_same_person_from_another_side_has_the_same_bones() -> None:
    """Frontal, lateral and oblique show one body: as many bones, of the same height on the film."""
    where = "region=knee,side=left,finding=none,width=260"
    rows = {}
    for view in PROJECTIONS:
        mask = drawn(f"{where},view={view}", 4)[1].masks["left patella"][0]
        rows[view] = int(mask.any(1).sum())
    assert max(rows.values()) - min(rows.values()) <= 3, rows


@pytest.mark.parametrize("modality", ["xray", "ct", "mr", "ultrasound"])
def test_bits_depend_on_seed_and_settings_alone(modality: str) -> None:
    """Alone, after others and in a batch a phantom has the same bits; another seed has others."""
    regions = "abdomen" if modality == "ultrasound" else "abdomen+knee"
    phantoms = select([2, 9], parse(f"region={regions},modality={modality}"))
    batch = render(phantoms, 64)
    again = render(phantoms[1:], 64)
    assert torch.equal(batch.images[1], again.images[0])
    assert not torch.equal(batch.images[0], batch.images[1])
    assert batch.truth[1] == again.truth[0]
    for name, mask in again.masks.items():
        assert torch.equal(batch.masks[name][1], mask[0])


SHOWN = {  # what a film of the region is taken for
    "head": "skull",
    "chest": "sternum",
    "shoulder": "scapula",
    "abdomen": "L3",
    "pelvis": "left hip bone",
    "spine": "L3",
    "hand": "metacarpal 3",
    "wrist": "lunate",
    "knee": "patella",
    "ankle": "talus",
    "elbow": "humerus",
    "leg": "fibula",
    "body": "right femur",
}


@pytest.mark.parametrize("region", SHOWN)
def test_every_region_shows_its_bones_in_the_projects_range(region: str) -> None:
    """From every side: within [-1, 1], most of that range, and the bones of the region listed."""
    for view in PROJECTIONS:
        _, picture = drawn(f"region={region},view={view},finding=none", 5, 64)
        image = picture.images[0]
        assert -1 <= image.min() < image.max() <= 1
        assert image.max() - image.min() > 1.2
        if (region, view) != ("chest", "frontal"):  # a chest film has masks of its own
            assert any(SHOWN[region] in bone for bone in picture.truth[0]["bones"]), view


def test_width_and_place_are_in_mm() -> None:
    """A picture of half the width shows the patella twice as large; moved 30 mm it is elsewhere."""
    where = "region=knee,view=frontal,side=left,finding=none"
    _, wide = drawn(f"{where},width=300", 3, 128)
    _, narrow = drawn(f"{where},width=150", 3, 128)
    _, moved = drawn(f"{where},width=300,at=30:0:0", 3, 128)
    areas = [float(p.masks["left patella"].sum()) for p in (wide, narrow)]
    assert areas[1] / areas[0] == pytest.approx(4, rel=0.1)
    assert wide.truth[0]["mm_per_pixel"] == pytest.approx(300 / 128)
    shift = column(wide.masks["left patella"]) - column(moved.masks["left patella"])
    assert shift * 300 / 128 == pytest.approx(30, abs=4)


def test_a_slice_meets_the_finding_that_it_is_said_to_show() -> None:
    for where in (
        "region=head,modality=mr,finding=brain tumour",
        "region=head,modality=ct,finding=brain haemorrhage",
        "region=chest,modality=ct,finding=nodule",
        "region=knee,modality=ct,finding=fracture",
    ):
        for view in PLANES:
            phantom, picture = drawn(f"{where},view={view}", 6)
            assert picture.masks[phantom.findings[0].name].any(), (where, view)


def test_findings_of_the_chest_have_a_size_in_3d() -> None:
    """Nodules in mm, of a few cm; fluid in ml, the more the larger; the same on film and CT."""
    for seed in (3, 8):
        where = "region=chest,finding={},{}"
        lateral, ct = (
            drawn(where.format("nodule", w), seed, 48)[1].truth[0]["nodule"]
            for w in ("view=lateral", "modality=ct,view=axial")
        )
        assert lateral == ct
        assert 1 <= len(ct["diameters_mm"]) <= 3
        assert all(18 < mm < 65 for mm in ct["diameters_mm"])
        phantom = select([seed], parse(where.format("pleural effusion", "modality=ct")))[0]
        found = phantom.finding("pleural effusion")
        assert found is not None
        volumes = []
        for size in (0.2, 0.5, 0.9):
            one = replace(phantom, findings=(replace(found, size=size, side="left"),))
            volumes.append(render([one], 48).truth[0]["pleural effusion"]["volume_ml"])
        assert 30 < volumes[0] < volumes[1] < volumes[2] < 4000


def test_persons_differ() -> None:
    """1,000 seeds are 1,000 persons, and heights are those of men and women (NCD-RisC 2016)."""
    phantoms = select(range(1000), parse("region=body"))
    persons = [draw_person(p) for p in phantoms]
    assert len({(p.height, p.foot, p.lengths["femur"]) for p in persons}) == 1000
    for sex, mean in (("M", 176), ("F", 164)):
        heights = np.array([p.height for p in persons if p.sex == sex])
        assert heights.mean() == pytest.approx(mean, abs=2)
        assert 5 < heights.std() < 9


def test_lengths_of_bones_predict_the_height() -> None:
    """Trotter and Gleser's lines give the height back within their standard error, both sexes."""
    lines = {  # cm; table 13, white men and women
        "femur": {"M": (2.38, 61.41, 3.27), "F": (2.47, 54.10, 3.72)},
        "tibia": {"M": (2.52, 78.62, 3.37), "F": (2.90, 61.53, 3.66)},
        "humerus": {"M": (3.08, 70.45, 4.05), "F": (3.36, 57.97, 4.45)},
    }
    persons = [draw_person(p) for p in select(range(400), parse("region=body"))]
    for bone, line in lines.items():
        for sex, (slope, base, error) in line.items():
            rest = np.array(
                [p.height - slope * p.lengths[bone] - base for p in persons if p.sex == sex]
            )
            assert abs(rest.mean()) < 0.5
            assert 0.4 * error < rest.std() < 1.1 * error


def test_a_chest_film_and_a_body_are_one_person() -> None:
    """The chest's own film and its lateral view have the same sex, age and chest."""
    film = select([12], parse("region=chest,view=frontal,finding=none"))[0]
    side = select([12], parse("region=chest,view=lateral,finding=none"))[0]
    one, other = (draw_person(p) for p in (replace(film, view="PA"), side))
    assert vars(one.anatomy) == vars(other.anatomy)
