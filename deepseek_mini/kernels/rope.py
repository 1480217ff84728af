"""MLA's positions: RoPE on the queries in place, RMSNorm and RoPE on the latents.

Of a query's 192 channels the last 64 are turned, so a block touches those alone and
leaves them where they are. Of what `wkv_a` makes, the first 512 channels are the latent
that is normalised, and the last 64 the key that is turned: one row, one block, one pass
over memory. Pairs of channels are neighbours ("interleaved"), as in DeepSeek's weights.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from deepseek_mini.kernels.launch import contiguous, pick
from deepseek_mini.model.rope import apply_rope

TILES = {80: {"HEADS": 64, "num_warps": 4}}  # heads of one token a program
TILES_LATENT = {80: {"num_warps": 1}}  # one token a program: 576 numbers

PROGRAMS = 1056  # of the backward pass: eight for each of an H100's multiprocessors


@triton.jit
def turn(x, cos, sin, R: tl.constexpr):
    """Every pair of x [N, R] by its angle: (a cos - b sin, a sin + b cos)."""
    a, b = tl.split(tl.reshape(x, (x.shape[0], R // 2, 2)))
    turned = tl.join(a * cos - b * sin, a * sin + b * cos)
    return tl.reshape(turned, (x.shape[0], R))


@triton.jit
def query_rope_kernel(
    q, cos, sin, n_positions, sign, H: tl.constexpr, HEAD: tl.constexpr,
    R: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    at = (token.to(tl.int64) * H + head)[:, None] * HEAD
    at += HEAD - R + tl.arange(0, R)[None, :]
    angle = token % n_positions * (R // 2) + tl.arange(0, R // 2)[None, :]
    inside = (head < H)[:, None] & (tl.arange(0, R) < R)[None, :]
    x = tl.load(q + at, inside, 0.0).to(tl.float32)
    # Turned back by the opposite angle: that is the gradient.
    tl.store(
        q + at, turn(x, tl.load(cos + angle), tl.load(sin + angle) * sign, R), inside
    )


@triton.jit
def latent_kernel(
    kv, weight, cos, sin, out, inverse_out, n_positions, eps, C: tl.constexpr,
    BLOCK: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    row = token.to(tl.int64) * (C + R)
    i = tl.arange(0, BLOCK)
    latent = tl.load(kv + row + i, i < C, 0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(latent * latent, axis=0) / C + eps)
    tl.store(inverse_out + token, inverse)
    unit = (latent * inverse).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + row + i, unit * tl.load(weight + i, i < C, 0.0), i < C)
    j = tl.arange(0, R)[None, :]
    angle = token % n_positions * (R // 2) + tl.arange(0, R // 2)[None, :]
    key = tl.load(kv + row + C + j).to(tl.float32)
    tl.store(
        out + row + C + j, turn(key, tl.load(cos + angle), tl.load(sin + angle), R)
    )


@triton.jit
def latent_backward_kernel(
    kv, weight, cos, sin, inverse_in, dout, dkv, dw_parts, n_positions, n_tokens,
    tokens_each, C: tl.constexpr, BLOCK: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    j = tl.arange(0, R)[None, :]
    w = tl.load(weight + i, i < C, 0.0).to(tl.float32)
    dw = tl.zeros((BLOCK,), tl.float32)
    for k in range(tokens_each):
        token = program * tokens_each + k
        row = token.to(tl.int64) * (C + R)
        inside = (i < C) & (token < n_tokens)
        inverse = tl.load(inverse_in + token, token < n_tokens, 0.0)
        unit = tl.load(kv + row + i, inside, 0.0).to(tl.float32) * inverse
        dy = tl.load(dout + row + i, inside, 0.0).to(tl.float32)
        dw += dy * unit
        du = dy * w
        dx = inverse * (du - unit * (tl.sum(du * unit, axis=0) / C))
        tl.store(dkv + row + i, dx, inside)
        here = (j < R) & (token < n_tokens)
        angle = token % n_positions * (R // 2) + tl.arange(0, R // 2)[None, :]
        dkey = tl.load(dout + row + C + j, here, 0.0).to(tl.float32)
        turned = turn(dkey, tl.load(cos + angle), -tl.load(sin + angle), R)
        tl.store(dkv + row + C + j, turned, here)
    tl.store(dw_parts + program * C + i, dw, i < C)


def query_rope_(
    q: Float[Tensor, "*B T H head"],
    cos: Float[Tensor, "*b T half"],
    sin: Float[Tensor, "*b T half"],
) -> Float[Tensor, "*B T H head"]:
    """Turn the last 2·half channels of every head of q, in place, and return q.

    As `apply_rope(q[..., -2·half:], cos, sin)` (RoFormer, arXiv 2104.09864, §3.2.2).
    The table is float32: a row for each of the T positions, the same for all texts or,
    with a leading B, each text its own. Can be differentiated.

    Raises:
        ValueError: a tensor is not contiguous, the table is for other positions, or
            half is not a power of two.
    """
    contiguous(q=q, cos=cos, sin=sin)
    _check_table(cos, q.shape[:-2])
    return _QueryRope.apply(q, cos, sin)


class _QueryRope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, cos, sin):
        ctx.save_for_backward(cos, sin)
        ctx.mark_dirty(q)
        _turn_queries(q, cos, sin, 1.0)
        return q

    @staticmethod
    def backward(ctx, dq):
        dq = dq.clone(memory_format=torch.contiguous_format)
        _turn_queries(dq, *ctx.saved_tensors, -1.0)
        return dq, None, None


def _turn_queries(q, cos, sin, sign):
    heads, width = q.shape[-2:]
    half = cos.shape[-1]
    tile = pick(TILES, q)
    grid = (q.numel() // (heads * width), triton.cdiv(heads, tile["HEADS"]))
    if grid[0]:
        query_rope_kernel[grid](
            q, cos, sin, cos.numel() // half, sign, H=heads, HEAD=width, R=2 * half,
            **tile,
        )  # fmt: skip


def latent_norm_rope(
    kv: Float[Tensor, "*B T CplusR"],
    weight: Float[Tensor, " C"],
    cos: Float[Tensor, "*b T half"],
    sin: Float[Tensor, "*b T half"],
    eps: float = 1e-6,
) -> Float[Tensor, "*B T CplusR"]:
    """What MLA keeps of a token: its latent after RMSNorm, then its key, turned
    (DeepSeek-V2, arXiv 2405.04434, §2.1). Can be differentiated.

    kv: what `wkv_a` makes, C channels of latent and R = 2·half of the key.

    Raises:
        ValueError: sizes do not add up, or a tensor is not contiguous.
    """
    contiguous(kv=kv, weight=weight, cos=cos, sin=sin)
    _check_table(cos, kv.shape[:-1])
    if kv.shape[-1] != weight.numel() + 2 * cos.shape[-1]:
        raise ValueError(
            f"kv has {kv.shape[-1]} channels, but weight needs {weight.numel()} and "
            f"the table {2 * cos.shape[-1]}"
        )
    return _LatentNormRope.apply(kv, weight, cos, sin, eps)


class _LatentNormRope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, kv, weight, cos, sin, eps):
        n_tokens, half = kv.numel() // kv.shape[-1], cos.shape[-1]
        out = torch.empty_like(kv)
        inverse = torch.empty(n_tokens, dtype=torch.float32, device=kv.device)
        if n_tokens:
            latent_kernel[(n_tokens,)](
                kv, weight, cos, sin, out, inverse, cos.numel() // half, eps,
                **_sizes(weight, half), **pick(TILES_LATENT, kv),
            )  # fmt: skip
        ctx.save_for_backward(kv, weight, cos, sin, inverse)
        return out

    @staticmethod
    def backward(ctx, dout):
        kv, weight, cos, sin, inverse = ctx.saved_tensors
        n_tokens, half = inverse.numel(), cos.shape[-1]
        programs = max(1, min(n_tokens, PROGRAMS))
        dkv = torch.empty_like(kv)
        size = (programs, weight.numel())
        parts = torch.empty(size, dtype=torch.float32, device=kv.device)
        latent_backward_kernel[(programs,)](
            kv, weight, cos, sin, inverse, dout.contiguous(), dkv, parts,
            cos.numel() // half, n_tokens, triton.cdiv(n_tokens, programs),
            **_sizes(weight, half), **pick(TILES_LATENT, kv),
        )  # fmt: skip
        return dkv, parts.sum(0).to(weight.dtype), None, None, None


def _sizes(weight, half):
    width = weight.numel()
    return {"C": width, "BLOCK": triton.next_power_of_2(width), "R": 2 * half}


def _check_table(cos, tokens):
    rows = cos.shape[:-1]
    if rows != tokens[len(tokens) - len(rows) :]:
        raise ValueError(
            f"the table is for {list(rows)} positions, but there are {list(tokens)}"
        )
    if (half := cos.shape[-1]) != triton.next_power_of_2(half):
        raise ValueError(f"the table has {half} columns, but must have a power of two")


def query_reference(
    q: Float[Tensor, "*B T H head"],
    cos: Float[Tensor, "*b T half"],
    sin: Float[Tensor, "*b T half"],
) -> Float[Tensor, "*B T H head"]:
    """`query_rope_` in plain PyTorch, and not in place."""
    nope, pe = q.split((q.shape[-1] - 2 * cos.shape[-1], 2 * cos.shape[-1]), dim=-1)
    return torch.cat((nope, apply_rope(pe, cos, sin)), dim=-1)


def latent_reference(
    kv: Float[Tensor, "*B T CplusR"],
    weight: Float[Tensor, " C"],
    cos: Float[Tensor, "*b T half"],
    sin: Float[Tensor, "*b T half"],
    eps: float = 1e-6,
) -> Float[Tensor, "*B T CplusR"]:
    """`latent_norm_rope` in plain PyTorch (float64 stays float64)."""
    latent, key = kv.split((weight.numel(), 2 * cos.shape[-1]), dim=-1)
    wide = latent if latent.dtype == torch.float64 else latent.float()
    unit = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    latent = (weight * unit.to(kv.dtype)).to(kv.dtype)
    key = apply_rope(key[..., None, :], cos, sin)[..., 0, :]
    return torch.cat((latent, key), dim=-1)
