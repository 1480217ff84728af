"""The product of two matrices, tile by tile: read in lesson 20.

A program makes one tile of the result. It walks along the axis that is summed over,
loads a tile of each factor, and adds their product to a sum in float32, which never
leaves the registers. The larger the tile, the more often a loaded number is used.

This is the plain kernel that the others grow from. Masks keep the tiles at the edges
right; nothing needs to divide anything.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from deepseek_mini.kernels.launch import contiguous, pick

TILES = {
    0: {"BLOCK_M": 32, "BLOCK_N": 32, "BLOCK_K": 32, "GROUP": 2},
    80: {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32, "GROUP": 8,
         "num_warps": 8, "num_stages": 4},
    90: {"BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 64, "GROUP": 8,
         "num_warps": 8, "num_stages": 3},
}  # fmt: skip


@triton.jit
def tile_of(program, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
            GROUP: tl.constexpr):  # fmt: skip
    """Row and column of a program's tile. Programs with near numbers run together, so
    they go down GROUP rows of tiles before they go on to the next column: what one of
    them has loaded is still in the L2 cache for the others."""
    tiles_m, tiles_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    first = program // (GROUP * tiles_n) * GROUP
    rows = tl.minimum(tiles_m - first, GROUP)
    rest = program % (GROUP * tiles_n)
    return first + rest % rows, rest // rows


@triton.jit
def matmul_kernel(
    a, b, out, M, N, K,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    row, column = tile_of(tl.program_id(0), M, N, BLOCK_M, BLOCK_N, GROUP)
    m = (row * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)[:, None]
    n = (column * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K).to(tl.int64)
        across, down = k[None, :], k[:, None]
        x = tl.load(a + m * K + across, (m < M) & (across < K), 0.0)
        y = tl.load(b + down * N + n, (down < K) & (n < N), 0.0)
        total = tl.dot(x, y, total, input_precision=PRECISION)
    tl.store(out + m * N + n, total.to(out.dtype.element_ty), (m < M) & (n < N))


def matmul(a: Float[Tensor, "M K"], b: Float[Tensor, "K N"]) -> Float[Tensor, "M N"]:
    """a @ b in their type: float32, bf16 or fp16. Sums are in float32.

    Raises:
        ValueError: the types differ, the shapes do not fit, or one is not contiguous.
    """
    if a.dtype != b.dtype or a.shape[1] != b.shape[0]:
        raise ValueError(
            f"a is {a.dtype} {list(a.shape)} and b {b.dtype} {list(b.shape)}, but the "
            "types must be the same, and a as wide as b is high"
        )
    contiguous(a=a, b=b)
    (M, K), N = a.shape, b.shape[1]
    out, tile = a.new_empty(M, N), pick(TILES, a)
    programs = triton.cdiv(M, tile["BLOCK_M"]) * triton.cdiv(N, tile["BLOCK_N"])
    if programs:
        matmul_kernel[(programs,)](a, b, out, M, N, K, **tile, PRECISION="ieee")
    return out


def reference(a: Float[Tensor, "M K"], b: Float[Tensor, "K N"]) -> Tensor:
    """`matmul` in plain PyTorch: products and sums in float32 at least."""
    wide = torch.promote_types(a.dtype, torch.float32)
    return (a.to(wide) @ b.to(wide)).to(a.dtype)
