"""What the steps of a study do: each makes its values and files of the settings alone."""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldm.data.radiographs import from_bytes, to_bytes
from ldm.judging.extractors import Array, open_extractor
from ldm.metrics.classification import wilson
from ldm.metrics.estimate import Estimate
from ldm.metrics.nearest_images import Neighbours
from ldm.pictures import image_files
from ldm.pipeline import Sampling
from ldm.report import adapted_models, copy_search, memorization
from ldm.report.adapted_models import AdaptedModel, Real
from ldm.report.copy_search import TrainedImages
from ldm.report.study.adapted_rows import AdaptedRow, as_settings, open_model
from ldm.report.study.cached_steps import Done, Result, core_version
from ldm.report.study.study_settings import Study
from ldm.system.fingerprint import digest
from ldm.training.run_config import RunConfig

SHOWN = 8  # real images of each kind that are kept for the pictures


def reconstruction(study: Study, asked: str, size: int, done: Mapping[str, Done]) -> Result:
    """evaluate.py reconstruction, and its pictures."""
    from ldm.report import reconstruction as there

    options = argparse.Namespace(
        set=asked,
        model=study.model,
        config=None,
        size=size,
        extractors=list(dict.fromkeys([study.distance_by, study.classified_by])),
        survival=0,
        seed=study.seed,
        device=study.device,
        weights=study.weights,
        limit=study.reconstructed,
        skip_bad=False,
    )
    report = there.run(options)
    values = {**report.values, "model": Path(study.model).name}
    return Result(values, only_png(report.files))


def text_encoders(study: Study, done: Mapping[str, Done]) -> Result:
    """evaluate.py text-encoders, and its pictures."""
    from ldm.report import text_encoders as there

    options = argparse.Namespace(
        reports=study.reports,
        encoders=study.encoders,
        k=10,
        cosine=False,
        per_class=study.per_class,
        seed=0,
    )
    report = there.run(options)
    return Result(report.values, only_png(report.files))


def only_png(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name.endswith(".png")}


def reference(study: Study, size: int, channels: int, done: Mapping[str, Done]) -> Result:
    """Real images, what the networks make of them, and how far as many others are from them."""
    real = adapted_models.reference(study.films("val", size), study.real, channels)
    others = adapted_models.reference(study.films("train", size), study.real, channels)
    seen, beside = see(study, real), see(study, others)
    scores = {kind: there["effusion"] for kind, there in seen.items()}
    threshold = open_extractor(study.classified_by, study.weights).threshold
    values = {
        "n": {kind: len(there) for kind, there in real._asdict().items()},
        "n of others": {kind: len(there) for kind, there in others._asdict().items()},
        "distances": as_json(adapted_models.distances(features(beside), features(seen))),
        "verdict": as_json(adapted_models.verdict(scores, threshold)),
    }
    files = {
        f"{kind}.npy": as_bytes(image_files.to_channels(there[:SHOWN], 1))
        for kind, there in real._asdict().items()
    }
    files |= {f"features_{kind}.npy": as_bytes(there["features"]) for kind, there in seen.items()}
    return Result(values, files)


def see(study: Study, shown: Any) -> dict[str, dict[str, Array]]:
    """{kind: features [n, d] for distances, and scores [n] of an effusion} of Real or Drawn."""
    distance = open_extractor(study.distance_by, study.weights)
    classifier = open_extractor(study.classified_by, study.weights)
    found = {}
    for kind, some in shown._asdict().items():
        if some is not None:
            there = adapted_models.features(distance, some)
            same = study.distance_by == study.classified_by
            judged = there if same else adapted_models.features(classifier, some)
            found[kind] = {
                "features": there,
                "effusion": adapted_models.effusion(classifier, judged),
            }
    return found


def features(seen: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    return {kind: there["features"] for kind, there in seen.items()}


def row(
    method: AdaptedRow, study: Study, size: int, run: RunConfig | None, done: Mapping[str, Done]
) -> Result:
    """A row of Tables 4 and 5: trained, drawn with, compared with real images, looked at."""
    pipe, noun = open_model(method, study, run)
    pipe.to(study.device or "cpu")
    guidance = pipe.config.guidance if study.guidance is None else study.guidance
    sampling = Sampling(study.seed, study.sampling_steps, "dpm++", guidance, "", size, size)
    artist = AdaptedModel(pipe, study.out / "drawn" / digest(core_version()), sampling)
    pictures = adapted_models.draw(artist, noun, study.n, method.style)
    seen = see(study, pictures)
    real = {
        kind: np.load(io.BytesIO(done["reference"].read(f"features_{kind}.npy")))
        for kind in Real._fields
    }
    scores = {kind: there["effusion"] for kind, there in seen.items() if kind != "style"}
    threshold = open_extractor(study.classified_by, study.weights).threshold
    prompts = adapted_models.prompts_of(noun, len(adapted_models.OTHERS), method.style)
    values: dict[str, Any] = {
        "weights": pipe.weights_hash,
        "training": None if run is None else as_settings(run),
        "prompts": {kind: list(dict.fromkeys(some)) for kind, some in prompts.items()},
        "n": study.n,
        "guidance": guidance,
        "distances": as_json(adapted_models.distances(features(seen), real)),
        "verdict": as_json(adapted_models.verdict(scores, threshold)),
    }
    files = {
        f"{kind}.npy": as_bytes(image_files.to_channels(there, 1))
        for kind, there in pictures._asdict().items()
        if there is not None and kind != "other"
    }
    if run is not None and "kinds" in run.method:
        taught = TrainedImages(Path(run.train.out))
        trained = torch.stack([taught.load(i) for i in range(len(taught))])
        files["trained.npy"] = as_bytes(trained)
    return Result(values, files)


def copied(study: Study, size: int, names: Sequence[str], done: Mapping[str, Done]) -> Result:
    """Copies of the training images among the plain and effusion images of the steps `names`.

    Steps with the same training images are looked at together. Empty for few held-out images.
    """
    held_out = held_out_images(study, size)
    if len(held_out) < copy_search.LEAST:
        return Result({})
    finder = copy_search.Finder.open(study.model, open_extractor("judge", study.weights))
    finder.size = size
    groups: dict[bytes, list[str]] = {}
    for name in names:
        groups.setdefault(done[name].read("trained.npy"), []).append(name)
    values = {}
    for trained, together in groups.items():
        fake = [drawn(done[name]) for name in together]
        parts = (torch.cat(fake), from_bytes(np.load(io.BytesIO(trained))), held_out)
        _, spaces = finder.find(*(square(part, finder.vae.config.image_channels) for part in parts))
        ends = np.cumsum([len(part) for part in fake])
        for name, part, end in zip(together, fake, ends, strict=True):
            mine = slice(end - len(part), end)
            values[name] = {
                space.name.split()[0]: memorization.as_json(of_slice(space, mine))
                for space in spaces
            }
    return Result(values)


def of_slice(space: copy_search.Space, mine: slice) -> copy_search.Space:
    """What a space says of some of the samples."""
    found = space.audit
    samples = Neighbours(found.samples.distance[mine], found.samples.which[mine])
    hits = int((samples.distance < found.threshold).sum())
    share = wilson(hits, len(samples.distance))
    return space._replace(audit=found._replace(copies=share, samples=samples))


def held_out_images(study: Study, size: int) -> Tensor:
    """Real ones [n, 1, H, W]; of films not those of the train split, some of which were learned."""
    splits = ["val"] if study.data else ["val", "train"]
    each = [adapted_models.reference(study.films(split, size), study.real) for split in splits]
    return torch.cat([part for real in each for part in real])


def drawn(step: Done) -> Tensor:
    """The plain images of a row and those with an effusion [2 n, 1, H, W]."""
    parts = [np.load(io.BytesIO(step.read(f"{kind}.npy"))) for kind in ("plain", "fluid")]
    return from_bytes(np.concatenate(parts))


def square(pictures: Tensor, channels: int) -> copy_search.Square:
    names = [str(i) for i in range(len(pictures))]
    return copy_search.Square(image_files.to_channels(pictures, channels), names)


def as_bytes(array: Tensor | Array) -> bytes:
    """An .npy file; of images [-1, 1] in 256 grey levels."""
    content = io.BytesIO()
    np.save(content, to_bytes(array) if isinstance(array, Tensor) else array)
    return content.getvalue()


def as_json(estimates: Mapping[str, Estimate | None]) -> dict[str, dict[str, float] | None]:
    return {name: one and one._asdict() for name, one in estimates.items()}
