"""Which pictures a set holds: "region=hand+knee,modality=xray" -> one phantom for each seed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ldm.data.phantom.findings import (
    BODY_FINDINGS,
    FINDINGS,
    Finding,
    Phantom,
    Rng,
    sample_phantoms,
    stream,
)
from ldm.data.phantom.tomography import SEQUENCES, WINDOWS
from ldm.data.phantom.views import PLANES, PROJECTIONS, REGIONS

MODALITIES = ("xray", "ct", "mr", "ultrasound")
SCANNED = ("abdomen", "fetal head")  # by ultrasound
# what is drawn where nothing is asked for: the regions of Adams et al. (arXiv:2211.02884)
USUAL = (
    "head",
    "chest",
    "shoulder",
    "abdomen",
    "pelvis",
    "spine",
    "hand",
    "wrist",
    "knee",
    "ankle",
)
SLICED = {
    "ct": ("head", "chest", "abdomen", "pelvis", "spine"),
    "mr": ("head", "spine", "knee"),
}
USUAL_WINDOWS = {
    "head": ("brain",),
    "chest": ("soft tissue", "lung"),
    "abdomen": ("soft tissue",),
    "pelvis": ("soft tissue", "bone"),
}  # all others are shown in the bone window
LIMB_BONES = (
    *("shoulder", "arm", "elbow", "forearm", "wrist", "hand"),
    *("pelvis", "thigh", "knee", "leg", "ankle", "foot"),
)
FINDING_SHARE = 0.4


def parse(text: str) -> dict[str, tuple[str, ...]]:
    """{setting: values} of "region=hand+knee,view=lateral"; ValueError lists what is known."""
    known: dict[str, Sequence[str]] = {
        "region": tuple(dict.fromkeys((*REGIONS, *SCANNED))),
        "modality": MODALITIES,
        "view": (*PROJECTIONS, *PLANES),
        "side": ("left", "right"),
        "window": tuple(WINDOWS),
        "sequence": tuple(SEQUENCES),
        "finding": (*FINDINGS, *BODY_FINDINGS, "none"),
        "sex": ("M", "F"),
        "width": (),
        "at": (),
    }
    where: dict[str, tuple[str, ...]] = {}
    for item in filter(None, text.split(",")):
        name, _, values = item.partition("=")
        if name not in known:
            raise ValueError(f"no such setting of phantoms: {name!r}; there are {', '.join(known)}")
        where[name] = tuple(values.split("+"))
        if known[name] and (unknown := [v for v in where[name] if v not in known[name]]):
            raise ValueError(
                f"no such {name} of phantoms: {', '.join(map(repr, unknown))}; "
                f"there are {', '.join(known[name])}"
            )
    for name, count in (("width", 1), ("at", 3)):
        for value in where.get(name, ()):
            _numbers(name, value, count)
    return where


def possible(region: str, modality: str) -> tuple[str, ...]:
    """The findings that a picture of the region can show."""
    found: list[str] = []
    if region == "chest":
        found += [name for name in FINDINGS if name != "support device" or modality == "xray"]
    if region in LIMB_BONES and modality in ("xray", "ct"):
        found.append("fracture")
    if region == "knee":
        found.append("arthrosis")
    if region == "abdomen":
        found.append("kidney stone")
    if region == "head" and modality in ("ct", "mr"):
        found += ["brain tumour", "brain haemorrhage"]
    return tuple(found)


def select(
    seeds: Sequence[int], where: Mapping[str, Sequence[str]], exclude: Sequence[str] = ()
) -> list[Phantom]:
    """One phantom a seed, by `parse`'s settings: each draws one of the values of a setting.

    Raises ValueError where nothing fits, as an ultrasound of a knee.
    """
    if not where:
        return sample_phantoms(seeds, exclude=exclude)
    return [_select(seed, where, exclude) for seed in seeds]


def _select(seed: int, where: Mapping[str, Sequence[str]], exclude: Sequence[str]) -> Phantom:
    rng = stream(seed, 104)
    region, modality = _pair(where, rng)
    views = _views(region, modality)
    what = f"of {modality} of the {region}"
    view = _one(rng, where.get("view", views), views, f"view {what}")
    fitting = [n for n in possible(region, modality) if n not in exclude]
    if asked := where.get("finding"):
        names = [_one(rng, asked, [*fitting, "none"], f"finding {what}")]
    else:
        names = [str(rng.choice(fitting))] if fitting and rng.random() < FINDING_SHARE else []
    names = [name for name in names if name != "none"]
    if region == "chest" and modality == "xray" and view == "frontal":
        asked_for = None if "finding" not in where else names
        base = sample_phantoms([seed], asked_for, [n for n in exclude if n in FINDINGS])[0]
    else:
        base = sample_phantoms([seed], [n for n in names if n in FINDINGS])[0]
        base = replace(base, view=view)
    side = str(rng.choice(list(where.get("side", ("left", "right")))))
    kinds = where.get("window" if modality == "ct" else "sequence", ())
    if modality in ("ct", "mr"):
        if modality == "ct" and not kinds:
            kinds = USUAL_WINDOWS.get(region, ("bone",))
        kind = str(rng.choice(list(kinds or SEQUENCES)))
    else:
        kind = ""
    findings = base.findings + tuple(
        _draw(name, side, stream(seed, 60 + BODY_FINDINGS.index(name)))
        for name in names
        if name in BODY_FINDINGS
    )
    width = _numbers("width", str(rng.choice(list(where.get("width", ("0",))))), 1)[0]
    x, y, z = _numbers("at", str(rng.choice(list(where.get("at", ("0:0:0",))))), 3)
    paired = region in REGIONS and REGIONS[region].paired
    return replace(
        base,
        sex=str(rng.choice(list(where["sex"]))) if "sex" in where else base.sex,
        findings=findings,
        region=region,
        modality=modality,
        side=side if paired else "",
        kind=kind,
        width=width,
        at=(x, y, z),
    )


def _pair(where: Mapping[str, Sequence[str]], rng: Rng) -> tuple[str, str]:
    """A region and a modality that go together."""
    modalities = where.get("modality", ("xray",))
    regions = where.get("region")
    pairs = [
        (region, modality)
        for modality in modalities
        for region in regions or _usual(modality)
        if (modality == "ultrasound") <= (region in SCANNED)
        and (region in REGIONS or modality == "ultrasound")
    ]
    if not pairs:
        raise ValueError(
            f"no phantom shows {' or '.join(modalities)} of {' or '.join(regions or ())}; "
            f"ultrasound shows {' and '.join(SCANNED)}, all others show {', '.join(REGIONS)}"
        )
    return pairs[int(rng.integers(len(pairs)))]


def _usual(modality: str) -> Sequence[str]:
    return {"xray": USUAL, "ultrasound": SCANNED, **SLICED}[modality]


def _views(region: str, modality: str) -> tuple[str, ...]:
    if modality == "ultrasound":
        return ("axial",)
    return tuple(PROJECTIONS if modality == "xray" else PLANES)


def _one(rng: Rng, asked: Sequence[str], known: Sequence[str], what: str) -> str:
    """One of the values asked for that there are."""
    values = [value for value in asked if value in known]
    if not values:
        raise ValueError(f"no {what} is {' or '.join(asked)}; it is {' or '.join(known)}")
    return str(values[int(rng.integers(len(values)))])


def _draw(name: str, side: str, rng: Rng) -> Finding:
    kind = ""
    if name == "fracture":
        kind = str(rng.choice(["transverse", "oblique", "displaced"]))
    elif name == "brain haemorrhage":
        kind = str(rng.choice(["epidural", "subdural", "intracerebral"]))
    elif name == "arthrosis":
        kind = str(rng.choice(["medial", "lateral"], p=[0.75, 0.25]))
    return Finding(name, side, float(rng.random()), kind)


def _numbers(name: str, text: str, count: int) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(abs(n) < 1e4 for n in numbers):
        what = "a number of mm" if count == 1 else "three numbers of mm, as 0:50:0"
        raise ValueError(f"{name} of phantoms must be {what}, got {text!r}")
    return numbers
