"""The steps of a study, in the order of the paper."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ldm.config import ConfigError, ModelConfig
from ldm.data.image_sets import UNSEEN
from ldm.data.phantom.captions import EFFUSION
from ldm.data.radiographs import Files
from ldm.data.radiology_reports import read_csv
from ldm.judging.extractors import open_extractor
from ldm.report.encoder_retrieval import open_all
from ldm.report.named_encoders import PLACES
from ldm.report.study import step_work
from ldm.report.study.adapted_rows import (
    INVERSION,
    METHODS,
    UNET,
    as_settings,
    content,
    hash_of,
    run_of,
)
from ldm.report.study.cached_steps import StudyStep
from ldm.report.study.study_settings import Study
from ldm.report.text_encoders import choice

NAMED = ("built-in", "random")  # the tower of the built-in model
# seconds on two cores at the built-in model's size; the estimate of what is left begins with them
SECONDS = {
    **{"image": 0.25, "textual_inversion": 0.07, "projection_document": 0.02},
    **{"projection_token": 0.25, "unet_no_findings": 0.21, "unet": 0.21, "unet_prior": 0.3},
}


def sets(study: Study) -> dict[str, str]:
    """{name of a step: the images that go through the autoencoder}"""
    found = {}
    if study.tier != "full":
        found["reconstruction"] = f"phantoms:{study.reconstructed}:{UNSEEN}"
    if study.data:
        found["reconstruction_films"] = f"{study.data}@val"
    return found


def plan(study: Study, config: ModelConfig) -> list[StudyStep]:
    """Raises ValueError, before any work, for what cannot be opened."""
    size, channels = study.size or config.image_size, config.vae.image_channels
    if size % config.multiple:
        raise ConfigError(f"--size {size}: this model wants multiples of {config.multiple}")
    made_of = content(study)
    common: dict[str, Any] = {"made of": made_of, "size": size, "seed": study.seed}
    common |= {"networks": networks(study), "data": keys_of(study, size, channels)}
    steps = []
    for name, asked in sets(study).items():
        do = partial(step_work.reconstruction, study, asked, size)
        settings = common | {"images": study.reconstructed}
        steps.append(StudyStep(name, settings, do, about=0.12 * study.reconstructed))
    do = partial(step_work.text_encoders, study)
    steps.append(StudyStep("text_encoders", encoders(study), do, about=20))
    do = partial(step_work.reference, study, size, channels)
    steps.append(StudyStep("reference", common | {"real": study.real}, do, about=0.1 * study.real))
    drawn = common | {"n": study.n, "guidance": study.guidance, "steps": study.sampling_steps}
    for method in METHODS:
        run = run_of(method, study, size, made_of) if method.config else None
        about = 10 + (4 if method.style else 3) * study.n * SECONDS["image"]
        about += run.train.steps * SECONDS[method.config] if run else 0
        settings = drawn | {"training": run and as_settings(run), "style": method.style}
        do = partial(step_work.row, method, study, size, run)
        steps.append(StudyStep(method.name, settings, do, ("reference",), about))
    learned = tuple(m.name for m in METHODS if m.group in (INVERSION, UNET))
    do = partial(step_work.copied, study, size, learned)
    about = 0.02 * (2 * study.n * len(learned) + 1500)
    steps.append(StudyStep("copies", common | {"real": study.real}, do, learned, about))
    return steps


def networks(study: Study) -> dict[str, Any]:
    """The extractors as they describe themselves, and the hashes of what may be their weights."""
    classifier = open_extractor(study.classified_by, study.weights)
    if EFFUSION not in classifier.findings:
        raise ConfigError(f"{study.classified_by} does not look for {EFFUSION}; name another")
    distance = open_extractor(study.distance_by, study.weights)
    files = [Path(study.weights) / "judge.safetensors"]
    files += sorted(f for f in Path(study.weights).iterdir() if f.suffix in (".pt", ".pth"))
    hashes = {file.name: hash_of(file) for file in files}
    return {"distance": str(distance), "classifier": str(classifier), "files": hashes}


def keys_of(study: Study, size: int, channels: int) -> list[str]:
    """What the real images are, by their content; none for phantoms, which their seeds name."""
    if not study.data:
        return []
    if not study.data.endswith(".csv"):
        raise ConfigError(f"--data {study.data}: a study wants a CSV, with labels and split")
    files = [Files(study.films(split, size), channels) for split in ("val", "train")]
    held_out, trained = ({row["path"] for row in some.rows} for some in files)
    if both := len(held_out & trained):
        raise ConfigError(
            f"--data {study.data}: {both} images are in split val and in split train; a study "
            "measures on the one and trains on the other"
        )
    return [some.key for some in files]


def encoders(study: Study) -> dict[str, Any]:
    """The settings of the step of the text encoders; they are opened, to see that they can be."""
    choices = [choice(text) for text in study.encoders]
    open_all(choices, seed=0)
    if study.reports:
        read_csv(study.reports)
    hashes = {}
    for one in choices:
        name = one.name.removeprefix("random:")
        place = PLACES["built-in"] / "model.safetensors" if name in NAMED else PLACES.get(name)
        place = place or Path(name)
        if place.exists():
            hashes[one.label] = hash_of(place)
    return {
        "encoders": [[*one] for one in choices],
        "weights": hashes,
        "reports": hash_of(Path(study.reports)) if study.reports else "Open-I",
        "per class": study.per_class,
    }
