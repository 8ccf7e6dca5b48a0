"""The images that a finished run was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ldm.config import from_dict
from ldm.data.datasets import Dataset, open_datasets
from ldm.training.methods.derived_datasets import Instances, Kind
from ldm.training.run_config import load_run


class TrainedImages:
    """A run folder as a set of images (ldm.data.image_sets.ImageSet): grey, at the run's size.

    Of `method.kinds`, the few images that were picked; else all of the run's data.
    """

    def __init__(self, folder: Path) -> None:
        run = load_run(folder / "config.yaml")
        self.name, self.folder = str(folder), folder
        kinds = [from_dict(Kind, kind, "method.kinds") for kind in run.method.get("kinds", [])]
        self.parts: list[Dataset] = [
            Instances(dataset, kinds, ["{}"]) if kinds else dataset
            for dataset, _ in open_datasets(run.data, channels=1)
        ]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def load(self, index: int) -> Tensor:
        part, index = self._place(index)
        return part.images(torch.tensor([index]))[0]

    def sample_id(self, index: int) -> str:
        part, index = self._place(index)
        return part.sample_id(index)

    def findings(self, index: int) -> Mapping[str, bool]:
        part, index = self._place(index)
        return part.findings(index)

    def text(self, index: int) -> Mapping[str, str]:
        return {}

    def patient(self, index: int) -> str | None:
        return None

    def _place(self, index: int) -> tuple[Dataset, int]:
        for part in self.parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError(index)
