"""Products of many experts in one launch, in FP8: tiles of rows with scales.

As `grouped_matmul`, of which it has the order of the tiles: a program multiplies one
tile of rows by some columns of its expert's matrix. As `fp8_matmul`, of which it has
the arithmetic: every 128 numbers the sum is scaled and promoted to float32.

The rows of a tile are anywhere in x, so they are gathered by plain loads. A block of
the matrix is dense and comes by the copy engine (TMA). SwiGLU and rounding to fp8 again
come between the two products, in `quantise.swiglu_quantise`.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from deepseek_mini import fp8
from deepseek_mini.kernels.expert_sort import Plan
from deepseek_mini.kernels.grouped_matmul import my_tile, rows_by_expert
from deepseek_mini.kernels.launch import Tile, contiguous, pick

STEP = tl.constexpr(128)  # numbers along the products that share a scale
SMALL: Tile = {"BLOCK_N": 64, "GROUP": 2}  # interpreted


def _tile(num_warps: int, num_stages: int) -> Tile:
    sizes = {"BLOCK_N": 128, "GROUP": 4}
    return {**sizes, "num_warps": num_warps, "num_stages": num_stages}


# By the rows of a tile, as in `grouped_matmul`. 128 x 128 takes 8 warps (`fp8_matmul`).
TILES: dict[int, dict[int, Tile]] = {
    16: {90: _tile(4, 5), 0: SMALL},
    64: {90: _tile(4, 4), 0: SMALL},
    128: {90: _tile(8, 4), 0: SMALL},
}


@triton.jit
def grouped_fp8_kernel(
    x, w, out, x_scale, w_scale, order, tile_expert, n_tiles, PER_TOKEN: tl.constexpr,
    N: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    """As `grouped_kernel`, with scales: of x for 1 x 128, of w for 128 x 128. w is a
    descriptor of all experts' rows, one expert after the other.
    """
    tile, block = my_tile(n_tiles, (N + BLOCK_N - 1) // BLOCK_N, GROUP)
    expert = tl.load(tile_expert + tile)
    if expert < 0:
        return
    slot = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    choice = tl.load(order + slot)
    filled = choice >= 0
    if PER_TOKEN:
        source, target = choice // PER_TOKEN, slot
    else:
        source, target = slot, choice

    steps: tl.constexpr = (D + 127) // 128
    first_column, k = block * BLOCK_N, tl.arange(0, STEP)
    x_at = x + source.to(tl.int64)[:, None] * D + k[None, :]
    row_scales = x_scale + source.to(tl.int64) * steps
    blocks: tl.constexpr = (N + 127) // 128
    block_scales = w_scale + (expert * blocks + first_column // STEP) * steps
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(steps):
        in_x = filled[:, None] & (k < D - step * STEP)[None, :]
        a = tl.load(x_at + step * STEP, in_x, 0.0)
        b = w.load([expert * N + first_column, step * STEP])
        scale = tl.load(row_scales + step, filled, 0.0) * tl.load(block_scales + step)
        total += tl.dot(a, b.T) * scale[:, None]
    column = first_column + tl.arange(0, BLOCK_N)
    at = target.to(tl.int64)[:, None] * N + column[None, :]
    inside = filled[:, None] & (column < N)[None, :]
    tl.store(out + at, total.to(tl.bfloat16), inside)


def grouped_fp8(
    x: Tensor,
    x_scale: Float[Tensor, "rows tiles"],
    w: Tensor,
    w_scale: Float[Tensor, "E blocks tiles"],
    plan: Plan,
    into: bool,
) -> Float[Tensor, "out_rows N"]:
    """x wᵀ in bf16, for E4M3 x [rows, K] and w [E, N, K], with scales as `fp8.quantise`
    makes them: 1 x 128 and 128 x 128 (DeepSeek-V3, arXiv 2412.19437, §3.3.2).

    into: from the tokens into the rows of the plan's tiles (empty ones are not
    written); else out of the tiles, a row a choice.

    Raises:
        ValueError: shapes do not belong together or to the plan, K is no multiple of
            16, a tensor is not contiguous, or the GPU is older than sm_90.
    """
    (n_rows, width), (n_experts, n, _) = x.shape, w.shape
    steps, per_token = triton.cdiv(width, 128), plan.n_choices // max(1, n_rows)
    wanted = {
        "x_scale": (x_scale, (n_rows, steps)),
        "w": (w, (n_experts, n, width)),
        "w_scale": (w_scale, (n_experts, triton.cdiv(n, 128), steps)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor.shape != shape:
            raise ValueError(
                f"{name} has shape {list(tensor.shape)}, but it must be {list(shape)}"
            )
    fits = per_token * n_rows == plan.n_choices if into else n_rows == len(plan.order)
    if not fits:
        raise ValueError(
            f"x has {n_rows} rows, but the plan has {len(plan.order)} in tiles and "
            f"{plan.n_choices} choices"
        )
    if width % 16:
        raise ValueError(f"K is {width}, but it must be a multiple of 16")
    contiguous(x=x, x_scale=x_scale, w=w, w_scale=w_scale)
    shape = len(plan.order) if into else plan.n_choices, n
    out = torch.empty(shape, dtype=torch.bfloat16, device=x.device)
    tile = pick(TILES[plan.tile_rows], x)
    n_tiles, columns = len(plan.tile_expert), tile["BLOCK_N"]
    if n_tiles:
        grouped_fp8_kernel[(n_tiles * triton.cdiv(n, columns),)](
            x, TensorDescriptor.from_tensor(w.flatten(0, 1), [columns, 128]), out,
            x_scale, w_scale, plan.order, plan.tile_expert, n_tiles,
            PER_TOKEN=per_token if into else 0, N=n, D=width, BLOCK_M=plan.tile_rows,
            **tile,
        )  # fmt: skip
    return out


def reference(
    x: Tensor,
    x_scale: Float[Tensor, "rows tiles"],
    w: Tensor,
    w_scale: Float[Tensor, "E blocks tiles"],
    plan: Plan,
    into: bool,
) -> Float[Tensor, "out_rows N"]:
    """`grouped_fp8` in plain PyTorch: dequantise, multiply in float32."""
    rows = fp8.dequantise(x, x_scale, fp8.TILE)
    n_out = len(plan.order) if into else plan.n_choices
    out = torch.zeros(n_out, w.shape[1], dtype=torch.bfloat16, device=x.device)
    for e, slots in rows_by_expert(plan):
        choices = plan.order[slots].long()
        per_token = plan.n_choices // max(1, len(x))
        source, target = (choices // per_token, slots) if into else (slots, choices)
        matrix = fp8.dequantise(w[e], w_scale[e], fp8.BLOCK)
        out[target] = (rows[source] @ matrix.T).bfloat16()
    return out
