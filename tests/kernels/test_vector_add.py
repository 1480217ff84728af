"""The sum of two vectors: equal bytes at ragged sizes, nothing outside."""

from __future__ import annotations

import pytest
import torch

from deepseek_mini.kernels import vector_add
from deepseek_mini.kernels.cases.vector_add import cases
from deepseek_mini.kernels.vector_add import add, reference


@pytest.mark.parametrize("shape", [(1,), (64,), (65,), (3, 50), (0,), ()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_sum_is_torchs(shape, dtype):
    x, y = torch.randn(2, *shape).to(dtype)
    out = add(x, y)
    assert out.dtype == dtype and torch.equal(out, reference(x, y))


def test_what_lies_behind_stays():
    """70 numbers, two programs of 64: the second one must stop after six."""
    out, (x, y) = torch.zeros(200), torch.randn(2, 200)
    vector_add.add_kernel[(2,)](x, y, out, 70, BLOCK=64)
    assert torch.equal(out[:70], (x + y)[:70]) and not out[70:].any()


def test_what_is_refused():
    with pytest.raises(ValueError, match="but they must be the same"):
        vector_add.add(torch.randn(3), torch.randn(4))
    with pytest.raises(ValueError, match="but they must be the same"):
        vector_add.add(torch.randn(3), torch.randn(3).half())
    with pytest.raises(ValueError, match="y has strides"):
        add(torch.randn(3, 4), torch.randn(4, 3).T)


@pytest.mark.parametrize("case", cases("cpu", small=True), ids=lambda case: case.name)
def test_cases_are_within_their_bounds(case):
    assert case.error(case.make()) <= case.bound
