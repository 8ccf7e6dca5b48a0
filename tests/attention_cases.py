"""Runs the fused kernels in Triton's interpreter and prints their distance from float64.

A program, not a test: TRITON_INTERPRET=1 must be set before triton is imported, and would change
triton for other tests. tests/test_fused_attention.py runs it once.
"""

import json
import sys

import torch
from conftest import SIZES
from torch import Tensor

from ldm.attention import reference
from ldm.config import ModelConfig, from_dict
from ldm.fast import fused_attention as kernels
from ldm.fast import switches
from ldm.unet import UNet

DRAWS = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=DRAWS)


def inputs(L: int, S: int, d: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """q, k and v of two heads in a batch of one, as the network cuts them: [B, L, (N d)]."""
    return [normal(1, n, 2, d).to(dtype).transpose(1, 2) for n in (L, S, S)]


def cases() -> dict[str, list[Tensor]]:
    large = inputs(20, 77, 40)
    low = inputs(20, 77, 40)
    low[0], low[1] = 40 + low[0], -40 + low[1]  # logits around -40^2 sqrt(40), -10,000
    return {
        "self, 40 wide": inputs(37, 37, 40),
        "text, 80 wide": inputs(37, 77, 80),
        "text, 160 wide": inputs(17, 77, 160),
        "7 wide": inputs(33, 19, 7),
        "one query": inputs(1, 77, 40),
        "one key": inputs(19, 1, 40),
        "whole blocks": inputs(32, 64, 32),
        "columns first": [normal(1, 2, 24, n).mT for n in (21, 35, 35)],
        "each in its own way": [
            normal(1, 2, 24, 21).mT,
            inputs(1, 35, 24)[1],
            normal(1, 2, 35, 24),
        ],
        "one head for all": [normal(1, 1, n, 24).expand(2, 3, n, 24) for n in (21, 35, 35)],
        "every second number": [normal(1, 2, 2 * n, 48)[:, :, ::2, ::2] for n in (21, 35, 35)],
        "float16": inputs(37, 77, 40, torch.float16),
        "bfloat16": inputs(37, 77, 40, torch.bfloat16),
        "large logits": [100 * large[0], 100 * large[1], large[2]],
        "large logits, float16": [(30 * x).half() for x in large],
        "low logits": low,
    }


def distance(found: Tensor, expected: Tensor) -> float:
    """The relative L2 difference; the difference itself where nothing is expected."""
    size = expected.norm() if expected.norm() > 1e-9 else 1.0
    return float((found.double() - expected).detach().norm() / size)


def errors(tensors: list[Tensor]) -> dict[str, float]:
    """Of the result and of the gradients."""
    d_out = normal(*tensors[0].shape).to(tensors[0])
    found = [x.detach().requires_grad_() for x in tensors]
    expected = [x.detach().double().requires_grad_() for x in tensors]
    outs = kernels.fused(*found), reference(*expected)
    outs[0].backward(d_out)
    outs[1].backward(d_out.double())
    grads = {n: (a.grad, b.grad) for n, a, b in zip("qkv", found, expected, strict=True)}
    return {name: distance(*pair) for name, pair in ({"out": outs} | grads).items()}


def whole_network() -> dict[str, float]:
    """A small U-Net that attends by the kernels against one that attends by PyTorch's."""
    config = from_dict(ModelConfig, SIZES).unet
    torch.manual_seed(0)
    unet = UNet(config)
    x, t, context = normal(2, 4, 8, 8), torch.tensor([3, 500]), normal(2, 77, config.context_dim)
    results = []
    for implementation in ("sdpa", "fused"):
        switches.set_attention(unet, implementation)
        unet.zero_grad()
        out = unet(x, t, context)
        out.square().mean().backward()
        results.append([out, *(p.grad for p in unet.parameters())])
    names = ["out", *(name for name, _ in unet.named_parameters())]
    return {
        name: distance(fused, plain.double())
        for name, plain, fused in zip(names, *results, strict=True)
    }


def operation() -> dict[str, str]:
    """The results of PyTorch's own tests of an operation, and the layout of its output."""
    q, k, v = (x.requires_grad_() for x in inputs(5, 7, 12))
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    arguments = (q, k, v, 0.3)
    forward = torch.library.opcheck(kernels.attention, arguments, test_utils=tests)
    out, lse = kernels.attention(*arguments)
    given = (*(x.detach() for x in (q, k, v, out, lse)), normal(*out.shape), 0.3)
    backward = torch.library.opcheck(kernels.backward, given, test_utils=tests)
    results = forward | {f"backward {name}": result for name, result in backward.items()}
    return results | {"heads join without a copy": str(out.transpose(1, 2).is_contiguous())}


if __name__ == "__main__":
    report = {name: errors(tensors) for name, tensors in cases().items()}
    report |= {"network": whole_network(), "operation": operation()}
    json.dump(report, sys.stdout)
