"""The parts of a person by section, so that a picture builds only what it may show."""

from collections.abc import Callable, Sequence

from ldm.data.phantom import axial_skeleton
from ldm.data.phantom.limbs import limb
from ldm.data.phantom.organs import ORGANS
from ldm.data.phantom.person import Person
from ldm.data.phantom.scene import Part, move_parts

SECTIONS: dict[str, Callable[[Person], list[Part]]] = {
    "head": axial_skeleton.head,
    "neck": axial_skeleton.neck,
    "girdle": axial_skeleton.girdle,
    "chest": axial_skeleton.chest,
    "lower chest": axial_skeleton.lower_chest,
    "abdomen": axial_skeleton.abdomen,
    "pelvis": axial_skeleton.pelvis,
}
# material and within of parts without a name; the last is the fat around the organs
FLESH = (("fat", "air"), ("muscle", "fat"), ("fat", "muscle"))


def parts_of(person: Person, names: Sequence[str], side: str) -> list[Part]:
    """The parts of the named sections; fat first, then muscle, then all that lies in them.

    names: "limb thigh" is that of one side, or of both where a region has no side
    """
    parts: list[Part] = []
    for name in names:
        if not name.startswith("limb "):
            parts += SECTIONS[name](person)
            continue
        for one in [side] if side else ["left", "right"]:
            part = name.removeprefix("limb ")
            frame = person.frame(f"{one} {part}")
            parts += move_parts(limb(person, one, part), frame.turn, frame.origin)
    parts += [part for name in names if name in ORGANS for part in ORGANS[name](person)]
    flesh, rest = [], [part for part in parts if part.name or _kind(part) not in FLESH]
    for kind in FLESH:
        # one body: where two limbs meet, what both cover counts once
        bodies = [part for part in parts if not part.name and _kind(part) == kind]
        flesh.append(Part("", kind[0], tuple(g for p in bodies for g in p.groups), kind[1]))
    return flesh + rest


def _kind(part: Part) -> tuple[str, str]:
    return ("", "") if part.name or part.other else (part.material, part.within)
