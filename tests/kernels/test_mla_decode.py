"""MLA decode: beside float64 over ragged caches, and what is refused."""

from __future__ import annotations

import pytest
import torch

from deepseek_mini.kernels.case import difference
from deepseek_mini.kernels.cases.mla_decode import PEER, cases
from deepseek_mini.kernels.mla_decode import TILES, mla_decode, reference
from deepseek_mini.kernels.splits import choose_splits, combine

UNIT = {torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}
SMALL = {"BLOCK_H": 16, "BLOCK_N": 32, "APART": False, "num_warps": 4, "num_stages": 1}


def inputs(lengths, T, H, dtype, C=32, r=16, room=64, page=None):
    """Random queries and a cache whose unused part is NaN and whose unused pages are
    no pages; not contiguous, but side by side as in a cache of one tensor."""
    B = len(lengths)
    lengths = torch.tensor(lengths, dtype=torch.int32)
    q = (2 * torch.randn(B, T, H, C + r)).to(dtype)
    cache = torch.randn(B, room, C + r).to(dtype)
    cache[torch.arange(room) >= lengths[:, None]] = float("nan")
    table = None
    if page:
        n = room // page
        places = torch.randperm(B * n + 2)[: B * n]  # and two that are nobody's
        pages = torch.full((B * n + 2, page, C + r), float("nan"), dtype=dtype)
        pages[places] = cache.view(B * n, page, C + r)
        cache, table = pages, places.int().view(B, n)
        table[torch.arange(n) * page >= lengths[:, None]] = 2**30
    scale = 1.3 * (C + r) ** -0.5
    return *q.split((C, r), -1), *cache.split((C, r), -1), lengths, scale, table


def check(given, **how):
    """The kernel's result, number by number, against float64 on the same inputs."""
    out, lse = mla_decode(*given, **how)
    q, q_pe, latent, k_pe = (t.double() for t in given[:4])
    # Latents beside their absolute values, which the queries do not look at.
    q, values = torch.cat((q, 0 * q), -1), torch.cat((latent, latent.abs()), -1)
    wanted, wanted_lse = reference(q, q_pe, values, k_pe, *given[4:])
    wanted, size = wanted.chunk(2, dim=-1)
    # Each weight is rounded once before it multiplies its latent, so the sum is off by
    # one unit of the sum of absolute values; then the result is rounded. In float32
    # the scores' own sums of C + r products count: their error e makes a weight wrong
    # by a factor 1 + e. 2^-18 is that of 48 products of size 4 with room to spare.
    unit, rest = UNIT[out.dtype], 2**-18
    bound = unit * (size + wanted.abs()) * 1.01 + rest * size + 2**-24
    assert out.dtype == given[0].dtype and lse.dtype == torch.float32
    assert ((out - wanted).abs() <= bound).all()
    assert torch.equal(lse.isfinite(), wanted_lse.isfinite())
    assert ((lse - wanted_lse).nan_to_num(0).abs() < 1e-5).all()
    return out, lse


RAGGED = [64, 0, 1, 37]


@pytest.mark.parametrize("dtype", UNIT, ids=str)
@pytest.mark.parametrize(
    "T, H, page, splits", [(1, 16, None, 1), (2, 5, None, 2), (2, 5, 32, 2)]
)
def test_ragged_rows_beside_float64(dtype, T, H, page, splits):
    given = inputs(RAGGED, T, H, dtype, page=page)
    out, lse = check(given, splits=splits, tile=SMALL)
    assert (out[1] == 0).all() and (lse[1] == -torch.inf).all()  # no keys at all
    if T == 2:  # row 2's one key is the last new token's own
        assert (out[2, 0] == 0).all() and (lse[2, 0] == -torch.inf).all()
        if page is None:
            assert torch.equal(out[2, 1], given[2][2, 0].expand_as(out[2, 1]))


def test_the_branches_for_the_compiler_change_nothing():
    given = inputs([50, 3], 1, 20, torch.bfloat16, page=32)
    tiles = SMALL, SMALL | {"APART": True}
    outs = [check(given, splits=2, tile=tile) for tile in tiles]
    assert all(torch.equal(a, b) for a, b in zip(*outs, strict=True))


@pytest.mark.parametrize("tile", [*TILES.values(), PEER])
def test_tiles_of_the_gpus_with_v3_widths(tile):
    """512 + 64 channels; one row's cache ends inside a block, one's is a block."""
    given = inputs([100, 64], 1, 70, torch.bfloat16, C=512, r=64, room=128, page=64)
    check(given, tile=tile)


def test_every_number_of_splits_says_the_same():
    given = inputs([64, 17], 2, 3, torch.float32)
    outs = [mla_decode(*given, splits=n, tile=SMALL)[0] for n in (1, 2, 9)]
    assert all(difference(out, outs[0]) < 1e-6 for out in outs)


@pytest.mark.parametrize("dtype", UNIT, ids=str)
def test_parts_are_combined_beside_float64(dtype):
    """Parts behind a row's length are NaN, and an empty part weighs nothing."""
    part_out, part_lse = torch.randn(4, 3, 10, 16), 5 * torch.randn(4, 3, 10)
    lengths = torch.tensor([96, 33, 0, 64], dtype=torch.int32)
    used = [3, 2, 1, 2]
    part_out[2], part_lse[2] = 0, -torch.inf  # what the kernel finds among no keys
    part_lse[3, 0] = -torch.inf
    for b, n in enumerate(used):
        part_out[b, n:], part_lse[b, n:] = torch.nan, torch.nan
    out, lse = torch.empty(4, 2, 5, 16, dtype=dtype), torch.empty(4, 2, 5)
    combine(part_out, part_lse, lengths, 32, out, lse)
    for b, n in enumerate(used):
        logs = part_lse[b, :n].double()
        weights = logs.softmax(0).nan_to_num(0)
        wanted = (weights[..., None] * part_out[b, :n].double()).sum(0)
        assert torch.equal(lse[b].flatten().isneginf(), logs.logsumexp(0).isneginf())
        assert difference(lse[b].flatten(), logs.logsumexp(0).float()) < 1e-6
        bound = UNIT[dtype] * wanted.abs() * 1.01 + 1e-5  # exp2 of up to 20, float32
        assert ((out[b].flatten(0, 1) - wanted).abs() <= bound).all()


def test_a_cache_without_room_or_keys():
    given = inputs([0, 0], 1, 2, torch.bfloat16, room=0)
    out, lse = mla_decode(*given)
    assert (out == 0).all() and (lse == -torch.inf).all()


def test_large_scores_stay_finite():
    q, q_pe, *rest = inputs([40], 1, 4, torch.float32)
    out, lse = mla_decode(q * 300, q_pe * 300, *rest, tile=SMALL)
    assert out.isfinite().all() and (lse > 88).any()  # exp(88) is infinity


def test_splits_fill_the_gpu():
    """One sequence is cut up; 128 of them with two tiles each fill 132 SMs as is."""
    assert choose_splits(256, 8192, 64, 132) == 1
    assert choose_splits(2, 8192, 64, 132) * 2 > 60
    assert choose_splits(1, 64, 64, 132) == choose_splits(1, 0, 64, 132) == 1


def test_what_is_refused():
    given = inputs([20], 1, 2, torch.float32, page=16)
    with pytest.raises(ValueError, match="are of types"):
        mla_decode(given[0].bfloat16(), *given[1:])
    with pytest.raises(ValueError, match="C is 24, but"):
        mla_decode(given[0][..., :24], given[1], given[2][..., :24], *given[3:])
    with pytest.raises(ValueError, match="channels are strided"):
        mla_decode(*given[:3], given[3].mT.contiguous().mT, *given[4:])
    with pytest.raises(ValueError, match="a page holds 16 tokens"):
        mla_decode(*given, tile=SMALL | {"BLOCK_N": 32})


@pytest.mark.parametrize("case", cases("cpu", small=True), ids=lambda case: case.name)
def test_cases_are_within_their_bounds(case):
    given = case.make()
    assert case.error(given) <= case.bound
    out, _ = case.reference(*given)
    for name, peer in case.peers.items():
        if name != "flash-mla":  # not here
            theirs = peer(*given)
            theirs = theirs[0] if isinstance(theirs, tuple) else theirs
            assert difference(theirs.float(), out.float()) < 2**-4, name
    # And the bound would notice a key too few.
    shorter = list(given)
    shorter[4] = given[4] - 1
    assert difference(case.kernel(*shorter)[0], out) > case.bound
