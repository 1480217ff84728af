"""The tiled product beside float64, at sizes that no tile divides."""

from __future__ import annotations

import pytest
import torch
from helpers import error

from deepseek_mini.kernels import matmul as module
from deepseek_mini.kernels.case import difference
from deepseek_mini.kernels.cases.matmul import cases
from deepseek_mini.kernels.matmul import matmul, reference

# Of one rounding, and of float32's sums of up to 200 products.
BOUNDS = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}
SHAPES = [(32, 32, 32), (1, 1, 1), (33, 70, 31), (100, 5, 200), (64, 96, 33)]


def factors(M, N, K, dtype):
    return torch.randn(M, K).to(dtype), (torch.randn(K, N) * max(K, 1) ** -0.5).to(
        dtype
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_beside_float64(shape, dtype):
    a, b = factors(*shape, dtype)
    out, exact = matmul(a, b), a.double() @ b.double()
    assert out.dtype == dtype and out.shape == exact.shape
    assert error(out, exact) < 1.05 * BOUNDS[dtype]


def test_sums_are_in_float32():
    """1 + 512 times 2^-9: in bf16 nothing would ever be added to 1."""
    a = torch.full((1, 513), 2.0**-9, dtype=torch.bfloat16)
    a[0, 0] = 1
    assert matmul(a, torch.ones(513, 1, dtype=torch.bfloat16)).item() == 2


@pytest.mark.parametrize("group", [1, 2, 3, 8])
def test_every_tile_is_made_once(group, monkeypatch):
    """Five rows of tiles and three columns; the last group is not full."""
    tile = {**module.TILES[0], "GROUP": group}
    monkeypatch.setitem(module.TILES, 0, tile)
    a, b = factors(150, 90, 40, torch.float32)
    assert error(matmul(a, b), a.double() @ b.double()) < 1e-6


@pytest.mark.parametrize("shape", [(0, 4, 5), (4, 0, 5), (4, 5, 0)], ids=str)
def test_nothing_to_do(shape):
    a, b = factors(*shape, torch.float32)
    assert torch.equal(matmul(a, b), a @ b)


def test_what_is_refused():
    a, b = factors(4, 6, 5, torch.float32)
    with pytest.raises(ValueError, match="types must be the same"):
        module.matmul(a, b.half())
    with pytest.raises(ValueError, match="as wide as b is high"):
        module.matmul(a, b[:4])  # not by the name whose shapes are checked
    with pytest.raises(ValueError, match="b has strides"):
        matmul(a, torch.randn(6, 5).T)


@pytest.mark.parametrize("case", cases("cpu", small=True), ids=lambda case: case.name)
def test_cases_are_within_their_bounds(case):
    given = case.make()
    assert case.error(given) <= case.bound
    wrong = case.kernel(*given) * (1 + 4 * case.bound)
    assert difference(wrong, reference(*given)) > case.bound
