"""Training the judge: many findings at once, on real films and phantoms, never on drawn ones."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.config import ConfigError, from_dict, to_dict
from ldm.data import attributes
from ldm.data.augmentation import augment_strongly
from ldm.data.datasets import Batch, Dataset, check_shares, collect, open_datasets, pick, shares
from ldm.data.phantom.captions import readable
from ldm.judging.judge import Judge, JudgeConfig, save_judge
from ldm.system import devices
from ldm.training.methods.model_parts import random_weights
from ldm.training.trainer import Method
from ldm.training.training_run import RunConfig


@dataclass(frozen=True)
class JudgeOptions:
    """The network's sizes, and how its batches are composed."""

    network: JudgeConfig = field(default_factory=JudgeConfig)
    # as many images with this finding as without; "": as the sources say
    balance: str = "pleural effusion"
    smoothing: float = 0.05  # labels are text-mined: 0.05 and 0.95 in the place of 0 and 1


class TrainJudge(Method):
    """Binary cross-entropy over the findings that an image's source has labels for.

    A name like "region=knee" is a finding, too (data/attributes.py).
    Batches are balanced within each collection (the CSV's `source_repo`): where nearly all
    effusions come from one, a network would learn to tell the collections apart.
    """

    def __init__(self, run: RunConfig) -> None:
        options = from_dict(JudgeOptions, run.method, "method")
        words = tuple(n if "=" in n else readable(n) for n in options.network.findings)
        network = replace(options.network, findings=words)
        self.options = replace(options, network=network, balance=readable(options.balance))
        if not words or not 0 <= options.smoothing < 0.5:
            raise ConfigError(
                "method.network.findings must name at least one finding, and method.smoothing must "
                f"be a share from 0 to below 0.5; got {list(words)} and {options.smoothing}"
            )
        if run.data.size != network.size:
            raise ConfigError(f"data.size is {run.data.size}, method.network.size {network.size}")
        with random_weights(run.train.seed, "judge"):
            module = Judge(network)
        device = devices.choose(run.train.device or None)
        self.module = module.to(device).to(memory_format=torch.channels_last)
        self.datasets = open_datasets(run.data, channels=1)
        check_shares(self.datasets, run.train.batch_size)
        known = {word for d, _ in self.datasets for i in range(len(d)) for word in self.told(d, i)}
        if unknown := sorted(set(words) - known):
            raise ConfigError(
                f"no image here says whether it shows {', '.join(unknown)}; leave that out of "
                f"method.network.findings, there are {', '.join(sorted(known))}"
            )
        self.balanced = {
            dataset.key: balance(dataset, self.options.balance)
            for dataset, _ in self.datasets
            if self.options.balance
        }

    def told(self, dataset: Dataset, index: int) -> dict[str, bool]:
        """What is known of an image: its findings, and of its attributes those asked for."""
        names = self.options.network.findings
        return {**dataset.findings(index), **attributes.told(dataset.attributes(index), names)}

    def settings(self) -> dict[str, Any]:
        return {"method": to_dict(self.options), "data": [d.key for d, _ in self.datasets]}

    def draw_batch(self, size: int, generator: torch.Generator) -> Batch:
        """Collections by their sizes; within each, half the images with the finding."""
        picks = []
        for dataset, count in shares(self.datasets, size):
            if not self.options.balance:
                picks.append((dataset, pick(dataset, count, generator)))
                continue
            collections = self.balanced[dataset.key]
            sizes = torch.tensor([float(len(a) + len(b)) for a, b in collections])
            which = torch.multinomial(sizes, count, replacement=True, generator=generator)
            coins = torch.randint(2, (count,), generator=generator)
            dice = torch.randint(1 << 30, (count,), generator=generator)
            groups = [collections[w][c] for w, c in zip(which, coins, strict=True)]
            indices = [group[die % len(group)] for group, die in zip(groups, dice, strict=True)]
            picks.append((dataset, torch.tensor(indices)))
        rows = [self.told(dataset, i) for dataset, some in picks for i in some.tolist()]
        return collect(picks, generator)._replace(findings=rows)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        target = targets(batch.findings, self.options.network.findings).to(batch.images.device)
        known = target.isfinite()
        smooth = (target * (1 - 2 * self.options.smoothing) + self.options.smoothing)[known]
        logits = self.module(augment_strongly(batch.images, generator))[known]
        right = ((logits > 0) == (target[known] > 0.5)).float().mean()
        return F.binary_cross_entropy_with_logits(logits, smooth), {"accuracy": right.item()}

    def summary(self) -> str:
        return f"to look for {', '.join(self.options.network.findings)}"

    def save(self, path: Path) -> None:
        save_judge(path, self.module)


def balance(dataset: Dataset, finding: str) -> list[tuple[list[int], list[int]]]:
    """For each collection the images with the finding, and those without; only where both are."""
    groups: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for index in range(len(dataset)):
        shown = dataset.findings(index).get(finding)
        if shown is not None:
            groups[dataset.collection(index)][0 if shown else 1].append(index)
    both = [pair for pair in groups.values() if all(pair)]
    if not both:
        raise ConfigError(f"no collection has images both with and without {finding!r}")
    return both


def targets(findings: Sequence[Mapping[str, bool]], names: Sequence[str]) -> Tensor:
    """1 there, 0 not there, NaN where the source does not know: [B, K]"""
    return torch.tensor([[float(row.get(n, math.nan)) for n in names] for row in findings])
