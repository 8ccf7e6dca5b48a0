"""3 x 3 convolutions of small maps as one product of matrices, for training on a CPU.

Every 3 x 3 neighbourhood becomes a column (im2col): Y = W U with W [N, 9 C] and U [9 C, B L]; both
gradients are such products, too. PyTorch's convolution is made for large maps: with few pixels and
many channels its backward pass takes twice as long.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.config import ConfigError

MOST = 64  # pixels of the output: above, PyTorch's is as fast (benchmarks/train_step)

Convolution = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]


def use(module: nn.Module) -> int:
    """Convolve small maps by products of matrices from now on; returns the number of such layers.

    Raises ConfigError for a module that is not on a CPU.
    """
    device = next(module.parameters()).device
    if device.type != "cpu":
        raise ConfigError(f"small maps are unfolded on a CPU only, not {device}; leave it off")
    # of channels-last weights W would be a copy, kept for the backward pass
    module.to(memory_format=torch.contiguous_format)
    layers = [m for m in module.modules() if isinstance(m, nn.Conv2d) and fits(m)]
    for layer in layers:
        layer._conv_forward = unfolded(layer)  # type: ignore[assignment]
    return len(layers)


def fits(layer: nn.Conv2d) -> bool:
    """True for a dense 3 x 3 convolution, of any stride."""
    plain = layer.kernel_size == (3, 3) and layer.padding == (1, 1) and layer.dilation == (1, 1)
    return plain and layer.groups == 1 and layer.stride[0] == layer.stride[1]


def unfolded(layer: nn.Conv2d) -> Convolution:
    """A replacement of the layer's `_conv_forward`."""
    plain, stride = layer._conv_forward, layer.stride[0]

    def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x: [B, C, H, W];  returns [B, N, h, w]"""
        h, w = (-(-side // stride) for side in x.shape[2:])
        if h * w > MOST:
            return plain(x, weight, bias)
        columns = F.unfold(x, 3, padding=1, stride=stride).transpose(0, 1).flatten(1)
        matrix = weight.flatten(1)
        # addmm, not a sum afterwards: autocast then keeps one dtype
        y = matrix @ columns if bias is None else torch.addmm(bias[:, None], matrix, columns)
        return y.unflatten(1, (len(x), h, w)).transpose(0, 1)

    return convolve
