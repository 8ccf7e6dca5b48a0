"""Cross-attention recorded as the U-Net runs."""

import torch
from conftest import SIZES
from einops import rearrange

from ldm.attention import TransformerBlock
from ldm.config import ModelConfig, from_dict
from ldm.drawing.word_maps import recorded
from ldm.unet import UNet


def test_recorded_weights_are_those_that_the_layer_used() -> None:
    """Weights times values, projected, is what each cross-attention layer returned; the U-Net's
    output stays the same bits, and nothing is recorded after the block."""
    torch.manual_seed(0)
    unet = UNet(from_dict(ModelConfig, SIZES).unet)
    x, context, t = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 16), torch.tensor([500, 3])
    before = unet(x, t, context)
    returned = {}
    layers = {n: m.cross_attn for n, m in unet.named_modules() if isinstance(m, TransformerBlock)}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda layer, _, y, name=name: returned.update({name: y}))
    with recorded(unet) as found:
        assert torch.equal(unet(x, t, context), before)
    unet(x, t, context)
    assert list(found) == list(layers)
    for name, layer in layers.items():
        (weights,) = found[name]
        v = rearrange(layer.v(context), "B S (N d) -> B N S d", N=weights.shape[1])
        again = layer.out(rearrange(weights @ v, "B N L d -> B L (N d)"))
        torch.testing.assert_close(again, returned[name])
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
