"""Random changes of radiographs that keep their findings, and left and right."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

# names what `augment` does, in caches and in checkpoints; any new value will do once
# tests/test_augmentation.py says that it changed
VERSION = "980c2b0eaee5"


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


def augment_masked(
    images: Tensor, masks: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """`augment` of images [B, C, H, W], and of their masks, bool [B, 1, H, W], by the same moves.

    Of a mask -1 and 1, no change of contrast and brightness reaches the other side of 0.
    """
    if masks is None:
        return augment(images, generator), None
    same = torch.Generator().set_state(generator.get_state())
    return augment(images, generator), augment(2.0 * masks - 1, same) > 0


def augment_strongly(images: Tensor, generator: torch.Generator) -> Tensor:
    """Stronger changes than `augment`, for networks that must not depend on how a film was made.

    Shifts (6 %), zooms (15 %), turns (5 degrees), gamma (0.6 to 1.7), blur or sharpening, noise.

    images: [B, C, H, W] in [-1, 1];  returns the same; never mirrored
    """
    count = len(images)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    turn, zoom = draw(-0.08, 0.08), draw(0.85, 1.15)
    across = torch.stack([zoom * turn.cos(), -turn.sin(), draw(-0.12, 0.12)], dim=1)
    down = torch.stack([turn.sin(), zoom * turn.cos(), draw(-0.12, 0.12)], dim=1)
    theta = torch.stack([across, down], dim=1).to(images.device)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    gamma, soften, grain = (
        rearrange(value, "B -> B 1 1 1").to(images.device)
        for value in (draw(0.6, 1.7), draw(-0.5, 1.0), draw(0, 0.04))
    )
    grey = ((moved.clamp(-1, 1) + 1) / 2).clamp(min=1e-4) ** gamma
    grey = grey + soften * (F.avg_pool2d(grey, 3, 1, 1) - grey)
    grey = grey + grain * torch.randn(grey.shape, generator=generator).to(images.device)
    return (2 * grey - 1).clamp(-1, 1)


def crop(
    images: Tensor, masks: Tensor | None, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Squares [B, C, size, size] out of [B, C, H, W], at one place for the whole batch; of masks,
    bool [B, 1, H, W], the same.
    """
    height, width = images.shape[-2:]
    if size >= min(height, width):
        return images, masks
    top = int(torch.randint(height - size + 1, (), generator=generator))
    left = int(torch.randint(width - size + 1, (), generator=generator))
    place = (..., slice(top, top + size), slice(left, left + size))
    return images[place], None if masks is None else masks[place]
