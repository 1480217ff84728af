"""A context in parts: into how many to cut it, and what they found, put together.

Attention over a part of the keys gives a mean of values and the logarithm of the sum
that it was divided by. From these two the mean over all keys follows, whatever the
number of parts:

    lse = log(sum of exp(lse_i));   out = sum of exp(lse_i - lse) · out_i
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float32, Int
from torch import Tensor

from deepseek_mini.kernels.launch import pick

LN_2 = tl.constexpr(0.6931471805599453)
NEVER = tl.constexpr(float("-inf"))
TILES = {80: {"num_warps": 4}}  # a program combines one row


@triton.jit
def combine_kernel(
    part_out,  # [B, splits, rows, C], float32
    part_lse,  # [B, splits, rows]
    lengths,
    out,  # [B, rows, C]
    lse,  # [B, rows]
    n_splits,
    keys_per_split,
    C: tl.constexpr,
):
    """One row of `out`: the parts' results, weighed by what each part's keys weigh."""
    row, b, n_rows = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.num_programs(0)
    length = tl.load(lengths + b)
    used = tl.maximum((length + keys_per_split - 1) // keys_per_split, 1)
    first = b * n_splits * n_rows + row
    top = tl.load(part_lse + first)
    for split in range(1, used):
        top = tl.maximum(top, tl.load(part_lse + first + split * n_rows))
    level = tl.where(top == NEVER, 0.0, top)

    channel = tl.arange(0, C)
    total = level * 0.0
    acc = tl.zeros([C], tl.float32)
    for split in range(used):
        at = first + split * n_rows
        weight = tl.exp2((tl.load(part_lse + at) - level) / LN_2)
        acc += weight * tl.load(part_out + at * C + channel)
        total += weight
    some = total > 0.0
    total = tl.where(some, total, 1.0)
    at = b * n_rows + row
    tl.store(out + at * C + channel, (acc / total).to(out.dtype.element_ty))
    tl.store(lse + at, tl.where(some, level + tl.log2(total) * LN_2, NEVER))


def empty_parts(
    out: Float[Tensor, "B T H C"], splits: int
) -> tuple[Float32[Tensor, "B splits rows C"], Float32[Tensor, "B splits rows"]]:
    """Room for what the parts find, rows = T·H, in float32: they are summed."""
    B, T, H, C = out.shape
    room = {"dtype": torch.float32, "device": out.device}
    shape = B, splits, T * H
    return torch.empty(*shape, C, **room), torch.empty(*shape, **room)


def combine(
    part_out: Float32[Tensor, "B splits rows C"],
    part_lse: Float32[Tensor, "B splits rows"],
    lengths: Int[Tensor, " B"],
    keys_per_split: int,
    out: Float[Tensor, "B T H C"],
    lse: Float32[Tensor, "B T H"],
) -> None:
    """Fill `out` and `lse` from those of the parts, [B, splits, T·H, ...].

    Part i of row b has the keys from i · keys_per_split on, and those behind
    `lengths[b]` are no part: they are not read. A row without keys gets 0 and -inf.
    """
    B, splits, rows, C = part_out.shape
    combine_kernel[(rows, B)](
        part_out, part_lse, lengths, out, lse, splits, keys_per_split, C=C,
        **pick(TILES, out),
    )  # fmt: skip


def choose_splits(n_tiles: int, n_keys: int, block_n: int, n_sms: int) -> int:
    """Into how many parts to cut a context of `n_keys`, for `n_tiles` tiles of heads.

    An SM, one of a GPU's multiprocessors, holds one tile. The time is that of the waves
    of programs, each as long as its blocks of keys and about four more for loading
    queries and storing results.
    """
    blocks = triton.cdiv(n_keys, block_n)

    def time(splits: int) -> int:
        waves = triton.cdiv(n_tiles * splits, n_sms)
        return waves * (triton.cdiv(blocks, splits) + 4)

    return min(range(1, min(blocks, 64) + 1), key=time, default=1)


def n_sms(x: Tensor) -> int:
    """How many programs run at a time; interpreted, one."""
    if x.device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(x.device).multi_processor_count
