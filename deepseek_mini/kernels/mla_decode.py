"""MLA decode: a few new tokens attend to the latent cache as it lies in memory.

All H heads read the same latents (DeepSeek-V2, arXiv 2405.04434, §2.1 and appendix C),
so one program takes BLOCK_H heads at once, and a latent that was fetched serves them
all twice: as key and as value. That is 2 · H · (2C + r) operations for C + r numbers,
242 a byte for V3's 128 heads in bf16: as many as an H100 can do in the time that the
byte takes. Memory and tensor cores must both be kept busy.

The context is cut into parts of `keys_per_split` keys, and a second kernel combines
what the parts found (`splits.py`): rows of uneven length become many pieces of even
work.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float32, Int
from torch import Tensor

from deepseek_mini.kernels.launch import Tile, pick
from deepseek_mini.kernels.splits import (
    LN_2,
    NEVER,
    choose_splits,
    combine,
    empty_parts,
    n_sms,
)


def _tile(heads: int, keys: int, num_warps: int, num_stages: int, apart=False) -> Tile:
    return {
        "BLOCK_H": heads, "BLOCK_N": keys, "APART": apart,
        "num_warps": num_warps, "num_stages": num_stages,
    }  # fmt: skip


# The accumulator is BLOCK_H x 512 float32 numbers: with 64 heads half of an SM's
# registers. On sm_90 a warp group's multiplication (HGMMA) takes 64 rows and no fewer.
# There is no tile for a T4 (sm_75): with 16 heads and 16 keys in fp16, Triton 3.9 gives
# it no tensor-core instruction, spills 6 KB a thread and takes 68 KB of shared memory,
# where there are 64.
TILES = {
    80: _tile(32, 32, 4, 2),
    90: _tile(64, 64, 8, 2, apart=True),
    100: _tile(64, 32, 8, 2, apart=True),
}
TILES_FEW = {80: _tile(16, 32, 4, 2), 90: _tile(16, 64, 8, 2)}  # at most 16 rows
TILES_FLOAT32 = {80: _tile(16, 16, 4, 1)}


@triton.jit
def decode_kernel(
    q_latent,  # [B, T·H, C], contiguous
    q_pe,  # [B, T·H, r], contiguous
    latent,
    k_pe,
    lengths,
    table,
    out,  # [B, splits, T·H, C]
    lse,  # [B, splits, T·H]
    scale_log2,
    n_queries,
    n_heads,
    keys_per_split,
    latent_page,  # strides: from page to page, from token to token
    latent_token,
    k_pe_page,
    k_pe_token,
    table_row,
    C: tl.constexpr,
    R: tl.constexpr,
    PAGE: tl.constexpr,  # tokens in a page; 0: row b's tokens are page b, whole
    BLOCK_H: tl.constexpr,
    BLOCK_N: tl.constexpr,
    APART: tl.constexpr,
):
    tile, split, b = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    length = tl.load(lengths + b)
    first = split * keys_per_split
    if split > 0 and first >= length:
        return  # no such part: the combining kernel does not read it
    last = tl.minimum(first + keys_per_split, length)

    # A row of the tile is one head of one of the T new tokens. The last token sees all
    # `length` keys, the one before it sees one fewer.
    n_rows = n_queries * n_heads
    rows = tile * BLOCK_H + tl.arange(0, BLOCK_H)
    real = rows < n_rows
    visible = length - n_queries + 1 + rows // n_heads
    channel, turned = tl.arange(0, C), tl.arange(0, R)
    row = b * n_rows + rows
    q_c = tl.load(q_latent + row[:, None] * C + channel, mask=real[:, None], other=0.0)
    q_r = tl.load(q_pe + row[:, None] * R + turned, mask=real[:, None], other=0.0)

    top = tl.full([BLOCK_H], NEVER, tl.float32)  # the largest score so far, in base 2
    total = tl.zeros([BLOCK_H], tl.float32)
    acc = tl.zeros([BLOCK_H, C], tl.float32)
    p = tl.zeros([BLOCK_H, BLOCK_N], latent.dtype.element_ty)
    for start in range(first, last, BLOCK_N):
        if PAGE > 0:
            page = tl.load(table + b * table_row + start // PAGE).to(tl.int64)
            token = start % PAGE + tl.arange(0, BLOCK_N)
        else:
            page = b
            token = start + tl.arange(0, BLOCK_N)
        keys = start + tl.arange(0, BLOCK_N)
        # What lies behind the last token may be anything, NaN too, and 0 · NaN is NaN.
        inside = (keys < last)[:, None]
        c_at = latent + page * latent_page + token[:, None] * latent_token + channel
        c = tl.load(c_at, mask=inside, other=0.0)
        k_at = k_pe + page * k_pe_page + token[:, None] * k_pe_token + turned
        k = tl.load(k_at, mask=inside, other=0.0)

        # APART: the branches are always taken, and are there for the compiler. Where a
        # product flows into another product, Triton gives each warp all keys of its
        # rows: 8 warps then want 128 rows, and with 64 both warp groups compute the
        # same scores. A branch ends what it looks at, and each computes half of them.
        some_keys = True
        more_keys = True
        if APART:
            some_keys = length > 0
            more_keys = start < last
        shrink = total
        scores = tl.zeros([BLOCK_H, BLOCK_N], tl.float32)
        if some_keys:
            scores = tl.dot(q_r, tl.trans(k), input_precision="ieee")
        if more_keys:
            scores = tl.dot(q_c, tl.trans(c), scores, input_precision="ieee")
            seen = keys[None, :] < visible[:, None]
            scores = tl.where(seen, scores * scale_log2, NEVER)
            new_top = tl.maximum(top, tl.max(scores, 1))
            level = tl.where(new_top == NEVER, 0.0, new_top)  # not -inf - (-inf)
            weights = tl.exp2(scores - level[:, None])
            shrink = tl.exp2(top - level)
            total = total * shrink + tl.sum(weights, 1)
            top = new_top
            p = weights.to(c.dtype)
        acc = acc * shrink[:, None]
        acc = tl.dot(p, c, acc, input_precision="ieee")

    some = total > 0.0
    total = tl.where(some, total, 1.0)
    row = (b * tl.num_programs(1) + split) * n_rows + rows
    acc = (acc * (1.0 / total)[:, None]).to(out.dtype.element_ty)
    tl.store(out + row[:, None] * C + channel, acc, mask=real[:, None])
    tl.store(lse + row, tl.where(some, (top + tl.log2(total)) * LN_2, NEVER), mask=real)


def mla_decode(
    q_latent: Float[Tensor, "B T H C"],
    q_pe: Float[Tensor, "B T H r"],
    latent: Float[Tensor, "P N C"],
    k_pe: Float[Tensor, "P N r"],
    lengths: Int[Tensor, " B"],
    scale: float,
    block_table: Int[Tensor, "B pages"] | None = None,
    splits: int | None = None,
    tile: Tile | None = None,
) -> tuple[Float[Tensor, "B T H C"], Float32[Tensor, "B T H"]]:
    """Attention of the T newest tokens of each row to the row's cached latents.

    `q_latent` is the query without position behind the absorbed key expansion, `q_pe`
    its RoPE channels; T is 1, or more when tokens were predicted ahead. The first
    `lengths[b]` tokens of row b are in the cache, the T new ones the last of them, and
    a new token does not see those after it. The cache is contiguous, row b being
    `latent[b]` (P = B), or paged: token j of row b is `latent[block_table[b, j // N],
    j % N]`, and then N is a multiple of the tile's keys. What the cache and the table
    hold beyond a row's length is never used, and no length may exceed the room (not
    checked: it would wait for the GPU). `scale` belongs to the width of a head's query,
    not to that of the latent: 192^-0.5 for V3, times YaRN's temperature squared.

    Returns the attention's result in q's type, still to be expanded to values, and the
    logarithm of the sum of exponentials of the scores. A token that sees no key (length
    0) gets zeros and -inf. `splits` and `tile` are chosen unless given.

    Raises:
        ValueError: types differ, C or r is no power of two from 16, the last dimension
            of the cache is strided, or a page is not whole tiles.
    """
    B, T, H, C = q_latent.shape
    R, page = q_pe.shape[-1], latent.shape[1]
    types = {t.dtype for t in (q_latent, q_pe, latent, k_pe)}
    if len(types) > 1:
        raise ValueError(f"queries and cache are of types {types}, but must be of one")
    for name, width in (("C", C), ("r", R)):
        if width < 16 or width & (width - 1):
            raise ValueError(f"{name} is {width}, but must be a power of two from 16")
    if latent.stride(-1) != 1 or k_pe.stride(-1) != 1:
        raise ValueError("the cache's channels are strided: they must be neighbours")
    rows = T * H
    if tile is None:
        table = TILES_FEW if rows <= 16 else TILES
        table = TILES_FLOAT32 if q_latent.dtype == torch.float32 else table
        tile = pick(table, q_latent)
    block_n = tile["BLOCK_N"]
    paged = block_table is not None
    if paged and page % block_n:
        raise ValueError(f"a page holds {page} tokens, but no multiple of {block_n}")

    n_keys = page * block_table.shape[1] if paged else page
    n_tiles = triton.cdiv(rows, tile["BLOCK_H"])
    if splits is None:
        splits = choose_splits(B * n_tiles, n_keys, block_n, n_sms(q_latent))
    blocks = triton.cdiv(triton.cdiv(n_keys, splits), block_n)
    keys_per_split = max(blocks, 1) * block_n
    out = torch.empty_like(q_latent, memory_format=torch.contiguous_format)
    lse = torch.empty(B, T, H, dtype=torch.float32, device=out.device)
    parts = (out, lse) if splits == 1 else empty_parts(out, splits)
    table = block_table if paged else lengths
    decode_kernel[(n_tiles, splits, B)](
        q_latent.contiguous(), q_pe.contiguous(), latent, k_pe, lengths, table, *parts,
        scale / LN_2.value, T, H, keys_per_split, *latent.stride()[:2],
        *k_pe.stride()[:2], table.stride(0), C=C, R=R, PAGE=page if paged else 0,
        **tile,
    )  # fmt: skip
    if splits > 1:
        combine(*parts, lengths, keys_per_split, out, lse)
    return out, lse


def reference(
    q_latent: Float[Tensor, "B T H C"],
    q_pe: Float[Tensor, "B T H r"],
    latent: Float[Tensor, "P N C"],
    k_pe: Float[Tensor, "P N r"],
    lengths: Int[Tensor, " B"],
    scale: float,
    block_table: Int[Tensor, "B pages"] | None = None,
) -> tuple[Float[Tensor, "B T H C"], Float[Tensor, "B T H"]]:
    """`mla_decode` in plain PyTorch, in float32 (float64 stays float64)."""
    T, page = q_latent.shape[1], latent.shape[1]
    if block_table is not None:
        first = torch.arange(block_table.shape[1], device=lengths.device) * page
        pages = block_table.where(first < lengths[:, None], 0).long()
        latent, k_pe = latent[pages].flatten(1, 2), k_pe[pages].flatten(1, 2)
    key = torch.arange(latent.shape[1], device=lengths.device)
    inside = (key < lengths[:, None])[..., None]  # [B, S, 1]
    visible = lengths[:, None] - T + 1 + torch.arange(T, device=lengths.device)
    seen = (key < visible[..., None])[:, :, None]  # [B, T, 1, S]

    wide = torch.promote_types(dtype := q_latent.dtype, torch.float32)
    q, q_pe = q_latent.to(wide), q_pe.to(wide)
    latent, k_pe = latent.to(wide).where(inside, 0), k_pe.to(wide).where(inside, 0)
    scores = torch.einsum("bthc,bsc->bths", q, latent)
    scores = (scores + torch.einsum("bthr,bsr->bths", q_pe, k_pe)) * scale
    scores = scores.masked_fill(~seen, float("-inf"))
    weights = scores.softmax(-1).where(seen, 0)  # a token without keys: all zeros
    out = torch.einsum("bths,bsc->bthc", weights, latent)
    return out.to(dtype), scores.logsumexp(-1)
