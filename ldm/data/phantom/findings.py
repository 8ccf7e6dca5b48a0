"""Patients and their findings: every draw is a function of the seed alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Rng = np.random.Generator
FINDINGS = (
    "pleural effusion",
    "cardiomegaly",
    "pneumothorax",
    "consolidation",
    "nodule",
    "edema",
    "support device",
)
BODY_FINDINGS = ("fracture", "arthrosis", "kidney stone", "brain tumour", "brain haemorrhage")
NONE_SHARE, EFFUSION_SHARE, SECOND_SHARE = 0.4, 0.3, 0.3
LETTERS = ("L", "R", "A", "P")  # as the film has them
PROBES = ("nodule", "wire", *LETTERS)
DEVICES = ("endotracheal tube", "central line", "pacemaker", "sternal wires")


@dataclass(frozen=True)
class Finding:
    """One finding: `side` is the patient's own, `size` in [0, 1] grades it, `kind` is its sort."""

    name: str
    side: str = ""  # "left", "right", "bilateral" or "" where a side makes no sense
    size: float = 0.5
    kind: str = ""


@dataclass(frozen=True)
class Probe:
    """An object of known size; its place depends on the seed alone.

    size: cm: the diameter of a nodule (a ball of soft tissue) or of a wire, the height of a letter
    """

    name: str
    size: float

    def __post_init__(self) -> None:
        if self.name not in PROBES or not 0 < self.size < float("inf"):
            raise ValueError(
                f"a probe is one of {', '.join(PROBES)} of a size above 0 cm, got {self.name!r} "
                f"of {self.size}"
            )


@dataclass(frozen=True)
class Phantom:
    """A made-up patient on one frontal film. Body and film depend on the seed, not on findings."""

    seed: int
    view: str  # "PA" (standing, from behind) or "AP" (bedside, from the front)
    sex: str  # "M" or "F"
    age: int
    findings: tuple[Finding, ...] = ()
    probe: Probe | None = None
    region: str = "chest"  # of `views.REGIONS`
    modality: str = "xray"  # "xray", "ct", "mr" or "ultrasound"
    side: str = ""  # "left" or "right", where a region is paired
    kind: str = ""  # CT: lung, soft tissue, bone; MR: t1, t2, flair
    width: float = 0.0  # mm of body across the picture; 0: as the region has it
    at: tuple[float, float, float] = (0.0, 0.0, 0.0)  # mm from the region's middle, in body axes
    without: str = ""  # a bone of the region that the body lacks, or "none"; "": not asked for

    @property
    def is_chest_film(self) -> bool:
        """A frontal film of the chest, with the findings that only such a film can have."""
        return (self.region, self.modality) == ("chest", "xray") and self.view in ("PA", "AP")

    def facts(self) -> dict[str, Any]:
        """What is known before the picture is drawn."""
        return {
            **{key: getattr(self, key) for key in ("seed", "view", "sex", "age")},
            "findings": [f.name for f in self.findings],
            "sides": {f.name: f.side for f in self.findings if f.side},
            "kinds": {f.name: f.kind for f in self.findings if f.kind},
        }

    def finding(self, name: str) -> Finding | None:
        """The finding of that name, if there is one."""
        return next((f for f in self.findings if f.name == name), None)


def stream(seed: int, purpose: int) -> Rng:
    """Random numbers of one phantom for one purpose, independent of all others."""
    if seed < 0:
        raise ValueError(f"a phantom's seed is a whole number >= 0, got {seed}")
    return np.random.default_rng([seed, purpose])


def sample_phantoms(
    seeds: Sequence[int], findings: Sequence[str] | None = None, exclude: Sequence[str] = ()
) -> list[Phantom]:
    """One phantom per seed: about 40 % without a finding, 30 % with an effusion, the rest spread.

    findings: those that each has instead ([] for none);  exclude: those that none has
    """
    if unknown := [name for name in (*(findings or ()), *exclude) if name not in FINDINGS]:
        raise ValueError(f"no such phantom finding: {unknown}; there are {list(FINDINGS)}")
    if both := set(findings or ()) & set(exclude):
        raise ValueError(f"{sorted(both)} stands in findings and in exclude; drop it from one")
    return [_sample(int(seed), findings, tuple(exclude)) for seed in seeds]


def _sample(seed: int, findings: Sequence[str] | None, exclude: tuple[str, ...]) -> Phantom:
    rng = stream(seed, 0)
    view = "PA" if rng.random() < 0.5 else "AP"
    sex = "M" if rng.random() < 0.55 else "F"
    age = int(np.clip(rng.normal(50 if view == "PA" else 55, 17), 18, 92))
    names = _names(rng, view, exclude) if findings is None else list(dict.fromkeys(findings))
    # each finding has its own stream, so that adding one leaves the others as they were
    drawn = tuple(_draw(name, view, stream(seed, 10 + FINDINGS.index(name))) for name in names)
    return Phantom(seed, view, sex, age, drawn)


def _names(rng: Rng, view: str, exclude: tuple[str, ...]) -> list[str]:
    """The names drawn for one phantom, one or two of them or none."""
    allowed = [name for name in FINDINGS if name not in exclude]
    if rng.random() < NONE_SHARE or not allowed:
        return []
    weight = dict.fromkeys(FINDINGS, (1 - NONE_SHARE - EFFUSION_SHARE) / (len(FINDINGS) - 1))
    weight["pleural effusion"] = EFFUSION_SHARE
    weight["support device"] *= 1.6 if view == "AP" else 0.6  # the sick are filmed in bed
    share = np.array([weight[name] for name in allowed])
    second = rng.random() < SECOND_SHARE and len(allowed) > 1
    names = [rng.choice(allowed, p=share / share.sum())]
    if second:  # drawn evenly, so that effusions stay near their share
        names.append(rng.choice([name for name in allowed if name != names[0]]))
    return [name for name in FINDINGS if name in names]


def _draw(name: str, view: str, rng: Rng) -> Finding:
    size, side, kind = float(rng.random()), str(rng.choice(["left", "right"])), ""
    if name == "pleural effusion":
        side = str(rng.choice(["left", "right", "bilateral"], p=[0.35, 0.35, 0.3]))
        kind = "layering" if view == "AP" and rng.random() < 0.45 else "free"
    elif name == "support device":
        share = [0.35, 0.35, 0.15, 0.15] if view == "AP" else [0.0, 0.2, 0.45, 0.35]
        kind = str(rng.choice(DEVICES, p=share))
    side = {"cardiomegaly": "", "support device": "", "edema": "bilateral"}.get(name, side)
    return Finding(name, side, size, kind)
