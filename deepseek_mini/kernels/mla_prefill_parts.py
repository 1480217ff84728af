"""What the kernels of MLA's prefill share, forward and backward: reading rows, scores.

Their launchers share the arguments that follow from the tensors' shapes.
"""

import triton
import triton.language as tl
from torch import Tensor, float32

from deepseek_mini.kernels.launch import Tile, pick

LN_2 = tl.constexpr(0.6931471805599453)
NEVER = tl.constexpr(float("-inf"))


def sizes(queries: int, keys: int, num_warps: int, num_stages: int) -> Tile:
    """A tile of `queries` by `keys`."""
    return {
        "BLOCK_M": queries, "BLOCK_N": keys,
        "num_warps": num_warps, "num_stages": num_stages,
    }  # fmt: skip


TILES_FLOAT32 = {80: sizes(32, 32, 4, 1)}


@triton.jit
def load_rows(
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
def block_scores(
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


def pick_tile(tiles: dict[int, Tile], x: Tensor) -> Tile:
    """The tile for x's GPU; in float32, which has no fast path, a small one."""
    return pick(TILES_FLOAT32 if x.dtype == float32 else tiles, x)


def strides(q_nope, q_pe, k_nope, k_pe, v) -> list[int]:
    """Of every dimension but the last, which is contiguous."""
    tensors = q_nope, q_pe, k_nope, k_pe, v
    return [stride for x in tensors for stride in x.stride()[:-1]]


def widths(q_nope, q_pe, k_nope, k_pe, v) -> dict[str, int]:
    """The channels of a head: without RoPE, with it, of a value."""
    return {"N": q_nope.shape[-1], "R": q_pe.shape[-1], "V": v.shape[-1]}
