"""Each block of the networks against its formula, written out by hand."""

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.attention import Attention, SpatialTransformer, TransformerBlock
from ldm.blocks import ResBlock, Upsample
from ldm.config import UNetConfig
from ldm.unet import UNet


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def same(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_each_head_has_a_slice_of_the_width() -> None:
    """Head i reads and writes columns i d to (i + 1) d of q, k, v and the result: no mixing."""
    layer, x, text = Attention(6, 3, 4), torch.randn(2, 5, 6), torch.randn(2, 7, 4)
    q, k, v = layer.q(x), layer.k(text), layer.v(text)
    slices = [slice(2 * i, 2 * i + 2) for i in range(3)]
    heads = [(q[..., s] @ k[..., s].mT / math.sqrt(2)).softmax(dim=-1) @ v[..., s] for s in slices]
    assert same(layer(x, text), layer.out(torch.cat(heads, dim=-1))), "heads are slices"


def test_a_transformer_block_is_normalised_before_and_added_after() -> None:
    """x + self(norm x), then + cross(norm x, text), then + ff(norm x): pre-norm residuals."""
    block, x, text = TransformerBlock(8, 2, 8), torch.randn(1, 5, 8), torch.randn(1, 3, 8)
    for norm in (block.norm1, block.norm2, block.norm3):
        nn.init.normal_(norm.weight)
    a = x + block.self_attn(block.norm1(x))
    b = a + block.cross_attn(block.norm2(a), text)
    assert not same(block(x, text), block(x, -text)), "the text is seen"
    assert same(block(x, text), b + block.ff(block.norm3(b))), "normalised before, added after"


def test_positions_come_back_to_their_places() -> None:
    """A spatial transformer that attends to nothing changes an output pixel by its own input."""
    layer, x, text = SpatialTransformer(8, 2, 4, 4), torch.randn(1, 8, 3, 5), torch.zeros(1, 2, 4)
    block = layer.blocks[0]
    for attention in (block.self_attn, block.cross_attn):
        nn.init.zeros_(attention.out.weight)
    layer.norm = nn.Identity()
    other = x.clone()
    other[0, :, 1, 3] += 1
    moved = (layer(x, text) - layer(other, text)).abs().sum(dim=1)[0] > 1e-6
    assert moved.nonzero().tolist() == [[1, 3]], "row and column of a position"
    nn.init.zeros_(layer.proj_out.weight)
    nn.init.zeros_(layer.proj_out.bias)
    assert same(layer(x, text), x), "the residual: x is added"


def test_a_res_block_is_its_formula() -> None:
    """skip(x) + conv(silu(norm(conv(silu(norm(x))) + linear(silu(time)))))"""
    block, x, time = ResBlock(4, 8, 2, 1e-5, 6), torch.randn(2, 4, 5, 5), torch.randn(2, 6)
    y = block.conv1(F.silu(block.norm1(x))) + block.time(F.silu(time))[:, :, None, None]
    rest = block.conv2(F.silu(block.norm2(y)))
    assert not same(block(x, time), rest), "the residual: skip(x) is added"
    assert same(block(x, time), block.skip(x) + rest), "conv(silu(norm(x))), time through silu"


def test_upsampling_repeats_each_pixel() -> None:
    """Each becomes 2 x 2 equal ones (nearest), and then a convolution."""
    layer, x = Upsample(3), torch.randn(1, 3, 2, 2)
    twice = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert same(layer(x), F.conv2d(twice, layer.weight, layer.bias, padding=1))


def test_the_unet_takes_back_the_last_output_kept() -> None:
    """Going up, each res block sees [x, the last one kept], going down the stack to the first."""
    unet = UNet(UNetConfig(channels=(8,), attention=(False,), groups=4, context_dim=4, heads=1))
    kept: list[Tensor] = []
    taken: list[Tensor] = []
    last: list[Tensor] = []
    for module in (unet.conv_in, *unet.down[0].res):
        module.register_forward_hook(lambda _, __, output: kept.append(output))
    for module in unet.up[0].res:
        module.register_forward_hook(lambda _, given, __: taken.append(given[0]))
    unet.up[0].register_forward_hook(lambda _, __, output: last.append(output))
    found = unet(torch.randn(1, 4, 4, 4), torch.tensor([500]), torch.randn(1, 3, 4))
    for x, skip in zip(taken, reversed(kept), strict=True):
        assert same(x[:, 8:], skip), "the skip: last kept, first taken, after x"
    assert same(found, unet.conv_out(F.silu(unet.norm_out(last[0])))), "conv_out(silu(norm_out))"
