"""3 x 3 convolutions with a quarter of the multiplications, on a CPU.

Winograd's minimal filtering F(M x M, 3 x 3) (Lavin and Gray, arXiv:1509.09308, section 4): M x M
outputs of a tile d of (M + 2) x (M + 2) inputs by a filter g are

    y = A^T [(G g G^T) * (B^T d B)] A        (* element by element; summed over channels)

M = 4 takes 36 multiplications for 16 outputs instead of 144, M = 2 takes 16 for 4 instead of 36.
G g G^T is computed once. `winograd.cpp` does the rest; it is compiled at its first use.
"""

import functools
import logging
import math
import os
import shutil
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.config import ConfigError

FEWEST = 4  # tiles of 4 x 4: for fewer, reading the larger weights costs more than is saved

log = logging.getLogger(__name__)

G = {  # filters to tiles
    2: [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
    4: [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
}

FLAGS = {"AVX512": ["-march=x86-64-v4"], "AVX2": ["-march=x86-64-v3"]}


@functools.cache
def build() -> int:
    """Compile and load the operator torch.ops.ldm.winograd; returns the outputs of a panel.

    PyTorch keeps the result for each kind of processor (in TORCH_EXTENSIONS_DIR). Raises
    ConfigError where it cannot be compiled.
    """
    if shutil.which("ninja") is None:  # pip puts it beside python, which may not be on the PATH
        os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)
    if missing := [tool for tool in ("c++", "ninja") if shutil.which(tool) is None]:
        raise ConfigError(
            f"Winograd's convolutions are compiled at their first use, and there is no "
            f"{' and no '.join(missing)} here: install it, or leave them off"
        )
    kind = torch.backends.cpu.get_cpu_capability()
    from torch.utils.cpp_extension import load

    try:
        load(
            f"ldm_winograd_{kind.lower().replace(' ', '_')}",  # some are called "NO AVX"
            [str(Path(__file__).with_suffix(".cpp"))],
            # not -ffast-math: it would switch off denormals in the whole process
            extra_cflags=["-O3", "-fopenmp", *FLAGS.get(kind, [])],
            is_python_module=False,
        )
    except (OSError, RuntimeError) as error:
        log.debug("%s", error)
        raise ConfigError(
            "Winograd's convolutions could not be compiled: leave them off, or see why with "
            "python -c 'import logging; logging.basicConfig(level=10); "
            "from ldm.fast import winograd; winograd.build()'"
        ) from error
    panel: int = torch.ops.ldm.winograd_panel()

    @torch.library.register_fake("ldm::winograd")
    def fake(x: Tensor, u: Tensor, bias: Tensor) -> Tensor:
        shape = (x.shape[0], u.shape[0] * u.shape[3], *x.shape[2:])
        return x.new_empty(shape).to(memory_format=torch.channels_last)

    return panel


def transform(weight: Tensor, m: int) -> Tensor:
    """G g G^T of filters [N, C, 3, 3], in float64: [(M + 2)^2, C, N]."""
    g = torch.tensor(G[m], dtype=torch.float64)
    return torch.einsum("ia,ncab,jb->ijcn", g, weight.double(), g).flatten(0, 1)


def pack(weight: Tensor, m: int, panel: int) -> Tensor:
    """The transformed filters for the operator: float32 [N / panel, (M + 2)^2, C, panel]."""
    u = transform(weight, m).float()
    return u.unflatten(2, (-1, panel)).permute(2, 0, 1, 3).contiguous()


class Winograd:
    """The convolution of one layer; replaces its `_conv_forward`."""

    def __init__(self, m: int) -> None:
        self.m, self.panel = m, build()
        self.packed: tuple[Tensor, int] | None = None  # the weight of u, and its version
        self.u = torch.empty(0)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x: [B, C, H, W];  returns [B, N, H, W], channels last"""
        plain = x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled()
        if plain or len(x) * math.ceil(x.shape[2] / 4) * math.ceil(x.shape[3] / 4) < FEWEST:
            return F.conv2d(x, weight, bias, padding=1)
        if not torch.compiler.is_compiling():  # while it does, weights have no version
            self.refresh(weight)
        return torch.ops.ldm.winograd(x, self.u, x.new_zeros(len(weight)) if bias is None else bias)

    def refresh(self, weight: Tensor) -> None:
        """Transform the weights if they have changed."""
        if self.packed is None or self.packed[0] is not weight or self.packed[1] != weight._version:
            self.packed, self.u = (weight, weight._version), pack(weight, self.m, self.panel)


def refresh(module: nn.Module) -> None:
    """Transform all weights that have changed: before each call of a compiled graph."""
    if torch.is_grad_enabled():
        return  # Winograd's convolutions are not used
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and isinstance(layer._conv_forward, Winograd):
            layer._conv_forward.refresh(layer.weight)


def use(module: nn.Module, m: int = 4) -> int:
    """Convolve by Winograd's algorithm where it fits; returns the number of such layers.

    With gradients, in other dtypes and on other devices these layers stay plain.
    m: 4, or 2, which is slower and more accurate
    """
    layers = fitting(module)
    for layer in layers:
        layer._conv_forward = Winograd(m)  # type: ignore[assignment]
    module.to(memory_format=torch.channels_last)
    return len(layers)


def more_bytes(module: nn.Module, m: int = 4) -> int:
    """The bytes of all transformed weights, which are kept beside the plain ones."""
    return sum(layer.weight.nbytes * (m + 2) ** 2 // 9 for layer in fitting(module))


def fitting(module: nn.Module) -> list[nn.Conv2d]:
    """The layers that the algorithm can compute."""
    panel = build()
    return [m for m in module.modules() if isinstance(m, nn.Conv2d) and fits(m, panel)]


def fits(layer: nn.Conv2d, panel: int) -> bool:
    """True for a 3 x 3 convolution of stride 1 whose channels fill the machine's vectors."""
    plain = (layer.kernel_size, layer.stride, layer.padding) == ((3, 3), (1, 1), (1, 1))
    whole = not layer.in_channels % (panel // 2) and not layer.out_channels % panel
    return plain and whole and layer.groups == 1 and layer.dilation == (1, 1)
