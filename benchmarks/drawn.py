"""What the scripts here share: pictures drawn once, simple features, the judge's scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import ldm
from ldm.data import DataConfig
from ldm.data.cache import from_bytes, to_bytes
from ldm.data.datasets import Phantoms
from ldm.data.file_dataset import Files
from ldm.judging.judge import Judge
from ldm.pictures import image_files
from ldm.pipeline import Sampling
from ldm.system import atomic
from ldm.system.atomic import digest

EFFUSION = "pleural effusion"
FINDINGS = (EFFUSION, "cardiomegaly", "pulmonary edema")  # of both worlds, and asked for here
OTHERS = {  # what else a prompt can ask for
    "phantom": ("consolidation", "lung nodule", "pneumothorax", "support device"),
    "film": ("atelectasis", "consolidation", "lung infiltrate", "lung nodule", "pneumonia"),
}
PREFIX = {"phantom": "phantom lung xray", "film": "lung xray"}
UNSEEN = 900_000_000  # first seed of phantoms that nothing was trained on
COMPONENTS = 120


class Artist:
    """A model, and the folder that keeps what it has drawn."""

    def __init__(self, weights: str, folder: Path, seed: int = 0, **settings: Any) -> None:
        """settings: of Sampling, in the place of the default ones"""
        self.pipe = ldm.load(weights)
        self.folder, size = folder, self.pipe.config.image_size
        settings = {"guidance": self.pipe.config.guidance, **settings}
        self.sampling = Sampling(seed, height=size, width=size, **settings)

    def draw(self, prompts: Sequence[str]) -> Tensor:
        """Image i shows prompt i: [B, 1, H, W]"""
        folder = self.folder / "drawn"
        folder.mkdir(parents=True, exist_ok=True)
        parts = []
        for part in tqdm(torch.arange(len(prompts)).split(16), "drawing", leave=False):
            asked, places = [prompts[i] for i in part], part.tolist()
            what = digest([self.pipe.weights_hash, repr(self.sampling), asked, places])
            path = folder / f"{what}.npy"
            if not path.exists():
                drawn = self.pipe.draw(asked, places, self.sampling)
                with atomic.whole_file(path) as whole, whole.open("wb") as file:
                    np.save(file, to_bytes(drawn))
            parts.append(from_bytes(np.load(path)))
        return torch.cat(parts)

    def pair(self, world: str, finding: str, count: int) -> tuple[Tensor, np.ndarray]:
        """`count` images of the finding, as many of other ones, and which are which."""
        others = [word for word in (*FINDINGS, *OTHERS[world]) if word != finding]
        words = [others[i % len(others)] for i in range(count)]
        drawn = [
            self.draw([f"{PREFIX[world]} with {word}" for word in some])
            for some in ([finding] * count, words)
        ]
        return torch.cat(drawn), np.repeat([1, 0], count)


class Simple:
    """Simple features: the first 120 principal components of 64-px images, in grey levels."""

    def __init__(self, real: Tensor) -> None:
        pixels = self.pixels(real)
        self.mean = pixels.mean(axis=0)
        self.axes = np.linalg.svd(pixels - self.mean, full_matrices=False)[2][:COMPONENTS]

    @staticmethod
    def pixels(pictures: Tensor) -> np.ndarray:
        small = torch.stack([image_files.resize(image, 64, 64) for image in pictures])
        return small.flatten(1).numpy().astype(np.float64)

    def __call__(self, pictures: Tensor) -> np.ndarray:
        return (self.pixels(pictures) - self.mean) @ self.axes.T


def films(table: str, split: str) -> Files:
    return Files(DataConfig(path=table, split=split), channels=1)


def everything(dataset: Files | Phantoms) -> Tensor:
    return dataset.images(torch.arange(len(dataset)))


@torch.inference_mode()
def scores(judge: Judge, pictures: Tensor, finding: str) -> np.ndarray:
    """[B] the judge's logit"""
    logits = torch.cat([judge(part) for part in pictures.split(32)])
    return logits[:, judge.config.findings.index(finding)].numpy()
