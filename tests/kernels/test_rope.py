"""RoPE of queries and latents beside float64, their gradients, and MLA's own."""

from __future__ import annotations

import pytest
import torch
from helpers import error

from deepseek_mini.config import Rope
from deepseek_mini.kernels import rope
from deepseek_mini.kernels.cases.rope import cases
from deepseek_mini.kernels.rope import (
    latent_norm_rope,
    latent_reference,
    query_reference,
    query_rope_,
)
from deepseek_mini.model.rope import rope_table

UNIT = {torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def table(T, half, batch=None):
    positions = torch.arange(5, 5 + T)
    cos, sin = rope_table(Rope(), 2 * half, positions)
    if batch is None:
        return cos, sin
    # Each text at positions of its own.
    angles = torch.rand(batch, T, half) * 6
    return angles.cos(), angles.sin()


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("shape", [(2, 3, 5, 24), (1, 1, 128, 192), (2, 2, 70, 8)])
@pytest.mark.parametrize("dtype", UNIT, ids=str)
def test_queries_beside_float64(shape, dtype, batch):
    half = {24: 4, 192: 32, 8: 4}[shape[-1]]
    q = torch.randn(shape).to(dtype)
    cos, sin = table(shape[1], half, batch and shape[0])
    exact = query_reference(q.double(), cos.double(), sin.double())
    out = query_rope_(q, cos, sin)
    assert out.data_ptr() == q.data_ptr()
    pe, nope = slice(-2 * half, None), slice(None, -2 * half)
    assert torch.equal(out[..., nope].double(), exact[..., nope])  # untouched
    # Two products and a sum in float32, of numbers as large as the pair; one rounding.
    pairs = exact[..., pe].unflatten(-1, (-1, 2)).norm(dim=-1).repeat_interleave(2, -1)
    bound = UNIT[dtype] * exact[..., pe].abs() + 4 * 2**-24 * pairs
    assert ((out[..., pe] - exact[..., pe]).abs() <= bound * 1.01).all()


def test_queries_gradient_is_the_turn_back():
    q = torch.randn(2, 3, 4, 24)
    cos, sin = table(3, 8)
    weights = torch.randn_like(q)
    given = q.clone().requires_grad_()
    (ours,) = torch.autograd.grad(query_rope_(given.clone(), cos, sin), given, weights)
    (wanted,) = torch.autograd.grad(query_reference(given, cos, sin), given, weights)
    assert error(ours, wanted) < 1e-6


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("C, half", [(512, 32), (48, 4), (1, 1), (129, 16)])
@pytest.mark.parametrize("dtype", UNIT, ids=str)
def test_latents_beside_float64(C, half, dtype, batch):
    kv = (torch.randn(2, 3, C + 2 * half) * 3).to(dtype)
    weight = (1 + 0.3 * torch.randn(C)).to(dtype)
    cos, sin = table(3, half, batch)
    out = latent_norm_rope(kv, weight, cos, sin)
    exact = latent_reference(*(t.double() for t in (kv, weight, cos, sin)))
    # The latent is rounded before and after the weight; the key once.
    pairs = kv[..., C:].double().unflatten(-1, (-1, 2)).norm(dim=-1)
    bound = 2 * UNIT[dtype] * exact.abs()
    bound[..., C:] += 4 * 2**-24 * pairs.repeat_interleave(2, -1)
    bound[..., :C] += 2**-20 * exact[..., :C].abs()
    assert ((out - exact).abs() <= bound * 1.01).all()


@pytest.mark.parametrize("shape", [(1, 3), (3, 5)])
def test_latents_gradients(shape, monkeypatch):
    """Four programs for 15 tokens: four each, and three for the last."""
    monkeypatch.setattr(rope, "PROGRAMS", 4)
    C, half = 20, 2
    kv = torch.randn(*shape, C + 2 * half)
    weight = 1 + 0.3 * torch.randn(C)
    cos, sin = table(shape[1], half)
    seed = torch.randn_like(kv)
    given = [kv.requires_grad_(), weight.requires_grad_()]
    ours = torch.autograd.grad(latent_norm_rope(*given, cos, sin), given, seed)
    exact = [t.detach().double().requires_grad_() for t in given]
    wide = (cos.double(), sin.double())
    wanted = torch.autograd.grad(latent_reference(*exact, *wide), exact, seed.double())
    for a, b in zip(ours, wanted, strict=True):
        assert error(a, b) < 1e-5  # sums in float32


def test_no_tokens():
    cos, sin = table(0, 4)
    assert query_rope_(torch.empty(1, 0, 2, 16), cos, sin).shape == (1, 0, 2, 16)
    assert (
        latent_norm_rope(torch.empty(1, 0, 20), torch.ones(12), cos, sin).numel() == 0
    )


def test_what_is_refused():
    cos, sin = table(3, 4)
    q = torch.randn(1, 3, 2, 24)
    with pytest.raises(ValueError, match="q has strides"):
        query_rope_(q.transpose(1, 2).contiguous().transpose(1, 2), cos, sin)
    with pytest.raises(ValueError, match="kv has 30 channels"):
        latent_norm_rope(torch.randn(1, 3, 30), torch.ones(12), cos, sin)
    with pytest.raises(ValueError, match="the table is for"):
        query_rope_(q, *table(3, 4, batch=2))
    with pytest.raises(ValueError, match="3 columns"):
        query_rope_(q, *table(3, 3))


@pytest.mark.parametrize("case", cases("cpu", small=True), ids=lambda case: case.name)
def test_cases_are_within_their_bounds(case):
    given = case.make()
    assert case.error(given) <= case.bound
