"""Activations to E4M3 with a scale for every 1 x 128 tile, alone and after SwiGLU.

The bytes and the scales are those of `deepseek_mini.fp8.quantise`. A tile's 128 numbers
lie side by side in memory and in one warp's registers, so each number is read once and
a byte is written for it; eager PyTorch goes through memory some ten times.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from deepseek_mini import fp8
from deepseek_mini.kernels.launch import contiguous, pick

# No GPU before sm_89 can convert to fp8. ROWS counts tiles of 128 numbers.
TILES = {89: {"ROWS": 32, "num_warps": 4}}
TILES_SWIGLU = {89: {"ROWS": 32, "num_warps": 8}}
LARGEST = tl.constexpr(fp8.E4M3.largest)
AMAX_FLOOR = tl.constexpr(fp8.AMAX_FLOOR)


@triton.jit
def divide(x, scale):
    """x [ROWS, 128] by its row's scale, rounded as IEEE 754 says, as PyTorch does it.

    A GPU's own / may be off by two units in the last place, and bytes would differ; its
    exact division is so slow that memory would wait. So the row's reciprocal is exact,
    and a quotient is corrected, twice, by what it leaves: x - quotient · scale, which
    fused multiplication and addition finds without error (Markstein, 1990).
    """
    up = tl.where(scale < 2.0**-64, 2.0**100, 1.0)  # away from overflow, without error
    scale = (scale * up)[:, None]
    x = x * up[:, None]
    inverse = tl.div_rn(1.0, scale)
    quotient = x * inverse
    better = tl.fma(tl.fma(-quotient, scale, x), inverse, quotient)
    better = tl.fma(tl.fma(-better, scale, x), inverse, better)
    # Infinity leaves nothing to correct, and -0 would lose its sign.
    exact = (scale < float("inf")) & (quotient != 0.0)
    return tl.where(exact, better, quotient)


@triton.jit
def quantise_tiles(x, UE8M0: tl.constexpr):
    """The bytes of float32 tiles x [ROWS, 128], and their scale_inv [ROWS]."""
    # As integers, positive numbers have the same order, and NaN is above infinity:
    # unlike a maximum of floats this one does not lose it.
    bits = x.to(tl.int32, bitcast=True) & 0x7FFF_FFFF
    amax = tl.max(bits, axis=1).to(tl.float32, bitcast=True)
    if UE8M0:
        scale = tl.div_rn(tl.where(amax > AMAX_FLOOR, amax, AMAX_FLOOR), LARGEST)
        power = (scale.to(tl.int32, bitcast=True) + 0x007F_FFFF) & 0x7F80_0000
        finite = amax < float("inf")  # False for NaN
        scale = tl.where(finite, power.to(tl.float32, bitcast=True), amax)
    else:
        scale = tl.div_rn(amax, LARGEST)
        scale = tl.where(scale == 0.0, 1.0, scale)
    return divide(x, scale).to(tl.float8e4nv), scale


@triton.jit
def quantise_kernel(
    x, values, scale_inv, n_tiles, D: tl.constexpr, UE8M0: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """Tiles are numbered along the rows of x [T, D], and D may end within a tile."""
    per_row: tl.constexpr = (D + 127) // 128
    tile = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = (tile % per_row * 128)[:, None] + tl.arange(0, 128)[None, :]
    at = (tile // per_row).to(tl.int64)[:, None] * D + column
    inside = (tile < n_tiles)[:, None] & (column < D)
    number = tl.load(x + at, inside, 0.0).to(tl.float32)
    bytes_, scale = quantise_tiles(number, UE8M0)
    tl.store(values + at, bytes_, inside)
    tl.store(scale_inv + tile, scale, tile < n_tiles)


@triton.jit
def swiglu_quantise_kernel(
    gate_up, values, scale_inv, n_tiles, D: tl.constexpr, UE8M0: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """A row of gate_up holds D numbers of the gate and then D that it lets through."""
    per_row: tl.constexpr = (D + 127) // 128
    tile = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = (tile // per_row).to(tl.int64)[:, None]
    column = (tile % per_row * 128)[:, None] + tl.arange(0, 128)[None, :]
    inside = (tile < n_tiles)[:, None] & (column < D)
    at = row * (2 * D) + column
    gate = tl.load(gate_up + at, inside, 0.0).to(tl.float32)
    up = tl.load(gate_up + at + D, inside, 0.0).to(tl.float32)
    bytes_, scale = quantise_tiles(gate / (1 + tl.exp(-gate)) * up, UE8M0)
    tl.store(values + row * D + column, bytes_, inside)
    tl.store(scale_inv + tile, scale, tile < n_tiles)


def quantise(
    x: Float[Tensor, "... D"], ue8m0: bool = False
) -> tuple[Tensor, Float[Tensor, "... tiles"]]:
    """E4M3 bytes of x, and for every 128 channels of a row the `scale_inv` that undoes
    them (DeepSeek-V3, arXiv 2412.19437, §3.3.2): equal to `reference`, byte by byte.

    x is float32, bf16 or fp16. ue8m0: scales that are powers of two (DeepSeek-V3.1).

    Raises:
        ValueError: x is not contiguous, or the GPU is older than sm_89.
    """
    contiguous(x=x)
    return _launch(quantise_kernel, TILES, x, x.shape[-1], ue8m0)


def swiglu_quantise(
    gate_up: Float[Tensor, "... twoD"], ue8m0: bool = False
) -> tuple[Tensor, Float[Tensor, "... tiles"]]:
    """silu(gate) · up, quantised as by `quantise`; computed in float32 throughout.

    gate_up: a row is D numbers of w1 x and then D of w3 x (see `SwiGLU`).

    Raises:
        ValueError: gate_up is not contiguous or of odd width, or the GPU too old.
    """
    contiguous(gate_up=gate_up)
    width, odd = divmod(gate_up.shape[-1], 2)
    if odd:
        raise ValueError(
            f"gate_up has {gate_up.shape[-1]} channels, but gate and up need as many "
            "each, so an even number"
        )
    return _launch(swiglu_quantise_kernel, TILES_SWIGLU, gate_up, width, ue8m0)


def _launch(kernel, tiles, x, width, ue8m0):
    rows, per_row = x.shape[:-1], triton.cdiv(width, 128)
    values = torch.empty(*rows, width, dtype=torch.float8_e4m3fn, device=x.device)
    scale_inv = torch.empty(*rows, per_row, dtype=torch.float32, device=x.device)
    tile = pick(tiles, x)
    if n_tiles := scale_inv.numel():
        grid = (triton.cdiv(n_tiles, tile["ROWS"]),)
        kernel[grid](x, values, scale_inv, n_tiles, D=width, UE8M0=ue8m0, **tile)
    return values, scale_inv


def reference(
    x: Float[Tensor, "*B T D"], ue8m0: bool = False
) -> tuple[Tensor, Float[Tensor, "*B T tiles"]]:
    """`quantise` in plain PyTorch."""
    return fp8.quantise(x, fp8.TILE, fp8.E4M3, ue8m0)


def swiglu_reference(
    gate_up: Float[Tensor, "*B T twoD"], ue8m0: bool = False
) -> tuple[Tensor, Float[Tensor, "*B T tiles"]]:
    """`swiglu_quantise` in plain PyTorch."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    return reference(F.silu(gate) * up, ue8m0)
