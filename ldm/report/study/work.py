"""What the steps of a study do: each makes its values and files of the settings alone."""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldm import images
from ldm.data.films import digest, to_bytes
from ldm.features import Array, open_extractor
from ldm.metrics.classify import Estimate
from ldm.pipeline import Sampling
from ldm.report import adaptation, copies, memorization
from ldm.report.adaptation import Artist, Real
from ldm.report.study.methods import Method, as_settings, open_model, run_of
from ldm.report.study.settings import Study
from ldm.report.study.steps import Done, Result, core_version
from ldm.report.taught import Taught

SHOWN = 8  # images of each kind of prompt that a step keeps for the pictures


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
    return Result(values, pictures(report.files))


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
    return Result(report.values, pictures(report.files))


def pictures(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name.endswith(".png")}


def reference(study: Study, size: int, channels: int, done: Mapping[str, Done]) -> Result:
    """Real images, what the networks make of them, and how far as many others are from them."""
    real = adaptation.reference(study.films("val", size), study.real, channels)
    others = adaptation.reference(study.films("train", size), study.real, channels)
    seen, beside = see(study, real), see(study, others)
    scores = {kind: there["effusion"] for kind, there in seen.items()}
    threshold = open_extractor(study.classified_by, study.weights).threshold
    values = {
        "n": {kind: len(there) for kind, there in real._asdict().items()},
        "n of others": {kind: len(there) for kind, there in others._asdict().items()},
        "distances": as_json(adaptation.distances(features(beside), features(seen))),
        "verdict": as_json(adaptation.verdict(scores, threshold)),
    }
    files = {f"{kind}.npy": as_bytes(first(there)) for kind, there in real._asdict().items()}
    files |= {f"features_{kind}.npy": as_bytes(there["features"]) for kind, there in seen.items()}
    return Result(values, files)


def see(study: Study, shown: Any) -> dict[str, dict[str, Array]]:
    """{kind: features [n, d] for distances, and scores [n] of an effusion} of Real or Drawn."""
    distance = open_extractor(study.distance_by, study.weights)
    classifier = open_extractor(study.classified_by, study.weights)
    found = {}
    for kind, some in shown._asdict().items():
        if some is not None:
            there = adaptation.features(distance, some)
            same = study.distance_by == study.classified_by
            judged = there if same else adaptation.features(classifier, some)
            found[kind] = {"features": there, "effusion": adaptation.effusion(classifier, judged)}
    return found


def features(seen: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    return {kind: there["features"] for kind, there in seen.items()}


def row(method: Method, study: Study, size: int, done: Mapping[str, Done]) -> Result:
    """A row of Tables 4 and 5: trained, drawn with, compared with real images, looked at."""
    run = run_of(method, study, size) if method.config else None
    pipe, noun = open_model(method, study, run)
    pipe.to(study.device or "cpu")
    guidance = pipe.config.guidance if study.guidance is None else study.guidance
    sampling = Sampling(study.seed, guidance=guidance, height=size, width=size)
    artist = Artist(pipe, study.out / "drawn" / digest(core_version()), sampling)
    drawn = adaptation.draw(artist, noun, study.n, method.style)
    seen = see(study, drawn)
    real = {
        kind: np.load(io.BytesIO(done["reference"].read(f"features_{kind}.npy")))
        for kind in Real._fields
    }
    scores = {kind: there["effusion"] for kind, there in seen.items() if kind != "style"}
    threshold = open_extractor(study.classified_by, study.weights).threshold
    prompts = adaptation.prompts_of(noun, len(adaptation.OTHERS), method.style)
    values: dict[str, Any] = {
        "weights": pipe.weights_hash,
        "training": None if run is None else as_settings(run),
        "prompts": {kind: list(dict.fromkeys(some)) for kind, some in prompts.items()},
        "n": study.n,
        "guidance": guidance,
        "distances": as_json(adaptation.distances(features(seen), real)),
        "verdict": as_json(adaptation.verdict(scores, threshold)),
    }
    files = {
        f"{kind}.npy": as_bytes(first(there))
        for kind, there in drawn._asdict().items()
        if there is not None
    }
    if run is not None and "kinds" in run.method:
        taught = Taught(Path(run.train.out))
        trained = torch.stack([taught.load(i) for i in range(len(taught))])
        values["trained on"] = len(taught)
        values["copies"] = copied(study, pipe.vae.cpu(), size, drawn, trained)
        files["trained.npy"] = as_bytes(images.to_channels(trained, 1))
    return Result(values, files)


def copied(study: Study, vae: Any, size: int, drawn: Any, trained: Tensor) -> dict[str, Any]:
    """Copies of the training images among plain and effusion images; empty for few held out."""
    channels = vae.config.image_channels
    kinds = [adaptation.reference(study.films("val", size), study.real, channels)]
    if not study.data:  # of films, the others were perhaps trained on
        kinds.append(adaptation.reference(study.films("train", size), study.real, channels))
    held_out = torch.cat([part for real in kinds for part in real])
    if len(held_out) < copies.LEAST:
        return {}
    finder = copies.Finder(vae, size, open_extractor("judge", study.weights))
    squares = [
        copies.Square(images.to_channels(some, channels), [str(i) for i in range(len(some))])
        for some in (torch.cat([drawn.plain, drawn.fluid]), trained, held_out)
    ]
    _, spaces = finder.find(*squares)
    return {space.name.split()[0]: memorization.as_json(space) for space in spaces}


def first(pictures: Tensor) -> Tensor:
    """The first few as grey images [SHOWN, 1, H, W]."""
    return images.to_channels(pictures[:SHOWN], 1)


def as_bytes(array: Tensor | Array) -> bytes:
    """An .npy file; of images [-1, 1] in 256 grey levels."""
    content = io.BytesIO()
    np.save(content, to_bytes(array) if isinstance(array, Tensor) else array)
    return content.getvalue()


def as_json(estimates: Mapping[str, Estimate | None]) -> dict[str, dict[str, float] | None]:
    return {name: one and one._asdict() for name, one in estimates.items()}
