"""Images of an adapted model, and figures of them (arXiv:2210.04133, sections 2.6 to 2.8)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from ldm.config import ConfigError
from ldm.data import DataConfig
from ldm.data.cache import from_bytes, to_bytes
from ldm.data.datasets import Phantoms
from ldm.data.file_dataset import Files
from ldm.data.phantom import FINDINGS
from ldm.data.phantom.captions import EFFUSION, readable
from ldm.drawing.drawing_settings import PIXELS_AT_ONCE
from ldm.judging.extractors import Array, Extractor, batches
from ldm.metrics.classification import auc, decisions
from ldm.metrics.estimate import Estimate
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.report.reconstruction import frechet
from ldm.system import atomic
from ldm.system.atomic import digest
from ldm.text.projected_encoder import replace_text
from ldm.weights import adapters

NOUN = "lung xray"
SUFFIX = " with a visible "
STYLE = "a photo in the style of a "  # the third prompt of the paper's Table 4
OTHERS = tuple(word for name in FINDINGS if (word := readable(name)) != EFFUSION)
APART = 100_000  # between the image indices of two kinds of prompts, so that n changes none


class AdaptedModel:
    """A model, and the folder that keeps its images, a batch in a file."""

    def __init__(self, pipe: LatentDiffusion, folder: Path, sampling: Sampling) -> None:
        self.pipe, self.folder, self.sampling = pipe, folder, sampling
        pipe.check(sampling)

    def draw(self, prompts: Sequence[str], first: int = 0) -> Tensor:
        """Image first + i of prompt i: [B, C, H, W], in 256 grey levels."""
        at_once = max(1, PIXELS_AT_ONCE // (self.sampling.height * self.sampling.width))
        starts = range(0, len(prompts), at_once)
        bar = tqdm(starts, "drawing", unit="batch", delay=2, disable=None, leave=False)
        return torch.cat([self._batch(prompts[i : i + at_once], first + i) for i in bar])

    def _batch(self, prompts: Sequence[str], first: int) -> Tensor:
        key = digest([self.pipe.weights_hash, repr(self.sampling), list(prompts), first])
        path = self.folder / f"{key}.npy"
        if not path.exists():
            indices = range(first, first + len(prompts))
            drawn = to_bytes(self.pipe.draw(prompts, indices, self.sampling))
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic.whole_file(path) as unfinished, unfinished.open("wb") as file:
                np.save(file, drawn)
        return from_bytes(np.load(path))


class Drawn(NamedTuple):
    """Images [n, C, H, W] of each kind of prompt."""

    plain: Tensor
    fluid: Tensor
    other: Tensor
    style: Tensor | None = None


def prompts_of(noun: str, count: int, style: bool) -> dict[str, list[str]]:
    """{field of Drawn: its prompts}; the other findings in turn."""
    plain = f"a photo of a {noun}"
    asked = {
        "plain": [plain] * count,
        "fluid": [f"{plain}{SUFFIX}{EFFUSION}"] * count,
        "other": [f"{plain}{SUFFIX}{OTHERS[i % len(OTHERS)]}" for i in range(count)],
    }
    return asked | ({"style": [f"{STYLE}{noun}"] * count} if style else {})


def draw(artist: AdaptedModel, noun: str, count: int, style: bool = False) -> Drawn:
    prompts = prompts_of(noun, count, style)
    return Drawn(**{k: artist.draw(prompts[k], APART * i) for i, k in enumerate(prompts)})


def open_run(pipe: LatentDiffusion, run: Path) -> str:
    """Adds the word, LoRA or projection of a run folder to a model; returns the noun of prompts."""
    with safe_open(run / "model.safetensors", framework="pt") as file:
        kinds = (file.metadata() or {}).keys()
    if "word" in kinds:
        adapters.apply(pipe, words=[str(run)])
        return str(adapters.load(run, "word")[1]["word"])
    if "lora" in kinds:
        adapters.apply(pipe, loras=[str(run)])
    else:
        replace_text(pipe, str(run))
    return NOUN


class Real(NamedTuple):
    """Images [n, C, H, W] without a finding, and with an effusion."""

    plain: Tensor
    fluid: Tensor


def reference(data: DataConfig, count: int, channels: int = 1) -> Real:
    """At most `count` of each: phantoms where the data has no path, else files of its split."""
    source: Files | Phantoms = (Files if data.path else Phantoms)(data, channels)
    rows = [source.findings(i) for i in range(len(source))]
    plain = [i for i, row in enumerate(rows) if row and not any(row.values())][:count]
    fluid = [i for i, row in enumerate(rows) if row.get(EFFUSION)][:count]
    if not plain or not fluid:
        raise ConfigError(
            f"{data.path or 'phantoms'}: {len(plain)} images without a finding and {len(fluid)} "
            f"with {EFFUSION}; one of each is needed, with labels, in split {data.split!r}"
        )
    return Real(source.images(torch.tensor(plain)), source.images(torch.tensor(fluid)))


def features(extractor: Extractor, pictures: Tensor) -> Array:
    """[n, d]"""
    return np.concatenate([extractor(batch) for _, batch in batches(enumerate(pictures))])


def distances(drawn: Mapping[str, Array], real: Mapping[str, Array]) -> dict[str, Estimate | None]:
    """Frechet distances of features [n, d]: of each prompt to real images of its kind, and of both.

    A photo in the style of a lung x-ray is compared with images without a finding.
    """
    found = {kind: frechet(drawn[kind], real[kind]) for kind in ("plain", "fluid")}
    if "style" in drawn:
        found["style"] = frechet(drawn["style"], real["plain"])
    both = [np.concatenate([side["plain"], side["fluid"]]) for side in (drawn, real)]
    return found | {"both": frechet(*both)}


def verdict(scores: Mapping[str, Array], threshold: float) -> dict[str, Estimate]:
    """AUCs and decisions by an effusion's scores [n] of each kind of image.

    AUC and decisions: against plain images, as in the paper;  "AUC, other findings": against images
    of other findings, which style alone does not tell apart. Empty for fewer than two of a kind.
    """
    if min(map(len, scores.values())) < 2:
        return {}

    def against(kind: str) -> tuple[Array, np.ndarray]:
        both = scores[kind], scores["fluid"]
        return np.concatenate(both), np.repeat([0, 1], [len(each) for each in both])

    found = {"AUC": auc(*against("plain"))}
    if "other" in scores:
        found["AUC, other findings"] = auc(*against("other"))
    return found | decisions(*against("plain"), threshold)


def effusion(extractor: Extractor, found: Array) -> Array:
    """Scores [n] of an effusion by features [n, d]."""
    return extractor.scores(found)[:, extractor.findings.index(EFFUSION)]
