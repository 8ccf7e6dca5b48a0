"""Inception-v3 (arXiv:1512.00567) as the FID papers use it: TensorFlow's network of 2015.

It differs from torchvision's in three places, worth 16 % of the features' norm: average pools do
not count their padding, the last block takes a maximum, and there are 1,008 classes. Names of
layers are those of the published file, pt_inception-2015-12-05-6726825d.pth.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 2048  # of the features
SIZE = 299  # pixels
ROW, COLUMN = (1, 7), (7, 1)  # a 7 x 7 convolution taken apart
SPREAD = ((1, 3), (3, 1))  # a 3 x 3 one, whose filters lie side by side
# {name: one convolution after the other, (width, kernel)}, or two kernels that read the same input
Chains = Mapping[str, Sequence[tuple[int, Any] | tuple[int, Any, Any]]]


class Conv(nn.Module):
    """Convolution, batch norm, ReLU; padded where the stride is 1."""

    def __init__(
        self, inside: int, out: int, kernel: Any, stride: int = 1, padded: bool = True
    ) -> None:
        super().__init__()
        padding = "same" if padded and stride == 1 else "valid"
        self.conv = nn.Conv2d(inside, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)  # torch's 1e-5 moves the features by 2 %

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Chains of convolutions side by side, and a pooled branch; their outputs joined.

    pooled: width of the pooled branch; None: the block halves the sides, and a maximum is joined
    maximum: in the place of the mean, as in the last block
    """

    def __init__(
        self, inside: int, chains: Chains, pooled: int | None = None, maximum: bool = False
    ) -> None:
        super().__init__()
        self.halves, self.maximum = pooled is None, maximum
        self.chains: list[list[list[str]]] = []  # names of convolutions, those of a step together
        for name, chain in chains.items():
            width, steps = inside, []
            for i, (out, *kernels) in enumerate(chain, start=1):
                stride = 2 if self.halves and i == len(chain) else 1
                step = f"{name}_{i}" if len(chain) > 1 else name
                names = [f"{step}{letter}" for letter in "ab"] if len(kernels) == 2 else [step]
                for full_name, kernel in zip(names, kernels, strict=True):
                    self.add_module(full_name, Conv(width, out, kernel, stride))
                steps.append(names)
                width = out
            self.chains.append(steps)
        if pooled is not None:
            self.branch_pool = Conv(inside, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, h, w];  returns [B, sum of the widths, h, w]"""
        parts = []
        for steps in self.chains:
            found = [x]
            for names in steps:
                found = [self.get_submodule(name)(found[0]) for name in names]
            parts += found
        if self.halves:
            return torch.cat([*parts, F.max_pool2d(x, 3, stride=2)], dim=1)
        if self.maximum:
            pooled = F.max_pool2d(x, 3, stride=1, padding=1)
        else:
            pooled = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return torch.cat([*parts, self.branch_pool(pooled)], dim=1)


DOUBLE: Sequence[tuple[int, int]] = ((64, 1), (96, 3), (96, 3))
# 35 x 35 (figure 5), to 17 x 17 (figure 10), to 8 x 8, 8 x 8 (figure 7)
A: Chains = {"branch1x1": [(64, 1)], "branch5x5": [(48, 1), (64, 5)], "branch3x3dbl": DOUBLE}
B: Chains = {"branch3x3": [(384, 3)], "branch3x3dbl": DOUBLE}
D: Chains = {
    "branch3x3": [(192, 1), (320, 3)],
    "branch7x7x3": [(192, 1), (192, ROW), (192, COLUMN), (192, 3)],
}
E: Chains = {
    "branch1x1": [(320, 1)],
    "branch3x3": [(384, 1), (384, *SPREAD)],
    "branch3x3dbl": [(448, 1), (384, 3), (384, *SPREAD)],
}


def mixed_c(width: int) -> Mixed:
    """17 x 17, its 7 x 7 convolutions taken apart (figure 6)"""
    twice = [(width, 1), (width, COLUMN), (width, ROW), (width, COLUMN), (192, ROW)]
    seven = [(width, 1), (width, ROW), (192, COLUMN)]
    chains: Chains = {"branch1x1": [(192, 1)], "branch7x7": seven, "branch7x7dbl": twice}
    return Mixed(768, chains, pooled=192)


class Inception(nn.Module):
    """RGB images of 299 px in [-1, 1] -> the 2,048 features of pool3 (FID, arXiv:1706.08500)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3, padded=False)
        self.Mixed_5b = Mixed(192, A, pooled=32)
        self.Mixed_5c = Mixed(256, A, pooled=64)
        self.Mixed_5d = Mixed(288, A, pooled=64)
        self.Mixed_6a = Mixed(288, B)
        self.Mixed_6b = mixed_c(128)
        self.Mixed_6c = mixed_c(160)
        self.Mixed_6d = mixed_c(160)
        self.Mixed_6e = mixed_c(192)
        self.Mixed_7a = Mixed(768, D)
        self.Mixed_7b = Mixed(1280, E, pooled=192)
        self.Mixed_7c = Mixed(2048, E, pooled=192, maximum=True)
        self.fc = nn.Linear(WIDTH, 1008)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, 3, 299, 299] in [-1, 1];  returns [B, 2048], the means over all places"""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, stride=2))))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_6e(self.Mixed_6d(x))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean(dim=(2, 3))
