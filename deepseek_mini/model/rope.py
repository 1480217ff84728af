"""Rotary position embedding, and the ways to stretch it to longer contexts.

A head's channels form pairs, and pair i of a vector at position m is turned by the
angle m · f_i with f_i = theta^(-2i / head_dim). The score of a query at m and a key at
n then depends on m - n alone (RoFormer, arXiv 2104.09864, §3.2.2).
"""

import math

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from deepseek_mini.config import Linear, Llama3, Rope, Yarn


def inverse_frequencies(rope: Rope, head_dim: int) -> Float64[Tensor, " half"]:
    """The angle in radians that each pair turns per position, shape [head_dim / 2].

    Plain RoPE, then whatever `rope.scaling` does to it.
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    freqs = rope.theta**-exponent
    match rope.scaling:
        case None:
            return freqs
        case Linear(factor):
            return freqs / factor
        case Yarn() as yarn:
            keep = yarn_keep(yarn, head_dim, rope.theta)
            return freqs * keep + freqs / yarn.factor * (1 - keep)
        case Llama3() as llama3:
            keep = llama3_keep(llama3, freqs)
            return freqs * keep + freqs / llama3.factor * (1 - keep)
    raise TypeError(f"unknown RoPE scaling {rope.scaling!r}")


def yarn_keep(yarn: Yarn, head_dim: int, theta: float) -> Float64[Tensor, " half"]:
    """How much of each pair's own frequency YaRN keeps: 1 (all) down to 0 (none).

    The ramp runs over the index of the pair, between the pairs that turn `beta_fast`
    and `beta_slow` times in the original context (arXiv 2309.00071, §3.2; DeepSeek's
    released code rounds both ends outwards, and so do we).
    """

    def pair_that_turns(times: float) -> float:
        wavelength = yarn.original_seq_len / times  # in tokens
        return head_dim * math.log(wavelength / (2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_that_turns(yarn.beta_fast)), 0)
    high = min(math.ceil(pair_that_turns(yarn.beta_slow)), head_dim - 1)
    width = high - low if high != low else 0.001  # a step, not a division by zero
    pair = torch.arange(head_dim // 2, dtype=torch.float64)
    return 1 - ((pair - low) / width).clamp(0, 1)


def llama3_keep(
    llama3: Llama3, freqs: Float64[Tensor, " half"]
) -> Float64[Tensor, " half"]:
    """How much of each pair's own frequency Llama 3.1 keeps: 1 (all) down to 0.

    Linear in the number of turns that a pair makes in the original context.
    """
    turns = llama3.original_seq_len * freqs / (2 * math.pi)
    low, high = llama3.low_freq_factor, llama3.high_freq_factor
    return ((turns - low) / (high - low)).clamp(0, 1)


def yarn_temperature(factor: float, mscale: float) -> float:
    """YaRN's m(mscale) = 0.1 · mscale · ln(factor) + 1; 1 when nothing is stretched.

    The paper prints it as sqrt(1/t) = 0.1 ln(s) + 1 (arXiv 2309.00071, §3.3).
    """
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


def amplitude(rope: Rope) -> float:
    """What cosine and sine are multiplied by: 1, except for YaRN (see `Yarn`)."""
    match rope.scaling:
        case Yarn(factor=s, mscale=m, mscale_all_dim=all_dim):
            return yarn_temperature(s, m) / yarn_temperature(s, all_dim)
    return 1.0


def softmax_temperature(rope: Rope) -> float:
    """What MLA's softmax scale is multiplied by: 1, except for YaRN (see `Yarn`)."""
    match rope.scaling:
        case Yarn(factor=s, mscale_all_dim=all_dim):
            return yarn_temperature(s, all_dim) ** 2
    return 1.0


def rope_table(
    rope: Rope,
    head_dim: int,
    positions: Int[Tensor, " T"],
    dtype: torch.dtype = torch.float32,
) -> tuple[Float[Tensor, "T half"], Float[Tensor, "T half"]]:
    """Cosine and sine of every angle, [T, head_dim / 2] each, on positions' device.

    Angles are made in float64 and only the table is rounded: at position 100,000 an
    angle in float32 is off by up to 0.004 radians.
    """
    freqs = inverse_frequencies(rope, head_dim)
    angles = torch.outer(positions.to("cpu", torch.float64), freqs)
    scale = amplitude(rope)
    table = (angles.cos() * scale, angles.sin() * scale)
    return tuple(t.to(positions.device, dtype) for t in table)


def apply_rope(
    x: Float[Tensor, "B T H d"],
    cos: Float[Tensor, "*B T half"],
    sin: Float[Tensor, "*B T half"],
    layout: str = "interleaved",
) -> Float[Tensor, "B T H d"]:
    """Turn every pair of channels of every head by its position's angle.

    (a, b) becomes (a cos - b sin, a sin + b cos). The table has a row for each of the T
    positions, the same for all texts or, with a leading B, each text its own. Computed
    in the wider of x's and the table's types and returned in x's. `layout` is that of
    `Rope`.
    """
    cos, sin = cos[..., None, :], sin[..., None, :]  # the same for all heads
    if layout == "interleaved":
        a, b = x[..., 0::2], x[..., 1::2]
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)
    elif layout == "half_split":
        a, b = x.chunk(2, dim=-1)
        turned = torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
    else:
        raise ValueError(
            f"layout is {layout!r}, but it must be 'interleaved' or 'half_split'"
        )
    return turned.to(x.dtype)
