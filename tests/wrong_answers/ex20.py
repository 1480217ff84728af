"""Lesson 20, GPU kernels. Where there is no Triton these are stand-ins."""

import torch

from deepseek_mini.lesson.interpreting import tl, triton

from . import Answers, Wrong

# --- 20.1 -------------------------------------------------------------------------


def floor_by_max(M, N, K, size, rate, bandwidth):
    compute = 2 * M * N * K / (rate * 1e6)
    memory = size * (M * K + K * N + M * N) / (bandwidth * 1e6)
    return max((compute, "compute"), (memory, "memory"))


def floor_by_if(M, N, K, size, rate, bandwidth):
    flop, moved = 2 * M * N * K, size * (M * K + N * K + M * N)
    if flop / moved > rate / bandwidth:
        return flop / rate / 1e6, "compute"
    return moved / bandwidth / 1e6, "memory"


def _floor(flop, moved, rate, bandwidth):
    return max((flop / rate / 1e6, "compute"), (moved / bandwidth / 1e6, "memory"))


def floor_one_operation(M, N, K, size, rate, bandwidth):
    return _floor(M * N * K, size * (M * K + K * N + M * N), rate, bandwidth)


def floor_of_numbers(M, N, K, size, rate, bandwidth):
    return _floor(2 * M * N * K, M * K + K * N + M * N, rate, bandwidth)


def floor_no_result(M, N, K, size, rate, bandwidth):
    return _floor(2 * M * N * K, size * (M * K + K * N), rate, bandwidth)


def floor_added(M, N, K, size, rate, bandwidth):
    compute = 2 * M * N * K / rate / 1e6
    memory = size * (M * K + K * N + M * N) / bandwidth / 1e6
    return compute + memory, "compute" if compute > memory else "memory"


def floor_min(M, N, K, size, rate, bandwidth):
    compute = 2 * M * N * K / rate / 1e6
    memory = size * (M * K + K * N + M * N) / bandwidth / 1e6
    return min((compute, "compute"), (memory, "memory"))


def floor_words_swapped(M, N, K, size, rate, bandwidth):
    time, limit = floor_by_max(M, N, K, size, rate, bandwidth)
    return time, {"compute": "memory", "memory": "compute"}[limit]


def floor_without_reuse(M, N, K, size, rate, bandwidth):
    moved = size * (2 * M * N * K + M * N)
    return _floor(2 * M * N * K, moved, rate, bandwidth)


def floor_in_seconds(M, N, K, size, rate, bandwidth):
    flop, moved = 2 * M * N * K, size * (M * K + N * K + M * N)
    times = {"compute": flop / (rate * 1e12), "memory": moved / (bandwidth * 1e12)}
    limit = max(times, key=times.get)
    return times[limit], limit


def floor_time_alone(M, N, K, size, rate, bandwidth):
    return floor_by_max(M, N, K, size, rate, bandwidth)[0]


def _word(limit_is_compute):
    def floor(M, N, K, size, rate, bandwidth):
        time = floor_by_max(M, N, K, size, rate, bandwidth)[0]
        flop, moved = 2 * M * N * K, size * (M * K + N * K + M * N)
        compute = limit_is_compute(M, flop, moved, rate, bandwidth)
        return time, "compute" if compute else "memory"

    return floor


floor_word_by_rows = _word(lambda M, *_: M > 100)
floor_word_by_half = _word(lambda M, f, m, rate, bw: f / rate > 2 * m / bw)
floor_word_by_rate = _word(lambda M, flop, moved, rate, bw: flop / moved >= rate)


def floor_capital(M, N, K, size, rate, bandwidth):
    time, limit = floor_by_max(M, N, K, size, rate, bandwidth)
    return time, limit.capitalize()


def floor_turned(M, N, K, size, rate, bandwidth):
    return floor_by_max(M, N, K, size, rate, bandwidth)[::-1]


def floor_in_milliseconds(M, N, K, size, rate, bandwidth):
    time, limit = floor_by_max(M, N, K, size, rate, bandwidth)
    return time / 1000, limit


def floor_in_bits(M, N, K, size, rate, bandwidth):
    return floor_by_max(M, N, K, 8 * size, rate, bandwidth)


def floor_without_b(M, N, K, size, rate, bandwidth):
    return _floor(2 * M * N * K, size * (M * K + 2 * M * N), rate, bandwidth)


def floor_in_torch(M, N, K, size, rate, bandwidth):
    time, limit = floor_by_max(M, N, K, size, rate, bandwidth)
    return torch.tensor(time, dtype=torch.float64), limit


# --- 20.2 -------------------------------------------------------------------------


@triton.jit
def sum_masked(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    a = tl.load(x + i, mask=mask)
    b = tl.load(y + i, mask=mask)
    tl.store(out + i, a + scale * b, mask=mask)


@triton.jit
def sum_moved_pointers(x, y, out, n, scale, BLOCK: tl.constexpr):
    start = tl.program_id(axis=0) * BLOCK
    lanes = tl.arange(0, BLOCK)
    here = lanes < n - start
    a = tl.load(x + start + lanes, here, 0.0).to(tl.float32)
    b = tl.load(y + start + lanes, here, 0.0).to(tl.float32)
    tl.store(out + start + lanes, a + b * scale, here)


@triton.jit
def sum_no_mask(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i) + scale * tl.load(y + i))


@triton.jit
def sum_store_unmasked(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a = tl.load(x + i, i < n, 0.0)
    b = tl.load(y + i, i < n, 0.0)
    tl.store(out + i, a + scale * b)


@triton.jit
def sum_one_too_many(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i <= n
    tl.store(out + i, tl.load(x + i, mask) + scale * tl.load(y + i, mask), mask)


@triton.jit
def sum_one_too_few(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n - 1
    tl.store(out + i, tl.load(x + i, mask) + scale * tl.load(y + i, mask), mask)


@triton.jit
def sum_same_lanes(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    mask = i < n
    tl.store(out + i, tl.load(x + i, mask) + scale * tl.load(y + i, mask), mask)


@triton.jit
def sum_overlapping(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) + tl.arange(0, BLOCK)
    mask = i < n
    tl.store(out + i, tl.load(x + i, mask) + scale * tl.load(y + i, mask), mask)


@triton.jit
def sum_x_scaled(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    tl.store(out + i, scale * tl.load(x + i, mask) + tl.load(y + i, mask), mask)


@triton.jit
def sum_both_scaled(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    tl.store(out + i, scale * (tl.load(x + i, mask) + tl.load(y + i, mask)), mask)


@triton.jit
def sum_unscaled(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    tl.store(out + i, tl.load(x + i, mask) + tl.load(y + i, mask), mask)


@triton.jit
def sum_into_x(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    tl.store(x + i, tl.load(x + i, mask) + scale * tl.load(y + i, mask), mask)


@triton.jit
def sum_mask_of_lanes(x, y, out, n, scale, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    i = tl.program_id(0) * BLOCK + lanes
    mask = lanes < n
    tl.store(out + i, tl.load(x + i, mask) + scale * tl.load(y + i, mask), mask)


@triton.jit
def sum_of_pointers(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, x[i] + scale * y[i], i < n)


@triton.jit
def sum_size_unknown(x, y, out, n, scale, BLOCK):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    tl.store(out + i, tl.load(x + i, mask) + scale * tl.load(y + i, mask), mask)


@triton.jit
def sum_not_stored(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    out = tl.load(x + i, mask) + scale * tl.load(y + i, mask)  # noqa: F841


def sum_in_torch(x, y, out, n, scale, BLOCK):
    out.copy_(x + scale * y)


@triton.jit
def sum_other_parameters(x, y, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i, i < n) + tl.load(y + i, i < n), i < n)


@triton.jit
def sum_by_one_program(x, y, out, n, scale, BLOCK: tl.constexpr):
    if tl.program_id(0) == 0:
        for start in range(0, n, BLOCK):
            i = start + tl.arange(0, BLOCK)
            mask = i < n
            total = tl.load(x + i, mask) + scale * tl.load(y + i, mask)
            tl.store(out + i, total, mask)


@triton.jit
def sum_strided(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) + tl.num_programs(0) * tl.arange(0, BLOCK)
    mask = i < n
    tl.store(out + i, tl.load(x + i, mask) + scale * tl.load(y + i, mask), mask)


@triton.jit
def sum_stored_twice(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    a = tl.load(x + i, mask)
    tl.store(out + i, a, mask)
    tl.store(out + i, a + scale * tl.load(y + i, mask), mask)


@triton.jit
def sum_loaded_twice(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    total = tl.load(x + i, mask) * 0 + tl.load(x + i, mask)
    tl.store(out + i, total + scale * tl.load(y + i, mask), mask)


@triton.jit
def sum_clamped(x, y, out, n, scale, BLOCK: tl.constexpr):
    """The lanes behind the last number all do the last number."""
    i = tl.minimum(tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), n - 1)
    tl.store(out + i, tl.load(x + i) + scale * tl.load(y + i))


@triton.jit
def sum_x_stored_again(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    a = tl.load(x + i, mask)
    tl.store(x + i, a, mask)
    tl.store(out + i, a + scale * tl.load(y + i, mask), mask)


@triton.jit
def sum_one_pointer(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    tl.store(out + i, tl.load(x, mask) + scale * tl.load(y, mask), mask)


# --- 20.3 -------------------------------------------------------------------------


@triton.jit
def norm_of_row(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i, i < D, 0.0).to(tl.float32)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(h * h, axis=0) / D + eps)
    tl.store(out + row * D + i, h * inverse * w, i < D)


@triton.jit
def norm_by_where(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    x += tl.program_id(0) * stride
    out += tl.program_id(0) * D
    i = tl.arange(0, BLOCK)
    inside = i < D
    h = tl.load(x + i, mask=inside, other=7.0).to(tl.float32)
    square = tl.where(inside, h * h, 0.0)
    rms = tl.sqrt(tl.sum(square, 0) / D + eps)
    y = h / rms * tl.load(weight + i, mask=inside, other=0.0)
    tl.store(out + i, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def norm_no_mask(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(h * h, axis=0) / D + eps)
    tl.store(out + row * D + i, h * inverse * tl.load(weight + i))


@triton.jit
def norm_padding_read(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i, i < stride, 0.0).to(tl.float32)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(h * h, axis=0) / D + eps)
    tl.store(out + row * D + i, h * inverse * w, i < D)


@triton.jit
def norm_store_unmasked(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i, i < D, 0.0).to(tl.float32)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(h * h, axis=0) / D + eps)
    tl.store(out + row * D + i, h * inverse * w)


@triton.jit
def norm_of_block(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i, i < D, 0.0).to(tl.float32)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(h * h, axis=0) / BLOCK + eps)
    tl.store(out + row * D + i, h * inverse * w, i < D)


@triton.jit
def norm_in_bf16(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i, i < D, 0.0)
    w = tl.load(weight + i, i < D, 0.0)
    inverse = tl.rsqrt(tl.sum(h * h, axis=0) / D + eps)
    tl.store(out + row * D + i, h * inverse * w, i < D)


@triton.jit
def norm_sum_of_squares(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i, i < D, 0.0).to(tl.float32)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    tl.store(out + row * D + i, h * tl.rsqrt(tl.sum(h * h) + eps) * w, i < D)


@triton.jit
def norm_no_eps(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i, i < D, 0.0).to(tl.float32)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    tl.store(out + row * D + i, h * tl.rsqrt(tl.sum(h * h) / D) * w, i < D)


@triton.jit
def norm_eps_outside(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i, i < D, 0.0).to(tl.float32)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    rms = tl.sqrt(tl.sum(h * h, axis=0) / D) + eps
    tl.store(out + row * D + i, h / rms * w, i < D)


@triton.jit
def norm_no_root(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i, i < D, 0.0).to(tl.float32)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    tl.store(out + row * D + i, h / (tl.sum(h * h) / D + eps) * w, i < D)


@triton.jit
def norm_layer(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i, i < D, 0.0).to(tl.float32)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    h = tl.where(i < D, h - tl.sum(h) / D, 0.0)
    tl.store(out + row * D + i, h * tl.rsqrt(tl.sum(h * h) / D + eps) * w, i < D)


@triton.jit
def norm_no_weight(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i, i < D, 0.0).to(tl.float32)
    tl.store(out + row * D + i, h * tl.rsqrt(tl.sum(h * h) / D + eps), i < D)


@triton.jit
def norm_stride_forgotten(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * D + i, i < D, 0.0).to(tl.float32)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    tl.store(out + row * D + i, h * tl.rsqrt(tl.sum(h * h) / D + eps) * w, i < D)


@triton.jit
def norm_stride_in_out(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i, i < D, 0.0).to(tl.float32)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    tl.store(out + row * stride + i, h * tl.rsqrt(tl.sum(h * h) / D + eps) * w, i < D)


@triton.jit
def norm_first_row(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    h = tl.load(x + i, i < D, 0.0).to(tl.float32)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    tl.store(out + i, h * tl.rsqrt(tl.sum(h * h) / D + eps) * w, i < D)


@triton.jit
def norm_loaded_twice(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i, i < D, 0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(h * h, axis=0) / D + eps)
    h = tl.load(x + row * stride + i, i < D, 0.0).to(tl.float32)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    tl.store(out + row * D + i, h * inverse * w, i < D)


@triton.jit
def norm_no_other(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i, i < D).to(tl.float32)
    w = tl.load(weight + i, i < D).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(h * h, axis=0) / D + eps)
    tl.store(out + row * D + i, h * inverse * w, i < D)


@triton.jit
def norm_by_one_program(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    if tl.program_id(0) == 0:
        for row in range(tl.num_programs(0)):
            h = tl.load(x + row * stride + i, i < D, 0.0).to(tl.float32)
            w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
            inverse = tl.rsqrt(tl.sum(h * h, axis=0) / D + eps)
            tl.store(out + row * D + i, h * inverse * w, i < D)


@triton.jit
def norm_stored_between(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i, i < D, 0.0).to(tl.float32)
    tl.store(out + row * D + i, h, i < D)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(h * h, axis=0) / D + eps)
    tl.store(out + row * D + i, h * inverse * w, i < D)


@triton.jit
def norm_into_x_too(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    stored = tl.load(x + row * stride + i, i < D, 0.0)
    tl.store(x + row * stride + i, stored, i < D)
    h = stored.to(tl.float32)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(h * h, axis=0) / D + eps)
    tl.store(out + row * D + i, h * inverse * w, i < D)


@triton.jit
def norm_eps_in_sum(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i, i < D, 0.0).to(tl.float32)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    inverse = tl.rsqrt((tl.sum(h * h, axis=0) + eps) / D)
    tl.store(out + row * D + i, h * inverse * w, i < D)


@triton.jit
def norm_eps_fixed(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    h = tl.load(x + row * stride + i, i < D, 0.0).to(tl.float32)
    w = tl.load(weight + i, i < D, 0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(h * h, axis=0) / D + 1e-6)
    tl.store(out + row * D + i, h * inverse * w, i < D)


# --- 20.4 -------------------------------------------------------------------------


@triton.jit
def softmax_online(x, out, D, BLOCK: tl.constexpr):
    row = tl.program_id(0) * D
    lanes = tl.arange(0, BLOCK)
    largest = -float("inf")
    total = 0.0
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        new = tl.maximum(largest, tl.max(z, axis=0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(z - new), axis=0)
        largest = new
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        tl.store(out + row + i, tl.exp(z - largest) / total, i < D)


@triton.jit
def softmax_of_lanes(x, out, D, BLOCK: tl.constexpr):
    """A maximum and a sum for each lane, brought together at the end."""
    row = tl.program_id(0) * D
    i = tl.arange(0, BLOCK)
    largest = tl.full((BLOCK,), -1e30, tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(tl.cdiv(D, BLOCK)):
        here = start * BLOCK + i
        z = tl.load(x + row + here, here < D, -1e30)
        new = tl.maximum(largest, z)
        gain = tl.where(here < D, tl.exp(z - new), 0.0)
        total = total * tl.exp(largest - new) + gain
        largest = new
    top = tl.max(largest, axis=0)
    sums = tl.sum(total * tl.exp(largest - top), axis=0)
    for start in range(tl.cdiv(D, BLOCK)):
        here = start * BLOCK + i
        z = tl.load(x + row + here, here < D, 0.0)
        tl.store(out + row + here, tl.exp(z - top) / sums, here < D)


@triton.jit
def softmax_three_passes(x, out, D, BLOCK: tl.constexpr):
    row = tl.program_id(0) * D
    lanes = tl.arange(0, BLOCK)
    largest = -float("inf")
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        largest = tl.maximum(largest, tl.max(z, axis=0))
    total = 0.0
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        total += tl.sum(tl.exp(z - largest), axis=0)
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        tl.store(out + row + i, tl.exp(z - largest) / total, i < D)


@triton.jit
def softmax_no_maximum(x, out, D, BLOCK: tl.constexpr):
    row = tl.program_id(0) * D
    lanes = tl.arange(0, BLOCK)
    total = 0.0
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        total += tl.sum(tl.exp(z), axis=0)
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        tl.store(out + row + i, tl.exp(z) / total, i < D)


@triton.jit
def softmax_not_rescaled(x, out, D, BLOCK: tl.constexpr):
    row = tl.program_id(0) * D
    lanes = tl.arange(0, BLOCK)
    largest = -float("inf")
    total = 0.0
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        largest = tl.maximum(largest, tl.max(z, axis=0))
        total += tl.sum(tl.exp(z - largest), axis=0)
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        tl.store(out + row + i, tl.exp(z - largest) / total, i < D)


@triton.jit
def softmax_of_pieces(x, out, D, BLOCK: tl.constexpr):
    row = tl.program_id(0) * D
    for start in range(0, D, BLOCK):
        i = start + tl.arange(0, BLOCK)
        z = tl.load(x + row + i, i < D, -float("inf"))
        e = tl.exp(z - tl.max(z, axis=0))
        tl.store(out + row + i, e / tl.sum(e, axis=0), i < D)


@triton.jit
def softmax_first_piece(x, out, D, BLOCK: tl.constexpr):
    row = tl.program_id(0) * D
    i = tl.arange(0, BLOCK)
    z = tl.load(x + row + i, i < D, -float("inf"))
    e = tl.exp(z - tl.max(z, axis=0))
    tl.store(out + row + i, e / tl.sum(e, axis=0), i < D)


@triton.jit
def softmax_zeros(x, out, D, BLOCK: tl.constexpr):
    row = tl.program_id(0) * D
    lanes = tl.arange(0, BLOCK)
    largest = -float("inf")
    total = 0.0
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, 0.0)
        new = tl.maximum(largest, tl.max(z, axis=0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(z - new), axis=0)
        largest = new
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, 0.0)
        tl.store(out + row + i, tl.exp(z - largest) / total, i < D)


@triton.jit
def softmax_unmasked(x, out, D, BLOCK: tl.constexpr):
    row = tl.program_id(0) * D
    lanes = tl.arange(0, BLOCK)
    largest = -float("inf")
    total = 0.0
    for start in range(0, D, BLOCK):
        z = tl.load(x + row + start + lanes)
        new = tl.maximum(largest, tl.max(z, axis=0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(z - new), axis=0)
        largest = new
    for start in range(0, D, BLOCK):
        z = tl.load(x + row + start + lanes)
        tl.store(out + row + start + lanes, tl.exp(z - largest) / total)


@triton.jit
def softmax_last_total(x, out, D, BLOCK: tl.constexpr):
    row = tl.program_id(0) * D
    lanes = tl.arange(0, BLOCK)
    largest = -float("inf")
    total = 0.0
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        largest = tl.maximum(largest, tl.max(z, axis=0))
        total = tl.sum(tl.exp(z - largest), axis=0)
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        tl.store(out + row + i, tl.exp(z - largest) / total, i < D)


@triton.jit
def softmax_unfinished(x, out, D, BLOCK: tl.constexpr):
    """Stores while it walks: what comes later is not in the sum yet."""
    row = tl.program_id(0) * D
    lanes = tl.arange(0, BLOCK)
    largest = -float("inf")
    total = 0.0
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        new = tl.maximum(largest, tl.max(z, axis=0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(z - new), axis=0)
        largest = new
        tl.store(out + row + i, tl.exp(z - largest) / total, i < D)


@triton.jit
def softmax_row_forgotten(x, out, D, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    largest = -float("inf")
    total = 0.0
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + i, i < D, -float("inf"))
        new = tl.maximum(largest, tl.max(z, axis=0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(z - new), axis=0)
        largest = new
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + i, i < D, -float("inf"))
        tl.store(out + i, tl.exp(z - largest) / total, i < D)


@triton.jit
def softmax_latest_maximum(x, out, D, BLOCK: tl.constexpr):
    row = tl.program_id(0) * D
    lanes = tl.arange(0, BLOCK)
    largest = -float("inf")
    total = 0.0
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        new = tl.max(z, axis=0)
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(z - new), axis=0)
        largest = new
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, 0.0)
        tl.store(out + row + i, tl.exp(z - largest) / total, i < D)


@triton.jit
def softmax_first_maximum(x, out, D, BLOCK: tl.constexpr):
    row = tl.program_id(0) * D
    lanes = tl.arange(0, BLOCK)
    largest = -float("inf")
    total = 0.0
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        if start == 0:
            largest = tl.max(z, axis=0)
        total += tl.sum(tl.exp(z - largest), axis=0)
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, 0.0)
        tl.store(out + row + i, tl.exp(z - largest) / total, i < D)


@triton.jit
def softmax_first_number(x, out, D, BLOCK: tl.constexpr):
    row = tl.program_id(0) * D
    lanes = tl.arange(0, BLOCK)
    largest = tl.load(x + row)
    total = 0.0
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        total += tl.sum(tl.exp(z - largest), axis=0)
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, 0.0)
        tl.store(out + row + i, tl.exp(z - largest) / total, i < D)


@triton.jit
def softmax_sixteen(x, out, D, BLOCK: tl.constexpr):
    row = tl.program_id(0) * D
    lanes = tl.arange(0, 16)
    largest = -float("inf")
    total = 0.0
    for start in range(0, D, 16):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        new = tl.maximum(largest, tl.max(z, axis=0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(z - new), axis=0)
        largest = new
    for start in range(0, D, 16):
        i = start + lanes
        z = tl.load(x + row + i, i < D, 0.0)
        tl.store(out + row + i, tl.exp(z - largest) / total, i < D)


@triton.jit
def softmax_whole_row(x, out, D, BLOCK: tl.constexpr):
    row = tl.program_id(0) * D
    lanes = tl.arange(0, 4096)
    largest = -float("inf")
    total = 0.0
    for start in range(0, D, 4096):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        new = tl.maximum(largest, tl.max(z, axis=0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(z - new), axis=0)
        largest = new
    for start in range(0, D, 4096):
        i = start + lanes
        z = tl.load(x + row + i, i < D, 0.0)
        tl.store(out + row + i, tl.exp(z - largest) / total, i < D)


@triton.jit
def softmax_from_thousand(x, out, D, BLOCK: tl.constexpr):
    row = tl.program_id(0) * D
    lanes = tl.arange(0, BLOCK)
    largest = -1e3
    total = 0.0
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -1e3)
        new = tl.maximum(largest, tl.max(z, axis=0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(z - new), axis=0)
        largest = new
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, 0.0)
        tl.store(out + row + i, tl.exp(z - largest) / total, i < D)


@triton.jit
def softmax_kept_in_out(x, out, D, BLOCK: tl.constexpr):
    row = tl.program_id(0) * D
    lanes = tl.arange(0, BLOCK)
    largest = -float("inf")
    total = 0.0
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(x + row + i, i < D, -float("inf"))
        tl.store(out + row + i, z, i < D)
        new = tl.maximum(largest, tl.max(z, axis=0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(z - new), axis=0)
        largest = new
    for start in range(0, D, BLOCK):
        i = start + lanes
        z = tl.load(out + row + i, i < D, 0.0)
        tl.store(out + row + i, tl.exp(z - largest) / total, i < D)


@triton.jit
def softmax_by_one_program(x, out, D, BLOCK: tl.constexpr):
    if tl.program_id(0) == 0:
        for program in range(tl.num_programs(0)):
            row = program * D
            largest = -float("inf")
            total = 0.0
            for start in range(0, D, BLOCK):
                i = start + tl.arange(0, BLOCK)
                z = tl.load(x + row + i, i < D, -float("inf"))
                new = tl.maximum(largest, tl.max(z, axis=0))
                total = total * tl.exp(largest - new) + tl.sum(tl.exp(z - new), axis=0)
                largest = new
            for start in range(0, D, BLOCK):
                i = start + tl.arange(0, BLOCK)
                z = tl.load(x + row + i, i < D, 0.0)
                tl.store(out + row + i, tl.exp(z - largest) / total, i < D)


# --- 20.5 -------------------------------------------------------------------------


@triton.jit
def matmul_masked(a, b, out, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                  BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
        y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N), 0.0)
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_moving_pointers(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                           BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    a_tile = a + rows[:, None] * K + k[None, :]
    b_tile = b + k[:, None] * N + columns[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for step in range(tl.cdiv(K, BLOCK_K)):
        left = K - step * BLOCK_K
        mask_a = (rows[:, None] < M) & (k[None, :] < left)
        mask_b = (k[:, None] < left) & (columns[None, :] < N)
        total += tl.dot(tl.load(a_tile, mask_a, 0.0), tl.load(b_tile, mask_b, 0.0))
        a_tile += BLOCK_K
        b_tile += BLOCK_K * N
    mask = (rows[:, None] < M) & (columns[None, :] < N)
    tl.store(out + rows[:, None] * N + columns[None, :], total, mask)


@triton.jit
def matmul_k_unmasked(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                      BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], m < M, 0.0)
        y = tl.load(b + k[:, None] * N + n, n < N, 0.0)
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_next_row(a, b, out, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                    BLOCK_K: tl.constexpr):  # fmt: skip
    """Inside of the matrices always, but not always in the row or column."""
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        i, j = m * K + k[None, :], k[:, None] * N + n
        x = tl.load(a + i, i < M * K, 0.0)
        y = tl.load(b + j, j < K * N, 0.0)
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_in_bf16(a, b, out, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                   BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.bfloat16)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
        y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N), 0.0)
        total += tl.dot(x, y).to(tl.bfloat16)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_store_unmasked(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                          BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
        y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N), 0.0)
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total)


@triton.jit
def matmul_columns_unmasked(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                            BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    """Stores past the end of a row, into the next one."""
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
        y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N), 0.0)
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (m * N + n < M * N))


@triton.jit
def matmul_whole_steps(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                       BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(K // BLOCK_K):
        k = step * BLOCK_K + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], m < M, 0.0)
        y = tl.load(b + k[:, None] * N + n, n < N, 0.0)
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_standing_still(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                          BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    k = tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for _ in range(0, K, BLOCK_K):
        x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
        y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N), 0.0)
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_last_step(a, b, out, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                     BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
        y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N), 0.0)
        total = tl.dot(x, y)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_one_step(a, b, out, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                    BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    k = tl.arange(0, BLOCK_K)
    x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
    y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N), 0.0)
    tl.store(out + m * N + n, tl.dot(x, y), (m < M) & (n < N))


@triton.jit
def matmul_one_axis(a, b, out, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                    BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
        y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N), 0.0)
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_b_as_it_is_not(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                          BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    """As if b were [N, K], each row a column of the product."""
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
        y = tl.load(b + n * K + k[:, None], (k[:, None] < K) & (n < N), 0.0)
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_in_torch(a, b, out, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                    BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = torch.zeros(BLOCK_M, BLOCK_N)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
        y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N), 0.0)
        total = torch.matmul(x, y) + total
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_no_other(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K))
        y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N))
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_no_other_in_b(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                         BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
        y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N))
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_steps_of_16(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                       BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, 16):
        k = start + tl.arange(0, 16)
        x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
        y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N), 0.0)
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_steps_of_2(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                      BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, 2):
        k = start + tl.arange(0, 2)
        x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
        y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N), 0.0)
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_stored_each_step(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                            BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
        y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N), 0.0)
        total = tl.dot(x, y, total)
        tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_total_twice(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                       BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
        y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N), 0.0)
        total += tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_step_of_n(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                     BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_N):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
        y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N), 0.0)
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_stride_of_b(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                       BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
        y = tl.load(b + k[:, None] * K + n, (k[:, None] < K) & (n < N), 0.0)
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_masks_by_and(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                        BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], (m < M) and (k[None, :] < K), 0.0)
        y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) and (n < N), 0.0)
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_no_brackets(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                       BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(a + m * K + k[None, :], m < M & k[None, :] < K, 0.0)
        y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N), 0.0)
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (n < N))


@triton.jit
def matmul_by_one_program(a, b, out, M, N, K, BLOCK_M: tl.constexpr,
                          BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    if tl.program_id(0) + tl.program_id(1) == 0:
        for row in range(0, M, BLOCK_M):
            for column in range(0, N, BLOCK_N):
                m = row + tl.arange(0, BLOCK_M)[:, None]
                n = column + tl.arange(0, BLOCK_N)[None, :]
                total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
                for start in range(0, K, BLOCK_K):
                    k = start + tl.arange(0, BLOCK_K)
                    x = tl.load(a + m * K + k[None, :], (m < M) & (k[None, :] < K), 0.0)
                    y = tl.load(b + k[:, None] * N + n, (k[:, None] < K) & (n < N), 0.0)
                    total = tl.dot(x, y, total)
                tl.store(out + m * N + n, total, (m < M) & (n < N))


ANSWERS = {
    "20.1": Answers(
        right=[floor_by_max, floor_by_if],
        wrong=[
            Wrong(floor_one_operation, "followed by an addition"),
            Wrong(floor_of_numbers, "in bytes, not in numbers"),
            Wrong(floor_no_result, "must be stored"),
            Wrong(floor_added, "at the same time"),
            Wrong(floor_min, "shorter"),
            Wrong(floor_words_swapped, "the word names the other limit"),
            Wrong(floor_without_reuse, "loaded once"),
            Wrong(floor_in_seconds, "these are seconds"),
            Wrong(floor_time_alone, "tuple"),
            Wrong(floor_word_by_rows, "the word names the other limit"),
            Wrong(floor_word_by_half, "the word names the other limit"),
            Wrong(floor_word_by_rate, "the word names the other limit"),
            Wrong(floor_capital, "the word must be"),
            Wrong(floor_turned, "time stands first"),
            Wrong(floor_in_milliseconds, "these are milliseconds"),
            Wrong(floor_in_bits, "not bits"),
            Wrong(floor_without_b, "three matrices move"),
            Wrong(floor_in_torch, "torch tensor"),
        ],
    ),
    "20.2": Answers(
        right=[sum_masked, sum_moved_pointers],
        wrong=[
            Wrong(sum_no_mask, "need a mask when they load"),
            Wrong(sum_store_unmasked, "must not store either"),
            Wrong(sum_one_too_many, "element 10 of x"),
            Wrong(sum_one_too_few, "element 9 of out is never stored"),
            Wrong(sum_same_lanes, "same work"),
            Wrong(sum_overlapping, "reaches into"),
            Wrong(sum_x_scaled, "the wrong one"),
            Wrong(sum_both_scaled, "both are scaled"),
            Wrong(sum_unscaled, "plays no part"),
            Wrong(sum_into_x, "belongs into out"),
            Wrong(sum_mask_of_lanes, "need a mask when they load"),
            Wrong(sum_of_pointers, "come by tl.load"),
            Wrong(sum_size_unknown, "keep `tl.constexpr`"),
            Wrong(sum_not_stored, "never stored"),
            Wrong(sum_in_torch, "expected a kernel"),
            Wrong(sum_other_parameters, "keep the parameters"),
            Wrong(sum_by_one_program, "stores element 4 of out, which is program 1"),
            Wrong(sum_strided, "program 1 stores element 1 of out"),
            Wrong(sum_stored_twice, "80 bytes are stored, not 40"),
            Wrong(sum_loaded_twice, "120 bytes are loaded, not 80"),
            Wrong(sum_clamped, "bytes are loaded, not"),
            Wrong(sum_x_stored_again, "belongs into out"),
            Wrong(sum_one_pointer, "alone is one place"),
        ],
    ),
    "20.3": Answers(
        right=[norm_of_row, norm_by_where],
        wrong=[
            Wrong(norm_no_mask, "need a mask when they load"),
            Wrong(norm_padding_read, "What lies between the rows is NaN"),
            Wrong(norm_store_unmasked, "another program"),
            Wrong(norm_of_block, "BLOCK counts lanes"),
            Wrong(norm_in_bf16, "make the numbers float32"),
            Wrong(norm_sum_of_squares, "not their mean"),
            Wrong(norm_no_eps, "eps is missing"),
            Wrong(norm_eps_outside, "under the root"),
            Wrong(norm_no_root, "the root is missing"),
            Wrong(norm_layer, "LayerNorm"),
            Wrong(norm_no_weight, "plays no part"),
            Wrong(norm_stride_forgotten, "stride numbers after"),
            Wrong(norm_stride_in_out, "out has no gaps"),
            Wrong(norm_first_row, "same work"),
            Wrong(norm_loaded_twice, "bytes are loaded, not"),
            Wrong(norm_no_other, "has a third argument"),
            Wrong(norm_by_one_program, "which is program 1"),
            Wrong(norm_stored_between, "bytes are stored, not"),
            Wrong(norm_into_x_too, "belongs into out"),
            Wrong(norm_eps_in_sum, "added to the mean"),
            Wrong(norm_eps_fixed, "not the one that the kernel is given"),
        ],
    ),
    "20.4": Answers(
        right=[softmax_online, softmax_of_lanes],
        wrong=[
            Wrong(softmax_three_passes, "bytes are loaded, not"),
            Wrong(softmax_no_maximum, "no float32"),
            Wrong(softmax_not_rescaled, "relative to the old one"),
            Wrong(softmax_of_pieces, "a softmax of its own"),
            Wrong(softmax_first_piece, "last piece is a shorter one"),
            Wrong(softmax_zeros, "took part as zeros"),
            Wrong(softmax_unmasked, "need a mask"),
            Wrong(softmax_last_total, "only the last piece"),
            Wrong(softmax_unfinished, "maximum and the sum after each piece"),
            Wrong(softmax_row_forgotten, "same work"),
            Wrong(softmax_latest_maximum, "not that of this piece"),
            Wrong(softmax_first_maximum, "not that of the first one"),
            Wrong(softmax_first_number, "a row may rise"),
            Wrong(softmax_sixteen, "the widest tile of x has 16 lanes"),
            Wrong(softmax_whole_row, "the widest tile of x has 4096 lanes"),
            Wrong(softmax_from_thousand, "begins at minus infinity"),
            Wrong(softmax_kept_in_out, "bytes are stored, not"),
            Wrong(softmax_by_one_program, "which is program 1"),
        ],
    ),
    "20.5": Answers(
        right=[matmul_masked, matmul_moving_pointers],
        wrong=[
            Wrong(matmul_k_unmasked, "need a mask when they load"),
            Wrong(matmul_next_row, "bytes are loaded, not"),
            Wrong(matmul_in_bf16, "the sum has 16 bits"),
            Wrong(matmul_store_unmasked, "must not store"),
            Wrong(matmul_columns_unmasked, "another program"),
            Wrong(matmul_whole_steps, "shorter step along K is missing"),
            Wrong(matmul_standing_still, "their places move on"),
            Wrong(matmul_last_step, "only the last step"),
            Wrong(matmul_one_step, "only the first BLOCK_K"),
            Wrong(matmul_one_axis, "same work"),
            Wrong(matmul_b_as_it_is_not, "M, N and K"),
            Wrong(matmul_in_torch, "no torch and no NumPy"),
            Wrong(matmul_no_other, "third argument"),
            Wrong(matmul_no_other_in_b, "third argument"),
            Wrong(matmul_steps_of_16, "the widest tile of a has"),
            Wrong(matmul_steps_of_2, "the widest tile of a has"),
            Wrong(matmul_stored_each_step, "bytes are stored, not"),
            Wrong(matmul_total_twice, "adds the total twice"),
            Wrong(matmul_step_of_n, "BLOCK_K, not that of BLOCK_N"),
            Wrong(matmul_stride_of_b, "rows of b N"),
            Wrong(matmul_masks_by_and, "combined by &"),
            Wrong(matmul_no_brackets, "combined by &"),
            Wrong(matmul_by_one_program, "which is program 1"),
        ],
    ),
}
