"""The backward pass of MLA prefill: it computes the weights again, and walks twice.

A program of `queries_kernel` takes BLOCK_M queries of one head and walks over the keys
that they see, for the gradient of the queries. A program of `keys_kernel` takes BLOCK_N
keys and walks over the queries that see them, for those of keys and values. So no two
programs add to the same place, and the sums come in the same order every time.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float32, Int
from torch import Tensor

from deepseek_mini.kernels.mla_prefill_parts import (
    LN_2,
    block_scores,
    load_rows,
    pick_tile,
    sizes,
    strides,
    widths,
)

TILES_QUERIES = {  # of the gradient of the queries
    80: sizes(64, 32, 4, 2),
    90: sizes(128, 64, 8, 2),
    100: sizes(128, 64, 8, 1),
}
TILES_KEYS = {  # of those of keys and values: three accumulators
    80: sizes(32, 32, 4, 1),
    90: sizes(32, 128, 8, 2),
    100: sizes(32, 128, 8, 1),
}


@triton.jit
def queries_kernel(
    q_nope, q_pe, k_nope, k_pe, v, lengths, news, d_out, lse, delta, dq_nope, dq_pe,
    scale, n_queries,
    q_n_b, q_n_t, q_n_h, q_r_b, q_r_t, q_r_h,
    k_n_b, k_n_t, k_n_h, k_r_b, k_r_t, v_b, v_t, v_h,
    N: tl.constexpr, R: tl.constexpr, V: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The gradient of BLOCK_M queries: over the keys that they see."""
    first = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_M
    h, b = tl.program_id(1), tl.program_id(2).to(tl.int64)
    n_heads = tl.num_programs(1)
    length, new = tl.load(lengths + b), tl.load(news + b)
    i = first + tl.arange(0, BLOCK_M)
    real = i < new
    position = i + length - new
    k_n_at, k_r_at = k_nope + b * k_n_b + h * k_n_h, k_pe + b * k_r_b
    v_at = v + b * v_b + h * v_h
    q_n = load_rows(q_nope + b * q_n_b + h * q_n_h, first, q_n_t, BLOCK_M, N, new, True)
    q_r = load_rows(q_pe + b * q_r_b + h * q_r_h, first, q_r_t, BLOCK_M, R, new, True)
    row = (b * n_queries + first) * n_heads + h
    d_o = load_rows(d_out + row * V, 0, n_heads * V, BLOCK_M, V, new - first, True)
    row = (b * n_queries + i) * n_heads + h
    level = tl.load(lse + row, mask=real, other=0.0) / LN_2
    mean = tl.load(delta + row, mask=real, other=0.0)

    dq_n = tl.zeros([BLOCK_M, N], tl.float32)
    dq_r = tl.zeros([BLOCK_M, R], tl.float32)
    end = tl.where(first < new, tl.minimum(length - new + first + BLOCK_M, length), 0)
    for start in range(0, end, BLOCK_N):
        k_n = load_rows(k_n_at, start, k_n_t, BLOCK_N, N, length, True)
        k_r = load_rows(k_r_at, start, k_r_t, BLOCK_N, R, length, True)
        x = block_scores(
            q_n, q_r, k_n, k_r, start, position, scale / LN_2, BLOCK_N, True
        )
        p = tl.exp2(x - level[:, None])
        values = load_rows(v_at, start, v_t, BLOCK_N, V, length, True)
        dp = tl.dot(d_o, tl.trans(values), input_precision="ieee")
        dx = (p * (dp - mean[:, None])).to(k_n.dtype)
        dq_n = tl.dot(dx, k_n, dq_n, input_precision="ieee")
        dq_r = tl.dot(dx, k_r, dq_r, input_precision="ieee")
    stored = (i < n_queries)[:, None]
    at = dq_nope + row[:, None] * N + tl.arange(0, N)
    dq_n = tl.where(real[:, None], dq_n * scale, 0.0)
    tl.store(at, dq_n.to(dq_nope.dtype.element_ty), mask=stored)
    at = dq_pe + row[:, None] * R + tl.arange(0, R)
    dq_r = tl.where(real[:, None], dq_r * scale, 0.0)
    tl.store(at, dq_r.to(dq_pe.dtype.element_ty), mask=stored)


@triton.jit
def keys_kernel(
    q_nope, q_pe, k_nope, k_pe, v, lengths, news, d_out, lse, delta,
    dk_nope, dk_pe_parts, dv, scale, n_queries, n_keys,
    q_n_b, q_n_t, q_n_h, q_r_b, q_r_t, q_r_h,
    k_n_b, k_n_t, k_n_h, k_r_b, k_r_t, v_b, v_t, v_h,
    N: tl.constexpr, R: tl.constexpr, V: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The gradients of BLOCK_N keys and values: over the queries that see them."""
    first = tl.program_id(0) * BLOCK_N
    j = first + tl.arange(0, BLOCK_N)
    h, b = tl.program_id(1), tl.program_id(2).to(tl.int64)
    n_heads = tl.num_programs(1)
    length, new = tl.load(lengths + b), tl.load(news + b)
    q_n_at, q_r_at = q_nope + b * q_n_b + h * q_n_h, q_pe + b * q_r_b + h * q_r_h
    k_n_at = k_nope + b * k_n_b + h * k_n_h
    k_n = load_rows(k_n_at, first, k_n_t, BLOCK_N, N, length, True)
    k_r = load_rows(k_pe + b * k_r_b, first, k_r_t, BLOCK_N, R, length, True)
    values = load_rows(v + b * v_b + h * v_h, first, v_t, BLOCK_N, V, length, True)
    row = b * n_queries * n_heads + h
    d_out_at = d_out + row * V

    dk_n = tl.zeros([BLOCK_N, N], tl.float32)
    dk_r = tl.zeros([BLOCK_N, R], tl.float32)
    d_v = tl.zeros([BLOCK_N, V], tl.float32)
    # Query i sees the keys up to i + length - new.
    begin = tl.maximum(first - (length - new), 0) // BLOCK_M * BLOCK_M
    begin = tl.where(first < length, begin, new)  # no key, nothing to do
    for start in range(begin, new, BLOCK_M):
        i = start + tl.arange(0, BLOCK_M)
        q_n = load_rows(q_n_at, start, q_n_t, BLOCK_M, N, new, True)
        q_r = load_rows(q_r_at, start, q_r_t, BLOCK_M, R, new, True)
        d_o = load_rows(d_out_at, start, n_heads * V, BLOCK_M, V, new, True)
        level = tl.load(lse + row + i * n_heads, mask=i < new, other=0.0) / LN_2
        mean = tl.load(delta + row + i * n_heads, mask=i < new, other=0.0)
        # Keys are the rows here, so that p and dx are left factors as they come.
        x = tl.dot(k_n, tl.trans(q_n), input_precision="ieee")
        x = tl.dot(k_r, tl.trans(q_r), x, input_precision="ieee") * (scale / LN_2)
        seen = j[:, None] <= (i + length - new)[None, :]
        p = tl.where(seen, tl.exp2(x - level[None, :]), 0.0)
        d_v = tl.dot(p.to(d_o.dtype), d_o, d_v, input_precision="ieee")
        dp = tl.dot(values, tl.trans(d_o), input_precision="ieee")
        dx = (p * (dp - mean[None, :])).to(q_n.dtype)
        dk_n = tl.dot(dx, q_n, dk_n, input_precision="ieee")
        dk_r = tl.dot(dx, q_r, dk_r, input_precision="ieee")
    stored = (j < n_keys)[:, None]
    row = (b * n_keys + j[:, None]) * n_heads + h
    at = dk_nope + row * N + tl.arange(0, N)
    tl.store(at, (dk_n * scale).to(dk_nope.dtype.element_ty), mask=stored)
    tl.store(dk_pe_parts + row * R + tl.arange(0, R), dk_r * scale, mask=stored)
    at = dv + row * V + tl.arange(0, V)
    tl.store(at, d_v.to(dv.dtype.element_ty), mask=stored)


def mla_prefill_backward(
    q_nope: Float[Tensor, "B T H n"],
    q_pe: Float[Tensor, "B T H r"],
    k_nope: Float[Tensor, "B S H n"],
    k_pe: Float[Tensor, "B S r"],
    v: Float[Tensor, "B S H v"],
    lengths: Int[Tensor, " B"],
    new: Int[Tensor, " B"],
    scale: float,
    out: Float[Tensor, "B T H v"],
    lse: Float32[Tensor, "B T H"],
    d_out: Float[Tensor, "B T H v"],
) -> tuple[
    Float[Tensor, "B T H n"],
    Float[Tensor, "B T H r"],
    Float[Tensor, "B S H n"],
    Float[Tensor, "B S r"],
    Float[Tensor, "B S H v"],
]:
    """Gradients of q_nope, q_pe, k_nope, k_pe and v, from that of `out`.

    out, lse: what the forward pass returned. The gradient of k_pe, which all heads
    share, is first made for each head in float32, [B, S, H, r].
    """
    inputs = q_nope, q_pe, k_nope, k_pe, v, lengths, new
    d_out = d_out.contiguous()
    # Of a row's gradient by its weights, the softmax lets through the part that
    # does not change their sum.
    delta = (d_out.float() * out.float()).sum(-1)
    dq_n, dq_r, dk_n, dv = (
        torch.empty_like(x, memory_format=torch.contiguous_format)
        for x in (q_nope, q_pe, k_nope, v)
    )
    (B, T, H, _), S = q_nope.shape, v.shape[1]
    parts = torch.empty(B, S, H, k_pe.shape[-1], dtype=torch.float32, device=v.device)
    common = *inputs, d_out, lse, delta
    rest, channels = strides(*inputs[:5]), widths(*inputs[:5])
    if out.numel():
        tile = pick_tile(TILES_QUERIES, v)
        queries_kernel[(triton.cdiv(T, tile["BLOCK_M"]), H, B)](
            *common, dq_n, dq_r, scale, T, *rest, **channels, **tile
        )
        tile = pick_tile(TILES_KEYS, v)
        keys_kernel[(triton.cdiv(S, tile["BLOCK_N"]), H, B)](
            *common, dk_n, parts, dv, scale, T, S, *rest, **channels, **tile
        )
    return dq_n, dq_r, dk_n, parts.sum(2).to(k_pe.dtype), dv
