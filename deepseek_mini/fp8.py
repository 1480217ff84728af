"""Numbers of eight bits: what they are, how to round to them, and their scales.

DeepSeek-V3 (arXiv 2412.19437, §3.3) multiplies matrices in E4M3: a sign, 4 bits of
exponent, 3 of mantissa. A number is divided by a scale that it shares with its tile and
then rounded. What is stored beside the bytes is what undoes that, `scale_inv`.

`decode` and `encode` are the formats themselves, in NumPy and float64. The rest is
PyTorch, computed in float32.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Format:
    """A sign, `exponent_bits` and `mantissa_bits`; `largest` is the largest number.

    `has_infinity`: the highest exponent is kept for infinity and NaN, as in IEEE 754.
    Otherwise only the code with all bits set is NaN, and there is no infinity.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    largest: float
    has_infinity: bool
    dtype: torch.dtype

    @property
    def bias(self) -> int:
        """What is subtracted from the stored exponent."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def smallest_normal(self) -> float:
        """Numbers below have fewer significant bits (they are subnormal)."""
        return 2.0 ** (1 - self.bias)

    @property
    def smallest(self) -> float:
        """The smallest number above 0, and the step between subnormal ones."""
        return self.smallest_normal / 2**self.mantissa_bits


E4M3 = Format("E4M3", 4, 3, 448.0, False, torch.float8_e4m3fn)
E5M2 = Format("E5M2", 5, 2, 57_344.0, True, torch.float8_e5m2)

TILE = (1, 128)  # of activations and of gradients: one token, 128 channels
BLOCK = (128, 128)  # of weights
AMAX_FLOOR = 1e-4  # with UE8M0 scales, as DeepSeek-V3.1's code has it

Block = int | tuple[int | None, int | None]


def decode(codes: UInt8[np.ndarray, "..."], fmt: Format) -> Float[np.ndarray, "..."]:
    """The numbers that bytes stand for, in float64."""
    codes = np.asarray(codes).astype(int)
    step = 2**fmt.mantissa_bits
    exponent, mantissa = codes // step % 2**fmt.exponent_bits, codes % step
    normal = np.ldexp(float(step) + mantissa, exponent - fmt.bias - fmt.mantissa_bits)
    value = np.where(exponent == 0, mantissa * fmt.smallest, normal)
    if fmt.has_infinity:
        last = exponent == 2**fmt.exponent_bits - 1
        value = np.where(last, np.where(mantissa == 0, np.inf, np.nan), value)
    else:
        value = np.where(codes % 128 == 127, np.nan, value)
    return np.where(codes >= 128, -value, value)


def encode(
    values: Float[np.ndarray, "..."] | float, fmt: Format
) -> UInt8[np.ndarray, "..."]:
    """The bytes of the nearest numbers; halfway, the one with an even mantissa.

    What is too large, infinity too, becomes the largest number; NaN stays NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    size = np.where(np.isnan(values), 0, np.minimum(np.abs(values), fmt.largest))
    # 2^power <= size < 2^(power + 1), but for subnormals the step grows no finer.
    power = np.frexp(np.maximum(size, fmt.smallest_normal))[1] - 1
    steps = np.rint(np.ldexp(size, fmt.mantissa_bits - power))  # rint: half to even
    # Codes count upwards through all numbers, so a carry lands in the next power.
    code = (power + fmt.bias - 1) * 2**fmt.mantissa_bits + steps
    code = np.where(np.isnan(values), 127, code)
    return np.asarray(code + 128 * np.signbit(values), dtype=np.uint8)


def encode_ue8m0(scales: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """The bytes of the powers of two at or above positive scales: 2^(code - 127).

    UE8M0 is unsigned and all exponent; DeepSeek-V3.1 keeps its scales in it.
    """
    mantissa, power = np.frexp(np.asarray(scales, dtype=np.float64))
    code = power - (mantissa == 0.5) + 127
    return np.asarray(np.clip(code, 0, 254), dtype=np.uint8)


def decode_ue8m0(codes: UInt8[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The powers of two that UE8M0 bytes stand for, in float64; 255 is NaN."""
    codes = np.asarray(codes).astype(int)
    return np.where(codes == 255, np.nan, np.ldexp(1.0, codes - 127))


def cast(x: Float[Tensor, "..."], fmt: Format = E4M3) -> Tensor:
    """`x` in the format's own dtype, a byte a number.

    Clamped first: what a cast makes of too large a number differs between versions of
    PyTorch. NaN stays NaN.
    """
    return x.float().clamp(-fmt.largest, fmt.largest).to(fmt.dtype)


def round_to(x: Float[Tensor, "..."], fmt: Format = E4M3) -> Float[Tensor, "..."]:
    """The nearest numbers of a format, as `cast` finds them, in the type of `x`.

    On a CPU several times faster than casting there and back.
    """
    x32 = x.float().clamp(-fmt.largest, fmt.largest)
    power = (x32.view(torch.int32) & 0x7F80_0000).view(torch.float32)  # 2^exponent
    step = power.clamp_(min=fmt.smallest_normal).mul_(2.0**-fmt.mantissa_bits)
    rounded = torch.div(x32, step).round_().mul_(step)  # halfway goes to even steps
    return rounded.to(x.dtype)


def quantise(
    x: Float[Tensor, "..."],
    block: Block = TILE,
    fmt: Format = E4M3,
    ue8m0: bool = False,
) -> tuple[Tensor, Float[Tensor, "... m n"]]:
    """Bytes of x [..., M, N], and for each block the `scale_inv` that undoes them.

    block: rows and columns that share a scale; one number for a square, None for all
        of them: (None, None) is one scale for the matrix. The last block of an axis
        may be smaller.
    ue8m0: scales that are powers of two, rounded up, as DeepSeek-V3.1 has them.

    A block's largest number (its amax) lands on the format's largest: scale_inv is
    amax / 448 in E4M3 (DeepSeek-V3, §3.3.2). A block of zeros gets 1, or with ue8m0
    what belongs to an amax of 1e-4. A NaN or an infinity makes its block NaN.

    Raises:
        ValueError: x has fewer than two axes, or block is no size.
    """
    tiled = _tiled(x.float(), block)  # [..., m, rows, n, columns]
    scale_inv = _scale_inv(tiled, fmt, ue8m0)
    values = _untiled(cast(tiled / scale_inv, fmt), x.shape)
    return values, scale_inv.squeeze((-3, -1))


def dequantise(
    values: Tensor, scale_inv: Tensor, block: Block = 128
) -> Float[Tensor, "... M N"]:
    """Each block of the bytes [..., M, N] times its one of `scale_inv`, in float32.

    This is how released folders mean their `weight_scale_inv`, with blocks of 128 x 128
    (DeepSeek-V3's README_WEIGHTS). The scales may be of any type.

    Raises:
        ValueError: there is not one scale for each block.
    """
    rows, columns = _sizes(values.shape, block)
    n_rows, n_columns = values.shape[-2:]
    wanted = [*values.shape[:-2], _blocks(n_rows, rows), _blocks(n_columns, columns)]
    if list(scale_inv.shape) != wanted:
        raise ValueError(
            f"scale_inv has shape {list(scale_inv.shape)}, but values of shape "
            f"{list(values.shape)} in blocks of {rows} x {columns} need {wanted}"
        )
    scale = scale_inv.float().repeat_interleave(rows, dim=-2)[..., :n_rows, :]
    scale = scale.repeat_interleave(columns, dim=-1)[..., :n_columns]
    return values.float() * scale


def fake_quantise(
    x: Float[Tensor, "... M N"],
    block: Block = TILE,
    fmt: Format = E4M3,
    ue8m0: bool = False,
) -> Float[Tensor, "... M N"]:
    """`x` as it is after `quantise` and `dequantise`, in its own type and faster."""
    tiled = _tiled(x.float(), block)
    scale_inv = _scale_inv(tiled, fmt, ue8m0)
    rounded = round_to(tiled / scale_inv, fmt).mul_(scale_inv)
    return _untiled(rounded, x.shape).to(x.dtype)


def _scale_inv(tiled: Tensor, fmt: Format, ue8m0: bool) -> Tensor:
    """A scale for each block: [..., m, 1, n, 1]."""
    amax = tiled.abs().amax(dim=(-3, -1), keepdim=True)
    if not ue8m0:
        scale_inv = amax / fmt.largest
        return scale_inv.masked_fill(scale_inv == 0, 1.0)
    bits = (amax.clamp(min=AMAX_FLOOR) / fmt.largest).view(torch.int32)
    power = bits + 0x007F_FFFF & 0x7F80_0000  # any mantissa carries into the exponent
    return torch.where(amax.isfinite(), power.view(torch.float32), amax)


def _sizes(shape: torch.Size, block: Block) -> tuple[int, int]:
    if len(shape) < 2:
        raise ValueError(f"the shape is {list(shape)}, but it needs rows and columns")
    pair = (block, block) if isinstance(block, int) else block
    if not all(size is None or size >= 1 for size in pair):
        raise ValueError(f"block is {block}, but its sizes must be at least 1")
    return tuple(max(1, n) if s is None else s for s, n in zip(pair, shape[-2:]))


def _blocks(n: int, size: int) -> int:
    return -(-n // size)


def _tiled(x: Tensor, block: Block) -> Tensor:
    """[..., m, rows, n, columns], filled up with zeros to whole blocks."""
    rows, columns = _sizes(x.shape, block)
    n_rows, n_columns = x.shape[-2:]
    m, n = _blocks(n_rows, rows), _blocks(n_columns, columns)
    if (m * rows, n * columns) != (n_rows, n_columns):
        x = F.pad(x, (0, n * columns - n_columns, 0, m * rows - n_rows))
    return x.reshape(*x.shape[:-2], m, rows, n, columns)


def _untiled(x: Tensor, shape: torch.Size) -> Tensor:
    n_rows, n_columns = shape[-2:]
    return x.flatten(-2).flatten(-3, -2)[..., :n_rows, :n_columns]
