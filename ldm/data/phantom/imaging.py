"""Pictures of any region: the person's parts, seen by one modality, with masks and truth."""

from copy import deepcopy
from dataclasses import replace
from functools import lru_cache

import numpy as np

from ldm.data.phantom import fetus, injuries, radiograph, tomography, ultrasound
from ldm.data.phantom.anatomy import parts_of
from ldm.data.phantom.body import Array, Mask
from ldm.data.phantom.detector import Floats
from ldm.data.phantom.findings import Phantom, Rng, stream
from ldm.data.phantom.person import Person, draw_person
from ldm.data.phantom.rays import Box, View
from ldm.data.phantom.scene import Field, Part, Scene
from ldm.data.phantom.views import AXIAL, PLANES, REGIONS, pose_of, view_of

Named = dict[str, tuple[Box, Array]]
# the body without a finding and with it, the finding's middle, and how far from it to look, cm
Change = tuple[Scene, Scene, Floats, float]
CHANGED = 0.02  # of mu l: what a finding changes by more belongs to its mask
THICKNESS = 0.5  # cm of a slice
SHOWN_BY = {"cardiomegaly": "heart", "edema": "left lung"}  # which a slice must meet
PLASTER_SHARE, HARDWARE_SHARE = 0.12, 0.18  # of fractures
RING_SHARE = 0.1  # of hands
CONTRAST_SHARE = 0.6  # of CT, with contrast agent


def picture(phantom: Phantom, size: int) -> tuple[Array, dict[str, Mask], dict[str, object]]:
    """Grey [H, W] in [0, 1], a mask for each bone, organ and finding in it, and the truth."""
    rng = stream(phantom.seed, 105)
    # the same body from every side, so that it is built once; but for a lateral chest it lifts
    # its arms
    lifts = (phantom.region, phantom.modality, phantom.view) == ("chest", "xray", "lateral")
    view_from = "lateral" if lifts else "PA"
    body = replace(phantom, view=view_from, kind="", width=0.0, at=(0.0, 0.0, 0.0))
    person, scene, found, change = _body(body)
    places = [at for _, _, at, _ in change.values()]
    if phantom.region == "fetal head":
        width = phantom.width / 10 or found["view_width_cm"]
        view = View(np.array(phantom.at) / 10, AXIAL, width, size)
    else:
        view = _view(phantom, person, scene, size, rng, places)
    named: Named
    if phantom.modality == "xray":
        path, named = radiograph.attenuation(scene, view)
        grey = radiograph.film(view, path, phantom, rng)
    elif phantom.modality == "ultrasound":
        view = ultrasound.aimed(scene, view, rng)
        grey, named = ultrasound.scan(scene, view, rng)
    elif phantom.modality == "ct":
        contrast = rng.uniform(0.6, 1) if rng.random() < CONTRAST_SHARE else 0.0
        grey, named = tomography.ct(scene, view, rng, phantom.kind, THICKNESS, contrast)
    else:
        grey, named = tomography.mr(scene, view, rng, phantom.kind, THICKNESS)
    masks = _masks(phantom, view, named, change)
    truth = phantom.facts() | {
        **{key: getattr(phantom, key) for key in ("region", "modality", "side", "kind")},
        "height_cm": person.height,
        "mm_per_pixel": 10 * view.pixel,
        "bones": [part.name for part in scene.parts if part.name in masks and part.is_bone],
    }
    return grey, masks, truth | deepcopy(found)  # which is kept with the body


def _view(
    phantom: Phantom, person: Person, scene: Scene, size: int, rng: Rng, places: list[Floats]
) -> View:
    """The picture's rays; a slice is moved to a finding, as a radiologist who shows it does."""
    view = view_of(phantom, person, size)
    places += scene.middles(SHOWN_BY.get(f.name, f.name) for f in phantom.findings)
    if phantom.view in PLANES and places:
        depth = float(view.see(places[0])[2]) + float(np.clip(rng.normal(0, 0.08), -0.2, 0.2))
        view.middle = view.middle + depth * view.axes[2]
    return view


def _masks(
    phantom: Phantom, view: View, named: Named, change: dict[str, Change]
) -> dict[str, Mask]:
    """Of named parts the pixels that they cover by more than 0.3 mm of the ray or half a slice."""
    masks: dict[str, Mask] = {}
    film, size = phantom.modality == "xray", view.size
    for name, (box, amount) in named.items():
        mask = masks.setdefault(name, np.zeros((size, size), bool))
        # of a small finding in a slice a tenth is enough
        mask[box] |= amount > (0.03 if film else 0.1 if phantom.finding(name) else 0.5)
    if phantom.finding("cardiomegaly") and "heart" in masks:
        masks["cardiomegaly"] = masks["heart"]
    for name, (without, scene_with, at, reach) in change.items():
        thickness = None if film else THICKNESS
        paths = [radiograph.attenuation(one, view, thickness)[0] for one in (without, scene_with)]
        u, v, _ = view.see(at)
        near = np.hypot(view.u - u, view.v - v) < reach
        masks[name] = near & (np.abs(paths[1] - paths[0]) > CHANGED)
    return {name: mask for name, mask in masks.items() if mask.any()}


@lru_cache(maxsize=4)
def _body(phantom: Phantom) -> tuple[Person, Scene, injuries.Truth, dict[str, Change]]:
    """The person, the parts that this region's pictures may show, and the findings' sizes."""
    if phantom.region == "fetal head":
        fetal, size = fetus.fetal_head(phantom.seed)
        return draw_person(phantom), Scene(fetal), {**size}, {}
    region, rng = REGIONS[phantom.region], stream(phantom.seed, 106)
    person = draw_person(phantom, pose_of(phantom))
    parts = _lacking(phantom.without, parts_of(person, region.sections, phantom.side))
    middle = region.middle(person, phantom.side).origin
    scale = person.height / 170
    whole, change = parts, {}
    parts, truth = injuries.apply(parts, phantom, middle, 0.4 * region.width[0] * scale)
    if broken := truth.get("fracture"):
        reach = 0.1 * broken["width_mm"] + 0.1 * broken["displacement_mm"] + 0.5
        old, new = ({id(part) for part in some} for some in (whole, parts))
        bone = Scene([part for part in whole if id(part) not in new])
        pieces = Scene([part for part in parts if id(part) not in old])
        change["fracture"] = bone, pieces, np.array(broken["at_cm"]), reach
        treated = rng.random()
        if treated < PLASTER_SHARE and broken["bone"].split()[-1] in injuries.IN_PLASTER:
            parts = injuries.cast(parts, broken)
        elif treated < PLASTER_SHARE + HARDWARE_SHARE and " rib " not in broken["bone"]:
            parts = injuries.plate(parts, broken, rng)
    for part in parts:
        if phantom.finding(part.name) and isinstance(part.other, Field):
            size = truth.setdefault(part.name, {"volume_ml": 0.0})
            size["volume_ml"] += part.other.volume()
        elif part.name == "nodule":
            across = 20 * float(np.linalg.norm(part.groups[0][0].spread, axis=1).max())
            truth.setdefault("nodule", {"diameters_mm": []})["diameters_mm"].append(across)
    if phantom.finding("edema"):
        change["edema"] = Scene(_without(phantom, "edema")[1]), Scene(whole), middle, np.inf
    if worn := phantom.finding("arthrosis"):
        healthy, before = _without(phantom, "arthrosis")
        joint = person.frame(f"{worn.side} shank")
        at = joint.at((-2.2 if worn.kind == "medial" else 2.2, 0, 0))
        change["arthrosis"] = Scene(before), Scene(whole), at, 2.5 * scale
        key = f"{worn.side} {worn.kind}"
        truth["arthrosis"] = {
            "side": worn.side,
            "compartment": worn.kind,
            "joint_space_mm": 10 * person.joint_space[key],
            "healthy_mm": 10 * healthy.joint_space[key],
        }
    if phantom.region in ("hand", "wrist", "forearm") and rng.random() < RING_SHARE:
        parts = injuries.ring(parts, phantom.side)
    return person, Scene(parts), truth, change


def _lacking(bone: str, parts: list[Part]) -> list[Part]:
    """The parts without a bone, or without those of both sides, and what fills it."""
    kept, inside = [], False
    for part in parts:
        filling = not part.name and part.within in ("compact bone", "spongy bone")
        either = part.name.removeprefix("left ").removeprefix("right ")
        inside = bone in (part.name, either) if part.is_bone else inside and filling
        if not inside:
            kept.append(part)
    return kept


def _without(phantom: Phantom, name: str) -> tuple[Person, list[Part]]:
    """The same person without one of the findings."""
    others = tuple(found for found in phantom.findings if found.name != name)
    healthy = draw_person(replace(phantom, findings=others), pose_of(phantom))
    return healthy, parts_of(healthy, REGIONS[phantom.region].sections, phantom.side)
