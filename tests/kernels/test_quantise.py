"""Quantisation byte by byte beside fp8.py, and SwiGLU before it beside float64."""

from __future__ import annotations

import pytest
import torch

from deepseek_mini import fp8
from deepseek_mini.kernels.cases.quantise import cases
from deepseek_mini.kernels.quantise import (
    quantise,
    reference,
    swiglu_quantise,
    swiglu_reference,
)

SHAPES = [(1, 1), (3, 128), (2, 129), (40, 300), (3, 7168)]


def hard(shape):
    """Numbers of all sizes, tiles of zeros, -0, and numbers halfway between codes."""
    x = torch.randn(shape) * torch.logspace(-6, 6, shape[-1])
    x[0, : shape[-1] // 2] = 0.0
    x[-1, ::7] = -0.0
    x[-1, ::5] = torch.randint(-448, 449, x[-1, ::5].shape).float()
    return x


def scales_of_every_size(rows):
    """Tiles whose largest number goes from the smallest float32 to the largest, some of
    their scales with a mantissa of ones, which the quickest exact divisions get wrong.
    """
    largest = torch.logspace(-44.8, 38.5, rows)
    largest[::3] = (largest[::3].view(torch.int32) | 0x007F_FFFF).view(torch.float32)
    x = (torch.rand(rows, 128) * 2 - 1) * largest[:, None]
    x[:, 7] = largest
    # Quotients halfway between two codes: one bit off, and the byte is another.
    x[:, 8:40] = (torch.arange(32) + 0.5) * (largest / 448)[:, None]
    return x


def same_bytes(ours, wanted):
    (a, scale_a), (b, scale_b) = ours, wanted
    assert a.shape == b.shape and a.dtype == b.dtype == torch.float8_e4m3fn
    assert torch.equal(scale_a.isnan(), scale_b.isnan())
    assert torch.equal(scale_a.nan_to_num(-1), scale_b.nan_to_num(-1))
    nan = b.float().isnan()
    assert torch.equal(a.float().isnan(), nan)
    codes_a, codes_b = a.view(torch.uint8)[~nan], b.view(torch.uint8)[~nan]
    assert torch.equal(codes_a, codes_b), f"{(codes_a != codes_b).sum()} bytes differ"


@pytest.mark.parametrize("ue8m0", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_bytes_are_those_of_fp8(shape, dtype, ue8m0):
    x = hard(shape).to(dtype)
    same_bytes(quantise(x, ue8m0), reference(x, ue8m0))


@pytest.mark.parametrize("ue8m0", [False, True])
def test_bytes_at_scales_of_every_size(ue8m0):
    x = scales_of_every_size(400)
    same_bytes(quantise(x, ue8m0), reference(x, ue8m0))


def test_a_power_of_two_is_rounded_up():
    x = torch.zeros(2, 128)
    x[:, 3] = torch.tensor([448.0, torch.tensor(448.0).nextafter(torch.tensor(449.0))])
    ours = quantise(x, ue8m0=True)
    assert ours[1].tolist() == [[1.0], [2.0]]
    same_bytes(ours, reference(x, ue8m0=True))


@pytest.mark.parametrize("ue8m0", [False, True])
def test_nan_and_infinity_spoil_their_tile_alone(ue8m0):
    x = torch.randn(4, 384)
    x[0, 5], x[1, 200], x[2, 380] = float("nan"), float("inf"), -float("inf")
    ours = quantise(x, ue8m0)
    same_bytes(ours, reference(x, ue8m0))
    spoilt = fp8.dequantise(*ours, block=fp8.TILE).isnan()
    assert (
        spoilt.view(4, 3, 128).all(-1).sum()
        == spoilt.view(4, 3, 128).any(-1).sum()
        == 3
    )


def test_more_axes():
    x = torch.randn(2, 3, 256).bfloat16()
    values, scale_inv = quantise(x)
    assert values.shape == (2, 3, 256) and scale_inv.shape == (2, 3, 2)
    same_bytes((values, scale_inv), reference(x))


@pytest.mark.parametrize("ue8m0", [False, True])
@pytest.mark.parametrize("shape", [(1, 2), (5, 256), (3, 2 * 130), (70, 2 * 128)])
def test_swiglu_beside_float64(shape, ue8m0):
    gate_up = (torch.randn(shape) * 3).bfloat16()
    values, scale_inv = swiglu_quantise(gate_up, ue8m0)
    gate, up = gate_up.double().chunk(2, -1)
    exact = gate / (1 + torch.exp(-gate)) * up
    ours = fp8.dequantise(values, scale_inv, fp8.TILE)
    # Half a step of 3 bits of mantissa, relative 2^-4; below the smallest normal
    # number half a step of it. The rest is float32's.
    step = (
        scale_inv.repeat_interleave(128, -1)[:, : exact.shape[-1]] * fp8.E4M3.smallest
    )
    bound = torch.maximum(exact.abs() * 2**-4, step / 2) * (1 + 1e-5)
    assert ((ours - exact).abs() <= bound).all()
    wanted_scale = swiglu_reference(gate_up, ue8m0)[1]
    assert torch.allclose(scale_inv, wanted_scale, rtol=1e-6)


def test_no_rows():
    values, scale_inv = quantise(torch.empty(0, 256))
    assert values.shape == (0, 256) and scale_inv.shape == (0, 2)


def test_what_is_refused():
    with pytest.raises(ValueError, match="x has strides"):
        quantise(torch.randn(4, 256)[:, ::2])
    with pytest.raises(ValueError, match="gate_up has 129 channels"):
        swiglu_quantise(torch.randn(4, 129))


@pytest.mark.parametrize("case", cases("cpu", small=True), ids=lambda case: case.name)
def test_cases_are_within_their_bounds(case):
    assert case.error(case.make()) <= case.bound
