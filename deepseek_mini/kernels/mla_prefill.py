"""MLA prefill: a text's queries attend to keys and values expanded from the latents.

With many new tokens it is cheaper to expand the latents once than to attend to them
(DeepSeek-V2, arXiv 2405.04434, §2.1): causal attention of H heads whose keys have
n + r = 192 channels and whose values v = 128. The r RoPE channels of a key are the same
for all heads and are read from where they lie, never copied to the heads.

A program takes BLOCK_M queries of one head and walks over the keys, BLOCK_N at a time,
with a running softmax. The backward pass walks twice: over the keys for the gradient of
the queries, and over the queries for those of keys and values.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float32, Int
from torch import Tensor

from deepseek_mini.kernels.launch import Tile, pick

LN_2 = tl.constexpr(0.6931471805599453)
NEVER = tl.constexpr(float("-inf"))


def _tile(queries: int, keys: int, num_warps: int, num_stages: int) -> Tile:
    return {
        "BLOCK_M": queries, "BLOCK_N": keys,
        "num_warps": num_warps, "num_stages": num_stages,
    }  # fmt: skip


# There is no tile for a T4 (sm_75): at 64 queries and 32 keys in fp16, Triton 3.9 gives
# it no tensor-core instruction and spills 4.6 KB a thread.
TILES = {
    80: _tile(128, 64, 8, 2),
    90: _tile(128, 128, 8, 2),
    100: _tile(128, 64, 8, 3),
}
TILES_QUERIES = {  # of the gradient of the queries
    80: _tile(64, 32, 4, 2),
    90: _tile(128, 64, 8, 2),
    100: _tile(128, 64, 8, 1),
}
TILES_KEYS = {  # of those of keys and values: three accumulators
    80: _tile(32, 32, 4, 1),
    90: _tile(32, 128, 8, 2),
    100: _tile(32, 128, 8, 1),
}
TILES_FLOAT32 = {80: _tile(32, 32, 4, 1)}


@triton.jit
def _rows(
    base, first, stride, ROWS: tl.constexpr, WIDTH: tl.constexpr, n_rows,
    MASKED: tl.constexpr,
):  # fmt: skip
    """ROWS rows of WIDTH numbers from row `first` on; zeros from row `n_rows` on."""
    row = tl.arange(0, ROWS)
    at = base + tl.cast(first, tl.int64) * stride
    at = at + row[:, None] * stride + tl.arange(0, WIDTH)
    if MASKED:  # what lies behind may be anything, NaN too, and 0 · NaN is NaN
        return tl.load(at, mask=(first + row < n_rows)[:, None], other=0.0)
    return tl.load(at)


@triton.jit
def _scores(
    q_n, q_r, k_n, k_r, start, position, scale_log2,
    BLOCK_N: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Scaled products, in base 2; -inf where a query is before the key."""
    scores = tl.dot(q_n, tl.trans(k_n), input_precision="ieee")
    scores = tl.dot(q_r, tl.trans(k_r), scores, input_precision="ieee") * scale_log2
    if MASKED:
        key = start + tl.arange(0, BLOCK_N)
        scores = tl.where(key[None, :] <= position[:, None], scores, NEVER)
    return scores


@triton.jit
def _attend(
    q_n, q_r, k_n_at, k_r_at, v_at, start, length, position, scale_log2,
    k_n_t, k_r_t, v_t, acc, total, top,
    N: tl.constexpr, R: tl.constexpr, V: tl.constexpr, BLOCK_N: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    k_n = _rows(k_n_at, start, k_n_t, BLOCK_N, N, length, MASKED)
    k_r = _rows(k_r_at, start, k_r_t, BLOCK_N, R, length, MASKED)
    scores = _scores(q_n, q_r, k_n, k_r, start, position, scale_log2, BLOCK_N, MASKED)
    new_top = tl.maximum(top, tl.max(scores, 1))
    p = tl.exp2(scores - new_top[:, None])
    shrink = tl.exp2(top - new_top)
    total = total * shrink + tl.sum(p, 1)
    v = _rows(v_at, start, v_t, BLOCK_N, V, length, MASKED)
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
    q_n = _rows(q_n_at, first, q_n_t, BLOCK_M, N, new, True)
    q_r = _rows(q_r_at, first, q_r_t, BLOCK_M, R, new, True)

    top = tl.full([BLOCK_M], NEVER, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, V], tl.float32)
    # Blocks whose keys all queries see need no mask; then those on the diagonal.
    end = tl.where(first < new, tl.minimum(length - new + first + BLOCK_M, length), 0)
    whole = tl.minimum(length - new + first + 1, end) // BLOCK_N * BLOCK_N
    for start in range(0, whole, BLOCK_N):
        acc, total, top = _attend(
            q_n, q_r, k_n_at, k_r_at, v_at, start, length, position, scale_log2,
            k_n_t, k_r_t, v_t, acc, total, top, N, R, V, BLOCK_N, False,
        )  # fmt: skip
    for start in range(whole, end, BLOCK_N):
        acc, total, top = _attend(
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
    q_n = _rows(q_nope + b * q_n_b + h * q_n_h, first, q_n_t, BLOCK_M, N, new, True)
    q_r = _rows(q_pe + b * q_r_b + h * q_r_h, first, q_r_t, BLOCK_M, R, new, True)
    row = (b * n_queries + first) * n_heads + h
    d_o = _rows(d_out + row * V, 0, n_heads * V, BLOCK_M, V, new - first, True)
    row = (b * n_queries + i) * n_heads + h
    level = tl.load(lse + row, mask=real, other=0.0) / LN_2
    mean = tl.load(delta + row, mask=real, other=0.0)

    dq_n = tl.zeros([BLOCK_M, N], tl.float32)
    dq_r = tl.zeros([BLOCK_M, R], tl.float32)
    end = tl.where(first < new, tl.minimum(length - new + first + BLOCK_M, length), 0)
    for start in range(0, end, BLOCK_N):
        k_n = _rows(k_n_at, start, k_n_t, BLOCK_N, N, length, True)
        k_r = _rows(k_r_at, start, k_r_t, BLOCK_N, R, length, True)
        x = _scores(q_n, q_r, k_n, k_r, start, position, scale / LN_2, BLOCK_N, True)
        p = tl.exp2(x - level[:, None])
        values = _rows(v_at, start, v_t, BLOCK_N, V, length, True)
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
    k_n = _rows(k_n_at, first, k_n_t, BLOCK_N, N, length, True)
    k_r = _rows(k_pe + b * k_r_b, first, k_r_t, BLOCK_N, R, length, True)
    values = _rows(v + b * v_b + h * v_h, first, v_t, BLOCK_N, V, length, True)
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
        q_n = _rows(q_n_at, start, q_n_t, BLOCK_M, N, new, True)
        q_r = _rows(q_r_at, start, q_r_t, BLOCK_M, R, new, True)
        d_o = _rows(d_out_at, start, n_heads * V, BLOCK_M, V, new, True)
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
            tile = _pick(TILES, v)
            prefill_kernel[(triton.cdiv(T, tile["BLOCK_M"]), H, B)](
                *inputs, out, lse, scale / LN_2.value, T, *_strides(*inputs[:5]),
                **_widths(*inputs[:5]), **tile,
            )  # fmt: skip
        ctx.save_for_backward(*inputs, out, lse)
        ctx.scale = scale
        ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    def backward(ctx, d_out, _):
        *inputs, out, lse = ctx.saved_tensors
        q_nope, q_pe, k_nope, k_pe, v, _, _ = inputs
        d_out = d_out.contiguous()
        # Of a row's gradient by its weights, the softmax lets through the part that
        # does not change their sum.
        delta = (d_out.float() * out.float()).sum(-1)
        dq_n, dq_r, dk_n, dv = (
            torch.empty_like(x, memory_format=torch.contiguous_format)
            for x in (q_nope, q_pe, k_nope, v)
        )
        (B, T, H, _), S = q_nope.shape, v.shape[1]
        parts = torch.empty(
            B, S, H, k_pe.shape[-1], dtype=torch.float32, device=v.device
        )
        common = *inputs, d_out, lse, delta
        rest, widths = _strides(*inputs[:5]), _widths(*inputs[:5])
        if out.numel():
            tile = _pick(TILES_QUERIES, v)
            queries_kernel[(triton.cdiv(T, tile["BLOCK_M"]), H, B)](
                *common, dq_n, dq_r, ctx.scale, T, *rest, **widths, **tile
            )
            tile = _pick(TILES_KEYS, v)
            keys_kernel[(triton.cdiv(S, tile["BLOCK_N"]), H, B)](
                *common, dk_n, parts, dv, ctx.scale, T, S, *rest, **widths, **tile
            )
        dk_r = parts.sum(2).to(k_pe.dtype)
        return dq_n, dq_r, dk_n, dk_r, dv, None, None, None


def _pick(tiles: dict[int, Tile], x: Tensor) -> Tile:
    return pick(TILES_FLOAT32 if x.dtype == torch.float32 else tiles, x)


def _strides(q_nope, q_pe, k_nope, k_pe, v) -> list[int]:
    tensors = q_nope, q_pe, k_nope, k_pe, v
    return [stride for x in tensors for stride in x.stride()[:-1]]


def _widths(q_nope, q_pe, k_nope, k_pe, v) -> dict[str, int]:
    return {"N": q_nope.shape[-1], "R": q_pe.shape[-1], "V": v.shape[-1]}


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
