"""Grouped products beside float64: ragged sizes, empty experts, NaN in empty rows."""

from __future__ import annotations

import pytest
import torch

from deepseek_mini.kernels.cases.expert_sort import random_choices
from deepseek_mini.kernels.cases.grouped_matmul import cases
from deepseek_mini.kernels.expert_sort import expert_sort
from deepseek_mini.kernels.grouped_matmul import (
    into_experts,
    into_reference,
    out_of_experts,
    out_reference,
    rows_of_a_tile,
)

UNIT = {torch.bfloat16: 2**-8, torch.float16: 2**-11, torch.float32: 2**-24}
# tokens, chosen, experts, width, experts' width, rows of a tile
SIZES = [
    (5, 2, 4, 40, 24, 16),  # fewer columns than a block
    (1, 3, 9, 72, 33, 16),  # one token; six experts are empty
    (70, 2, 3, 64, 48, 64),  # more rows than a tile
    (7, 2, 5, 136, 70, 128),
]


def inputs(size, dtype):
    n_tokens, k, n_experts, width, inner, tile_rows = size
    ids = random_choices(n_tokens, n_experts, k, "cpu")
    x = torch.randn(n_tokens, width).to(dtype)
    w1, w3 = (torch.randn(2, n_experts, inner, width) / width**0.5).to(dtype)
    w2 = (torch.randn(n_experts, width, inner) / inner**0.5).to(dtype)
    # Nobody should read an expert that was not chosen.
    idle = expert_sort(ids, n_experts, tile_rows).load == 0
    for w in (w1, w2, w3):
        w[idle] = torch.nan
    return x, w1, w2, w3, ids, tile_rows


def exact(x, w, ids):
    """x wᵀ of every choice in float64 [T, K, O], and the sum of its terms' sizes."""
    w = w.double()[ids.long()]
    x = x.double()
    if x.ndim == 2:
        x = x[:, None].expand(-1, ids.shape[1], -1)
    return (
        torch.einsum("tkd,tkod->tko", x, w),
        torch.einsum("tkd,tkod->tko", x.abs(), w.abs()),
    )


def at_choices(h, plan, ids):
    """The rows of the tiles in the order of the choices: [T, K, O]."""
    filled = plan.order >= 0
    out = torch.empty(ids.numel(), h.shape[1], dtype=h.dtype)
    out[plan.order[filled].long()] = h[filled]
    return out.view(*ids.shape, -1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", UNIT, ids=str)
def test_into_experts_beside_float64(size, dtype):
    x, w1, _, w3, ids, tile_rows = inputs(size, dtype)
    plan = expert_sort(ids, len(w1), tile_rows)
    h = into_experts(x, w1, w3, plan)
    assert h[plan.order < 0].isnan().all()  # as they were made: not written
    (gate, gate_size), (up, up_size) = exact(x, w1, ids), exact(x, w3, ids)
    silu = gate * gate.sigmoid()
    wanted = silu * up
    # Rounded once. Sums of D products in float32 are off by at most D units of their
    # terms' sizes; silu has a slope of at most 1.1, and exp and / a few units.
    unit = x.shape[1] * 2**-24
    bound = UNIT[dtype] * wanted.abs() + 2**-20 * wanted.abs()
    bound += unit * (1.1 * gate_size * up.abs() + silu.abs() * up_size) + 1e-7
    assert ((at_choices(h, plan, ids) - wanted).abs() <= bound).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", UNIT, ids=str)
def test_out_of_experts_beside_float64(size, dtype):
    *_, w2, _, ids, tile_rows = inputs(size, dtype)
    plan = expert_sort(ids, len(w2), tile_rows)
    h = torch.randn(len(plan.order), w2.shape[2]).to(dtype)
    h[plan.order < 0] = torch.nan
    out = out_of_experts(h, w2, plan).view(*ids.shape, -1)
    wanted, terms = exact(at_choices(h, plan, ids), w2, ids)
    # Rounded once; sums of I products in float32.
    bound = UNIT[dtype] * wanted.abs() + h.shape[1] * 2**-24 * terms
    assert ((out - wanted).abs() <= bound).all()


def test_an_expert_taken_for_another_is_over_the_bound():
    x, w1, _, w3, ids, tile_rows = inputs(SIZES[0], torch.bfloat16)
    plan = expert_sort(ids, len(w1), tile_rows)
    plan.tile_expert[0] = plan.tile_expert[1]
    h = into_experts(x, w1, w3, plan)
    right = into_reference(x, w1, w3, expert_sort(ids, len(w1), tile_rows))
    filled = plan.order >= 0
    assert (h - right)[filled].abs().max() > 0.1
    assert (h - into_reference(x, w1, w3, plan))[filled].abs().max() < 2**-6


def test_the_same_bits_again():
    x, w1, w2, w3, ids, tile_rows = inputs(SIZES[2], torch.bfloat16)
    outs = []
    for _ in range(2):
        plan = expert_sort(ids, len(w1), tile_rows)
        outs.append(out_of_experts(into_experts(x, w1, w3, plan), w2, plan))
    assert torch.equal(*outs)
    wanted = out_reference(into_reference(x, w1, w3, plan), w2, plan)
    assert ((outs[0] - wanted).abs() <= 2**-6 * (1 + wanted.abs())).all()


def test_no_tokens():
    x, w1, w2, w3, ids, _ = inputs(SIZES[0], torch.bfloat16)
    plan = expert_sort(ids[:0], 4, 16)
    h = into_experts(x[:0], w1, w3, plan)
    assert out_of_experts(h, w2, plan).shape == (0, 40)


def test_tiles_grow_with_the_tokens_of_an_expert():
    rows = [rows_of_a_tile(8 * n, 256) for n in (1, 256, 257, 1024, 4096, 32_768)]
    assert rows == [16, 16, 64, 64, 128, 128]


def test_what_is_refused():
    x, w1, w2, w3, ids, tile_rows = inputs(SIZES[0], torch.bfloat16)
    plan = expert_sort(ids, len(w1), tile_rows)
    h = into_experts(x, w1, w3, plan)
    with pytest.raises(ValueError, match="the rows are torch"):
        into_experts(x.float(), w1, w3, plan)
    with pytest.raises(ValueError, match="x has 4 tokens, but the plan has 10 choices"):
        into_experts(x[:4], w1, w3, plan)
    with pytest.raises(ValueError, match="h has 16 rows, but the plan"):
        out_of_experts(h[:16], w2, plan)
    with pytest.raises(ValueError, match="w has strides"):
        out_of_experts(h, w2.mT.contiguous().mT, plan)


@pytest.mark.parametrize("case", cases("cpu", small=True), ids=lambda case: case.name)
def test_cases_and_their_peers_are_within_the_bound(case):
    given = case.make()
    assert case.error(given) <= case.bound
    for peer in case.peers.values():
        run = peer(*given)
        # Gate, up and the result are each rounded to bf16.
        assert case.error(given, lambda *_, run=run: run()) <= 2 * case.bound
