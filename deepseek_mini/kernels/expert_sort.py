"""Choices in the order of their experts, each expert's rows in tiles of its own.

A grouped product wants the rows of an expert side by side, and every tile of rows to
belong to one expert. So experts begin at multiples of the tile; what is left of their
last tile stays empty. The order within an expert is that of the tokens, so a result is
the same in every run: positions are counted, with no atomic additions.

Three small kernels: each block of choices counts its experts; for each expert, counts
become sums over the blocks before; each block then knows where its choices go. How
many tiles there will be is not known on the CPU, which need not wait: the arrays are as
long as they can be at most, and what is not used says so.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from jaxtyping import Int
from torch import Tensor

from deepseek_mini.kernels.launch import contiguous, pick

TILES = {80: {"BLOCK": 64, "num_warps": 4}, 0: {"BLOCK": 32}}
TILES_SUMS = {80: {"STEP": 1024, "num_warps": 4}, 0: {"STEP": 4}}


@dataclass(frozen=True)
class Plan:
    """Where the T·K choices of T tokens stand, in tiles of `tile_rows` rows.

    order: for every row the choice that stands there (choice k of token t is t·K + k),
        or -1 for an empty one. tile_expert: every tile's expert, or -1 after the last.
    load: how many choices each expert has. n_choices: T·K.
    """

    order: Int[Tensor, " P"]
    tile_expert: Int[Tensor, " tiles"]
    load: Int[Tensor, " E"]
    n_choices: int
    tile_rows: int


@triton.jit
def _matches(ids, choice, n_choices, lane):
    """[BLOCK, LANES]: 1 where a choice is of a lane's expert."""
    expert = tl.load(ids + choice, choice < n_choices, -1)
    return (expert[:, None] == lane[None, :]).to(tl.int32)


@triton.jit
def count_kernel(
    ids, counts, n_choices, n_blocks, E: tl.constexpr, LANES: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """counts [E, n_blocks]: of each expert in each block of choices."""
    block, lane = tl.program_id(0), tl.arange(0, LANES)
    choice = block * BLOCK + tl.arange(0, BLOCK)
    count = tl.sum(_matches(ids, choice, n_choices, lane), axis=0)
    tl.store(counts + lane * n_blocks + block, count, lane < E)


@triton.jit
def sum_kernel(counts, load, n_blocks, STEP: tl.constexpr):
    """One expert: its counts become sums over the blocks before; its load."""
    row = counts + tl.program_id(0) * n_blocks
    total = 0
    for first in range(0, n_blocks, STEP):
        block = first + tl.arange(0, STEP)
        count = tl.load(row + block, block < n_blocks, 0)
        tl.store(row + block, total + tl.cumsum(count) - count, block < n_blocks)
        total += tl.sum(count)
    tl.store(load + tl.program_id(0), total)


@triton.jit
def place_kernel(
    ids, before, load, order, tile_expert, n_choices, n_blocks, n_tiles,
    TILE_ROWS: tl.constexpr, E: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Put a block's choices in their rows; and write some of the tiles' experts."""
    block, lane = tl.program_id(0), tl.arange(0, LANES)
    count = tl.load(load + lane, lane < E, 0)
    tiles = (count + TILE_ROWS - 1) // TILE_ROWS
    last = tl.cumsum(tiles)  # the first tile that is no longer an expert's
    start = (last - tiles) * TILE_ROWS
    start += tl.load(before + lane * n_blocks + block, lane < E, 0)

    choice = block * BLOCK + tl.arange(0, BLOCK)
    matches = _matches(ids, choice, n_choices, lane)
    rank = tl.cumsum(matches, axis=0) - 1
    row = tl.sum(matches * (start[None, :] + rank), axis=1)
    tl.store(order + row, choice, choice < n_choices)

    for first in range(block * BLOCK, n_tiles, n_blocks * BLOCK):
        tile = first + tl.arange(0, BLOCK)
        finished = (last[None, :] <= tile[:, None]) & (lane < E)[None, :]
        expert = tl.sum(finished.to(tl.int32), axis=1)
        expert = tl.where(expert < E, expert, -1)
        tl.store(tile_expert + tile, expert, tile < n_tiles)


def expert_sort(ids: Int[Tensor, "T K"], n_experts: int, tile_rows: int) -> Plan:
    """The rows of a grouped product over `n_experts`, from each token's chosen ids.

    ids: int32, from 0 to n_experts - 1 (not checked: that would stop the GPU).

    Raises:
        ValueError: ids are not int32 or not contiguous.
    """
    if ids.dtype != torch.int32:
        raise ValueError(f"ids are {ids.dtype}, but must be torch.int32")
    contiguous(ids=ids)
    n_choices, block_tile = ids.numel(), pick(TILES, ids)
    n_tiles = most_tiles(n_choices, n_experts, tile_rows)
    n_blocks = triton.cdiv(n_choices, block_tile["BLOCK"])

    def integers(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int32, device=ids.device)

    counts, load = integers(n_experts, n_blocks), integers(n_experts)
    order, tile_expert = integers(n_tiles * tile_rows).fill_(-1), integers(n_tiles)
    plan = Plan(order, tile_expert, load, n_choices, tile_rows)
    if not n_choices:
        load.zero_()
        return plan
    sizes = {"E": n_experts, "LANES": triton.next_power_of_2(n_experts), **block_tile}
    count_kernel[(n_blocks,)](ids, counts, n_choices, n_blocks, **sizes)
    sum_kernel[(n_experts,)](counts, load, n_blocks, **pick(TILES_SUMS, ids))
    place_kernel[(n_blocks,)](
        ids, counts, load, order, tile_expert, n_choices, n_blocks, n_tiles,
        TILE_ROWS=tile_rows, **sizes,
    )  # fmt: skip
    return plan


def most_tiles(n_choices: int, n_experts: int, tile_rows: int) -> int:
    """The number of tiles if all but one of the experts that can be chosen have a tile
    with one row in it.
    """
    busy = min(n_choices, n_experts)
    return (n_choices + busy * (tile_rows - 1)) // tile_rows


def reference(ids: Int[Tensor, "T K"], n_experts: int, tile_rows: int) -> Plan:
    """`expert_sort` in plain PyTorch."""
    flat = ids.flatten().long()
    load = flat.bincount(minlength=n_experts)
    tiles = (load + tile_rows - 1) // tile_rows
    first_row = (tiles.cumsum(0) - tiles) * tile_rows
    first_choice = load.cumsum(0) - load
    choices = flat.argsort(stable=True)
    expert = flat[choices]
    rank = torch.arange(len(flat), device=ids.device) - first_choice[expert]
    n_tiles = most_tiles(len(flat), n_experts, tile_rows)
    order = torch.full((n_tiles * tile_rows,), -1, dtype=torch.int32, device=ids.device)
    order[first_row[expert] + rank] = choices.int()
    tile = torch.arange(n_tiles, device=ids.device)
    tile_expert = torch.searchsorted(tiles.cumsum(0), tile, right=True)
    tile_expert = tile_expert.masked_fill(tile_expert == n_experts, -1)
    return Plan(order, tile_expert.int(), load.int(), len(flat), tile_rows)
