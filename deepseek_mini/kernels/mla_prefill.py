"""MLA prefill: a text's queries attend to keys and values expanded from the latents.

With many new tokens it is cheaper to expand the latents once than to attend to them
(DeepSeek-V2, arXiv 2405.04434, §2.1): causal attention of H heads whose keys have
n + r = 192 channels and whose values v = 128. The r RoPE channels of a key are the same
for all heads and are read from where they lie, never copied to the heads.

A program takes BLOCK_M queries of one head and walks over the keys, BLOCK_N at a time,
with a running softmax. The gradients are in mla_prefill_backward.py.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float32, Int
from torch import Tensor

from deepseek_mini.kernels.mla_prefill_backward import mla_prefill_backward
from deepseek_mini.kernels.mla_prefill_parts import (
    LN_2,
    NEVER,
    block_scores,
    load_rows,
    pick_tile,
    sizes,
    strides,
    widths,
)

# There is no tile for a T4 (sm_75): at 64 queries and 32 keys in fp16, Triton 3.9 gives
# it no tensor-core instruction and spills 4.6 KB a thread.
TILES = {
    80: sizes(128, 64, 8, 2),
    90: sizes(128, 128, 8, 2),
    100: sizes(128, 64, 8, 3),
}


@triton.jit
def attend(
    q_n, q_r, k_n_at, k_r_at, v_at, start, length, position, scale_log2,
    k_n_t, k_r_t, v_t, acc, total, top,
    N: tl.constexpr, R: tl.constexpr, V: tl.constexpr, BLOCK_N: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    k_n = load_rows(k_n_at, start, k_n_t, BLOCK_N, N, length, MASKED)
    k_r = load_rows(k_r_at, start, k_r_t, BLOCK_N, R, length, MASKED)
    scores = block_scores(
        q_n, q_r, k_n, k_r, start, position, scale_log2, BLOCK_N, MASKED
    )
    new_top = tl.maximum(top, tl.max(scores, 1))
    p = tl.exp2(scores - new_top[:, None])
    shrink = tl.exp2(top - new_top)
    total = total * shrink + tl.sum(p, 1)
    v = load_rows(v_at, start, v_t, BLOCK_N, V, length, MASKED)
    acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
    return acc, total, new_top


@triton.jit
def prefill_kernel(
    q_nope, q_pe, k_nope, k_pe, v, lengths, news, out, lse, scale_log2, n_queries,
    q_n_b, q_n_t, q_n_h, q_r_b, q_r_t, q_r_h,  # strides: row, token, head
    k_n_b, k_n_t, k_n_h, k_r_b, k_r_t, v_b, v_t, v_h,
    N: tl.constexpr, R: tl.constexpr, V: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    # The last queries see the most keys, so their programs start first.
    first = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_M
    h, b = tl.program_id(1), tl.program_id(2).to(tl.int64)
    n_heads = tl.num_programs(1)
    length, new = tl.load(lengths + b), tl.load(news + b)
    i = first + tl.arange(0, BLOCK_M)
    position = i + length - new  # of the query's own key
    q_n_at, q_r_at = q_nope + b * q_n_b + h * q_n_h, q_pe + b * q_r_b + h * q_r_h
    k_n_at, k_r_at = k_nope + b * k_n_b + h * k_n_h, k_pe + b * k_r_b
    v_at = v + b * v_b + h * v_h
    q_n = load_rows(q_n_at, first, q_n_t, BLOCK_M, N, new, True)
    q_r = load_rows(q_r_at, first, q_r_t, BLOCK_M, R, new, True)

    top = tl.full([BLOCK_M], NEVER, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, V], tl.float32)
    # Blocks whose keys all queries see need no mask; then those on the diagonal.
    end = tl.where(first < new, tl.minimum(length - new + first + BLOCK_M, length), 0)
    whole = tl.minimum(length - new + first + 1, end) // BLOCK_N * BLOCK_N
    for start in range(0, whole, BLOCK_N):
        acc, total, top = attend(
            q_n, q_r, k_n_at, k_r_at, v_at, start, length, position, scale_log2,
            k_n_t, k_r_t, v_t, acc, total, top, N, R, V, BLOCK_N, False,
        )  # fmt: skip
    for start in range(whole, end, BLOCK_N):
        acc, total, top = attend(
            q_n, q_r, k_n_at, k_r_at, v_at, start, length, position, scale_log2,
            k_n_t, k_r_t, v_t, acc, total, top, N, R, V, BLOCK_N, True,
        )  # fmt: skip

    real = i < new
    acc = tl.where(real[:, None], acc * (1.0 / total)[:, None], 0.0)
    row = (b * n_queries + i) * n_heads + h
    stored = i < n_queries
    out_at = out + row[:, None] * V + tl.arange(0, V)
    tl.store(out_at, acc.to(out.dtype.element_ty), mask=stored[:, None])
    level = tl.where(real, (top + tl.log2(total)) * LN_2, NEVER)
    tl.store(lse + row, level, mask=stored)


def mla_prefill(
    q_nope: Float[Tensor, "B T H n"],
    q_pe: Float[Tensor, "B T H r"],
    k_nope: Float[Tensor, "B S H n"],
    k_pe: Float[Tensor, "B S r"],
    v: Float[Tensor, "B S H v"],
    scale: float,
    lengths: Int[Tensor, " B"] | None = None,
    new: Int[Tensor, " B"] | None = None,
) -> tuple[Float[Tensor, "B T H v"], Float32[Tensor, "B T H"]]:
    """Causal attention of T new tokens to S keys, those before them and their own.

    Row b has `lengths[b]` keys (S unless given), and its first `new[b]` queries (T
    unless given, at most its length) belong to the last of them. Keys behind a row's
    length are never used and may hold anything; queries behind `new[b]` are padding and
    get zeros. Halves of one tensor, such as keys and values that one matrix makes, are
    taken as they lie. `scale` is 192^-0.5 for V3, times YaRN's temperature squared.

    Returns the heads' results and the logarithm of the sum of exponentials of the
    scores, -inf for padding. The first can be differentiated; the gradient of k_pe,
    which all heads share, is first made for each head in float32, [B, S, H, r].

    Raises:
        ValueError: types differ, there are more queries than keys, n, r or v is no
            power of two from 16, or the last dimension of a tensor is strided.
    """
    (B, T), S = q_nope.shape[:2], k_nope.shape[1]
    named = {"q_nope": q_nope, "q_pe": q_pe, "k_nope": k_nope, "k_pe": k_pe, "v": v}
    if len(types := {x.dtype for x in named.values()}) > 1:
        raise ValueError(f"the tensors are of types {types}, but must be of one")
    if T > S:
        raise ValueError(f"there are {T} queries, but only {S} keys")
    for name, x in named.items():
        width = x.shape[-1]
        if width < 16 or width & (width - 1):
            raise ValueError(f"{name} is {width} wide: it must be a power of 2 from 16")
        if x.stride(-1) != 1:
            raise ValueError(f"the channels of {name} are strided: call .contiguous()")
    lengths, new = (
        torch.full((B,), n, dtype=torch.int32, device=v.device) if x is None else x
        for x, n in ((lengths, S), (new, T))
    )
    return _Prefill.apply(q_nope, q_pe, k_nope, k_pe, v, lengths, new, scale)


class _Prefill(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q_nope, q_pe, k_nope, k_pe, v, lengths, new, scale):
        B, T, H, _ = q_nope.shape
        out = v.new_empty(B, T, H, v.shape[-1])
        lse = torch.empty(B, T, H, dtype=torch.float32, device=v.device)
        inputs = q_nope, q_pe, k_nope, k_pe, v, lengths, new
        if out.numel():
            tile = pick_tile(TILES, v)
            prefill_kernel[(triton.cdiv(T, tile["BLOCK_M"]), H, B)](
                *inputs, out, lse, scale / LN_2.value, T, *strides(*inputs[:5]),
                **widths(*inputs[:5]), **tile,
            )  # fmt: skip
        ctx.save_for_backward(*inputs, out, lse)
        ctx.scale = scale
        ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    def backward(ctx, d_out, _):
        *inputs, out, lse = ctx.saved_tensors
        gradients = mla_prefill_backward(*inputs, ctx.scale, out, lse, d_out)
        return *gradients, None, None, None


def reference(
    q_nope: Float[Tensor, "B T H n"],
    q_pe: Float[Tensor, "B T H r"],
    k_nope: Float[Tensor, "B S H n"],
    k_pe: Float[Tensor, "B S r"],
    v: Float[Tensor, "B S H v"],
    scale: float,
    lengths: Int[Tensor, " B"] | None = None,
    new: Int[Tensor, " B"] | None = None,
) -> tuple[Float[Tensor, "B T H v"], Float[Tensor, "B T H"]]:
    """`mla_prefill` in plain PyTorch, in float32 (float64 stays float64)."""
    (B, T), S, device = q_nope.shape[:2], v.shape[1], v.device
    lengths = torch.full((B,), S, device=device) if lengths is None else lengths
    new = torch.full((B,), T, device=device) if new is None else new
    dtype = v.dtype
    wide = dtype if dtype == torch.float64 else torch.float32
    key, query = torch.arange(S, device=device), torch.arange(T, device=device)
    inside = (key < lengths[:, None])[..., None]  # [B, S, 1]
    position = query + (lengths - new)[:, None]
    real = query < new[:, None]
    seen = (key <= position[..., None]) & inside.mT & real[..., None]
    q_nope, q_pe = q_nope.to(wide), q_pe.to(wide)
    k_nope, k_pe = (
        k_nope.to(wide).where(inside[..., None], 0), k_pe.to(wide).where(inside, 0)
    )  # fmt: skip
    v = v.to(wide).where(inside[..., None], 0)
    scores = torch.einsum("bthn,bshn->bths", q_nope, k_nope)
    scores = (scores + torch.einsum("bthr,bsr->bths", q_pe, k_pe)) * scale
    scores = scores.masked_fill(~seen[:, :, None], float("-inf"))
    weights = scores.softmax(-1).where(seen[:, :, None], 0)
    out = torch.einsum("bths,bshv->bthv", weights, v)
    return out.to(dtype), scores.logsumexp(-1)
