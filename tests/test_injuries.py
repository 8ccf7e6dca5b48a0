"""Claims about findings of bones and organs: their truth is what they change in the picture."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ldm.data.phantom import Phantom, render
from ldm.data.phantom.anatomy import parts_of
from ldm.data.phantom.imaging import CHANGED, _body
from ldm.data.phantom.injuries import LONG, apply
from ldm.data.phantom.materials import MATERIALS
from ldm.data.phantom.person import Person, draw_person
from ldm.data.phantom.radiograph import attenuation
from ldm.data.phantom.rays import View
from ldm.data.phantom.scene import Part, Scene
from ldm.data.phantom.selection import parse, select
from ldm.data.phantom.views import REGIONS, pose_of, view_of

SIZE = 96


def opened(where: str, seed: int) -> tuple[Phantom, Person, list[Part], View]:
    """The phantom, its person, the parts without its findings of bones and organs, and the rays."""
    phantom = select([seed], parse(where))[0]
    person = draw_person(phantom, pose_of(phantom))
    parts = parts_of(person, REGIONS[phantom.region].sections, phantom.side)
    return phantom, person, parts, view_of(phantom, person, SIZE)


def broken(where: str, seed: int) -> tuple[list[Part], list[Part], dict, View]:
    """The parts before and after a fracture, its truth, and the rays."""
    phantom, person, parts, view = opened(where, seed)
    region = REGIONS[phantom.region]
    reach = 0.4 * region.width[0] * person.height / 170
    after, truth = apply(parts, phantom, region.middle(person, phantom.side).origin, reach)
    return parts, after, truth["fracture"], view


def volume(parts: list[Part], name: str) -> float:
    """cm^3 of a bone with its marrow, summed over the rays of a picture that holds all of it."""
    parts = [part for part in parts if part.name == name]
    hull = np.concatenate([s.hull for part in parts for s in part.groups[0]])
    axes = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, -1]])
    view = View(hull.mean(0), axes, float(np.ptp(hull, 0).max()) + 8, 256)
    return sum(float(a.sum()) for _, _, a in Scene(parts).amounts(view)) * view.pixel**2


@pytest.mark.parametrize("region", ["knee", "wrist", "forearm", "leg", "elbow"])
def test_a_broken_bone_keeps_its_volume(region: str) -> None:
    """Cut, shifted and turned, the pieces together are as large as the bone was."""
    for seed in range(3):
        before, after, truth, _ = broken(f"region={region},finding=fracture", seed)
        assert set(truth["bone"].split()) & set(LONG)
        assert truth["bone"].startswith(
            select([seed], parse(f"region={region},finding=fracture"))[0].findings[0].side
        )
        whole = volume(before, truth["bone"])
        assert volume(after, truth["bone"]) == pytest.approx(whole, rel=0.04), truth


def test_what_lies_beyond_a_fracture_has_moved_by_its_millimetres() -> None:
    """The near piece stays; the far one is shifted across and along, and turned by the angle."""
    for seed in range(6):
        before, after, truth, _ = broken("region=forearm,finding=fracture", seed)
        whole = next(p for p in before if p.name == truth["bone"])
        near, far = (p for p in after if p.name == truth["bone"])
        assert near.groups == whole.groups
        shift = np.hypot(truth["displacement_mm"], truth["gap_mm"]) / 10
        swing = 2 * np.sin(np.deg2rad(truth["angle_deg"]) / 2)
        for old, new in zip(whole.groups[0], far.groups[0], strict=True):
            lever = np.linalg.norm(old.hull.mean(0) - np.array(truth["at_cm"]))
            moved = np.linalg.norm(new.hull.mean(0) - old.hull.mean(0))
            assert shift - swing * lever - 1e-6 <= moved <= shift + swing * lever + 1e-6


def test_a_fractures_mask_is_where_the_rays_change() -> None:
    """Near the fracture, the mask is what the rays lose or gain by it, and nothing else."""
    for seed in range(4):
        where = "region=leg,view=frontal,finding=fracture"
        before, after, truth, view = broken(where, seed)
        paths = [attenuation(Scene(parts), view)[0] for parts in (before, after)]
        changed = np.abs(paths[1] - paths[0]) > CHANGED
        u, v, _ = view.see(np.array(truth["at_cm"]))
        distance = np.hypot(view.u - u, view.v - v)
        mask = render(select([seed], parse(where)), SIZE).masks["fracture"][0].numpy()
        inner = distance < 0.05 * truth["width_mm"]
        assert mask.any()
        assert (mask <= changed).all()
        np.testing.assert_array_equal(mask[inner], changed[inner])
        assert distance[mask].max() < 0.1 * (truth["width_mm"] + truth["displacement_mm"]) + 0.6


def test_a_stones_mask_is_the_difference_that_it_makes() -> None:
    """With and without: the rays differ by (mu stone - mu kidney) times its length, in its mask."""
    for seed in range(4):
        phantom, _, parts, view = opened("region=abdomen,view=frontal,finding=kidney stone", seed)
        after, truth = apply(parts, phantom, view.middle, 8.0)
        without, with_it = (attenuation(Scene(some), view) for some in (parts, after))
        box, length = with_it[1]["kidney stone"]
        expected = np.zeros((SIZE, SIZE))
        expected[box] = (MATERIALS["stone"].mu - MATERIALS["kidney"].mu) * length
        np.testing.assert_allclose(with_it[0] - without[0], expected, atol=2e-3)
        assert length.max() * 10 <= truth["kidney stone"]["size_mm"] + 1e-3
        mask = render([phantom], SIZE).masks["kidney stone"][0].numpy()
        shown = np.zeros((SIZE, SIZE), bool)
        shown[box] = length > 0.03
        np.testing.assert_array_equal(mask, shown)


@pytest.mark.parametrize("name", ["brain tumour", "brain haemorrhage"])
def test_a_brains_finding_lies_on_its_side_and_in_the_skull(name: str) -> None:
    for seed in range(4):
        where = f"region=head,modality=ct,view=axial,finding={name}"
        phantom = select([seed], parse(where))[0]
        picture = render([phantom], SIZE)
        masks = {k: m[0].float() for k, m in picture.masks.items()}
        columns = torch.arange(SIZE)
        found, head = (
            float((masks[k].sum(0) * columns).sum() / masks[k].sum()) for k in (name, "brain")
        )
        assert (found > head) == (phantom.findings[0].side == "left")
        bare = render([replace(phantom, findings=())], SIZE)
        assert name not in bare.masks


def test_arthrosis_narrows_one_compartment() -> None:
    """The named half of the joint space loses at least a third, the other half nothing."""
    for seed in range(5):
        worn, person, _, _ = opened("region=knee,finding=arthrosis", seed)
        healthy = draw_person(replace(worn, findings=()), pose_of(worn))
        key = f"{worn.side} {worn.findings[0].kind}"
        for name, space in person.joint_space.items():
            if name == key:
                assert space < 0.67 * healthy.joint_space[name]
            else:
                assert space == healthy.joint_space[name]


def test_plaster_and_plates_are_outside_the_bone_and_named() -> None:
    """Some broken bones are in plaster, some have a plate; none is there without a fracture."""
    names = []
    for phantom in select(range(50), parse("region=leg,view=frontal,finding=fracture")):
        names += [part.name for part in _body(replace(phantom, view="PA"))[1].parts]
    assert 1 <= names.count("cast") <= 14
    assert 2 <= names.count("plate and screws") <= 18
    for phantom in select(range(5), parse("region=leg,finding=none")):
        assert not {"cast", "plate and screws"} & set(render([phantom], 48).masks)
