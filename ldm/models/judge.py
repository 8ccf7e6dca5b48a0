"""A small DenseNet that says which findings a radiograph shows (DenseNet, arXiv:1608.06993)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.config import JudgeConfig
from ldm.models.blocks import group_norm


class DenseLayer(nn.Module):
    """x, and beside it what a bottleneck and a 3 x 3 convolution find in it (section 3)."""

    def __init__(self, width: int, growth: int, groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(width, groups, eps=1e-5)
        self.conv1 = nn.Conv2d(width, 4 * growth, 1, bias=False)
        self.norm2 = group_norm(4 * growth, groups, eps=1e-5)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, h, w];  returns [B, C + growth, h, w]"""
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], dim=1)


class Transition(nn.Module):
    """Half the channels, half the sides."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(width, groups, eps=1e-5)
        self.conv = nn.Conv2d(width, width // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, h, w];  returns [B, C / 2, h / 2, w / 2]"""
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class Judge(nn.Module):
    """Grey radiographs -> one logit for each finding of the config.

    GroupNorm in the place of the paper's BatchNorm: a verdict does not depend on the batch. Each
    image is brought to mean 0 and variance 1 first, so that exposure says nothing.
    """

    def __init__(self, cfg: JudgeConfig) -> None:
        super().__init__()
        self.config = cfg
        width = cfg.channels
        layers: list[nn.Module] = [nn.Conv2d(1, width, 7, stride=2, padding=3), nn.MaxPool2d(2)]
        for i, count in enumerate(cfg.blocks):
            for _ in range(count):
                layers.append(DenseLayer(width, cfg.growth, cfg.groups))
                width += cfg.growth
            if i < len(cfg.blocks) - 1:
                layers.append(Transition(width, cfg.groups))
                width //= 2
        self.layers = nn.Sequential(*layers)
        self.norm = group_norm(width, cfg.groups, eps=1e-5)
        self.out = nn.Linear(width, len(cfg.findings))

    def features(self, images: Tensor) -> Tensor:
        """What the verdict is made of: [B, C];  images: [B, 1, size, size] in [-1, 1]"""
        size = self.config.size
        if images.shape[1:] != (1, size, size) or images.abs().max() > 1.001:
            raise ValueError(
                f"the judge wants grey images [B, 1, {size}, {size}] in [-1, 1], got "
                f"{list(images.shape)} in [{images.min():.3g}, {images.max():.3g}]"
            )
        x = images - images.mean(dim=(2, 3), keepdim=True)
        x = x / (x.std(dim=(2, 3), keepdim=True) + 1e-3)
        return F.relu(self.norm(self.layers(x))).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K]"""
        return self.out(self.features(images))
