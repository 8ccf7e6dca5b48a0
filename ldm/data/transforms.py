"""Changes to a radiograph that leave its finding, and its left and right, what they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Small shifts (4 %), zooms (6 %) and contrast changes (10 %), one draw for each image.

    No flips: the heart is on the left, and the marker says so. No rotations: upright is a finding.

    images: [B, C, H, W] in [-1, 1];  returns the same
    """
    count = images.shape[0]
    shift_x, shift_y, zoom, contrast, brightness = 2 * torch.rand(5, count, generator=generator) - 1
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 - 0.06 * zoom
    theta[:, 0, 2], theta[:, 1, 2] = 0.08 * shift_x, 0.08 * shift_y  # the image is 2 wide
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    gain, offset = 1 + 0.1 * contrast, 0.06 * brightness
    return (moved * gain[:, None, None, None] + offset[:, None, None, None]).clamp(-1, 1)


def crop(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A square [B, C, size, size] out of [B, C, H, W], at one place for the whole batch."""
    height, width = images.shape[-2:]
    if size >= min(height, width):
        return images
    top = int(torch.randint(height - size + 1, (), generator=generator))
    left = int(torch.randint(width - size + 1, (), generator=generator))
    return images[..., top : top + size, left : left + size]
