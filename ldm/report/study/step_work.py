"""The work of each step of a study: its values and files, made of the settings alone."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldm.data.cache import to_bytes
from ldm.judging.extractors import Array, open_extractor
from ldm.metrics.classification import wilson
from ldm.metrics.estimate import Estimate
from ldm.metrics.nearest_images import Neighbours
from ldm.pictures.image_files import to_channels
from ldm.pipeline import Sampling
from ldm.report import adapted_models, copy_search, memorization, reconstruction, text_encoders
from ldm.report.adapted_models import AdaptedModel, Drawn, Real
from ldm.report.copy_search import Finder, Space, Square, TrainedImages
from ldm.report.study.adapted_rows import AdaptedRow, as_settings, kept_images, open_model
from ldm.report.study.cached_steps import Done, Result, core_version
from ldm.report.study.study_settings import Study
from ldm.system.atomic import digest
from ldm.training.training_run import RunConfig

SHOWN = 8  # real images of each kind that are kept for the pictures


def reconstruct(study: Study, asked: str, size: int, done: Mapping[str, Done]) -> Result:
    """evaluate.py reconstruction, and its pictures."""
    report = reconstruction.measure(
        asked,
        study.model,
        size=size,
        extractors=list(dict.fromkeys([study.distance_by, study.classified_by])),
        survival=0,
        seed=study.seed,
        device=study.device,
        weights=study.weights,
        limit=study.reconstructed,
    )
    values = {**report.values, "model": Path(study.model).name}
    return Result(values, only_png(report.files))


def compare_encoders(study: Study, done: Mapping[str, Done]) -> Result:
    """evaluate.py text-encoders, and its pictures."""
    report = text_encoders.measure(study.reports, study.encoders, per_class=study.per_class)
    return Result(report.values, only_png(report.files))


def only_png(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name.endswith(".png")}


def measure_reference(study: Study, size: int, channels: int, done: Mapping[str, Done]) -> Result:
    """Real images, their features and verdict, and their distance to as many others."""
    real = adapted_models.reference(study.films("val", size), study.real, channels)
    others = adapted_models.reference(study.films("train", size), study.real, channels)
    features, verdict = examine(study, real)
    values = {
        "n": {kind: len(images) for kind, images in real._asdict().items()},
        "n of others": {kind: len(images) for kind, images in others._asdict().items()},
        "distances": adapted_models.distances(examine(study, others)[0], features),
        "verdict": verdict,
    }
    files = {
        f"{kind}.npy": as_bytes(to_channels(images[:SHOWN], 1))
        for kind, images in real._asdict().items()
    }
    files |= {f"features_{kind}.npy": as_bytes(each) for kind, each in features.items()}
    return Result(values, files)


def examine(study: Study, images: Real | Drawn) -> tuple[dict[str, Array], dict[str, Estimate]]:
    """Features [n, d] of each kind of images, for distances, and the classifier's verdict."""
    distance = open_extractor(study.distance_by, study.weights)
    classifier = open_extractor(study.classified_by, study.weights)
    features, scores = {}, {}
    for kind, pictures in images._asdict().items():
        if pictures is None:
            continue
        features[kind] = judged = adapted_models.features(distance, pictures)
        if kind != "style":
            if study.classified_by != study.distance_by:
                judged = adapted_models.features(classifier, pictures)
            scores[kind] = adapted_models.effusion(classifier, judged)
    return features, adapted_models.verdict(scores, classifier.threshold)


def measure_row(
    method: AdaptedRow, study: Study, size: int, run: RunConfig | None, done: Mapping[str, Done]
) -> Result:
    """A row of Tables 4 and 5: a trained model, its images, their distances and verdict."""
    pipe, noun = open_model(method, study, run)
    pipe.to(study.device or "cpu")
    guidance = pipe.config.guidance if study.guidance is None else study.guidance
    sampling = Sampling(study.seed, study.sampling_steps, "dpm++", guidance, "", size, size)
    artist = AdaptedModel(pipe, study.out / "drawn" / digest(core_version()), sampling)
    drawn = adapted_models.draw(artist, noun, study.n, method.style)
    features, verdict = examine(study, drawn)
    real = {kind: done["reference"].array(f"features_{kind}") for kind in Real._fields}
    prompts = adapted_models.prompts_of(noun, len(adapted_models.OTHERS), method.style)
    values: dict[str, Any] = {
        "weights": pipe.weights_hash,
        "training": None if run is None else as_settings(run),
        "prompts": {kind: list(dict.fromkeys(each)) for kind, each in prompts.items()},
        "n": study.n,
        "guidance": guidance,
        "distances": adapted_models.distances(features, real),
        "verdict": verdict,
    }
    files = {
        f"{kind}.npy": as_bytes(to_channels(images, 1))
        for kind, images in drawn._asdict().items()
        if images is not None and kind != "other"
    }
    if run is not None and "kinds" in run.method:
        taught = TrainedImages(Path(run.train.out))
        files["trained.npy"] = as_bytes(torch.stack([taught.load(i) for i in range(len(taught))]))
    return Result(values, files)


def find_copies(study: Study, size: int, names: Sequence[str], done: Mapping[str, Done]) -> Result:
    """Copies of the training images among the plain and effusion images of the steps `names`.

    Steps with the same training images are searched together. Empty for few held-out images.
    """
    held_out = held_out_images(study, size)
    if len(held_out) < copy_search.LEAST:
        return Result({})
    finder = Finder.open(study.model, open_extractor("judge", study.weights))
    finder.size, channels = size, finder.vae.config.image_channels
    groups: dict[bytes, list[str]] = {}
    for name in names:
        groups.setdefault(done[name].read("trained.npy"), []).append(name)
    values = {}
    for together in groups.values():
        fake = [
            torch.cat([kept_images(done[name], kind) for kind in ("plain", "fluid")])
            for name in together
        ]  # of each step [2 n, 1, H, W]
        parts = (torch.cat(fake), kept_images(done[together[0]], "trained"), held_out)
        _, spaces = finder.find(
            *(
                Square(to_channels(part, channels), [str(i) for i in range(len(part))])
                for part in parts
            )
        )
        ends = np.cumsum([len(part) for part in fake])
        for name, part, end in zip(together, fake, ends, strict=True):
            mine = slice(end - len(part), end)
            values[name] = {
                space.name.split()[0]: memorization.as_json(part_of(space, mine))
                for space in spaces
            }
    return Result(values)


def part_of(space: Space, mine: slice) -> Space:
    """A space with some of its samples alone."""
    found = space.audit
    samples = Neighbours(found.samples.distance[mine], found.samples.which[mine])
    hits = int((samples.distance < found.threshold).sum())
    share = wilson(hits, len(samples.distance))
    return space._replace(audit=found._replace(copies=share, samples=samples))


def held_out_images(study: Study, size: int) -> Tensor:
    """Real ones [n, 1, H, W]; of films not those of the train split, some of which were learned."""
    splits = ["val"] if study.data else ["val", "train"]
    each = [adapted_models.reference(study.films(split, size), study.real) for split in splits]
    return torch.cat([images for real in each for images in real])


def as_bytes(array: Tensor | Array) -> bytes:
    """An .npy file; of images [-1, 1] in 256 grey levels."""
    content = io.BytesIO()
    np.save(content, to_bytes(array) if isinstance(array, Tensor) else array)
    return content.getvalue()
