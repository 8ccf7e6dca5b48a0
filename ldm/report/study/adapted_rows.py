"""The rows of the paper's Table 4: how each model is made, and what opens it."""

import gc
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ldm.config import to_dict
from ldm.data.cache import from_bytes
from ldm.pipeline import LatentDiffusion
from ldm.report import adapted_models
from ldm.report.study.cached_steps import Done, core_version
from ldm.report.study.study_settings import FULL_RATES, FULL_STEPS, ROOT, Study
from ldm.system.atomic import digest
from ldm.training.training_run import RunConfig, load_run
from ldm.weights.loading import load


@dataclass(frozen=True)
class AdaptedRow:
    """config: in configs/, none for the unchanged model

    style: is its prompt drawn, too? The paper drew it of two rows.
    """

    name: str
    group: str
    label: str
    config: str = ""
    overrides: Sequence[str] = ()
    style: bool = False


GROUPS = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
_, PROJECTION, INVERSION, UNET = GROUPS
METHODS = tuple(AdaptedRow(group=group, **row) for group, rows in GROUPS.items() for row in rows)


def run_of(method: AdaptedRow, study: Study, size: int, made_of: Mapping[str, str]) -> RunConfig:
    """Its training, whose folder is named by all that decides the weights;  made_of: `content`"""
    overrides = ["train.sample_every=0"]
    steps = (FULL_STEPS if study.tier == "full" else {}) | study.steps  # --quick, in any tier
    if method.config in steps:
        overrides.append(f"train.steps={steps[method.config]}")
    if study.tier == "full" and method.config in FULL_RATES:
        overrides.append(f"train.learning_rate={FULL_RATES[method.config]}")
    if study.data and method.group != PROJECTION:  # which trains on captions of phantoms
        overrides.append(f"data.path={json.dumps(study.data)}")
        if method.config == "unet_prior":
            overrides.append("method.prior_prompt=a lung xray")
    if method.config == "unet_prior":  # drawn before the training, which takes as long as rows do
        overrides.append(f"method.prior_images={min(64, study.n)}")
    overrides += [*study.training, *method.overrides]
    if method.group == PROJECTION:
        overrides.append(f"method.encoder={json.dumps(study.encoder)}")
    if study.device:
        overrides.append(f"train.device={study.device}")
    overrides += [
        f"data.size={size}",
        f"data.cache={json.dumps(str(study.out / 'cache'))}",
        f"model.path={json.dumps(study.model)}",
    ]
    config = ROOT / "configs" / f"{method.config}.yaml"
    key = digest([as_settings(load_run(config, overrides)), made_of])[:8]
    out = study.out / "runs" / f"{method.name}-{key}"
    return load_run(config, [*overrides, f"train.out={json.dumps(str(out))}"])


def as_settings(run: RunConfig) -> dict[str, Any]:
    """The settings of a run that decide its weights: all but devices and places of files."""
    places = {"train": ("out", "device"), "data": ("path", "cache"), "method": ("encoder",)}
    found = to_dict(run)
    for part, names in places.items():
        found[part] = {key: value for key, value in found[part].items() if key not in names}
    return found | {"model": {"parts": found["model"]["parts"]}}


def content(study: Study) -> dict[str, str]:
    """Hashes of the files that a study is made of, and of the code that trains and draws."""
    paths = {"model": study.model, "data": study.data, "encoder": study.encoder}
    hashes = {name: hash_of(Path(path)) for name, path in paths.items() if path}
    return hashes | {"code": core_version()}


def hash_of(path: Path) -> str:
    """12 hex digits of a file, or of all files in a folder.

    Weights of a part are hashed with the model.safetensors beside them, which holds the rest.
    """
    whole = hashlib.sha256()
    beside = path.parent / "model.safetensors"
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    if path.suffix == ".safetensors" and beside.is_file() and beside != path:
        files.append(beside)
    for file in files:
        with file.open("rb") as handle:
            while part := handle.read(1 << 24):
                whole.update(part)
    return whole.hexdigest()[:12]


def train(run: RunConfig) -> Path:
    """The run's folder, finished; an interrupted training is resumed."""
    from ldm.training.trainer import Trainer
    from ldm.training.training_run import build_method, finished

    if finished(run) is None:
        Trainer(run, build_method(run)).fit()
        gc.collect()  # networks are in reference cycles, and two of 16 GB do not fit
    return Path(run.train.out)


def open_model(
    method: AdaptedRow, study: Study, run: RunConfig | None
) -> tuple[LatentDiffusion, str]:
    """The model that draws, and the noun of its prompts."""
    if run is None:
        return load(study.model), adapted_models.NOUN
    folder = train(run)
    if method.group == UNET and run.method.get("train", "all") != "lora":
        return load(folder), adapted_models.NOUN
    pipe = load(study.model)
    return pipe, adapted_models.open_run(pipe, folder)


def kept_images(step: Done, kind: str) -> Tensor:
    """Images [n, 1, H, W] in [-1, 1] that a step kept."""
    return from_bytes(step.array(kind))
