"""FlashAttention-2 (arXiv:2307.08691) in Triton: attention that never writes the L x S matrix.

Each program computes one block of a result and loops over the blocks of the other side, in float32.
No two programs add to one number, so the same call with the same blocks gives the same bits; each
process measures which blocks are fastest, and other blocks round differently.

q, d_out: [B, N, L, d];  k, v: [B, N, S, d], of any strides: `q_b, q_n, q_l, q_d` are those of q.
Results lie as [B, L, N, d], which the network joins to [B, L, N d] without a copy. PADDED is d
rounded up to a power of two, as tl.dot requires; columns beyond d are read as zeros.
"""

import math
import os
from typing import Any

import torch
import triton
import triton.language as tl

# e^x = 2^(x log2 e): GPUs compute powers of two, so logits are kept in base 2
LOG2_E = tl.constexpr(1.4426950408889634)
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")  # on the CPU, for tests


def table(*names: str) -> list[triton.Config]:
    """The block sizes to try on the first call of a shape; one for the interpreter.

    names: of the blocks of the result and of the other side
    """
    tried = ((128, 32, 8, 2), (64, 64, 8, 2), (32, 32, 8, 2), (64, 16, 8, 1), (16, 16, 4, 1))
    return [
        triton.Config(dict(zip(names, blocks, strict=True)), num_warps=warps, num_stages=stages)
        for *blocks, warps, stages in ([(16, 32, 4, 1)] if INTERPRETED.value else tried)
    ]


def suited(configs: list[triton.Config], arguments: dict[str, Any], **_: Any) -> list:
    """Without large tiles of float32: they exceed the registers, are slow and compile for 30 s."""
    largest = 1024 if arguments["q"].dtype == torch.float32 else math.inf
    return [c for c in configs if c.kwargs["BLOCK_L"] * c.kwargs["BLOCK_S"] <= largest]


SUITED = {"early_config_prune": suited}


@triton.jit
def load(
    x: tl.tensor, rows: tl.tensor, columns: tl.tensor, by_row: int, by_column: int, height: int,
    width: int,
) -> tl.tensor:  # fmt: skip
    """A tile of the matrix [height, width] at x; zeros beyond its edges."""
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    place = rows[:, None] * by_row + columns[None, :] * by_column
    return tl.load(x + place, inside, 0.0)


@triton.jit
def store(
    x: tl.tensor, tile: tl.tensor, rows: tl.tensor, columns: tl.tensor, by_row: int, height: int,
    width: int,
) -> None:  # fmt: skip
    """Write a tile of the matrix [height, width] at x, and nothing beyond its edges."""
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    place = rows[:, None] * by_row + columns[None, :]
    tl.store(x + place, tile.to(x.dtype.element_ty), inside)


@triton.jit
def dot(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """a b, added up in float32; float32 inputs are not rounded to TF32 ("ieee")."""
    if INTERPRETED:  # it reads bfloat16's bits as integers; their products are exact in float32
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.autotune(table("BLOCK_L", "BLOCK_S"), ["L", "S", "WIDTH"], prune_configs_by=SUITED)
@triton.jit
def forward(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, out: tl.tensor, lse: tl.tensor,
    scale: float, N: int, L: int, S: int,
    q_b: int, q_n: int, q_l: int, q_d: int,
    k_b: int, k_n: int, k_s: int, k_d: int,
    v_b: int, v_n: int, v_s: int, v_d: int,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_S: tl.constexpr,
) -> None:  # fmt: skip
    """Algorithm 1, for one block of queries; the online softmax is arXiv:1805.02867's.

    lse: float32 [B, N, L], the logarithm in base 2 of the softmax's denominator
    """
    batch = (tl.program_id(1) // N).to(tl.int64)
    head = (tl.program_id(1) % N).to(tl.int64)
    q += batch * q_b + head * q_n
    k += batch * k_b + head * k_n
    v += batch * v_b + head * v_n
    out += (batch * L * N + head) * WIDTH
    lse += (batch * N + head) * L
    rows, columns = tl.program_id(0) * BLOCK_L + tl.arange(0, BLOCK_L), tl.arange(0, PADDED)
    queries = load(q, rows, columns, q_l, q_d, L, WIDTH)
    largest = tl.full([BLOCK_L], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_L], tl.float32)
    mean = tl.zeros([BLOCK_L, PADDED], tl.float32)  # times total
    for first in range(0, S, BLOCK_S):
        others = first + tl.arange(0, BLOCK_S)
        keys = load(k, others, columns, k_s, k_d, S, WIDTH)
        values = load(v, others, columns, v_s, v_d, S, WIDTH)
        logits = dot(queries, keys.T) * (scale * LOG2_E)
        logits = tl.where((others < S)[None, :], logits, -float("inf"))
        larger = tl.maximum(largest, tl.max(logits, 1))
        p, shrink = tl.exp2(logits - larger[:, None]), tl.exp2(largest - larger)
        total = total * shrink + tl.sum(p, 1)
        mean = mean * shrink[:, None] + dot(p.to(values.dtype), values)
        largest = larger
    store(out, mean / total[:, None], rows, columns, N * WIDTH, L, WIDTH)
    tl.store(lse + rows, largest + tl.log2(total), rows < L)


@triton.autotune(table("BLOCK_S", "BLOCK_L"), ["L", "S", "WIDTH"], prune_configs_by=SUITED)
@triton.jit
def backward_keys(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, d_out: tl.tensor, lse: tl.tensor, delta: tl.tensor,
    d_k: tl.tensor, d_v: tl.tensor,
    scale: float, N: int, L: int, S: int,
    q_b: int, q_n: int, q_l: int, q_d: int,
    k_b: int, k_n: int, k_s: int, k_d: int,
    v_b: int, v_n: int, v_s: int, v_d: int,
    o_b: int, o_n: int, o_l: int, o_d: int,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_S: tl.constexpr,
) -> None:  # fmt: skip
    """Algorithm 2 without its dQ, for one block of keys: tiles of P and dS lie transposed, [S, L].

    delta: float32 [B, N, L], the sums of dO * O over d
    """
    batch = (tl.program_id(1) // N).to(tl.int64)
    head = (tl.program_id(1) % N).to(tl.int64)
    q += batch * q_b + head * q_n
    k += batch * k_b + head * k_n
    v += batch * v_b + head * v_n
    d_out += batch * o_b + head * o_n
    d_k += (batch * S * N + head) * WIDTH
    d_v += (batch * S * N + head) * WIDTH
    lse += (batch * N + head) * L
    delta += (batch * N + head) * L
    rows, columns = tl.program_id(0) * BLOCK_S + tl.arange(0, BLOCK_S), tl.arange(0, PADDED)
    keys = load(k, rows, columns, k_s, k_d, S, WIDTH)
    values = load(v, rows, columns, v_s, v_d, S, WIDTH)
    to_keys = tl.zeros([BLOCK_S, PADDED], tl.float32)
    to_values = tl.zeros([BLOCK_S, PADDED], tl.float32)
    for first in range(0, L, BLOCK_L):
        others = first + tl.arange(0, BLOCK_L)
        queries = load(q, others, columns, q_l, q_d, L, WIDTH)
        above = load(d_out, others, columns, o_l, o_d, L, WIDTH)
        sums = tl.load(lse + others, others < L, 0.0)  # any value beyond L: dO is zero
        p = tl.exp2(dot(keys, queries.T) * (scale * LOG2_E) - sums[None, :])
        to_values += dot(p.to(above.dtype), above)
        d_p = dot(values, above.T) - tl.load(delta + others, others < L, 0.0)[None, :]
        to_keys += dot((p * d_p).to(queries.dtype), queries)
    store(d_k, to_keys * scale, rows, columns, N * WIDTH, S, WIDTH)
    store(d_v, to_values, rows, columns, N * WIDTH, S, WIDTH)


@triton.autotune(table("BLOCK_L", "BLOCK_S"), ["L", "S", "WIDTH"], prune_configs_by=SUITED)
@triton.jit
def backward_queries(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, d_out: tl.tensor, lse: tl.tensor, delta: tl.tensor,
    d_q: tl.tensor,
    scale: float, N: int, L: int, S: int,
    q_b: int, q_n: int, q_l: int, q_d: int,
    k_b: int, k_n: int, k_s: int, k_d: int,
    v_b: int, v_n: int, v_s: int, v_d: int,
    o_b: int, o_n: int, o_l: int, o_d: int,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_S: tl.constexpr,
) -> None:  # fmt: skip
    """The dQ of algorithm 2, for one block of queries: recomputes P instead of atomic sums."""
    batch = (tl.program_id(1) // N).to(tl.int64)
    head = (tl.program_id(1) % N).to(tl.int64)
    q += batch * q_b + head * q_n
    k += batch * k_b + head * k_n
    v += batch * v_b + head * v_n
    d_out += batch * o_b + head * o_n
    d_q += (batch * L * N + head) * WIDTH
    lse += (batch * N + head) * L
    delta += (batch * N + head) * L
    rows, columns = tl.program_id(0) * BLOCK_L + tl.arange(0, BLOCK_L), tl.arange(0, PADDED)
    queries = load(q, rows, columns, q_l, q_d, L, WIDTH)
    above = load(d_out, rows, columns, o_l, o_d, L, WIDTH)
    sums = tl.load(lse + rows, rows < L, 0.0)
    deltas = tl.load(delta + rows, rows < L, 0.0)
    to_queries = tl.zeros([BLOCK_L, PADDED], tl.float32)
    for first in range(0, S, BLOCK_S):
        others = first + tl.arange(0, BLOCK_S)
        keys = load(k, others, columns, k_s, k_d, S, WIDTH)
        values = load(v, others, columns, v_s, v_d, S, WIDTH)
        logits = dot(queries, keys.T) * (scale * LOG2_E)
        # beyond S the power could be infinite, and infinity times a key of zeros is nan
        p = tl.where((others < S)[None, :], tl.exp2(logits - sums[:, None]), 0.0)
        d_p = dot(above, values.T) - deltas[:, None]
        to_queries += dot((p * d_p).to(keys.dtype), keys)
    store(d_q, to_queries * scale, rows, columns, N * WIDTH, L, WIDTH)
