"""A matrix product of E4M3 numbers with scales for tiles and blocks.

Activations have a scale for every 1 x 128 tile, weights for every 128 x 128 block, so
along K the scales change every 128 numbers. A tensor core sums fp8 products with about
14 bits (DeepSeek-V3, §3.3.2): after each 128 the sum is scaled and added to another in
float32, in ordinary registers, and the tensor core begins again. The two needs meet.

A program makes one block of the result. The copy engine (TMA) brings blocks of a and b
to shared memory, several steps ahead of the tensor cores; the scales of a step are one
column of a's and a single number of b's.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from deepseek_mini import fp8
from deepseek_mini.kernels.launch import Tile, contiguous, pick

STEP = tl.constexpr(128)  # numbers along K that share a scale, and between promotions
# With 4 warps for 128 x 128, registers spill; with 8 none do (see GATES).
TILES: dict[int, Tile] = {
    90: {"BLOCK_M": 128, "BLOCK_N": 128, "GROUP": 8, "num_warps": 8, "num_stages": 4},
    0: {"BLOCK_M": 32, "BLOCK_N": 64, "GROUP": 2},
}
# With few rows, reading the weights is all that takes time: smaller blocks, so that
# there is one for nearly every multiprocessor, and more of them under way.
FEW_ROWS = 128
TILES_FEW_ROWS: dict[int, Tile] = {
    90: {"BLOCK_M": 128, "BLOCK_N": 64, "GROUP": 8, "num_warps": 4, "num_stages": 6},
    0: {"BLOCK_M": 16, "BLOCK_N": 32, "GROUP": 2},
}


@triton.jit
def fp8_matmul_kernel(
    a, b, c, a_scale, b_scale, M, N, STEPS: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    # Programs that run at once should share what they read, so they are numbered down
    # GROUP blocks of rows before the next block of columns.
    program, n_columns = tl.program_id(0), tl.cdiv(N, BLOCK_N)
    first = program // (GROUP * n_columns) * GROUP
    height = tl.minimum(tl.cdiv(M, BLOCK_M) - first, GROUP)
    within = program % (GROUP * n_columns)
    m, n = (first + within % height) * BLOCK_M, within // height * BLOCK_N

    rows, columns = m + tl.arange(0, BLOCK_M), n + tl.arange(0, BLOCK_N)
    row_scales = a_scale + rows * STEPS
    block_scales = b_scale + n // STEP * STEPS
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(STEPS):
        x = a.load([m, step * STEP])
        w = b.load([n, step * STEP])
        scale = tl.load(row_scales + step, rows < M, 0.0) * tl.load(block_scales + step)
        total += tl.dot(x, w.T) * scale[:, None]
    at = rows.to(tl.int64)[:, None] * N + columns[None, :]
    inside = (rows < M)[:, None] & (columns < N)[None, :]
    tl.store(c + at, total.to(tl.bfloat16), inside)


def fp8_matmul(
    a: Tensor,
    a_scale: Float[Tensor, "M tiles"],
    b: Tensor,
    b_scale: Float[Tensor, "blocks tiles"],
) -> Float[Tensor, "M N"]:
    """a bᵀ in bf16, for E4M3 a [M, K] and b [N, K] (DeepSeek-V3, §3.3.2).

    The scales are as `fp8.quantise` makes them: of a one for each 1 x 128 tile, of b
    one for each 128 x 128 block.

    Raises:
        ValueError: shapes do not belong together, K is no multiple of 16 (the copy
            engine's unit), a tensor is not contiguous, or the GPU is older than sm_90.
    """
    (M, K), N = a.shape, b.shape[0]
    steps = triton.cdiv(K, 128)
    wanted = {"b": (b, (N, K)), "a_scale": (a_scale, (M, steps)),
              "b_scale": (b_scale, (triton.cdiv(N, 128), steps))}  # fmt: skip
    for name, (tensor, shape) in wanted.items():
        if tensor.shape != shape:
            raise ValueError(
                f"{name} has shape {list(tensor.shape)}, but with a of {[M, K]} and "
                f"{N} rows of b it must be {list(shape)}"
            )
    if K % 16:
        raise ValueError(f"K is {K}, but it must be a multiple of 16")
    contiguous(a=a, a_scale=a_scale, b=b, b_scale=b_scale)
    c = torch.empty(M, N, dtype=torch.bfloat16, device=a.device)
    tile = pick(TILES_FEW_ROWS if M <= FEW_ROWS else TILES, a)
    rows, columns = tile["BLOCK_M"], tile["BLOCK_N"]
    if c.numel():
        fp8_matmul_kernel[(triton.cdiv(M, rows) * triton.cdiv(N, columns),)](
            TensorDescriptor.from_tensor(a, [rows, 128]),
            TensorDescriptor.from_tensor(b, [columns, 128]),
            c, a_scale, b_scale, M, N, STEPS=steps, **tile,
        )  # fmt: skip
    return c


def reference(
    a: Tensor,
    a_scale: Float[Tensor, "M tiles"],
    b: Tensor,
    b_scale: Float[Tensor, "blocks tiles"],
) -> Float[Tensor, "M N"]:
    """`fp8_matmul` in plain PyTorch: dequantise both, multiply in float32."""
    x = fp8.dequantise(a, a_scale, fp8.TILE)
    w = fp8.dequantise(b, b_scale, fp8.BLOCK)
    return (x @ w.T).bfloat16()
