"""The few images that a finished model is adapted with, and the many that keep it as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ldm.config import ConfigError
from ldm.data.cache import CachedRows
from ldm.data.datasets import Dataset
from ldm.data.phantom.captions import readable
from ldm.data.radiographs import from_bytes, to_bytes
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.system.fingerprint import digest


@dataclass(frozen=True)
class Kind:
    """Images that share a prompt.

    finding: what they show, by any of its spellings; "no finding" for none
    images: how many of them
    suffix: what their prompt says after the noun
    """

    finding: str = "no finding"
    images: int = 5
    suffix: str = ""


class Instances:
    """The images of a dataset picked for each kind, with the prompts of that kind."""

    def __init__(
        self,
        dataset: Dataset,
        kinds: Sequence[Kind],
        prompts: Sequence[str],
        augmented: bool = False,
    ) -> None:
        """prompts: templates with {} where a kind's suffix goes; no kinds: all, as captioned"""
        self.dataset, self.kinds, self.augmented = dataset, kinds, augmented
        if kinds:
            picks = [pick(dataset, kind) for kind in kinds]
            self.indices = [index for some in picks for index in some]
            self.texts = [
                [prompt.replace("{}", kind.suffix) for prompt in prompts]
                for kind, some in zip(kinds, picks, strict=True)
                for _ in some
            ]
        else:
            self.indices = list(range(len(dataset)))
            self.texts = []
        self.key = digest([dataset.key, self.indices])

    def __len__(self) -> int:
        return len(self.indices)

    def images(self, indices: Tensor) -> Tensor:
        return self.dataset.images(torch.tensor([self.indices[i] for i in indices.tolist()]))

    def caption(self, index: int, wording: int) -> str:
        if not self.texts:
            return self.dataset.caption(self.indices[index], wording)
        return self.texts[index][wording % len(self.texts[index])]

    def sample_id(self, index: int) -> str:
        return self.dataset.sample_id(self.indices[index])

    def findings(self, index: int) -> Mapping[str, bool]:
        return self.dataset.findings(self.indices[index])

    def collection(self, index: int) -> str:
        return self.dataset.collection(self.indices[index])


def pick(dataset: Dataset, kind: Kind) -> list[int]:
    """The first images with the finding and the fewest others, in their order."""
    finding = readable(kind.finding)
    others: dict[int, int] = {}
    for index in range(len(dataset)):
        there = {name for name, present in dataset.findings(index).items() if present}
        if finding in there or (not finding and not there and dataset.findings(index)):
            others[index] = len(there)
    if kind.images < 1 or len(others) < kind.images:
        raise ConfigError(
            f"method.kinds wants {kind.images} images with {finding or 'no finding'}, at least 1; "
            f"the data has {len(others)}"
        )
    return sorted(sorted(others, key=lambda index: others[index])[: kind.images])


class Prior:
    """What the model draws for a class prompt before it is adapted (arXiv:2208.12242, section 4.2).

    Each image is drawn when it is first wanted and kept in a cache, by a hash of weights, prompt
    and settings.
    """

    augmented = False

    def __init__(
        self, pipe: LatentDiffusion, prompt: str, count: int, sampling: Sampling, cache: str
    ) -> None:
        self.prompt, self.pipe, self.sampling = prompt, pipe, sampling
        channels = pipe.config.vae.image_channels
        self.key = digest([pipe.weights_hash, prompt, repr(sampling)])
        shape = (count, channels, sampling.height, sampling.width)
        path = Path(cache) / f"prior-{self.key}-{count}"
        self.pixels = CachedRows(path, shape, np.uint8, self.make)

    def make(self, index: int) -> np.ndarray:
        return to_bytes(self.pipe.draw([self.prompt], [index], self.sampling)[0])

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, indices: Tensor) -> Tensor:
        return from_bytes(self.pixels[indices.numpy()])

    def caption(self, index: int, wording: int) -> str:
        return self.prompt

    def sample_id(self, index: int) -> str:
        return f"prior-{index}"

    def findings(self, index: int) -> Mapping[str, bool]:
        return {}

    def collection(self, index: int) -> str:
        return "prior"
