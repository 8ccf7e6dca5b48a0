"""Claims about asking for phantoms: a setting is what is drawn, and an unknown one is an error."""

import numpy as np
import pytest
import torch

from ldm.config import ConfigError
from ldm.data.image_sets import open_set
from ldm.data.phantom import FINDINGS, caption, imaging, radiograph, render, sample_phantoms
from ldm.data.phantom.selection import parse, possible, select, usual
from ldm.data.phantom.views import PROJECTIONS, view_of


def test_a_set_holds_what_was_asked_for() -> None:
    """Each value of a setting is drawn, in about equal shares, and nothing else."""
    drawn = select(range(400), parse("region=hand+knee,view=lateral+oblique,side=left,sex=F"))
    for name, values in (("region", {"hand", "knee"}), ("view", {"lateral", "oblique"})):
        counts = [sum(getattr(p, name) == value for p in drawn) for value in values]
        assert sum(counts) == 400
        assert min(counts) > 160
    assert {(p.side, p.sex, p.modality) for p in drawn} == {("left", "F", "xray")}


def test_nothing_asked_for_is_every_region_from_every_side() -> None:
    drawn = select(range(600), parse("modality=xray"))
    assert {p.region for p in drawn} == set(usual("xray"))
    assert {p.view for p in drawn} == {*PROJECTIONS, "PA", "AP"}


def test_a_phantom_depends_on_its_seed_and_the_settings_alone() -> None:
    where = parse("region=ankle+pelvis+chest,modality=xray+ct")
    assert select([7, 3], where)[1] == select([3], where)[0]


def test_without_settings_a_set_is_the_chests_of_before() -> None:
    """phantoms:N:SEED draws the same phantoms as `sample_phantoms`, and so does a frontal chest."""
    plain = sample_phantoms(range(50))
    assert select(range(50), parse("")) == plain
    assert select(range(50), parse("region=chest,view=frontal")) == plain


def test_a_person_keeps_sex_and_age_from_every_side() -> None:
    asked = [
        parse(f"region={where}") for where in ("chest,view=frontal", "knee", "head,view=lateral")
    ]
    for one, two, three in zip(*(select(range(20), where) for where in asked), strict=True):
        assert (one.sex, one.age) == (two.sex, two.age) == (three.sex, three.age)


def test_findings_are_those_that_a_picture_can_show() -> None:
    """About 40 % have one; a finding asked for is there; `none` has none."""
    knees = select(range(500), parse("region=knee"))
    names = [[f.name for f in p.findings] for p in knees]
    assert {n for some in names for n in some} == set(possible("knee", "xray"))
    assert abs(sum(map(bool, names)) / 500 - 0.4) < 0.07
    assert all(
        p.finding("fracture") for p in select(range(20), parse("region=hand,finding=fracture"))
    )
    assert not any(p.findings for p in select(range(20), parse("region=chest,finding=none")))
    assert set(possible("chest", "xray")) == set(FINDINGS)


def test_a_side_asked_for_is_that_of_the_findings() -> None:
    """Of the chest's, too: all one-sided ones are on the left, fluid of both sides stays."""
    for where in ("region=chest", "region=chest,view=frontal", "region=head,modality=ct"):
        drawn = select(range(120), parse(f"{where},side=left"))
        sides = [f.side for p in drawn for f in p.findings]
        assert "right" not in sides
        assert sides.count("left") > 10


def test_settings_in_mm_move_and_scale_the_picture() -> None:
    phantom = select([0], parse("region=body,width=300,at=0:250:-10"))[0]
    assert (phantom.width, phantom.at) == (300.0, (0.0, 250.0, -10.0))
    drawn = select(range(40), parse("region=body,width=300+500,at=0:0:0+1:2:3"))
    assert {(p.width, p.at[0]) for p in drawn} == {(300, 0), (300, 1), (500, 0), (500, 1)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("region=kne", r"no such region of phantoms: 'kne'; there are head, .*knee"),
        ("modality=pet", r"no such modality .*'pet'; there are xray, ct, mr, ultrasound"),
        ("regio=knee", r"no such setting of phantoms: 'regio'; there are region, "),
        ("region=knee,modality=ultrasound", "no modality is ultrasound; it is xray or ct or mr"),
        ("region=knee,view=axial", "no view of xray of the knee is axial; it is frontal or"),
        ("region=knee,finding=nodule", "no finding of xray of the knee is nodule; it is fracture"),
        ("width=wide", "width of phantoms must be a number of mm above 0, got 'wide'"),
        ("width=120+-5", "width of phantoms must be a number of mm above 0, got '120[+]-5'"),
        ("region=knee,window=lung", "window goes with modality=ct"),
        ("modality=ct,sequence=T1", "sequence goes with modality=mr"),
        ("at=1:2", "at of phantoms must be three numbers of mm, as 0:50:0, got '1:2'"),
    ],
)
def test_an_unknown_setting_is_an_error_that_lists_the_known(settings: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_set(f"phantoms:4:0:{settings}")


def test_captions_say_region_modality_side_and_finding() -> None:
    """Each wording says phantom and the region; some say view, patient and finding."""
    broken = select([3], parse("region=wrist,side=left,view=lateral,finding=fracture"))[0]
    texts = [caption(broken, index) for index in range(60)]
    assert all("phantom" in text and "left wrist" in text and "fracture" in text for text in texts)
    assert any("lateral" in text for text in texts)
    assert any("year old" in text for text in texts)
    scan = select([3], parse("region=head,modality=mr,sequence=FLAIR,finding=none"))[0]
    texts = [caption(scan, index) for index in range(60)]
    assert all("MR" in text and "head" in text for text in texts)
    assert any("FLAIR" in text for text in texts)


def test_a_window_of_the_whole_body_is_called_by_its_part() -> None:
    """The part at its height; the whole body has no part, and a knee is not moved to the head."""
    where = "region=body,width=400,view=frontal,finding=none,at="
    for down, part in ((-620, "head"), (-300, "chest"), (0, "pelvis"), (900, "feet")):
        (window,) = select([0], parse(f"{where}0:{down}:0"))
        assert f"body at the {part}" in caption(window)
    (whole,) = select([0], parse("region=body"))
    (knee,) = select([0], parse("region=knee,width=400,at=0:-620:0"))
    assert " at the " not in caption(whole) + caption(knee)


def test_a_body_can_lack_a_bone() -> None:
    """Its mask is gone, all others stay, and the set says so; what is not asked for is unknown."""
    whole, without = (
        render(select([3], parse(f"region=knee,view=frontal,finding=none{more}")), 64)
        for more in ("", ",without=fibula")
    )
    lost = whole.masks.keys() - without.masks.keys()
    assert {name.split()[-1] for name in lost} == {"fibula"}
    assert not torch.equal(whole.images, without.images)
    asked = open_set("phantoms:20:0:region=knee,view=frontal,without=none+fibula")
    fibula = {asked.findings(i)["bone=fibula"] for i in range(20)}
    assert fibula == {True, False}
    assert all(asked.findings(i)["bone=tibia"] for i in range(20))
    assert not [n for n in open_set("phantoms:1:0:region=knee").findings(0) if "bone" in n]


def test_what_fills_a_bone_goes_with_it() -> None:
    """Without its tibia a leg is nowhere denser than before, and where the tibia was it is less."""

    def path(bone: str) -> np.ndarray:
        (p,) = select([3], parse(f"region=knee,view=frontal,finding=none,without={bone}"))
        person, scene, _, _ = imaging._body(p)
        return radiograph.attenuation(scene, view_of(p, person, 32))[0]

    change = path("tibia") - path("none")
    assert change.max() < 1e-6
    assert change.min() < -0.1
