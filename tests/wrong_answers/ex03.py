"""Lesson 03, RoPE."""

import math

import numpy as np
import torch

from . import Answers, Wrong

# --- 03.1 -------------------------------------------------------------------------


def frequencies(head_dim, theta):
    return 1.0 / theta ** (np.arange(0, head_dim, 2) / head_dim)


def frequencies_logspace(head_dim, theta):
    last = -np.log10(theta) * (head_dim - 2) / head_dim
    return np.logspace(0, last, head_dim // 2)


def frequencies_rising(head_dim, theta):
    return theta ** (np.arange(0, head_dim, 2) / head_dim)


def frequencies_of_index(head_dim, theta):
    return theta ** (-np.arange(head_dim // 2) / head_dim)


def frequencies_per_channel(head_dim, theta):
    return np.repeat(frequencies(head_dim, theta), 2)


def frequencies_from_one(head_dim, theta):
    return theta ** (-2 * np.arange(1, head_dim // 2 + 1) / head_dim)


def frequencies_float32(head_dim, theta):
    return frequencies(head_dim, theta).astype(np.float32)


def frequencies_no_return(head_dim, theta):
    1.0 / theta ** (np.arange(0, head_dim, 2) / head_dim)


# --- 03.2 -------------------------------------------------------------------------


def rotate(x, positions, theta):
    angles = np.outer(positions, frequencies(x.shape[-1], theta))
    cos, sin = np.cos(angles), np.sin(angles)
    out = np.empty_like(x)
    out[:, 0::2] = x[:, 0::2] * cos - x[:, 1::2] * sin
    out[:, 1::2] = x[:, 0::2] * sin + x[:, 1::2] * cos
    return out


def rotate_with_matrices(x, positions, theta):
    out = np.zeros(x.shape)
    for t, m in enumerate(positions):
        for i, f in enumerate(frequencies(x.shape[1], theta)):
            c, s = math.cos(m * f), math.sin(m * f)
            turn = np.array([[c, -s], [s, c]])
            out[t, 2 * i : 2 * i + 2] = turn @ x[t, 2 * i : 2 * i + 2]
    return out


def rotate_half_split(x, positions, theta):
    angles = np.outer(positions, frequencies(x.shape[-1], theta))
    cos, sin = np.cos(angles), np.sin(angles)
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate((a * cos - b * sin, a * sin + b * cos), axis=-1)


def rotate_backwards(x, positions, theta):
    angles = np.outer(positions, frequencies(x.shape[-1], theta))
    cos, sin = np.cos(angles), np.sin(angles)
    out = np.empty_like(x)
    out[:, 0::2] = x[:, 0::2] * cos + x[:, 1::2] * sin
    out[:, 1::2] = x[:, 1::2] * cos - x[:, 0::2] * sin
    return out


def rotate_arange(x, positions, theta):
    return rotate(x, np.arange(x.shape[0]), theta)


def rotate_overwritten(x, positions, theta):
    angles = np.outer(positions, frequencies(x.shape[-1], theta))
    cos, sin = np.cos(angles), np.sin(angles)
    out = x.copy()
    out[:, 0::2] = out[:, 0::2] * cos - out[:, 1::2] * sin
    out[:, 1::2] = out[:, 0::2] * sin + out[:, 1::2] * cos
    return out


def rotate_tiled(x, positions, theta):
    angles = np.outer(positions, np.tile(frequencies(x.shape[-1], theta), 2))
    turned = np.stack((-x[:, 1::2], x[:, 0::2]), axis=-1).reshape(x.shape)
    return x * np.cos(angles) + turned * np.sin(angles)


def rotate_base_10000(x, positions, theta):
    return rotate(x, positions, 10_000)


def rotate_concatenated(x, positions, theta):
    angles = np.outer(positions, frequencies(x.shape[-1], theta))
    cos, sin = np.cos(angles), np.sin(angles)
    a, b = x[:, 0::2], x[:, 1::2]
    return np.concatenate((a * cos - b * sin, a * sin + b * cos), axis=1)


def rotate_sorted(x, positions, theta):
    order = np.argsort(positions)
    return rotate(x[order], positions[order], theta)


def rotate_in_place(x, positions, theta):
    x[:] = rotate(x, positions, theta)
    return x


# --- 03.3 -------------------------------------------------------------------------


def halves(weight, n_heads):
    rows, dim = weight.shape
    pairs = weight.reshape(n_heads, rows // n_heads // 2, 2, dim)
    return pairs.transpose(1, 2).reshape(rows, dim)


def halves_by_slices(weight, n_heads):
    heads = weight.chunk(n_heads)
    return torch.cat([part for h in heads for part in (h[0::2], h[1::2])])


def halves_inverse(weight, n_heads):
    rows, dim = weight.shape
    pairs = weight.reshape(n_heads, 2, rows // n_heads // 2, dim)
    return pairs.transpose(1, 2).reshape(rows, dim)


def halves_across_heads(weight, n_heads):
    return torch.cat((weight[0::2], weight[1::2]))


def halves_identity(weight, n_heads):
    return weight


def halves_of_columns(weight, n_heads):
    return torch.cat((weight[:, 0::2], weight[:, 1::2]), dim=1)


def halves_not_flat(weight, n_heads):
    return weight.reshape(n_heads, -1, 2, weight.shape[1]).transpose(1, 2)


def halves_numpy(weight, n_heads):
    return halves(weight, n_heads).numpy()


# --- 03.4 -------------------------------------------------------------------------


def _pair(turns, head_dim, theta, length):
    return head_dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))


def _blend(head_dim, theta, factor, ramp):
    plain = frequencies(head_dim, theta)
    return plain / factor * ramp + plain * (1 - ramp)


def yarn(head_dim, theta, factor, original_seq_len, beta_fast, beta_slow):
    low = math.floor(_pair(beta_fast, head_dim, theta, original_seq_len))
    high = math.ceil(_pair(beta_slow, head_dim, theta, original_seq_len))
    low, high = max(low, 0), min(high, head_dim - 1)
    high += 0.001 if low == high else 0
    ramp = np.clip((np.arange(head_dim // 2) - low) / (high - low), 0, 1)
    return _blend(head_dim, theta, factor, ramp)


def yarn_by_cases(head_dim, theta, factor, original_seq_len, beta_fast, beta_slow):
    low = max(int(_pair(beta_fast, head_dim, theta, original_seq_len) // 1), 0)
    high = -int(-_pair(beta_slow, head_dim, theta, original_seq_len) // 1)
    high = min(high, head_dim - 1)
    freqs = frequencies(head_dim, theta)
    for i in range(len(freqs)):
        if low < i < high:
            share = (i - low) / (high - low)
            freqs[i] *= 1 - share * (1 - 1 / factor)
        elif i > low:
            freqs[i] /= factor
    return freqs


def yarn_in_turns(head_dim, theta, factor, original_seq_len, beta_fast, beta_slow):
    plain = frequencies(head_dim, theta)
    turns = original_seq_len * plain / (2 * math.pi)
    keep = np.clip((turns - beta_slow) / (beta_fast - beta_slow), 0, 1)
    return plain * keep + plain / factor * (1 - keep)


def yarn_not_rounded(head_dim, theta, factor, original_seq_len, beta_fast, beta_slow):
    low = max(_pair(beta_fast, head_dim, theta, original_seq_len), 0)
    high = _pair(beta_slow, head_dim, theta, original_seq_len)
    ramp = np.clip((np.arange(head_dim // 2) - low) / (high - low), 0, 1)
    return _blend(head_dim, theta, factor, ramp)


def yarn_natural_log(head_dim, theta, factor, original_seq_len, beta_fast, beta_slow):
    def pair(turns):
        return head_dim / 2 * math.log(original_seq_len / (2 * math.pi * turns))

    low, high = max(math.floor(pair(beta_fast)), 0), math.ceil(pair(beta_slow))
    high = min(high, head_dim - 1)
    ramp = np.clip((np.arange(head_dim // 2) - low) / (high - low), 0, 1)
    return _blend(head_dim, theta, factor, ramp)


def yarn_without_two_pi(
    head_dim, theta, factor, original_seq_len, beta_fast, beta_slow
):
    length = original_seq_len * 2 * math.pi
    return yarn(head_dim, theta, factor, length, beta_fast, beta_slow)


def yarn_betas_swapped(head_dim, theta, factor, original_seq_len, beta_fast, beta_slow):
    low = math.floor(_pair(beta_slow, head_dim, theta, original_seq_len))
    high = math.ceil(_pair(beta_fast, head_dim, theta, original_seq_len))
    low, high = max(low, 0), min(high, head_dim - 1)
    ramp = np.clip((np.arange(head_dim // 2) - low) / max(high - low, 0.001), 0, 1)
    return _blend(head_dim, theta, factor, ramp)


def yarn_without_clip(head_dim, theta, factor, original_seq_len, beta_fast, beta_slow):
    low = max(math.floor(_pair(beta_fast, head_dim, theta, original_seq_len)), 0)
    high = math.ceil(_pair(beta_slow, head_dim, theta, original_seq_len))
    ramp = (np.arange(head_dim // 2) - low) / (high - low)
    return _blend(head_dim, theta, factor, ramp)


def yarn_negative_start(
    head_dim, theta, factor, original_seq_len, beta_fast, beta_slow
):
    low = math.floor(_pair(beta_fast, head_dim, theta, original_seq_len))
    high = math.ceil(_pair(beta_slow, head_dim, theta, original_seq_len))
    ramp = np.clip((np.arange(head_dim // 2) - low) / (high - low), 0, 1)
    return _blend(head_dim, theta, factor, ramp)


def yarn_end_at_last_pair(
    head_dim, theta, factor, original_seq_len, beta_fast, beta_slow
):
    low = math.floor(_pair(beta_fast, head_dim, theta, original_seq_len))
    high = math.ceil(_pair(beta_slow, head_dim, theta, original_seq_len))
    low, high = max(low, 0), min(high, head_dim // 2 - 1)
    ramp = np.clip((np.arange(head_dim // 2) - low) / max(high - low, 0.001), 0, 1)
    return _blend(head_dim, theta, factor, ramp)


def yarn_end_unbounded(head_dim, theta, factor, original_seq_len, beta_fast, beta_slow):
    low = max(math.floor(_pair(beta_fast, head_dim, theta, original_seq_len)), 0)
    high = math.ceil(_pair(beta_slow, head_dim, theta, original_seq_len))
    ramp = np.clip((np.arange(head_dim // 2) - low) / max(high - low, 0.001), 0, 1)
    return _blend(head_dim, theta, factor, ramp)


def yarn_equal_ends(head_dim, theta, factor, original_seq_len, beta_fast, beta_slow):
    low = math.floor(_pair(beta_fast, head_dim, theta, original_seq_len))
    high = math.ceil(_pair(beta_slow, head_dim, theta, original_seq_len))
    low, high = max(low, 0), min(high, head_dim - 1)
    ramp = np.clip((np.arange(head_dim // 2) - low) / (high - low), 0, 1)
    return _blend(head_dim, theta, factor, ramp)


# --- 03.5 -------------------------------------------------------------------------


def _angles(q, start, theta):
    half = q.shape[-1] // 2
    freqs = theta ** (-torch.arange(half) / half)
    return torch.outer(torch.arange(start, start + q.shape[1]), freqs)


def cached(q, cache_length, theta):
    angles = _angles(q, cache_length, theta)[None, :, None, :]
    cos, sin = angles.cos(), angles.sin()
    a, b = q[..., 0::2], q[..., 1::2]
    out = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)
    return out.reshape(q.shape).to(q.dtype)


def cached_by_loop(q, cache_length, theta):
    out = q.clone().double()
    for t in range(q.shape[1]):
        for i in range(q.shape[3] // 2):
            angle = (cache_length + t) * theta ** (-2 * i / q.shape[3])
            c, s = math.cos(angle), math.sin(angle)
            a, b = q[:, t, :, 2 * i].double(), q[:, t, :, 2 * i + 1].double()
            out[:, t, :, 2 * i] = a * c - b * s
            out[:, t, :, 2 * i + 1] = a * s + b * c
    return out.to(q.dtype)


def cached_restarts(q, cache_length, theta):
    return cached(q, 0, theta)


def cached_one_too_small(q, cache_length, theta):
    return cached(q, cache_length - 1, theta)


def cached_backwards(q, cache_length, theta):
    angles = _angles(q, cache_length, theta)[None, :, None, :]
    cos, sin = angles.cos(), angles.sin()
    a, b = q[..., 0::2], q[..., 1::2]
    out = torch.stack((a * cos + b * sin, b * cos - a * sin), dim=-1)
    return out.reshape(q.shape).to(q.dtype)


def cached_base_10000(q, cache_length, theta):
    return cached(q, cache_length, 10_000)


def cached_not_flat(q, cache_length, theta):
    angles = _angles(q, cache_length, theta)[None, :, None, :]
    cos, sin = angles.cos(), angles.sin()
    a, b = q[..., 0::2], q[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).to(q.dtype)


def cached_coarse(q, cache_length, theta):
    half = q.shape[-1] // 2
    freqs = theta ** (-torch.arange(half, dtype=q.dtype) / half)
    positions = cache_length + torch.arange(q.shape[1], dtype=q.dtype)
    angles = torch.outer(positions, freqs)[:, None]
    cos, sin = angles.cos(), angles.sin()
    a, b = q[..., 0::2], q[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


def cached_complex(q, cache_length, theta):
    angles = _angles(q, cache_length, theta)[:, None]
    pairs = torch.view_as_complex(q.float().reshape(*q.shape[:-1], -1, 2))
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2).to(q.dtype)


def cached_half_split(q, cache_length, theta):
    angles = _angles(q, cache_length, theta)[None, :, None, :]
    cos, sin = angles.cos(), angles.sin()
    a, b = q.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(q.dtype)


def cached_promotes(q, cache_length, theta):
    angles = _angles(q, cache_length, theta).double()[None, :, None, :]
    cos, sin = angles.cos(), angles.sin()
    a, b = q[..., 0::2], q[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


def cached_same_angle(q, cache_length, theta):
    angles = _angles(q[:, :1], cache_length, theta)[None, :, None, :]
    cos, sin = angles.cos(), angles.sin()
    a, b = q[..., 0::2], q[..., 1::2]
    out = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)
    return out.reshape(q.shape).to(q.dtype)


def cached_with_view(q, cache_length, theta):
    pairs = q.view(*q.shape[:-1], -1, 2)
    angles = _angles(q, cache_length, theta)[None, :, None, :]
    a, b = pairs.unbind(-1)
    out = (a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos())
    return torch.stack(out, dim=-1).view(q.shape).to(q.dtype)


ANSWERS = {
    "03.1": Answers(
        right=[frequencies, frequencies_logspace],
        wrong=[
            Wrong(frequencies_rising, "rise from pair to pair"),
            Wrong(frequencies_of_index, "the last pair is too fast"),
            Wrong(frequencies_per_channel, "one frequency for a pair"),
            Wrong(frequencies_from_one, "exactly 1 radian"),
            Wrong(frequencies_float32, "the dtype is float32, but should be float64"),
            Wrong(frequencies_no_return, "is `return` missing?"),
        ],
    ),
    "03.2": Answers(
        right=[rotate, rotate_with_matrices],
        wrong=[
            Wrong(rotate_half_split, "half-split"),
            Wrong(rotate_backwards, "wrong way round"),
            Wrong(rotate_arange, "use the positions that are given"),
            Wrong(rotate_sorted, "row t belongs to token t"),
            Wrong(rotate_base_10000, "use the theta that is given"),
            Wrong(rotate_tiled, "turned by different angles"),
            Wrong(rotate_overwritten, "new value of the first"),
            Wrong(rotate_concatenated, "come back as two halves"),
            Wrong(rotate_in_place, "changed its input x in place"),
        ],
    ),
    "03.3": Answers(
        right=[halves, halves_by_slices],
        wrong=[
            Wrong(halves_inverse, "the way back"),
            Wrong(halves_across_heads, "left their head"),
            Wrong(halves_identity, "came back as it was"),
            Wrong(halves_of_columns, "the columns were moved"),
            Wrong(halves_not_flat, "make one axis of them"),
            Wrong(halves_numpy, "leave NumPy out of it"),
        ],
    ),
    "03.4": Answers(
        right=[yarn, yarn_by_cases],
        wrong=[
            Wrong(yarn_in_turns, "linear in the number of turns"),
            Wrong(yarn_not_rounded, "not rounded to whole pairs"),
            Wrong(yarn_natural_log, "natural logarithm"),
            Wrong(yarn_without_two_pi, "more than 1 radian"),
            Wrong(yarn_betas_swapped, "exchanged"),
            Wrong(yarn_without_clip, "outside the ramp too"),
            Wrong(yarn_negative_start, "starts before pair 0"),
            Wrong(yarn_end_at_last_pair, "cut off, not steeper"),
            Wrong(yarn_end_unbounded, "larger than d - 1"),
            Wrong(yarn_equal_ends, "the ramp is a step"),
        ],
    ),
    "03.5": Answers(
        right=[cached, cached_by_loop, cached_with_view],
        wrong=[
            Wrong(cached_restarts, "as if the cache were empty"),
            Wrong(cached_one_too_small, "one too small"),
            Wrong(cached_same_angle, "each has its own position"),
            Wrong(cached_backwards, "signs of the sines"),
            Wrong(cached_half_split, "half-split"),
            Wrong(cached_not_flat, "give them back as channels"),
            Wrong(cached_base_10000, "use the theta that is given"),
            Wrong(cached_promotes, "back q's dtype"),
            Wrong(cached_coarse, "too few for angles"),
            Wrong(cached_complex, "not contiguous in memory"),
        ],
    ),
}
