"""The whole layer beside the model's module in float64, and the weighted sum alone."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from helpers import error

from deepseek_mini.kernels import grouped_matmul
from deepseek_mini.kernels.case import difference
from deepseek_mini.kernels.cases.gate import RELEASED
from deepseek_mini.kernels.cases.moe_layer import cases, random_layer
from deepseek_mini.kernels.moe_layer import (
    combine,
    combine_reference,
    fp8_experts,
    moe_layer,
    moe_layer_fp8,
    reference,
    reference_fp8,
)
from deepseek_mini.presets import V3

UNIT = {torch.bfloat16: 2**-8, torch.float16: 2**-11, torch.float32: 2**-24}


def small_layer(name, dtype, n_experts=16):
    """A released gate's rules, over fewer and smaller experts that weigh alike."""
    part = replace(RELEASED[name], n_routed_experts=n_experts, inter_dim=24)
    layer = random_layer(replace(V3, dim=40, moe=part), "cpu", dtype)
    layer.gate.weight.data *= 0.1
    return layer


def tokens(n, dtype=torch.bfloat16):
    """Large enough for results of 1 and more: errors are measured beside them."""
    return (torch.randn(n, 40) * 4).to(dtype)


@pytest.mark.parametrize("name", RELEASED)
@pytest.mark.parametrize(
    ("dtype", "n_tokens"),
    [(torch.bfloat16, 7), (torch.float16, 3), (torch.float32, 1)],
    ids=str,
)
def test_beside_the_module_in_float64(name, dtype, n_tokens):
    layer = small_layer(name, dtype)
    x = tokens(n_tokens, dtype)
    out = moe_layer(x, layer)
    exact = copy.deepcopy(layer).double()(x.double()[None])[0]
    # Of the routed experts three things are rounded, the hidden layer, the results and
    # their sum; of the shared ones also gate, up and their product. Each is off by at
    # most a unit, and hidden ones average out. In float32 the sums and exp remain.
    bound = max(4 * UNIT[dtype], 1e-6)
    assert out.dtype == dtype
    assert error(out, exact) <= bound
    assert error(reference(x, layer), exact) <= 2 * bound
    # It is tight enough to see that the last of the chosen experts is missing.
    k = layer.gate.part.n_activated_experts
    wrong = copy.deepcopy(layer)
    wrong.experts.w2.data[layer.gate(x).chosen[:, k - 1].unique()] = 0
    assert error(moe_layer(x, wrong), exact) > bound


@pytest.mark.parametrize("rows", [64, 128])
def test_larger_tiles_give_the_same(rows, monkeypatch):
    layer, x = small_layer("V3", torch.bfloat16), tokens(9)
    small = moe_layer(x, layer)
    monkeypatch.setattr(grouped_matmul, "rows_of_a_tile", lambda *_: rows)
    assert error(moe_layer(x, layer), small) < 2**-8


def test_experts_that_were_not_chosen_are_not_read():
    layer, x = small_layer("V3", torch.bfloat16, 64), tokens(2)
    right = moe_layer(x, layer)
    idle = layer.gate(x).load == 0
    assert idle.sum() >= 48
    for w in (layer.experts.w1, layer.experts.w2, layer.experts.w3):
        w.data[idle] = torch.nan
    assert torch.equal(moe_layer(x, layer), right)


@pytest.mark.filterwarnings("ignore:All-NaN")
def test_a_token_does_not_depend_on_the_others():
    """And a NaN stays in its token."""
    layer, x = small_layer("V2", torch.bfloat16), tokens(6)
    x[2] = torch.nan
    out = moe_layer(x, layer)
    others = [0, 1, 3, 4, 5]
    assert out[2].isnan().all()
    assert torch.equal(out[others], moe_layer(x[others], layer))


def test_no_tokens_and_no_shared_experts():
    layer = small_layer("V3", torch.bfloat16)
    assert moe_layer(torch.empty(0, 40).bfloat16(), layer).shape == (0, 40)
    x = tokens(3)
    whole, shared, layer.shared = moe_layer(x, layer), layer.shared(x), None
    assert error(moe_layer(x, layer) + shared, whole) < 2**-6


@pytest.mark.parametrize("shape", [(1, 8, 130), (5, 6, 64), (3, 1, 7)])
@pytest.mark.parametrize("dtype", UNIT, ids=str)
def test_combine_beside_float64(shape, dtype):
    n_tokens, k, width = shape
    y, weights = torch.randn(n_tokens * k, width).to(dtype), torch.rand(n_tokens, k)
    for shared in (None, torch.randn(n_tokens, width).to(dtype)):
        out = combine(y, weights, shared)
        wide = None if shared is None else shared.double()
        exact = combine_reference(y.double(), weights.double(), wide)
        # Rounded once, after at most 9 products and sums in float32.
        bound = UNIT[dtype] * exact.abs() + 10 * 2**-24 * k * y.double().abs().max()
        assert ((out - exact).abs() <= bound).all()


@pytest.mark.parametrize("name", ["V3", "V2"])
def test_fp8_beside_the_module(name):
    part = replace(RELEASED[name], n_routed_experts=16, inter_dim=144)
    layer = random_layer(replace(V3, dim=160, moe=part), "cpu")
    x = (torch.randn(5, 160) * 4).bfloat16()
    experts = fp8_experts(layer)
    out = moe_layer_fp8(x, layer, experts)
    exact = copy.deepcopy(layer).double()(x.double()[None])[0]
    # Tokens, matrices and hidden numbers are rounded to 3 bits of mantissa, each off by
    # a sixteenth at most, all of them by two or three times that; most by far less.
    assert 2**-8 < error(out, exact) < 2**-3
    # Beside the same roundings in PyTorch, only a few fall another way.
    wanted = reference_fp8(x, layer, experts)
    assert error(out, wanted) < 2**-6
    wrong = replace(experts, w2_scale=experts.w2_scale.flip(2))
    assert error(moe_layer_fp8(x, layer, wrong), wanted) > 2**-6


def test_what_is_refused():
    y, weights = torch.randn(6, 8), torch.rand(3, 2)
    with pytest.raises(ValueError, match="y has 5 rows, but 3 x 2 were chosen"):
        combine(y[:5], weights)
    with pytest.raises(ValueError, match="but shared is torch"):
        combine(y, weights, torch.randn(3, 8).half())
    layer = small_layer("V3", torch.bfloat16)
    with pytest.raises(ValueError, match="x has strides"):
        moe_layer(torch.randn(3, 80).bfloat16()[:, ::2], layer)
    with pytest.raises(ValueError, match="the rows are torch"):
        moe_layer(torch.randn(3, 40), layer)


@pytest.mark.parametrize("case", cases("cpu", small=True), ids=lambda case: case.name)
def test_cases_are_within_their_bounds(case):
    given = case.make()
    assert case.error(given) <= case.bound
    wrong = case.kernel(*given) * (1 + 4 * case.bound)
    assert difference(wrong, case.reference(*given)) > case.bound
    for peer in case.peers.values():
        prepared = peer(*given)
        run = prepared if callable(prepared) else lambda made=prepared: made
        assert case.error(given, lambda *_, run=run: run()) <= 2 * case.bound
