"""Latents made once, so that a U-Net is trained without running the encoder again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ldm import rng
from ldm.data.datasets import Dataset, cached
from ldm.data.transforms import augment
from ldm.models.vae import VAE


class Latents:
    """A dataset whose images are mean and logvar of their latents, stacked: [B, 2 C_z, h, w].

    Files that want augmentation are encoded `variants` times, each time changed a little.
    """

    augmented = False

    def __init__(
        self, dataset: Dataset, vae: VAE, vae_hash: str, variants: int, cache: str
    ) -> None:
        self.dataset = dataset
        self.variants = variants if dataset.augmented else 1
        self.key = f"{dataset.key}-{variants if dataset.augmented else 'plain'}-{vae_hash}"

        @torch.inference_mode()
        def encode(rows: range) -> np.ndarray:
            images = dataset.images(torch.tensor(rows) // self.variants)
            if dataset.augmented:
                images = augment(images, rng.generator(0, "latents", rows.start))
            posterior = vae.encode(images.to(device))
            return torch.cat([posterior.mean, posterior.logvar], dim=1).half().cpu().numpy()

        device = next(vae.parameters()).device
        with torch.inference_mode():
            one = vae.encode(dataset.images(torch.tensor([0])).to(device)).mean
        shape = (len(dataset) * self.variants, 2 * one.shape[1], *one.shape[2:])
        path = Path(cache) / f"latents-{self.key}.npy"
        self.moments = cached(path, shape, np.float16, encode)

    def __len__(self) -> int:
        return len(self.moments)

    def images(self, indices: Tensor) -> Tensor:
        return torch.from_numpy(self.moments[indices.numpy()].astype(np.float32))

    def caption(self, index: int, wording: int) -> str:
        return self.dataset.caption(index // self.variants, wording)

    def sample_id(self, index: int) -> str:
        return self.dataset.sample_id(index // self.variants)
