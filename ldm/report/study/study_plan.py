"""The steps of a study, in the order of the paper."""

from functools import partial
from pathlib import Path
from typing import Any

from ldm.config import ConfigError, ModelConfig
from ldm.data.file_dataset import Files
from ldm.data.image_sets import UNSEEN
from ldm.data.labelled_reports import read_csv
from ldm.data.phantom.captions import EFFUSION
from ldm.judging.extractors import open_extractor
from ldm.report.named_encoders import PLACES
from ldm.report.report_retrieval import open_all
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
# seconds on two cores at the built-in model's size, for the first estimate of the time left
SECONDS = {
    **{"image": 0.25, "textual_inversion": 0.07, "projection_document": 0.02},
    **{"projection_token": 0.25, "unet_no_findings": 0.21, "unet": 0.21, "unet_prior": 0.3},
}


def plan(study: Study, config: ModelConfig) -> list[StudyStep]:
    """Raises ValueError, before any work, for what cannot be opened."""
    size, channels = study.size or config.image_size, config.vae.image_channels
    if size % config.multiple:
        raise ConfigError(f"--size must be a multiple of {config.multiple} here, got {size}")
    made_of = content(study)
    common: dict[str, Any] = {"made of": made_of, "size": size, "seed": study.seed}
    common |= {"networks": networks(study), "data": keys_of(study, size, channels)}
    steps = []
    for name, images in image_sets(study).items():
        work = partial(step_work.reconstruct, study, images, size)
        settings = common | {"images": study.reconstructed}
        steps.append(StudyStep(name, settings, work, about=0.12 * study.reconstructed))
    work = partial(step_work.compare_encoders, study)
    steps.append(StudyStep("text_encoders", encoders(study), work, about=20))
    work = partial(step_work.measure_reference, study, size, channels)
    real = common | {"real": study.real}
    steps.append(StudyStep("reference", real, work, about=0.1 * study.real))
    drawn = common | {"n": study.n, "guidance": study.guidance, "steps": study.sampling_steps}
    for method in METHODS:
        run = run_of(method, study, size, made_of) if method.config else None
        about = 10 + (4 if method.style else 3) * study.n * SECONDS["image"]
        about += run.train.steps * SECONDS[method.config] if run else 0
        settings = drawn | {"training": run and as_settings(run), "style": method.style}
        work = partial(step_work.measure_row, method, study, size, run)
        steps.append(StudyStep(method.name, settings, work, ("reference",), about))
    learned = tuple(m.name for m in METHODS if m.group in (INVERSION, UNET))
    work = partial(step_work.find_copies, study, size, learned)
    about = 0.02 * (2 * study.n * len(learned) + 1500)
    return [*steps, StudyStep("copies", real, work, learned, about)]


def image_sets(study: Study) -> dict[str, str]:
    """{name of a step: the set that goes through the autoencoder}"""
    found = {}
    if study.tier != "full":
        found["reconstruction"] = f"phantoms:{study.reconstructed}:{UNSEEN}"
    if study.data:
        found["reconstruction_films"] = f"{study.data}@val"
    return found


def networks(study: Study) -> dict[str, Any]:
    """The descriptions of the extractors, and hashes of the files that may hold their weights."""
    classifier = open_extractor(study.classified_by, study.weights)
    if EFFUSION not in classifier.findings:
        raise ConfigError(f"{study.classified_by} does not look for {EFFUSION}; name another")
    distance = open_extractor(study.distance_by, study.weights)
    files = [Path(study.weights) / "judge.safetensors"]
    files += sorted(f for f in Path(study.weights).iterdir() if f.suffix in (".pt", ".pth"))
    hashes = {file.name: hash_of(file) for file in files}
    return {"distance": str(distance), "classifier": str(classifier), "files": hashes}


def keys_of(study: Study, size: int, channels: int) -> list[str]:
    """Keys of the contents of the real images; none for phantoms, which their seeds name."""
    if not study.data:
        return []
    if not study.data.endswith(".csv"):
        raise ConfigError(f"--data must be a CSV with labels and split, got {study.data}")
    files = [Files(study.films(split, size), channels) for split in ("val", "train")]
    held_out, trained = ({row["path"] for row in each.rows} for each in files)
    if both := len(held_out & trained):
        raise ConfigError(
            f"--data {study.data}: {both} images are in split val and in split train; a study "
            "measures on one and trains on the other"
        )
    return [each.key for each in files]


def encoders(study: Study) -> dict[str, Any]:
    """The settings of the step of the text encoders, which are opened once to check them."""
    choices = [choice(text) for text in study.encoders]
    open_all(choices, seed=0)
    if study.reports:
        read_csv(study.reports)
    places = PLACES | dict.fromkeys(NAMED, PLACES["built-in"] / "model.safetensors")
    hashes = {}
    for one in choices:
        name = one.name.removeprefix("random:")
        if (place := places.get(name, Path(name))).exists():
            hashes[one.label] = hash_of(place)
    return {
        "encoders": [[*one] for one in choices],
        "weights": hashes,
        "reports": hash_of(Path(study.reports)) if study.reports else "Open-I",
        "per class": study.per_class,
    }
