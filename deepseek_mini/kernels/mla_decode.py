"""MLA decode: a few new tokens attend to the latent cache as it lies in memory.

All H heads read the same latents (DeepSeek-V2, arXiv 2405.04434, §2.1 and appendix C),
so one program takes BLOCK_H heads at once, and a latent that was fetched serves them
all twice: as key and as value. That is 2 · H · (2C + r) operations for C + r numbers,
242 a byte for V3's 128 heads in bf16: as many as an H100 can do in the time that the
byte takes. Memory and tensor cores must both be kept busy.

The context is cut into parts of `keys_per_split` keys, and a second kernel combines
what the parts found: rows of uneven length become many pieces of even work.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float32, Int
from torch import Tensor

from deepseek_mini.kernels.case import Case, Goal, demonstrate
from deepseek_mini.kernels.launch import Gate, Tile, pick

LN_2 = tl.constexpr(0.6931471805599453)
NEVER = tl.constexpr(float("-inf"))


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
PEER = _tile(16, 64, 4, 2)  # what public Triton kernels take for 128 heads too


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


def choose_splits(n_tiles: int, n_keys: int, block_n: int, n_sms: int) -> int:
    """Into how many parts to cut a context of `n_keys`, for `n_tiles` tiles of heads.

    An SM holds one tile. The time is that of the waves of programs, each as long as its
    blocks of keys and about four more for loading queries and storing results.
    """
    blocks = triton.cdiv(n_keys, block_n)

    def time(splits: int) -> int:
        waves = triton.cdiv(n_tiles * splits, n_sms)
        return waves * (triton.cdiv(blocks, splits) + 4)

    return min(range(1, min(blocks, 64) + 1), key=time, default=1)


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
        raise ValueError(
            f"a page holds {page} tokens, but it must be a multiple of the tile's "
            f"{block_n} keys"
        )

    n_keys = page * block_table.shape[1] if paged else page
    n_tiles = triton.cdiv(rows, tile["BLOCK_H"])
    if splits is None:
        splits = choose_splits(B * n_tiles, n_keys, block_n, _n_sms(q_latent))
    blocks = triton.cdiv(triton.cdiv(n_keys, splits), block_n)
    keys_per_split = max(blocks, 1) * block_n
    out = torch.empty_like(q_latent, memory_format=torch.contiguous_format)
    lse = torch.empty(B, T, H, dtype=torch.float32, device=out.device)
    parts = out, lse
    if splits > 1:
        parts = (
            torch.empty(B, splits, rows, width, dtype=torch.float32, device=out.device)
            for width in (C, 1)
        )
        parts = tuple(parts)
    table = block_table if paged else lengths
    decode_kernel[(n_tiles, splits, B)](
        q_latent.contiguous(), q_pe.contiguous(), latent, k_pe, lengths, table, *parts,
        scale / LN_2.value, T, H, keys_per_split, *latent.stride()[:2],
        *k_pe.stride()[:2], table.stride(0), C=C, R=R, PAGE=page if paged else 0,
        **tile,
    )  # fmt: skip
    if splits > 1:
        combine_kernel[(rows, B)](
            *parts, lengths, out, lse, splits, keys_per_split, C=C, num_warps=4
        )
    return out, lse


def _n_sms(x: Tensor) -> int:
    """How many programs run at a time; interpreted, one."""
    if x.device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(x.device).multi_processor_count


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

    dtype = q_latent.dtype
    wide = dtype if dtype == torch.float64 else torch.float32
    q, q_pe = q_latent.to(wide), q_pe.to(wide)
    latent, k_pe = latent.to(wide).where(inside, 0), k_pe.to(wide).where(inside, 0)
    scores = torch.einsum("bthc,bsc->bths", q, latent)
    scores = (scores + torch.einsum("bthr,bsr->bths", q_pe, k_pe)) * scale
    scores = scores.masked_fill(~seen, float("-inf"))
    weights = scores.softmax(-1).where(seen, 0)  # a token without keys: all zeros
    out = torch.einsum("bths,bsc->bthc", weights, latent)
    return out.to(dtype), scores.logsumexp(-1)


def _gate(name: str, dtype: str, tiles: dict, page: int, **expected) -> Gate:
    inputs = dict.fromkeys(("q_latent", "q_pe", "latent", "k_pe", "out"), f"*{dtype}")
    strides = ("latent_page", "latent_token", "k_pe_page", "k_pe_token", "table_row")
    signature = {
        **inputs, "lse": "*fp32", "lengths": "*i32", "table": "*i32",
        "scale_log2": "fp32", "n_queries": "i32", "n_heads": "i32:16",
        "keys_per_split": "i32:16", **dict.fromkeys(strides, "i32:16"),
    }  # fmt: skip
    sizes = {"C": 512, "R": 64, "PAGE": page}
    return Gate(name, decode_kernel, signature, tiles, sizes, **expected)


_MANY = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}
_SMALL = dict.fromkeys(_MANY, "HMMA")
# Triton 3.9's assembler keeps a few addresses on the stack, 3.6's none.
_STACK = {"instruction": _MANY, "stack": {90: 56}}
GATES = [
    _gate("bf16", "bf16", TILES, 0, **_STACK),
    _gate("bf16, pages of 64", "bf16", TILES, 64, **_STACK),
    _gate("bf16, 16 rows", "bf16", TILES_FEW, 64, instruction=_SMALL),
    _gate(
        "bf16, the peer's tile", "bf16", {80: PEER}, 0, instruction=_SMALL,
        stack={90: 16},
    ),
    Gate(
        "combine",
        combine_kernel,
        {
            "part_out": "*fp32", "part_lse": "*fp32", "lengths": "*i32", "out": "*bf16",
            "lse": "*fp32", "n_splits": "i32", "keys_per_split": "i32:16",
        },
        {80: {"num_warps": 4}},
        {"C": 512},
    ),
]  # fmt: skip


def _bmm(q_latent, q_pe, latent, k_pe, lengths, scale, table):
    """bmm, softmax, bmm, in the inputs' type, every cache full."""
    q = torch.cat((q_latent, q_pe), -1).flatten(1, 2)
    scores = torch.bmm(q, _whole(latent, q_pe).mT) * scale
    return torch.bmm(scores.softmax(-1), latent).view_as(q_latent)


def _sdpa(q_latent, q_pe, latent, k_pe, lengths, scale, table):
    """Whichever of PyTorch's fused attentions takes a head 576 wide, if any."""
    q = torch.cat((q_latent, q_pe), -1).flatten(1, 2)[:, None]
    k, v = _whole(latent, q_pe)[:, None], latent[:, None]
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)
    return out.view_as(q_latent)


def _whole(latent: Tensor, q_pe: Tensor) -> Tensor:
    """Latents and RoPE keys side by side, as `cases` lays them in memory."""
    shape = (*latent.shape[:2], latent.shape[-1] + q_pe.shape[-1])
    return latent.as_strided(shape, latent.stride())


def _flash_mla(q_latent, q_pe, latent, k_pe, lengths, scale, table):
    import flash_mla

    (B, T, H, C), page = q_latent.shape, 64
    q, cache = torch.cat((q_latent, q_pe), -1), _whole(latent, q_pe)
    table = torch.arange(B * latent.shape[1] // page, device=q.device)
    table = table.int().view(B, -1)
    plan = flash_mla.get_mla_metadata(lengths, T * H, 1)
    return flash_mla.flash_mla_with_kvcache(
        q, cache.view(-1, page, 1, cache.shape[-1]), table, lengths, C, *plan,
        softmax_scale=scale, causal=True,
    )  # fmt: skip


def _public_tile(*inputs):
    return mla_decode(*inputs, tile=PEER)


PEERS = {"bmm-softmax-bmm": _bmm, "SDPA": _sdpa, "flash-mla": _flash_mla}


def cases(device: str, small: bool) -> list[Case]:
    """DeepSeek-V3's 128 heads; the 16 that one of 8 GPUs has; pages, uneven lengths."""
    B, H, S, C, R = (2, 20, 128, 32, 16) if small else (128, 128, 8192, 512, 64)

    def case(H: int, S: int, T: int, uneven: bool, *goals: Goal) -> Case:
        longest = torch.tensor([S] * B)
        lengths = longest - torch.arange(B) * (S // B) if uneven else longest
        keys = int(lengths.sum())
        rows = B * T * H

        def make() -> tuple:
            # Twice the usual queries: with a few keys that weigh most, the result is
            # not the mean of S random latents, which would be near 0 and hide errors.
            q = 2 * torch.randn(B, T, H, C + R, device=device)
            cache = torch.randn(B, S, C + R, device=device).bfloat16()
            table = None
            if uneven:  # pages of 64 tokens, anywhere
                table = torch.randperm(B * S // 64, device=device)
                pages = torch.empty_like(cache).view(-1, 64, C + R)
                pages[table] = cache.view_as(pages)
                cache, table = pages, table.int().view(B, -1)
            parts = *q.bfloat16().split((C, R), -1), *cache.split((C, R), -1)
            scale = (C // 4 + R) ** -0.5
            return *parts, lengths.int().to(device), scale, table

        return Case(
            f"MLA decode, batch {B}, {T} x {H} heads, "
            + (f"{keys} keys in pages, uneven" if uneven else f"context {S}")
            + ", bf16",
            make,
            mla_decode,
            reference,
            # Weights and result are rounded to bf16: 2^-8 of what is summed, twice.
            bound=2**-7,
            moved=2 * (keys * (C + R) + rows * (2 * C + R)),
            flops=2 * H * T * keys * (2 * C + R),
            peers={"BLOCK_H=16": _public_tile} | ({} if uneven else PEERS),
            goals=goals,
            compiled=False,  # the reference is for its numbers: float32, not fast
        )

    fast = (
        Goal("BLOCK_H=16", 2.5), Goal("bmm-softmax-bmm", 1.5), Goal("TFLOP/s", 300.0)
    )  # fmt: skip
    return [
        case(H, S, 1, False, *fast),
        case(H, S, 2, True),
        case(3 if small else 16, S // 2, 1, False, Goal("copy", 0.8)),
    ]


if __name__ == "__main__":
    for architecture, tile in TILES.items():
        print(f"sm_{architecture}: {tile}")
    demonstrate(cases)
