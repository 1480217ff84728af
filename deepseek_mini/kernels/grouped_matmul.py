"""Products of many experts in one launch: each tile of rows by its expert's matrix.

`expert_sort` has put the choices of every expert into tiles of its own. The product
into the experts gathers the tokens as it reads them, multiplies by w1 and w3 and stores
silu(x w1ᵀ) · (x w3ᵀ); the product out of them stores each row where its choice is, so
that a token's K results lie side by side. Nothing is sorted in memory.

With 256 experts on one GPU, reading their matrices takes longest, even for thousands
of tokens. Programs that run at once share them: neighbours are GROUP tiles of rows,
often of one expert, by the same columns.

The same in FP8 is `grouped_fp8`.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

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


def rows_of_a_tile(n_choices: int, n_experts: int) -> int:
    """16, 64 or 128: what leaves few rows empty and reads few matrices twice."""
    each = n_choices / n_experts
    return 16 if each <= 8 else 64 if each <= 64 else 128


@triton.jit
def my_tile(n_tiles, COLUMNS: tl.constexpr, GROUP: tl.constexpr):
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
    tile, block = my_tile(n_tiles, (N + BLOCK_N - 1) // BLOCK_N, GROUP)
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
    for e, rows in rows_by_expert(plan):
        token = x[plan.order[rows] // per_token]
        gate, up = _product(token, w1[e]), _product(token, w3[e])
        out[rows] = (F.silu(gate) * up).to(x.dtype)
    return out


def out_reference(
    h: Float[Tensor, "P I"], w2: Float[Tensor, "E D I"], plan: Plan
) -> Float[Tensor, "choices D"]:
    """`out_of_experts` in plain PyTorch."""
    out = h.new_empty(plan.n_choices, w2.shape[1])
    for e, rows in rows_by_expert(plan):
        out[plan.order[rows].long()] = _product(h[rows], w2[e]).to(h.dtype)
    return out


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a bᵀ, kept in float32 at least."""
    wide = torch.promote_types(a.dtype, torch.float32)
    return a.to(wide) @ b.to(wide).T


def rows_by_expert(plan: Plan) -> Iterator[tuple[int, Tensor]]:
    """Every expert that was chosen, and its rows of the tiles."""
    expert = plan.tile_expert.repeat_interleave(plan.tile_rows)
    expert = expert.masked_fill(plan.order < 0, -1)
    for e in range(len(plan.load)):
        rows = torch.where(expert == e)[0]
        if len(rows):
            yield e, rows
