"""The autoencoder's adversary, which judges patches; it is thrown away after the training."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.blocks import group_norm

GROUPS = 8
GAIN = 10  # of fine detail, which has a standard deviation of 0.02 to 0.15 in radiographs


class PatchAdversary(nn.Module):
    """Does each patch of an image come from a film (above 0) or from a decoder?

    PatchGAN (arXiv:1611.07004, section 3.2) with three levels, each patch 70 pixels wide; GroupNorm
    in the place of BatchNorm, so that a verdict does not depend on the batch. Copies lack fine
    detail and little else, so beside the image it sees what lies above a mean of 5 x 5, enlarged.
    """

    def __init__(self, image_channels: int, width: int) -> None:
        super().__init__()
        widths = [2 * image_channels, width, 2 * width, 4 * width, 8 * width]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2 if i < 3 else 1, padding=1)
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(group_norm(b, GROUPS, eps=1e-5) for b in widths[2:])
        self.out = nn.Conv2d(widths[-1], 1, 4, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """images: [B, C, H, W] in [-1, 1], 32 pixels a side or more;  returns [B, 1, h, w]"""
        detail = images - F.avg_pool2d(images, 5, 1, 2, count_include_pad=False)
        x = F.leaky_relu(self.convs[0](torch.cat([images, GAIN * detail], dim=1)), 0.2)
        for conv, norm in zip(list(self.convs)[1:], self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), 0.2)
        return self.out(x)
