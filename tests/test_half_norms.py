"""GroupNorm through a contiguous copy: the same numbers in the same layout."""

import copy

import pytest
import torch
from torch import nn

from ldm.blocks import ResBlock
from ldm.fast import half_norms


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_norms_through_copies_have_the_same_numbers(layout: torch.memory_format) -> None:
    """Output, its layout, and all gradients, in float32 but for rounding."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), ResBlock(8, 12, 4, 1e-6)).to(memory_format=layout)
    nn.init.normal_(plain[1].norm1.weight)
    fast = copy.deepcopy(plain)
    assert half_norms.use(fast) == 2
    x = torch.randn(2, 3, 9, 7)
    outputs = [network(x) for network in (plain, fast)]
    torch.testing.assert_close(*outputs)
    assert outputs[0].stride() == outputs[1].stride()
    for y in outputs:
        (y * torch.linspace(-1, 1, y.shape[-1])).sum().backward()
    for one, other in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_a_changed_weight_is_the_layers_own() -> None:
    """The optimizer's weights are those that the norm uses, also after they were exchanged."""
    block = ResBlock(4, 4, 2, 1e-5)
    half_norms.use(block)
    layer = block.norm1
    layer.weight.data = torch.full((4,), 3.0)
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(layer(x), 3 * nn.GroupNorm(2, 4)(x), rtol=1e-4, atol=1e-4)
