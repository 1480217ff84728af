"""Residual addition and RMSNorm: beside float64, its gradients, its model's module."""

from __future__ import annotations

import pytest
import torch
from helpers import error

from deepseek_mini.kernels import rmsnorm
from deepseek_mini.kernels.case import difference
from deepseek_mini.kernels.cases.rmsnorm import cases
from deepseek_mini.kernels.rmsnorm import add_rmsnorm, reference
from deepseek_mini.model.norm import RMSNorm

UNIT = {torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def inputs(shape, dtype):
    x, residual = (torch.randn(2, *shape) * 3).to(dtype)
    return x, residual, (1 + 0.3 * torch.randn(shape[-1])).to(dtype)


@pytest.mark.parametrize("shape", [(3, 7168), (1, 1), (2, 3, 129), (7, 64)])
@pytest.mark.parametrize("dtype", UNIT, ids=str)
def test_forward_beside_float64(shape, dtype):
    x, residual, weight = inputs(shape, dtype)
    y, h = add_rmsnorm(x, residual, weight, 1e-6)
    exact_y, exact_h = reference(x.double(), residual.double(), weight.double(), 1e-6)
    # h is rounded once. y inherits that twice (h itself and its rms), and is rounded
    # before and after the weight: four roundings, and float32's sums of squares.
    unit = UNIT[dtype] * 1.01
    rest = 2**-20
    assert ((h - exact_h).abs() <= unit * exact_h.abs()).all()
    assert ((y - exact_y).abs() <= (4 * unit + rest) * exact_y.abs() + 1e-30).all()
    assert y.dtype == h.dtype == dtype


def test_forward_is_the_module_after_an_addition():
    x, residual, weight = inputs((5, 96), torch.float32)
    norm = RMSNorm(96, eps=1e-5)
    norm.weight.data = weight
    y, h = add_rmsnorm(x, residual, weight, 1e-5)
    assert torch.equal(h, residual + x)
    assert error(y, norm(residual + x)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_forward_rounds_where_eager_rounds(dtype):
    """The norm is that of the rounded stream, and is rounded before the weight."""
    given = inputs((4, 1000), dtype)
    for ours, wanted in zip(add_rmsnorm(*given), reference(*given), strict=True):
        # Sums in another order move a number in a thousand to its neighbour.
        assert (ours != wanted).float().mean() < 0.005


@pytest.mark.parametrize("shape", [(3, 300), (10, 17), (2, 9, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_beside_float64(shape, dtype, monkeypatch):
    """Four programs for up to 18 rows: five each, and fewer for the last."""
    monkeypatch.setattr(rmsnorm, "PROGRAMS", 4)
    given = [t.requires_grad_() for t in inputs(shape, dtype)]
    seeds = [torch.randn(shape).to(dtype) for _ in range(2)]
    ours = torch.autograd.grad(add_rmsnorm(*given), given, seeds)
    exact = [t.detach().double().requires_grad_() for t in given]
    wanted = torch.autograd.grad(
        reference(*exact), exact, [seed.double() for seed in seeds]
    )
    # Sums are in float32 and results are rounded once; dw sums rows whose h was
    # rounded, and so their errors.
    bound = 1e-5 if dtype == torch.float32 else 4 * UNIT[dtype]
    for a, b in zip(ours, wanted, strict=True):
        assert error(a, b) < bound
    assert torch.equal(ours[0], ours[1])


def test_a_gradient_of_the_norm_alone():
    given = [t.requires_grad_() for t in inputs((4, 33), torch.float32)]
    ours = torch.autograd.grad(add_rmsnorm(*given)[0].sum(), given)
    wanted = torch.autograd.grad(reference(*given)[0].sum(), given)
    assert max(map(error, ours, wanted)) < 1e-5


def test_no_rows():
    x, residual, weight = inputs((0, 64), torch.float32)
    assert [t.shape for t in add_rmsnorm(x, residual, weight)] == [(0, 64)] * 2


def test_what_is_refused():
    x, residual, weight = inputs((4, 64), torch.float32)
    with pytest.raises(ValueError, match="but they must be the same"):
        add_rmsnorm(x.bfloat16(), residual, weight)
    with pytest.raises(ValueError, match="residual has strides"):
        add_rmsnorm(x[:, :32].clone(), residual[:, ::2], weight[:32])


@pytest.mark.parametrize("case", cases("cpu", small=True), ids=lambda case: case.name)
def test_cases_are_within_their_bounds(case):
    given = case.make()
    assert case.error(given) <= case.bound
    # And the bound would notice: an output that is slightly wrong is over it.
    wrong = case.kernel(*given)[0] * (1 + 4 * case.bound)
    assert difference(wrong, case.reference(*given)[0]) > case.bound
