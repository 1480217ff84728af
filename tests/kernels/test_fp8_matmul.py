"""The fp8 product beside float64, with ragged sizes and scales of all magnitudes."""

from __future__ import annotations

import pytest
import torch

from deepseek_mini import fp8
from deepseek_mini.kernels.cases.fp8_matmul import cases
from deepseek_mini.kernels.fp8_matmul import fp8_matmul, reference

SIZES = [(1, 1, 16), (5, 130, 128), (40, 100, 272), (129, 65, 144), (33, 300, 384)]


def inputs(M, N, K):
    """Every tile and block has a magnitude of its own, so a wrong scale is seen."""
    a = torch.randn(M, K) * torch.logspace(-2, 2, K) * torch.logspace(-1, 1, M)[:, None]
    b = torch.randn(N, K) * torch.logspace(1, -1, K) * torch.logspace(1, -1, N)[:, None]
    quantised = *fp8.quantise(a), *fp8.quantise(b, fp8.BLOCK)
    return tuple(t.contiguous() for t in quantised)


@pytest.mark.parametrize("size", SIZES)
def test_beside_float64(size):
    given = inputs(*size)
    out = fp8_matmul(*given)
    a = fp8.dequantise(*given[:2], fp8.TILE).double()
    b = fp8.dequantise(*given[2:], fp8.BLOCK).double()
    exact, size_of_sum = a @ b.T, a.abs() @ b.abs().T
    # Rounded once to bf16. Before, in float32: products are exact, and there are up to
    # 127 + 3 additions, two products with scales, and dequantising in the oracle.
    bound = 2**-8 * exact.abs() + 140 * 2**-24 * size_of_sum
    assert ((out - exact).abs() <= bound).all()
    # The bound is tight enough to see one wrong scale.
    wrong = [t.clone() for t in given]
    wrong[1][-1, -1] *= 1.25
    assert ((fp8_matmul(*wrong) - exact).abs() > bound).any()


def test_equal_to_the_reference():
    given = inputs(33, 70, 256)
    out, wanted = fp8_matmul(*given), reference(*given)
    # Sums in another order: at most one of bf16's steps apart, and that seldom.
    assert ((out - wanted).abs() <= 2**-7 * wanted.abs()).all()
    assert (out != wanted).float().mean() < 0.02


def test_rows_that_are_not_there():
    a, a_scale, b, b_scale = inputs(4, 30, 128)
    assert fp8_matmul(a[:0], a_scale[:0], b, b_scale).shape == (0, 30)


def test_what_is_refused():
    a, a_scale, b, b_scale = inputs(4, 130, 256)
    with pytest.raises(ValueError, match="b_scale has shape"):
        fp8_matmul(a, a_scale, b, b_scale[:1])
    with pytest.raises(ValueError, match="a_scale has shape"):
        fp8_matmul(a, a_scale[:, :1], b, b_scale[:, :1])
    with pytest.raises(ValueError, match="K is 120"):
        fp8_matmul(a[:, :120], a_scale[:, :1], b[:, :120], b_scale[:, :1])
    with pytest.raises(ValueError, match="a has strides"):
        fp8_matmul(a[:, :128], a_scale[:, :1], b[:, :128], b_scale[:, :1])


@pytest.mark.parametrize("case", cases("cpu", small=True), ids=lambda case: case.name)
def test_cases_are_within_their_bounds(case):
    assert case.error(case.make()) <= case.bound
