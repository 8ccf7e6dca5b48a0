"""LoRA: W + (alpha / r) B A in the place of W, where only the small A and B are learned."""

import math

from torch import Tensor, nn

from ldm.attention import Attention


class LoRALinear(nn.Module):
    """h = W x + (alpha / r) B A x   (LoRA, arXiv:2106.09685, eq. 3; alpha: section 4.1)

    `down` is A, `up` is B, which starts at zero.

    A starts as PyTorch's linear layers do (Kaiming, uniform); the paper draws it from a Gaussian.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.linear, self.scale = linear.requires_grad_(False), scale
        self.down = nn.Linear(linear.in_features, rank, bias=False)
        self.up = nn.Linear(rank, linear.out_features, bias=False)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)
        self.to(linear.weight.device)  # not before: the CPU's generator is the seeded one

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., C];  returns [..., C']"""
        return self.linear(x) + self.scale * self.up(self.down(x))


def inject(network: nn.Module, rank: int, alpha: float) -> nn.ModuleDict:
    """Give every projection of every attention a LoRA, and freeze the rest; returns the LoRAs.

    The dict shares its modules with the network; its keys are their paths, with _ for the dots.
    """
    if rank < 1:
        raise ValueError(f"the rank of a LoRA must be 1 or more, got {rank}")
    network.requires_grad_(False)
    found = {}
    for name, module in [(n, m) for n, m in network.named_modules() if isinstance(m, Attention)]:
        for part in ("q", "k", "v", "out"):
            layer = LoRALinear(getattr(module, part), rank, alpha / rank)
            setattr(module, part, layer)
            found[f"{name}.{part}".replace(".", "_")] = nn.ModuleList([layer.down, layer.up])
    return nn.ModuleDict(found)
