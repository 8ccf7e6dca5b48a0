"""Where each word of a prompt is looked at: the U-Net's cross-attention, recorded as it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from einops import rearrange
from torch import Tensor

from ldm.attention import Attention, TransformerBlock, attention_weights
from ldm.unet import UNet


@contextmanager
def recorded(unet: UNet) -> Iterator[dict[str, list[Tensor]]]:
    """{layer: weights [B, N, L, S] of each pass}, of the cross-attention layers, first to last.

    A row of S = 77 tokens sums to 1; L = h w positions, row by row. With guidance the batch is
    [negative, prompt]: the prompt's weights are the second half. The pictures stay the same.
    """
    found: dict[str, list[Tensor]] = {}

    def noting(kept: list[Tensor]) -> Callable[[Attention, tuple[Tensor, Tensor]], None]:
        def note(layer: Attention, inputs: tuple[Tensor, Tensor]) -> None:
            x, context = inputs
            q, k = (
                rearrange(y, "B L (N d) -> B N L d", N=layer.heads)
                for y in (layer.q(x), layer.k(context))
            )
            kept.append(attention_weights(q, k))

        return note

    handles = [
        module.cross_attn.register_forward_pre_hook(noting(found.setdefault(name, [])))
        for name, module in unet.named_modules()
        if isinstance(module, TransformerBlock)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
