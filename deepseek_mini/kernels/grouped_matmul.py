"""Products of many experts in one launch: each tile of rows by its expert's matrix.

`expert_sort` has put the choices of every expert into tiles of its own. The product
into the experts gathers the tokens as it reads them, multiplies by w1 and w3 and stores
silu(x w1ᵀ) · (x w3ᵀ); the product out of them stores each row where its choice is, so
that a token's K results lie side by side. Nothing is sorted in memory.

With 256 experts on one GPU, reading their matrices takes longest, even for thousands
of tokens. Programs that run at once share them: neighbours are GROUP tiles of rows,
often of one expert, by the same columns.

In FP8 the scales change every 128 numbers, as in `fp8_matmul`; SwiGLU and rounding to
fp8 again come between the two products, in `quantise.swiglu_quantise`.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from triton.tools.tensor_descriptor import TensorDescriptor

from deepseek_mini import fp8
from deepseek_mini.kernels.expert_sort import Plan
from deepseek_mini.kernels.launch import Tile, contiguous, pick


def _tile(columns: int, depth: int, num_warps: int, num_stages: int) -> Tile:
    return {
        "BLOCK_N": columns, "BLOCK_K": depth, "GROUP": 4,
        "num_warps": num_warps, "num_stages": num_stages,
    }  # fmt: skip


SMALL: Tile = {"BLOCK_N": 32, "BLOCK_K": 64, "GROUP": 2}  # interpreted
# By the rows of a tile. HGMMA, the H100's fast instruction, takes 64 rows or more; with
# 16, for a few tokens, reading is all that takes time, and the older HMMA is enough.
TILES: dict[int, dict[int, Tile]] = {
    16: {80: _tile(64, 128, 4, 4), 0: SMALL},
    64: {80: _tile(128, 64, 4, 3), 90: _tile(128, 64, 4, 4), 0: SMALL},
    128: {80: _tile(128, 64, 8, 3), 90: _tile(128, 64, 8, 4), 0: SMALL},
}
TILES_SWIGLU: dict[int, dict[int, Tile]] = {  # two sums, so half the columns
    16: {80: _tile(32, 128, 4, 4), 0: SMALL},
    64: {80: _tile(64, 64, 4, 3), 90: _tile(64, 64, 4, 4), 0: SMALL},
    128: {80: _tile(64, 64, 8, 3), 90: _tile(64, 64, 8, 4), 0: SMALL},
}
STEP = tl.constexpr(128)  # numbers along the products that share a scale
SMALL_FP8: Tile = {"BLOCK_N": 64, "GROUP": 2}
TILES_FP8: dict[int, dict[int, Tile]] = {
    16: {
        90: {"BLOCK_N": 128, "GROUP": 4, "num_warps": 4, "num_stages": 5},
        0: SMALL_FP8,
    },
    64: {
        90: {"BLOCK_N": 128, "GROUP": 4, "num_warps": 4, "num_stages": 4},
        0: SMALL_FP8,
    },
    128: {
        90: {"BLOCK_N": 128, "GROUP": 4, "num_warps": 8, "num_stages": 4},
        0: SMALL_FP8,
    },
}


def rows_of_a_tile(n_choices: int, n_experts: int) -> int:
    """16, 64 or 128: what leaves few rows empty and reads few matrices twice."""
    each = n_choices / n_experts
    return 16 if each <= 8 else 64 if each <= 64 else 128


@triton.jit
def _my_tile(n_tiles, COLUMNS: tl.constexpr, GROUP: tl.constexpr):
    """Tile and block of columns of this program: down GROUP tiles, then across."""
    program = tl.program_id(0)
    first = program // (GROUP * COLUMNS) * GROUP
    height = tl.minimum(n_tiles - first, GROUP)
    within = program % (GROUP * COLUMNS)
    return first + within % height, within // height


@triton.jit
def grouped_kernel(
    x, w, w_up, out, order, tile_expert, n_tiles, PER_TOKEN: tl.constexpr,
    N: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """PER_TOKEN: K, where x has a row a token and out a row of the tiles; 0 where x has
    a row of the tiles and out a row a choice. w_up: w3, or None for no SwiGLU.
    """
    tile, block = _my_tile(n_tiles, (N + BLOCK_N - 1) // BLOCK_N, GROUP)
    expert = tl.load(tile_expert + tile).to(tl.int64)
    if expert < 0:  # after the last tile
        return
    slot = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    choice = tl.load(order + slot)
    filled = choice >= 0
    if PER_TOKEN:
        source, target = choice // PER_TOKEN, slot
    else:
        source, target = slot, choice

    column, k = block * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    x_at = x + source.to(tl.int64)[:, None] * D + k[None, :]
    w_row = expert * N + column
    w_at = w_row[:, None] * D + k[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    up = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first in range(0, D, BLOCK_K):
        in_w = (column < N)[:, None] & (k < D - first)[None, :]
        a = tl.load(x_at + first, filled[:, None] & (k < D - first)[None, :], 0.0)
        b = tl.load(w + w_at + first, in_w, 0.0)
        total = tl.dot(a, b.T, total, input_precision="ieee")
        if w_up is not None:
            b = tl.load(w_up + w_at + first, in_w, 0.0)
            up = tl.dot(a, b.T, up, input_precision="ieee")
    if w_up is not None:
        total = total / (1 + tl.exp(-total)) * up
    at = target.to(tl.int64)[:, None] * N + column[None, :]
    tl.store(out + at, total, filled[:, None] & (column < N)[None, :])


@triton.jit
def grouped_fp8_kernel(
    x, w, out, x_scale, w_scale, order, tile_expert, n_tiles, PER_TOKEN: tl.constexpr,
    N: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    """As `grouped_kernel`, with scales: of x for 1 x 128, of w for 128 x 128. w is a
    descriptor of all experts' rows, one expert after the other.
    """
    tile, block = _my_tile(n_tiles, (N + BLOCK_N - 1) // BLOCK_N, GROUP)
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


def into_experts(
    x: Float[Tensor, "T D"],
    w1: Float[Tensor, "E I D"],
    w3: Float[Tensor, "E I D"],
    plan: Plan,
) -> Float[Tensor, "P I"]:
    """silu(x w1ᵀ) · (x w3ᵀ), each token by its experts' matrices, in the rows of the
    plan's tiles (arXiv 2401.06066, §3). Empty rows are not written.

    All of one type, bf16, fp16 or float32; sums and SwiGLU in float32.

    Raises:
        ValueError: types differ, a tensor is not contiguous, w1 and w3 differ in shape,
            or the plan is not of as many tokens.
    """
    if w1.shape != w3.shape:
        raise ValueError(f"w1 is {list(w1.shape)}, but w3 is {list(w3.shape)}")
    per_token = plan.n_choices // max(1, len(x))
    if per_token * len(x) != plan.n_choices:
        raise ValueError(
            f"x has {len(x)} tokens, but the plan has {plan.n_choices} choices, which "
            "must be a multiple"
        )
    shape = len(plan.order), w1.shape[1]
    out = torch.empty(shape, dtype=x.dtype, device=x.device)
    return _launch(x, w1, w3, out, plan, per_token, TILES_SWIGLU)


def out_of_experts(
    h: Float[Tensor, "P I"], w2: Float[Tensor, "E D I"], plan: Plan
) -> Float[Tensor, "choices D"]:
    """h w2ᵀ, each row of the plan's tiles by its expert's matrix: a row a choice.

    Raises:
        ValueError: types differ, a tensor is not contiguous, or h has not a row for
            each of the plan's.
    """
    if len(h) != len(plan.order):
        raise ValueError(f"h has {len(h)} rows, but the plan {len(plan.order)}")
    shape = plan.n_choices, w2.shape[1]
    out = torch.empty(shape, dtype=h.dtype, device=h.device)
    return _launch(h, w2, None, out, plan, 0, TILES)


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
    tile = pick(TILES_FP8[plan.tile_rows], x)
    n_tiles, columns = len(plan.tile_expert), tile["BLOCK_N"]
    if n_tiles:
        grouped_fp8_kernel[(n_tiles * triton.cdiv(n, columns),)](
            x, TensorDescriptor.from_tensor(w.flatten(0, 1), [columns, 128]), out,
            x_scale, w_scale, plan.order, plan.tile_expert, n_tiles,
            PER_TOKEN=per_token if into else 0, N=n, D=width, BLOCK_M=plan.tile_rows,
            **tile,
        )  # fmt: skip
    return out


def _launch(x, w, w_up, out, plan, per_token, tables):
    _, n, width = w.shape
    given = {"x": x, "w": w} | ({} if w_up is None else {"w_up": w_up})
    contiguous(**given)
    if len({t.dtype for t in given.values()}) > 1:
        raise ValueError(f"the rows are {x.dtype}, but the matrices {w.dtype}")
    if x.shape[1] != width:
        raise ValueError(f"rows are {x.shape[1]} wide, but the matrices {width}")
    tile = pick(tables[plan.tile_rows], x)
    n_tiles = len(plan.tile_expert)
    if n_tiles:
        grouped_kernel[(n_tiles * triton.cdiv(n, tile["BLOCK_N"]),)](
            x, w, w_up, out, plan.order, plan.tile_expert, n_tiles,
            PER_TOKEN=per_token, N=n, D=width, BLOCK_M=plan.tile_rows, **tile,
        )  # fmt: skip
    return out


def into_reference(
    x: Float[Tensor, "T D"],
    w1: Float[Tensor, "E I D"],
    w3: Float[Tensor, "E I D"],
    plan: Plan,
) -> Float[Tensor, "P I"]:
    """`into_experts` in plain PyTorch, rounded once; empty rows are 0."""
    out = x.new_zeros(len(plan.order), w1.shape[1])
    per_token = plan.n_choices // max(1, len(x))
    for e, rows in _rows(plan):
        token = x[plan.order[rows] // per_token]
        gate, up = _product(token, w1[e]), _product(token, w3[e])
        out[rows] = (F.silu(gate) * up).to(x.dtype)
    return out


def out_reference(
    h: Float[Tensor, "P I"], w2: Float[Tensor, "E D I"], plan: Plan
) -> Float[Tensor, "choices D"]:
    """`out_of_experts` in plain PyTorch."""
    out = h.new_empty(plan.n_choices, w2.shape[1])
    for e, rows in _rows(plan):
        out[plan.order[rows].long()] = _product(h[rows], w2[e]).to(h.dtype)
    return out


def fp8_reference(
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
    for e, slots in _rows(plan):
        choices = plan.order[slots].long()
        per_token = plan.n_choices // max(1, len(x))
        source, target = (choices // per_token, slots) if into else (slots, choices)
        matrix = fp8.dequantise(w[e], w_scale[e], fp8.BLOCK)
        out[target] = (rows[source] @ matrix.T).bfloat16()
    return out


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a bᵀ, kept in float32 at least."""
    wide = torch.promote_types(a.dtype, torch.float32)
    return a.to(wide) @ b.to(wide).T


def _rows(plan: Plan):
    """Every expert that was chosen, and its rows of the tiles."""
    expert = plan.tile_expert.repeat_interleave(plan.tile_rows)
    expert = expert.masked_fill(plan.order < 0, -1)
    for e in range(len(plan.load)):
        rows = torch.where(expert == e)[0]
        if len(rows):
            yield e, rows
