"""Latents kept once made, so that training a U-Net does not run the encoder at every step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ldm import rng
from ldm.data import augmentation
from ldm.data.cache import CachedRows
from ldm.data.datasets import Dataset
from ldm.system.fingerprint import code_version
from ldm.vae import VAE


class Latents:
    """A dataset whose images are mean and logvar of their latents, stacked: [B, 2 C_z, h, w].

    Files that want augmentation are encoded `variants` times, each time changed a little.
    """

    augmented = False

    def __init__(
        self, dataset: Dataset, vae: VAE, vae_hash: str, variants: int, size: int, cache: str
    ) -> None:
        self.dataset, self.vae = dataset, vae
        self.variants = variants if dataset.augmented else 1
        how = f"{variants}-{code_version(augmentation.__file__)}" if dataset.augmented else "plain"
        self.key = f"{dataset.key}-{how}-{vae_hash}"
        side = size // vae.config.factor
        shape = (len(dataset) * self.variants, 2 * vae.config.latent_channels, side, side)
        path = Path(cache) / f"latents-{self.key}-{shape[0]}"  # rows lie elsewhere among others
        self.moments = CachedRows(path, shape, np.float16, self.make)

    @torch.inference_mode()
    def make(self, index: int) -> np.ndarray:
        """Encoded alone, because in a batch the last bits would depend on its other images."""
        image = self.dataset.images(torch.tensor([index // self.variants]))
        if self.dataset.augmented:
            image = augmentation.augment(image, rng.generator(0, "latents", index))
        posterior = self.vae.encode(image.to(next(self.vae.parameters()).device))
        return torch.cat([posterior.mean, posterior.logvar], dim=1)[0].half().cpu().numpy()

    def __len__(self) -> int:
        return len(self.moments)

    def images(self, indices: Tensor) -> Tensor:
        return torch.from_numpy(self.moments[indices.numpy()].astype(np.float32))

    def caption(self, index: int, wording: int) -> str:
        return self.dataset.caption(index // self.variants, wording)

    def sample_id(self, index: int) -> str:
        return self.dataset.sample_id(index // self.variants)

    def findings(self, index: int) -> Mapping[str, bool]:
        return self.dataset.findings(index // self.variants)

    def collection(self, index: int) -> str:
        return self.dataset.collection(index // self.variants)
