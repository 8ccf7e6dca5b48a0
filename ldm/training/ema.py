"""An exponential moving average of the weights, which draws better than the last step's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class EMA:
    """shadow <- decay shadow + (1 - decay) weight, after every step (DDPM, arXiv:2006.11239, B).

    decay rises as (1 + n) / (10 + n) at first, so that the random start is soon forgotten.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"train.ema wants a decay from 0 (off) to below 1, got {decay}")
        self.parameters, self.decay = list(parameters), decay
        # off: the average is the parameters, and no second copy of them is kept
        self.shadow = [p.detach().clone() if decay else p.detach() for p in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.shadow, self.parameters, 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the parameters hold the average."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        if not self.decay:
            return
        for parameter, shadow in zip(self.parameters, self.shadow, strict=True):
            kept = parameter.clone()
            parameter.copy_(shadow)
            shadow.copy_(kept)
