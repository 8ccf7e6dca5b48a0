"""Datasets made from others: a few picked images, images of the model's own, latents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ldm import rng
from ldm.config import ConfigError
from ldm.data import augmentation
from ldm.data.cache import CachedRows
from ldm.data.datasets import Dataset, from_bytes, to_bytes
from ldm.data.phantom.captions import readable
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.system.fingerprint import digest
from ldm.vae import VAE


class Derived:
    """Images that each come from one of `dataset`, whose texts and findings they keep."""

    dataset: Dataset
    augmented = False

    def origin(self, index: int) -> int:
        """The number of the image in `dataset`."""
        raise NotImplementedError

    def caption(self, index: int, wording: int) -> str:
        return self.dataset.caption(self.origin(index), wording)

    def sample_id(self, index: int) -> str:
        return self.dataset.sample_id(self.origin(index))

    def findings(self, index: int) -> Mapping[str, bool]:
        return self.dataset.findings(self.origin(index))

    def collection(self, index: int) -> str:
        return self.dataset.collection(self.origin(index))


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


class Instances(Derived):
    """The images of a dataset picked for each kind, with the prompts of that kind."""

    def __init__(
        self,
        dataset: Dataset,
        kinds: Sequence[Kind],
        prompts: Sequence[str],
        augmented: bool = False,
    ) -> None:
        """prompts: templates with {} where a kind's suffix goes; no kinds: all, as captioned"""
        self.dataset, self.augmented, self.prompts = dataset, augmented, prompts
        picks = [(kind, index) for kind in kinds for index in pick(dataset, kind)]
        self.suffixes = [kind.suffix for kind, _ in picks]
        self.indices = [index for _, index in picks] if kinds else list(range(len(dataset)))
        self.key = digest([dataset.key, self.indices])

    def __len__(self) -> int:
        return len(self.indices)

    def origin(self, index: int) -> int:
        return self.indices[index]

    def images(self, indices: Tensor) -> Tensor:
        return self.dataset.images(torch.tensor([self.indices[i] for i in indices.tolist()]))

    def caption(self, index: int, wording: int) -> str:
        if not self.suffixes:
            return super().caption(index, wording)
        return self.prompts[wording % len(self.prompts)].replace("{}", self.suffixes[index])


def pick(dataset: Dataset, kind: Kind) -> list[int]:
    """The first images with the finding and the fewest others, in their order."""
    finding = readable(kind.finding)
    others: dict[int, int] = {}
    for index in range(len(dataset)):
        present = {name for name, shown in dataset.findings(index).items() if shown}
        if finding in present or (not finding and not present and dataset.findings(index)):
            others[index] = len(present)
    if kind.images < 1 or len(others) < kind.images:
        raise ConfigError(
            f"method.kinds needs {kind.images} images with {finding or 'no finding'}, at least 1; "
            f"the data has {len(others)}"
        )
    return sorted(sorted(others, key=lambda index: others[index])[: kind.images])


class Prior:
    """Images that the model draws for a class prompt before it is adapted.

    DreamBooth (arXiv:2208.12242), "Class-specific Prior Preservation Loss". Each image is drawn
    when it is first read and kept in a cache, by a hash of weights, prompt and settings.
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


class Latents(Derived):
    """A dataset whose images are mean and logvar of their latents, stacked: [B, 2 C_z, h, w].

    They are kept once made, so that training does not run the encoder at every step. Files that
    are to be augmented are encoded `variants` times, each time changed a little.
    """

    def __init__(
        self, dataset: Dataset, vae: VAE, vae_hash: str, variants: int, size: int, cache: str
    ) -> None:
        self.dataset, self.vae = dataset, vae
        self.variants = variants if dataset.augmented else 1
        how = f"{variants}-{augmentation.VERSION}" if dataset.augmented else "plain"
        self.key = f"{dataset.key}-{how}-{vae_hash}"
        side = size // vae.config.factor
        shape = (len(dataset) * self.variants, 2 * vae.config.latent_channels, side, side)
        path = Path(cache) / f"latents-{self.key}-{shape[0]}"  # rows lie elsewhere among others
        self.moments = CachedRows(path, shape, np.float16, self.make)

    @torch.inference_mode()
    def make(self, index: int) -> np.ndarray:
        """Encoded alone, because in a batch the last bits would depend on its other images."""
        image = self.dataset.images(torch.tensor([self.origin(index)]))
        if self.dataset.augmented:
            image = augmentation.augment(image, rng.generator(0, "latents", index))
        posterior = self.vae.encode(image.to(next(self.vae.parameters()).device))
        return torch.cat([posterior.mean, posterior.logvar], dim=1)[0].half().cpu().numpy()

    def __len__(self) -> int:
        return len(self.moments)

    def origin(self, index: int) -> int:
        return index // self.variants

    def images(self, indices: Tensor) -> Tensor:
        return torch.from_numpy(self.moments[indices.numpy()].astype(np.float32))
