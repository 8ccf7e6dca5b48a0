"""Which pictures a set holds: "region=hand+knee,modality=xray" -> one phantom for each seed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ldm.data.phantom.findings import (
    BODY_FINDINGS,
    FINDINGS,
    Finding,
    Phantom,
    sample_phantoms,
    stream,
)
from ldm.data.phantom.tomography import SEQUENCES, WINDOWS
from ldm.data.phantom.views import PLANES, PROJECTIONS, REGIONS

SCANNED = ("abdomen", "fetal head")  # by ultrasound
MODALITIES = {name: tuple(REGIONS) for name in ("xray", "ct", "mr")} | {"ultrasound": SCANNED}
KINDS = {
    "fracture": ("transverse", "oblique", "displaced"),
    "brain haemorrhage": ("epidural", "subdural", "intracerebral"),
    "arthrosis": ("medial", "medial", "medial", "lateral"),
}
FINDING_SHARE = 0.4
SETTINGS: dict[str, Sequence[str]] = {
    "region": (*REGIONS, "fetal head"),
    "modality": tuple(MODALITIES),
    "view": (*PROJECTIONS, *PLANES),
    "side": ("left", "right"),
    "window": tuple(WINDOWS),
    "sequence": tuple(SEQUENCES),
    "finding": (*FINDINGS, *BODY_FINDINGS, "none"),
    "sex": ("M", "F"),
    "without": ("none", *dict.fromkeys(bone for row in REGIONS.values() for bone in row.bones)),
    "width": (),  # mm
    "at": (),  # mm:mm:mm
}
Settings = Mapping[str, Sequence[str]]


def parse(text: str) -> dict[str, tuple[str, ...]]:
    """{setting: values} of "region=hand+knee,view=lateral"; ValueError lists what is known."""
    where: dict[str, tuple[str, ...]] = {}
    for item in filter(None, text.split(",")):
        name, _, values = item.partition("=")
        if name not in SETTINGS:
            known = ", ".join(SETTINGS)
            raise ValueError(f"no such setting of phantoms: {name!r}; there are {known}")
        where[name] = tuple(values.split("+"))
        if unknown := [v for v in where[name] if SETTINGS[name] and v not in SETTINGS[name]]:
            raise ValueError(
                f"no such {name} of phantoms: {', '.join(map(repr, unknown))}; "
                f"there are {', '.join(SETTINGS[name])}"
            )
    _millimetres("width", where.get("width", ()), 1)
    _millimetres("at", where.get("at", ()), 3)
    return where


def _millimetres(name: str, values: Sequence[str], count: int) -> list[tuple[float, ...]]:
    try:
        found = [tuple(map(float, value.split(":"))) for value in values]
        least = 0 if name == "width" else -1e4
        if all(len(v) == count and least < min(v) and max(v) < 1e4 for v in found):
            return found
    except ValueError:
        pass
    what = "a number of mm above 0" if count == 1 else "three numbers of mm, as 0:50:0"
    raise ValueError(f"{name} of phantoms must be {what}, got {'+'.join(values)!r}")


def usual(modality: str) -> tuple[str, ...]:
    """The regions drawn where none is named; of films those of Adams et al. (arXiv:2209.13696)."""
    if modality == "ultrasound":
        return SCANNED
    return tuple(name for name, row in REGIONS.items() if modality in row.usual)


def possible(region: str, modality: str) -> tuple[str, ...]:
    """The findings that a picture of the region can show."""
    found: list[str] = []
    if region == "chest":
        found += [name for name in FINDINGS if name != "support device" or modality == "xray"]
    row = REGIONS.get(region)
    if row and any("limb" in part for part in row.sections) and modality in ("xray", "ct"):
        found.append("fracture")
    if region == "knee":
        found.append("arthrosis")
    if region == "abdomen":
        found.append("kidney stone")
    if region == "head" and modality in ("ct", "mr"):
        found += ["brain tumour", "brain haemorrhage"]
    return tuple(found)


def seen_bones(phantom: Phantom) -> Sequence[str]:
    """The bones of which a phantom says whether they are there: where `without` was asked for."""
    return REGIONS[phantom.region].bones if phantom.without else ()


def select(seeds: Sequence[int], where: Settings, exclude: Sequence[str] = ()) -> list[Phantom]:
    """One phantom a seed, by `parse`'s settings: each draws one of the values of a setting.

    Raises ValueError where nothing fits, as for an ultrasound of a knee.
    """
    if not where:
        return sample_phantoms(seeds, exclude=[name for name in exclude if name in FINDINGS])
    return [_select(seed, where, exclude) for seed in seeds]


def _select(seed: int, where: Settings, exclude: Sequence[str]) -> Phantom:
    rng, what = stream(seed, 104), ""

    def draw(name: str, known: Sequence[str], preferred: Sequence[str] = ()) -> str:
        """One of the values asked for that there are; if none was asked for, a usual one."""
        asked = where.get(name) or preferred or known
        if values := [value for value in asked if value in known]:
            return values[int(rng.integers(len(values)))]
        raise ValueError(f"no {name}{what} is {' or '.join(asked)}; it is {' or '.join(known)}")

    regions = set(where.get("region", SETTINGS["region"]))
    fitting = [name for name, shown in MODALITIES.items() if regions & set(shown)]
    modality = draw("modality", fitting, ("xray",) if "xray" in fitting else ())
    for name, owner in (("window", "ct"), ("sequence", "mr")):
        if name in where and owner not in where.get("modality", ()):
            raise ValueError(f"{name} goes with modality={owner}")
    region = draw("region", MODALITIES[modality], usual(modality))
    what = f" of {modality} of the {region}"
    views = PROJECTIONS if modality == "xray" else PLANES if modality != "ultrasound" else ["axial"]
    view = draw("view", tuple(views))
    shown = [name for name in possible(region, modality) if name not in exclude]
    finding = draw("finding", [*shown, "none"], shown)
    if "finding" not in where and rng.random() > FINDING_SHARE:
        finding = "none"
    side = draw("side", SETTINGS["side"])
    kind = ""
    if modality == "ct":
        kind = draw("window", tuple(WINDOWS), REGIONS[region].windows)
    elif modality == "mr":
        kind = draw("sequence", tuple(SEQUENCES))
    if (region, modality, view) == ("chest", "xray", "frontal"):
        # with the findings and the view, PA or AP, of a chest film of that seed
        names = None if "finding" not in where else [finding] if finding != "none" else []
        base = sample_phantoms([seed], names, [name for name in exclude if name in FINDINGS])[0]
    else:
        base = sample_phantoms([seed], [finding] if finding in FINDINGS else [])[0]
        base = replace(base, view=view)
    if "side" in where:  # of a chest's findings, too, but for those of both sides
        sided = ("left", "right")
        one = (replace(f, side=side) if f.side in sided else f for f in base.findings)
        base = replace(base, findings=tuple(one))
    if finding in BODY_FINDINGS:
        own = stream(seed, 60 + BODY_FINDINGS.index(finding))
        sort = str(own.choice(KINDS.get(finding, ("",))))
        base = replace(base, findings=(Finding(finding, side, float(own.random()), sort),))
    without = draw("without", ("none", *REGIONS[region].bones)) if "without" in where else ""
    places = _millimetres("at", where.get("at", ("0:0:0",)), 3)
    widths = _millimetres("width", where.get("width", ()), 1) or [(0.0,)]
    x, y, z = places[int(rng.integers(len(places)))]
    return replace(
        base,
        sex=draw("sex", SETTINGS["sex"]) if "sex" in where else base.sex,
        region=region,
        modality=modality,
        side=side if region in REGIONS and REGIONS[region].limb else "",
        kind=kind,
        width=widths[int(rng.integers(len(widths)))][0],
        at=(x, y, z),
        without=without,
    )
