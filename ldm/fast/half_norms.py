"""GroupNorm of bfloat16 in channels-last maps, for training on a CPU.

PyTorch's backward pass takes 20 times as long there (10 against 0.5 ms for [8, 64, 64, 64]) as for
contiguous maps; copies to and fro cost less. Convolutions stay channels-last, where they are fast.
Only residual blocks gain: where maps are joined and wide, as the judge's, copies cost more.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.blocks import ResBlock


def use(module: nn.Module) -> int:
    """Norm contiguous copies of channels-last maps from now on; returns the number of layers."""
    blocks = [block for block in module.modules() if isinstance(block, ResBlock)]
    layers = [layer for block in blocks for layer in (block.norm1, block.norm2)]
    for layer in layers:
        layer.forward = through_a_copy(layer)  # type: ignore[method-assign, assignment]
    return len(layers)


def through_a_copy(layer: nn.GroupNorm) -> Callable[[Tensor], Tensor]:
    """A replacement of the layer's `forward`."""

    def norm(x: Tensor) -> Tensor:
        """x: [B, C, H, W];  returns the same, in the same layout"""
        last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        y = F.group_norm(x.contiguous(), layer.num_groups, layer.weight, layer.bias, layer.eps)
        return y.contiguous(memory_format=torch.channels_last) if last else y

    return norm
