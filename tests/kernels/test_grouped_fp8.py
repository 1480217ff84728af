"""Grouped products in fp8 beside float64: ragged sizes, empty experts, wrong scales."""

from __future__ import annotations

import pytest
import torch
from test_grouped_matmul import at_choices, exact

from deepseek_mini import fp8
from deepseek_mini.kernels.case import difference
from deepseek_mini.kernels.cases.expert_sort import random_choices
from deepseek_mini.kernels.cases.grouped_fp8 import cases
from deepseek_mini.kernels.expert_sort import expert_sort
from deepseek_mini.kernels.grouped_fp8 import grouped_fp8, reference

# tokens, chosen, experts, width, columns, rows of a tile
SIZES = [(5, 2, 4, 144, 48, 16), (1, 3, 9, 272, 130, 16), (70, 2, 3, 128, 64, 64)]


def inputs(size, into):
    """Every tile and block has a magnitude of its own, so a wrong scale is seen."""
    n_tokens, k, n_experts, width, n, tile_rows = size
    ids = random_choices(n_tokens, n_experts, k, "cpu")
    plan = expert_sort(ids, n_experts, tile_rows)
    n_rows = n_tokens if into else len(plan.order)
    x = torch.randn(n_rows, width) * torch.logspace(-2, 2, width)
    x *= torch.logspace(-1, 1, n_rows)[:, None]
    w = torch.randn(n_experts, n, width) * torch.logspace(1, -1, width)
    w *= torch.logspace(1, -1, n)[:, None]
    if not into:
        x[plan.order < 0] = torch.nan
    w[plan.load == 0] = torch.nan
    given = *fp8.quantise(x), *fp8.quantise(w, fp8.BLOCK)
    return ids, plan, [t.contiguous() for t in given]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("into", [True, False], ids=["into", "out of"])
def test_beside_float64(size, into):
    ids, plan, given = inputs(size, into)
    rows = fp8.dequantise(given[0], given[1], fp8.TILE)
    w = fp8.dequantise(given[2], given[3], fp8.BLOCK)
    wanted, terms = exact(rows if into else at_choices(rows, plan, ids), w, ids)

    def far(out):
        ours = at_choices(out, plan, ids) if into else out.view(*ids.shape, -1)
        # Rounded once to bf16; before, up to 127 + 3 additions in float32, products
        # with scales, and dequantising in the oracle.
        bound = 2**-8 * wanted.abs() + 140 * 2**-24 * terms
        return (ours - wanted).abs() > bound

    out = grouped_fp8(*given, plan, into)
    assert (
        not far(out).any() and not out[plan.order >= 0 if into else ...].isnan().any()
    )
    assert not into or out[plan.order < 0].isnan().all()  # not written
    assert not far(reference(*given, plan, into)).any()
    for i in (1, 3):  # tight enough to see the scales of the last step wrong
        wrong = [t.clone() for t in given]
        wrong[i][..., -1] *= 1.25
        assert far(grouped_fp8(*wrong, plan, into)).any()


def test_what_is_refused():
    _, plan, (x, x_scale, w, w_scale) = inputs(SIZES[0], True)
    with pytest.raises(ValueError, match="x_scale has shape"):
        grouped_fp8(x, x_scale[:, :1], w, w_scale[:, :, :1], plan, True)
    with pytest.raises(ValueError, match="w_scale has shape"):
        grouped_fp8(x, x_scale, w, w_scale[:2], plan, True)
    with pytest.raises(ValueError, match="x has 5 rows, but the plan has"):
        grouped_fp8(x, x_scale, w, w_scale, plan, False)
    with pytest.raises(ValueError, match="K is 40"):
        short = x[:, :40].contiguous(), x_scale[:, :1].contiguous()
        grouped_fp8(*short, w[:, :, :40], w_scale[:, :, :1], plan, True)


@pytest.mark.parametrize("case", cases("cpu", small=True), ids=lambda case: case.name)
def test_cases_and_their_peers_are_within_the_bound(case):
    given = case.make()
    assert case.error(given) <= case.bound
    for name in ("dense fp8 kernel", "per-expert loop", "F.grouped_mm bf16"):
        run = case.peers[name](*given)
        # The bf16 peer rounds the dequantised numbers too.
        assert case.error(given, lambda *_, run=run: run()) <= 2 * case.bound
    rows, order = case.kernel(*given)
    wrong = (rows * (1 + 4 * case.bound), order)
    pieces = zip(case.compare(wrong), case.compare(case.reference(*given)))
    assert max(difference(a, b) for a, b in pieces) > case.bound
