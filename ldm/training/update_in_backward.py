"""Weights that are updated while the backward pass still runs, so that gradients need no room."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def update(
    loss: Tensor,
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    refuse: Callable[[float | str], None],
) -> None:
    """Update each weight once its gradient is complete, then free that: one is held at most.

    LOMO (arXiv:2306.09782), with any optimizer that treats each weight by itself. Autograd has a
    weight's gradient when all that needs the weight is done, so the numbers are the same.
    refuse: called with the norm of a gradient that is not finite, before its weight changes
        (others have changed by then, in memory), or for such a loss; raises an error
    """
    if not loss.isfinite():
        refuse("unknown")
    waiting = set(parameters)

    def step(parameter: Tensor) -> None:
        assert parameter.grad is not None  # for mypy
        if not (norm := parameter.grad.norm()).isfinite():
            refuse(norm.item())
        optimizer.step()  # of this one alone: no other has a gradient now
        parameter.grad = None
        waiting.discard(parameter)

    hooks = [p.register_post_accumulate_grad_hook(step) for p in parameters]
    try:
        loss.backward()
    finally:
        for hook in hooks:
            hook.remove()
    for parameter in [p for p in parameters if p in waiting]:  # the loss does not depend on it
        parameter.grad = torch.zeros_like(parameter)
        step(parameter)
