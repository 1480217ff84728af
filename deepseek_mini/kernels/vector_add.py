"""The sum of two tensors, number by number: the smallest kernel, read in lesson 20."""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from deepseek_mini.kernels.launch import contiguous, pick

TILES = {0: {"BLOCK": 64}, 80: {"BLOCK": 1024, "num_warps": 4}}


@triton.jit
def add_kernel(x, y, out, n, BLOCK: tl.constexpr):
    # Which numbers are mine? int64, for there may be more than 2^31.
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n  # the last program may have less than BLOCK to do
    total = tl.load(x + i, inside) + tl.load(y + i, inside)
    tl.store(out + i, total, inside)


def add(x: Float[Tensor, "*shape"], y: Float[Tensor, "*shape"]) -> Tensor:
    """x + y, of their shape and type.

    Raises:
        ValueError: they differ in shape or type, or one of them is not contiguous.
    """
    if (x.shape, x.dtype) != (y.shape, y.dtype):
        raise ValueError(
            f"x is {x.dtype} {list(x.shape)} and y {y.dtype} {list(y.shape)}, but "
            "they must be the same"
        )
    contiguous(x=x, y=y)
    out, tile = torch.empty_like(x), pick(TILES, x)
    if n := x.numel():
        add_kernel[(triton.cdiv(n, tile["BLOCK"]),)](x, y, out, n, **tile)
    return out


def reference(x: Float[Tensor, "*shape"], y: Float[Tensor, "*shape"]) -> Tensor:
    """`add` in plain PyTorch."""
    return x + y
