"""LoRA by hand: what a layer computes at first, with its scale, and merged."""

import copy

import torch
from torch import nn

from ldm import lora
from ldm.attention import Attention
from ldm.weights.adapters import lora_tensors, merge_lora


def test_a_lora_is_its_formula() -> None:
    """W x + (alpha / r) B A x (arXiv:2106.09685, eq. 3): B starts at zero, W is frozen."""
    torch.manual_seed(0)
    network, x = nn.ModuleDict({"a": Attention(8, 2)}), torch.randn(3, 5, 8)
    plain, base = network["a"].q(x), copy.deepcopy(network)
    learned = lora.inject(network, rank=2, alpha=6.0)
    layer = network["a"].q
    assert torch.equal(layer(x), plain), "B starts at zero: nothing changes at first"
    assert layer.down.weight.abs().min() > 0, "A does not start at zero, or nothing would learn"
    trained = {id(p) for p in network.parameters() if p.requires_grad}
    assert trained == {id(p) for p in learned.parameters()}, "W is frozen, A and B are trained"
    nn.init.normal_(layer.up.weight)
    change = 6.0 / 2 * x @ layer.down.weight.T @ layer.up.weight.T
    assert torch.allclose(layer(x), plain + change, atol=1e-5), "the scale is alpha / r"
    merge_lora(base, {n: t.detach() for n, t in lora_tensors(network).items()}, scale=6.0 / 2)
    assert torch.allclose(base["a"].q(x), layer(x), atol=1e-5), "merged once, W + (alpha / r) B A"
