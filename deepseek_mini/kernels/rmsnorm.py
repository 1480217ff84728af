"""Residual addition and RMSNorm in one pass over memory, forward and backward.

A block adds x to the residual stream, writes the sum, and normalises it while it is
still in registers: each number is read once and written once, where eager PyTorch goes
through memory about eight times.

    h = residual + x;   y = h / sqrt(mean(h²) + eps) · weight
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from deepseek_mini.kernels.launch import contiguous, pick

# One row at a time in a program: DeepSeek-V3's 7168 numbers take 8192 lanes.
TILES = {80: {"num_warps": 8}}
TILES_BACKWARD = {80: {"num_warps": 16}}
PROGRAMS = 264  # of the backward pass: two for each of an H100's 132 multiprocessors


@triton.jit
def add_rmsnorm_kernel(
    x, residual, weight, h_out, y_out, inverse_out, eps,
    D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    row = program.to(tl.int64) * D
    i = tl.arange(0, BLOCK)
    inside = i < D
    h = tl.load(x + row + i, inside, 0.0).to(tl.float32)
    h += tl.load(residual + row + i, inside, 0.0).to(tl.float32)
    # The stream is rounded to its type, and the norm is that of the rounded stream.
    stream = h.to(h_out.dtype.element_ty)
    tl.store(h_out + row + i, stream, inside)
    h = stream.to(tl.float32)
    inverse = tl.rsqrt(tl.sum(h * h, axis=0) / D + eps)
    tl.store(inverse_out + program, inverse)
    unit = (h * inverse).to(y_out.dtype.element_ty).to(tl.float32)
    w = tl.load(weight + i, inside, 0.0).to(tl.float32)
    tl.store(y_out + row + i, unit * w, inside)


@triton.jit
def add_rmsnorm_backward_kernel(
    h_in, weight, inverse_in, dy_in, dh_in, dx_out, dw_parts, n_rows, rows_each,
    D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    first = program.to(tl.int64) * rows_each
    i = tl.arange(0, BLOCK)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    dw = tl.zeros((BLOCK,), tl.float32)
    for k in range(rows_each):
        index = first + k
        row = index * D
        inside = (i < D) & (index < n_rows)
        inverse = tl.load(inverse_in + index, index < n_rows, 0.0)
        unit = tl.load(h_in + row + i, inside, 0.0).to(tl.float32) * inverse
        dy = tl.load(dy_in + row + i, inside, 0.0).to(tl.float32)
        dw += dy * unit
        du = dy * w
        # What of du lies along h only rescales h, and the norm undoes that.
        dx = inverse * (du - unit * (tl.sum(du * unit, axis=0) / D))
        dx += tl.load(dh_in + row + i, inside, 0.0).to(tl.float32)
        tl.store(dx_out + row + i, dx, inside)
    tl.store(dw_parts + program * D + i, dw, i < D)


def add_rmsnorm(
    x: Float[Tensor, "... D"],
    residual: Float[Tensor, "... D"],
    weight: Float[Tensor, " D"],
    eps: float = 1e-6,
) -> tuple[Float[Tensor, "... D"], Float[Tensor, "... D"]]:
    """(y, h): the residual stream h = residual + x, and its RMSNorm y (arXiv
    1910.07467, §4), as `reference` has them. Both can be differentiated.

    x and residual are of one type, float32, bf16 or fp16; sums are in float32.

    Raises:
        ValueError: they differ in type, or one of the tensors is not contiguous.
    """
    if x.dtype != residual.dtype:
        raise ValueError(
            f"x is {x.dtype} and residual {residual.dtype}, but they must be the same"
        )
    contiguous(x=x, residual=residual, weight=weight)
    return _AddRMSNorm.apply(x, residual, weight, eps)


class _AddRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, residual, weight, eps):
        width = x.shape[-1]
        n_rows = x.numel() // width
        h, y = torch.empty_like(x), torch.empty_like(x)
        inverse = torch.empty(n_rows, dtype=torch.float32, device=x.device)
        sizes = {"D": width, "BLOCK": triton.next_power_of_2(width)}
        if n_rows:
            add_rmsnorm_kernel[(n_rows,)](
                x, residual, weight, h, y, inverse, eps, **sizes, **pick(TILES, x)
            )
        ctx.save_for_backward(h, weight, inverse)
        return y, h

    @staticmethod
    def backward(ctx, dy, dh):
        h, weight, inverse = ctx.saved_tensors
        return (*add_rmsnorm_backward(h, weight, inverse, dy, dh), None)


def add_rmsnorm_backward(
    h: Float[Tensor, "... D"],
    weight: Float[Tensor, " D"],
    inverse: Float[Tensor, " rows"],
    dy: Float[Tensor, "... D"],
    dh: Float[Tensor, "... D"],
) -> tuple[Float[Tensor, "... D"], Float[Tensor, "... D"], Float[Tensor, " D"]]:
    """Gradients of x, residual (the same tensor) and weight, from those of y and h.

    inverse: 1 / rms of every row, kept from the forward pass.
    """
    width, n_rows = h.shape[-1], inverse.numel()
    programs = max(1, min(n_rows, PROGRAMS))
    dx = torch.empty_like(h)
    parts = torch.empty(programs, width, dtype=torch.float32, device=h.device)
    sizes = {"D": width, "BLOCK": triton.next_power_of_2(width)}
    add_rmsnorm_backward_kernel[(programs,)](
        h, weight, inverse, dy.contiguous(), dh.contiguous(), dx, parts, n_rows,
        triton.cdiv(n_rows, programs), **sizes, **pick(TILES_BACKWARD, h),
    )  # fmt: skip
    return dx, dx, parts.sum(0).to(weight.dtype)


def reference(
    x: Float[Tensor, "... D"],
    residual: Float[Tensor, "... D"],
    weight: Float[Tensor, " D"],
    eps: float = 1e-6,
) -> tuple[Float[Tensor, "... D"], Float[Tensor, "... D"]]:
    """`add_rmsnorm` in plain PyTorch (float64 stays float64)."""
    h = residual + x
    wide = h if h.dtype == torch.float64 else h.float()
    unit = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (weight * unit.to(h.dtype)).to(h.dtype), h
