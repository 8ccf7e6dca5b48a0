"""Attention as one operation, ldm::attention, for torch.compile and autograd.

    out = softmax(scale q k^T) v

q: [B, N, L, d];  k, v: [B, N, S, d];  the kernels are in ldm/fast/flash_attention.py.
"""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.library import triton_op, wrap_triton

from ldm.attention import IMPLEMENTATIONS
from ldm.fast import flash_attention

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def check_device(device: torch.device) -> None:
    """Raises ValueError for a device that the kernels do not run on."""
    if device.type not in ("cuda", "meta") and not flash_attention.INTERPRETED.value:
        raise ValueError(f"fused attention needs CUDA, the device is {device.type}; use sdpa there")


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v: [B, N, L, d], on a GPU or in Triton's interpreter.

    Raises ValueError for inputs that the kernels cannot use.
    """
    check_device(q.device)
    if q.ndim != 4 or k.shape != v.shape or k.shape != (*q.shape[:2], k.shape[-2], q.shape[-1]):
        shapes = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
        raise ValueError(f"q must be [B, N, L, d], k and v [B, N, S, d], got {shapes}")
    if not q.numel() or not k.numel():
        raise ValueError(f"q, k and v must not be empty, got {tuple(q.shape)} and {tuple(k.shape)}")
    if q.dtype not in DTYPES or not q.dtype == k.dtype == v.dtype:
        raise ValueError(
            "q, k and v must all be float32, float16 or bfloat16, got "
            f"{q.dtype}, {k.dtype} and {v.dtype}"
        )
    return attention(q, k, v, q.shape[-1] ** -0.5)[0]


IMPLEMENTATIONS["fused"] = fused


@triton_op("ldm::attention", mutates_args=())
def attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """out [B, N, L, d] and, for the backward pass, lse [B, N, L]."""
    out, lse = blank_outputs(q)
    wrap_triton(flash_attention.forward)[grid(q, "BLOCK_L")](
        q, k, v, out, lse, *numbers(scale, q, k, v), **widths(q)
    )
    return out, lse


@triton_op("ldm::attention_backward", mutates_args=())
def backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, d_out: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v from that of out."""
    d_q, d_k, d_v = blank(q), blank(k), blank(v)
    delta = (d_out.float() * out.float()).sum(-1).contiguous()
    inputs = (q, k, v, d_out, lse, delta)
    rest = numbers(scale, q, k, v, d_out)
    by_keys, by_queries = flash_attention.backward_keys, flash_attention.backward_queries
    wrap_triton(by_keys)[grid(k, "BLOCK_S")](*inputs, d_k, d_v, *rest, **widths(q))
    wrap_triton(by_queries)[grid(q, "BLOCK_L")](*inputs, d_q, *rest, **widths(q))
    return d_q, d_k, d_v


def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])


def differentiate(ctx: Any, d_out: Tensor, d_lse: Tensor) -> tuple[Tensor | None, ...]:
    return *backward(*ctx.saved_tensors, d_out, ctx.scale), None


attention.register_autograd(differentiate, setup_context=keep)
attention.register_fake(lambda q, k, v, scale: blank_outputs(q))
backward.register_fake(lambda q, k, v, out, lse, d_out, scale: (blank(q), blank(k), blank(v)))


def blank_outputs(q: Tensor) -> tuple[Tensor, Tensor]:
    return blank(q), q.new_empty(q.shape[:3], dtype=torch.float32)


def blank(like: Tensor) -> Tensor:
    """Memory for [B, N, L, d], laid out as [B, L, N, d]."""
    B, N, L, d = like.shape
    return like.new_empty(B, L, N, d).transpose(1, 2)


def grid(x: Tensor, block: str) -> Any:
    """A program for each block of rows of each head."""
    return lambda meta: (triton.cdiv(x.shape[2], meta[block]), x.shape[0] * x.shape[1])


def numbers(scale: float, q: Tensor, k: Tensor, *more: Tensor) -> tuple[float, ...]:
    """scale, N, L, S and the strides of all tensors."""
    strides = (stride for x in (q, k, *more) for stride in x.stride())
    return scale, q.shape[1], q.shape[2], k.shape[2], *strides


def widths(q: Tensor) -> dict[str, int]:
    d = q.shape[-1]
    return {"WIDTH": d, "PADDED": max(16, triton.next_power_of_2(d))}  # 16 is tl.dot's smallest
