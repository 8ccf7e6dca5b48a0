"""Fused attention: the kernels in Triton's interpreter, the operation in PyTorch's graphs.

No GPU is needed, and none was there: how fast the kernels are is not known here.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SIZES
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule

from ldm.attention import Attention
from ldm.config import ModelConfig, UNetConfig, from_dict
from ldm.fast import switches
from ldm.system.cli import load_config
from ldm.unet import UNet

triton = pytest.importorskip("triton", reason="the kernels are written in triton")

ROOT = Path(__file__).parents[1]
SMALL = from_dict(ModelConfig, SIZES).unet
BUILT_IN = load_config(ModelConfig, ROOT / "configs" / "small.yaml").unet
LIMITS = {  # relative difference to float64
    **dict.fromkeys(("self, 40 wide", "text, 80 wide", "text, 160 wide", "7 wide"), 1e-6),
    **dict.fromkeys(("one query", "whole blocks", "columns first", "each in its own way"), 1e-6),
    **dict.fromkeys(("one head for all", "every second number"), 1e-6),
    "one key": 1e-5,
    # everything between two dots is float32; their inputs are rounded to 2^-11 and 2^-8
    "float16": 1e-3,
    "bfloat16": 1e-2,
    # float32 knows a logit of 10,000 to 1e-3, and the softmax is as wrong as its logits
    **{"large logits": 2e-3, "low logits": 2e-3, "large logits, float16": 2e-2},
}


@pytest.fixture(scope="module")
def interpreted() -> dict[str, dict[str, Any]]:
    """What attention_cases.py found: {case: {which result: relative difference}}."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "attention_cases.py"],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", LIMITS)
def test_kernels_compute_attention_and_its_gradients(interpreted, case: str) -> None:
    """Results and gradients are float64's but for rounding, of any lengths, strides and logits."""
    assert interpreted[case].keys() == {"out", "q", "k", "v"}
    assert all(error < LIMITS[case] for error in interpreted[case].values())  # nan is not


def test_one_key_gets_all_the_attention(interpreted) -> None:
    """With one key the result is its value, exactly."""
    assert interpreted["one key"]["out"] == 0


def test_the_network_is_the_same_with_the_kernels(interpreted) -> None:
    """Output and every gradient of a U-Net agree with those of PyTorch's attention."""
    found = interpreted["network"]
    assert len(found) == 1 + len(list(UNet(SMALL).parameters()))
    # float32 on both sides, and the gradients are sums over pixels
    assert all(error < 2e-5 for error in found.values())


def test_pytorch_accepts_the_operation(interpreted) -> None:
    """Schemas, autograd and fake tensors are right, and heads of the result join without a copy."""
    results = interpreted["operation"]
    assert len(results) == 7
    assert set(results.values()) == {"SUCCESS", "True"}


@pytest.mark.gpu
def test_a_gpu_finds_what_the_interpreter_does() -> None:
    """On a real GPU, with the blocks that it chooses, every case is as near to float64."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from attention_cases import cases, errors

    for case, tensors in cases().items():
        limit = max(LIMITS[case], 1e-5)
        found = errors([x.cuda() for x in tensors])
        assert all(error < limit for error in found.values()), (case, found)


def unet(config: UNetConfig) -> tuple[UNet, tuple[torch.Tensor, ...]]:
    """A network that attends by the kernels, and inputs, on the default device."""
    network = UNet(config)
    switches.set_attention(network, "fused")
    x = torch.empty(2, config.in_channels, 32, 32)
    return network, (x, torch.empty(2, dtype=torch.int64), torch.empty(2, 77, config.context_dim))


def layers(network: UNet) -> int:
    return sum(isinstance(module, Attention) for module in network.modules())


def calls(graph: GraphModule) -> Counter[str]:
    return Counter(str(node.target) for node in graph.graph.nodes if node.op == "call_function")


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(SMALL, id="small"),
        pytest.param(BUILT_IN, id="built-in", marks=pytest.mark.slow),
        pytest.param(UNetConfig(), id="SD v1.4", marks=pytest.mark.slow),
    ],
)
def test_the_whole_network_is_one_graph_with_an_operation_a_layer(config: UNetConfig) -> None:
    """torch.compile sees the U-Net on a (fake) GPU whole: each attention layer is one call."""
    graphs: list[Counter[str]] = []

    def look(graph: GraphModule, inputs: Any) -> Callable:
        graphs.append(calls(graph))
        return graph.forward

    with FakeTensorMode(), torch.device("cuda"):
        network, inputs = unet(config)
        torch.compile(network, backend=look, fullgraph=True)(*inputs)
    (found,) = graphs
    assert found["ldm.attention.default"] == layers(network)
    assert not [name for name in found if "scaled_dot" in name or "softmax" in name]


class NoGPU:
    """What Triton asks its driver about when a kernel is traced and not run."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 80, 32)


@pytest.fixture
def pretended() -> Iterator[None]:
    triton.runtime.driver.set_active(NoGPU())
    yield
    triton.runtime.driver.set_active(None)


@pytest.mark.slow
@pytest.mark.usefixtures("pretended")
def test_the_training_graph_holds_three_kernels_a_layer() -> None:
    """Traced with its gradients, each layer is one kernel forward and two back, and no matrix."""
    graphs: dict[str, Counter[str]] = {}

    def look(name: str) -> Callable:
        def backend(graph: GraphModule, inputs: Any) -> Callable:
            graphs[name] = calls(graph)
            return torch._functorch.aot_autograd.make_boxed_func(graph.forward)

        return backend

    both = aot_autograd(fw_compiler=look("forward"), bw_compiler=look("backward"))
    with torch.device("meta"):
        network, inputs = unet(SMALL)
        torch.compile(network, backend=both, fullgraph=True)(*inputs).sum().backward()
    kernel = "triton_kernel_wrapper_functional"
    assert graphs["forward"][kernel] == layers(network)
    assert graphs["backward"][kernel] == 2 * layers(network)
    assert not [name for found in graphs.values() for name in found if "softmax" in name]


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("name", ["forward", "backward_keys", "backward_queries"])
def test_kernels_compile_for_a_gpu(name: str, dtype: str) -> None:
    """The smallest tiles, at SD's widest heads, become code that needs no more than 66 KB a block.

    GPUs of compute capability 8.6 have 99 KB. It is not run.
    """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ldm.fast import flash_attention

    tuner = getattr(flash_attention, name)
    config = tuner.configs[-1]
    constants = {"WIDTH": 160, "PADDED": 256, **config.kwargs}
    types = {"scale": "fp32", "lse": "*fp32", "delta": "*fp32"}
    types |= dict.fromkeys(("q", "k", "v", "out", "d_out", "d_q", "d_k", "d_v"), f"*{dtype}")
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in tuner.arg_names}
    source = ASTSource(tuner.fn, signature, constants)
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options)
    assert compiled.metadata.shared <= 66 * 1024
    assert ".tf32" not in compiled.asm["ptx"]
