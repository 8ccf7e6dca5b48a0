"""Classifier-free guidance: a function that turns a network into a denoiser."""

from collections.abc import Callable

import torch
from torch import Tensor

Network = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x_t, t, context) -> eps, or v
Denoise = Callable[[Tensor, Tensor], Tensor]  # (x_t, t) -> eps; EDM's denoiser returns x0


def guide(
    network: Network,
    context: Tensor,
    negative: Tensor | None = None,
    scale: float = 1.0,
    guided: Callable[[Tensor], bool] = lambda t: True,
) -> Denoise:
    """denoise(x_t, t) = eps_negative + s (eps_context - eps_negative)

    Classifier-free guidance (arXiv:2207.12598), eq. 6, with s = 1 + w of their w and, in the place
    of "no condition", a negative prompt or the empty one. s = 1 is off: the network then runs once
    and `negative` is not needed. Otherwise it runs once on twice the batch, [negative, context].
    A network that predicts v may be guided before or after the change to eps: for one x_t and t
    that change is affine, and the two weights s and 1 - s add up to one.

    guided: t [B] -> one answer for the batch. Where False the network runs once, as with s = 1:
        guidance helps at middle noise levels only (arXiv:2404.07724)
    context: [B, S, D];  negative: [B, S, D] or [1, S, D]
    """
    if scale == 1:
        return lambda x_t, t: network(x_t, t, context)
    if negative is None:
        raise ValueError(
            f"guidance scale {scale} needs a negative context (that of the empty prompt will do); "
            "scale 1 turns guidance off"
        )
    if negative.shape[1:] != context.shape[1:] or negative.shape[0] not in (1, context.shape[0]):
        raise ValueError(
            f"negative context {tuple(negative.shape)} does not fit context "
            f"{tuple(context.shape)}; encode both with the same text tower"
        )
    both = torch.cat([negative.expand_as(context), context])

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        """x_t: [B, C, h, w];  t: [B];  returns [B, C, h, w]"""
        if not guided(t):
            return network(x_t, t, context)
        eps_negative, eps_context = network(torch.cat([x_t, x_t]), t.repeat(2), both).chunk(2)
        return eps_negative + scale * (eps_context - eps_negative)

    return denoise
