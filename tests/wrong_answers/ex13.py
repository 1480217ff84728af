"""Lesson 13, FP8."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from deepseek_mini import fp8

from . import Answers, Wrong

# --- 13.1 -------------------------------------------------------------------------


def e4m3(x):
    size = np.minimum(np.abs(x), 448.0)
    power = np.floor(np.log2(np.maximum(size, 2.0**-6)))
    step = 2.0 ** (power - 3)
    return np.sign(x) * np.rint(size / step) * step


def e4m3_one_by_one(x):
    def one(value):
        if value == 0:
            return 0.0
        power = max(math.floor(math.log2(abs(value))), -6)
        step = 2.0 ** (power - 3)
        return max(-448.0, min(448.0, round(value / step) * step))

    return np.vectorize(one, otypes=[float])(x)


def e4m3_from_a_table(x):
    table = [k * 2.0**-9 for k in range(8)]
    table += [2.0**p * (1 + k / 8) for p in range(-6, 9) for k in range(8)]
    table = np.array(table[:-1])
    codes = np.arange(len(table))
    distance = np.abs(np.minimum(np.abs(x), 448.0)[..., None] - table)
    # among the nearest (there may be two), the even code
    nearest = distance == distance.min(axis=-1, keepdims=True)
    best = np.argmin(np.where(nearest, codes % 2, 2), axis=-1)
    return np.copysign(table[best], x)


def e4m3_half_up(x):
    size = np.minimum(np.abs(x), 448.0)
    power = np.floor(np.log2(np.maximum(size, 2.0**-6)))
    step = 2.0 ** (power - 3)
    return np.sign(x) * np.floor(size / step + 0.5) * step


def e4m3_half_down(x):
    table = [k * 2.0**-9 for k in range(8)]
    table += [2.0**p * (1 + k / 8) for p in range(-6, 9) for k in range(8)]
    table = np.array(table[:-1])
    distance = np.abs(np.abs(x)[..., None] - table)
    return np.sign(x) * table[distance.argmin(axis=-1)]


def e4m3_cut_off(x):
    size = np.minimum(np.abs(x), 448.0)
    power = np.floor(np.log2(np.maximum(size, 2.0**-6)))
    step = 2.0 ** (power - 3)
    return np.sign(x) * np.floor(size / step) * step


def e4m3_without_subnormals(x):
    size = np.minimum(np.abs(x), 448.0)
    power = np.floor(np.log2(np.maximum(size, 1e-300)))
    step = 2.0 ** (power - 3)
    return np.sign(x) * np.rint(size / step) * step


def e4m3_guarded_at_the_smallest(x):
    size = np.minimum(np.abs(x), 448.0)
    power = np.floor(np.log2(np.maximum(size, 2.0**-9)))
    step = 2.0 ** (power - 3)
    return np.sign(x) * np.rint(size / step) * step


def e4m3_flushed(x):
    return np.where(np.abs(x) < 2.0**-6, 0.0, e4m3(x))


def e4m3_of_zero(x):
    size = np.minimum(np.abs(x), 448.0)
    step = 2.0 ** (np.maximum(np.floor(np.log2(size)), -6) - 3)
    return (
        size / step * 0 + np.sign(x) * np.rint(size / step) * step + 0 * np.log2(size)
    )


def e4m3_one_power_late(x):
    size = np.minimum(np.abs(x), 448.0)
    power = np.floor(np.log2(np.maximum(size, 2.0**-7)))
    return np.sign(x) * np.rint(size / 2.0 ** (power - 3)) * 2.0 ** (power - 3)


def e4m3_endless(x):
    size = np.abs(x)
    power = np.floor(np.log2(np.maximum(size, 2.0**-6)))
    step = 2.0 ** (power - 3)
    return np.sign(x) * np.rint(size / step) * step


def e4m3_power_clipped(x):
    power = np.floor(np.log2(np.maximum(np.abs(x), 1e-300))).clip(-6, 8)
    step = 2.0 ** (power - 3)
    return np.rint(x / step) * step


def e4m3_integer_powers(x):
    power = np.floor(np.log2(np.maximum(np.abs(x), 2.0**-6))).astype(int)
    step = 2 ** (power - 3)
    return np.rint(x / step) * step


def e4m3_to_480(x):
    size = np.minimum(np.abs(x), 480.0)
    power = np.floor(np.log2(np.maximum(size, 2.0**-6)))
    step = 2.0 ** (power - 3)
    return np.sign(x) * np.rint(size / step) * step


def e4m3_to_240(x):
    return np.clip(e4m3(x), -240, 240)


def e4m3_two_bits(x):
    size = np.minimum(np.abs(x), 448.0)
    power = np.floor(np.log2(np.maximum(size, 2.0**-6)))
    step = 2.0 ** (power - 2)
    return np.sign(x) * np.rint(size / step) * step


def e4m3_four_bits(x):
    size = np.minimum(np.abs(x), 448.0)
    power = np.floor(np.log2(np.maximum(size, 2.0**-6)))
    step = 2.0 ** (power - 4)
    return np.sign(x) * np.rint(size / step) * step


def e4m3_one_step(x):
    return np.clip(np.rint(x * 512) / 512, -448, 448)


def e4m3_positive(x):
    return np.abs(e4m3(x))


def e4m3_no_abs(x):
    power = np.floor(np.log2(np.maximum(x, 2.0**-6)))
    step = 2.0 ** (power - 3)
    return np.clip(np.rint(x / step) * step, -448, 448)


def e4m3_in_torch(x):
    return torch.from_numpy(e4m3(x))


# --- 13.2 -------------------------------------------------------------------------


def scales(x, size):
    padded = F.pad(x, (0, -x.shape[1] % size))
    amax = padded.reshape(len(x), -1, size).abs().amax(dim=-1)
    return (amax / 448).masked_fill(amax == 0, 1.0)


def scales_in_loops(x, size):
    out = torch.ones(x.shape[0], math.ceil(x.shape[1] / size))
    for t in range(out.shape[0]):
        for i in range(out.shape[1]):
            amax = x[t, i * size : (i + 1) * size].abs().max()
            if amax > 0:
                out[t, i] = amax / 448
    return out


def scales_of_the_package(x, size):
    return fp8.quantise(x, (1, size))[1]


def scales_tensor(x, size):
    return x.abs().max() / 448


def scales_row(x, size):
    return x.abs().amax(dim=1, keepdim=True) / 448


def scales_row_spread(x, size):
    n = math.ceil(x.shape[1] / size)
    return (x.abs().amax(dim=1, keepdim=True) / 448).repeat(1, n)


def scales_tensor_spread(x, size):
    n = math.ceil(x.shape[1] / size)
    return torch.full((len(x), n), float(x.abs().max()) / 448)


def scales_signed(x, size):
    tiles = x.split(size, dim=1)
    amax = torch.stack([tile.amax(dim=1) for tile in tiles], dim=1)
    return torch.where(amax == 0, 1.0, amax / 448)


def scales_upside_down(x, size):
    amax = torch.stack([t.abs().amax(dim=1) for t in x.split(size, dim=1)], dim=1)
    return torch.where(amax == 0, 1.0, 448 / amax)


def scales_undivided(x, size):
    amax = torch.stack([t.abs().amax(dim=1) for t in x.split(size, dim=1)], dim=1)
    return torch.where(amax == 0, 1.0, amax)


def scales_means(x, size):
    amax = torch.stack([t.abs().mean(dim=1) for t in x.split(size, dim=1)], dim=1)
    return torch.where(amax == 0, 1.0, amax / 448)


def scales_whole_tiles_only(x, size):
    n = x.shape[1] // size
    amax = x[:, : n * size].reshape(len(x), n, size).abs().amax(dim=-1)
    return torch.where(amax == 0, 1.0, amax / 448)


def scales_of_zeros(x, size):
    padded = F.pad(x, (0, -x.shape[1] % size))
    return padded.reshape(len(x), -1, size).abs().amax(dim=-1) / 448


def scales_clamped(x, size):
    amax = torch.stack([t.abs().amax(dim=1) for t in x.split(size, dim=1)], dim=1)
    return amax.clamp(min=1e-12) / 448


def scales_least_amax(x, size):
    amax = torch.stack([t.abs().amax(dim=1) for t in x.split(size, dim=1)], dim=1)
    return amax.clamp(min=1e-4) / 448


def scales_amax_of_one(x, size):
    amax = torch.stack([t.abs().amax(dim=1) for t in x.split(size, dim=1)], dim=1)
    return amax.masked_fill(amax == 0, 1.0) / 448


def scales_reshape(x, size):
    return x.reshape(len(x), -1, size).abs().amax(dim=-1) / 448


def scales_along_tokens(x, size):
    amax = torch.stack([t.abs().amax(dim=0) for t in x.split(size, dim=0)])
    return torch.where(amax == 0, 1.0, amax / 448)


# --- 13.3 -------------------------------------------------------------------------


def powers(amax):
    return (np.ceil(np.log2(np.maximum(amax, 1e-4) / 448)) + 127).astype(np.int64)


def powers_by_frexp(amax):
    mantissa, power = np.frexp(np.maximum(amax, 1e-4) / 448)
    return np.where(mantissa == 0.5, power - 1, power) + 127


def powers_in_bytes(amax):
    return fp8.encode_ue8m0(np.maximum(amax, 1e-4) / 448)


def powers_floor(amax):
    return (np.floor(np.log2(np.maximum(amax, 1e-4) / 448)) + 127).astype(int)


def powers_rounded(amax):
    return np.round(np.log2(np.maximum(amax, 1e-4) / 448)).astype(int) + 127


def powers_floor_plus_one(amax):
    return np.floor(np.log2(np.maximum(amax, 1e-4) / 448)).astype(int) + 128


def powers_frexp_only(amax):
    return np.frexp(np.maximum(amax, 1e-4) / 448)[1] + 127


def powers_of_amax(amax):
    return np.ceil(np.log2(np.maximum(amax, 1e-4))).astype(int) + 127


def powers_no_floor(amax):
    return np.ceil(np.log2(np.maximum(amax, 1e-30) / 448)).astype(int) + 127


def powers_floor_after(amax):
    return np.ceil(np.log2(np.maximum(amax / 448, 1e-4))).astype(int) + 127


def powers_difference(amax):
    power = np.ceil(np.log2(np.maximum(amax, 1e-4)) - np.log2(448))
    return power.astype(int) + 127


def powers_np_max(amax):
    return np.ceil(np.log2(np.max(amax, 1e-4) / 448)).astype(int) + 127


def powers_python_max(amax):
    return np.ceil(np.log2(max(amax, 1e-4) / 448)).astype(int) + 127


def powers_zero_alone(amax):
    amax = np.where(amax == 0, 1e-4, amax)
    return np.ceil(np.log2(amax / 448)).astype(int) + 127


def powers_no_bias(amax):
    return np.ceil(np.log2(np.maximum(amax, 1e-4) / 448)).astype(int)


def powers_bias_128(amax):
    return np.ceil(np.log2(np.maximum(amax, 1e-4) / 448)).astype(int) + 128


def powers_turned_round(amax):
    return 127 - np.ceil(np.log2(np.maximum(amax, 1e-4) / 448)).astype(int)


def powers_of_e(amax):
    return np.ceil(np.log(np.maximum(amax, 1e-4) / 448)).astype(int) + 127


def powers_floats(amax):
    return np.ceil(np.log2(np.maximum(amax, 1e-4) / 448)) + 127


# --- 13.4 -------------------------------------------------------------------------


def read(values, scale_inv, size):
    rows = torch.arange(values.shape[0]) // size
    columns = torch.arange(values.shape[1]) // size
    return values.float() * scale_inv[rows[:, None], columns]


def read_by_blocks(values, scale_inv, size):
    out = values.float()
    for i in range(scale_inv.shape[0]):
        for j in range(scale_inv.shape[1]):
            part = (
                slice(i * size, (i + 1) * size),
                slice(j * size, (j + 1) * size),
            )
            out[part] *= scale_inv[i, j]
    return out


def read_with_kron(values, scale_inv, size):
    scale = torch.kron(scale_inv, torch.ones(size, size))
    return values.float() * scale[: values.shape[0], : values.shape[1]]


def read_divided(values, scale_inv, size):
    return (
        values.float()
        / torch.kron(scale_inv, torch.ones(size, size))[
            : values.shape[0], : values.shape[1]
        ]
    )


def read_transposed(values, scale_inv, size):
    scale = torch.kron(scale_inv.T.contiguous(), torch.ones(size, size))
    if scale.shape[0] < values.shape[0] or scale.shape[1] < values.shape[1]:
        scale = torch.kron(scale_inv, torch.ones(size, size))
    return values.float() * scale[: values.shape[0], : values.shape[1]]


def read_repeated(values, scale_inv, size):
    scale = scale_inv.repeat(size, size)[: values.shape[0], : values.shape[1]]
    return values.float() * scale


def read_unscaled(values, scale_inv, size):
    return values.float()


def read_twice(values, scale_inv, size):
    once = read(values, scale_inv, size)
    return read(once, scale_inv, size)


def read_first_scale(values, scale_inv, size):
    return values.float() * scale_inv.flatten()[0]


def read_in_eight_bits(values, scale_inv, size):
    return read(values, scale_inv, size).clamp(-448, 448).to(values.dtype)


def read_padded(values, scale_inv, size):
    m, n = scale_inv.shape
    out = torch.zeros(m * size, n * size)
    out[: values.shape[0], : values.shape[1]] = values.float()
    return out * torch.kron(scale_inv, torch.ones(size, size))


def read_without_edges(values, scale_inv, size):
    return values.float() * torch.kron(scale_inv, torch.ones(size, size))


def read_without_float(values, scale_inv, size):
    rows = torch.arange(values.shape[0]) // size
    columns = torch.arange(values.shape[1]) // size
    return values * scale_inv[rows[:, None], columns]


def read_interleaved_uncut(values, scale_inv, size):
    scale = scale_inv.repeat_interleave(size, 0)[: len(values)]
    return values.float() * scale.repeat_interleave(size, 1)


def read_unspread(values, scale_inv, size):
    return values.float() * scale_inv


# --- 13.5 -------------------------------------------------------------------------


def _round(t, rows, columns):
    values, scale_inv = fp8.quantise(t, (rows, columns))
    return fp8.dequantise(values, scale_inv, (rows, columns))


def products(x, weight, grad, size):
    x, weight = _round(x, 1, size), _round(weight, size, size)
    row, column = _round(grad, 1, size), _round(grad, size, 1)
    return x @ weight.T, row @ weight, column.T @ _round(x, size, 1)


def products_transposed_first(x, weight, grad, size):
    """The tiles of dW along the rows of transposed matrices."""
    x, weight = _round(x, 1, size), _round(weight, size, size)
    x_t, grad_t = (_round(t.T.contiguous(), 1, size) for t in (x, grad))
    return x @ weight.T, _round(grad, 1, size) @ weight, grad_t @ x_t.T


def products_rows_everywhere(x, weight, grad, size):
    x, weight = _round(x, 1, size), _round(weight, size, size)
    grad = _round(grad, 1, size)
    return x @ weight.T, grad @ weight, grad.T @ x


def products_rows_again(x, weight, grad, size):
    x, weight = _round(x, 1, size), _round(weight, size, size)
    grad = _round(grad, 1, size)
    return x @ weight.T, grad @ weight, grad.T @ _round(x, 1, size)


def products_weight_tiles(x, weight, grad, size):
    x, weight = _round(x, 1, size), _round(weight, 1, size)
    row, column = _round(grad, 1, size), _round(grad, size, 1)
    return x @ weight.T, row @ weight, column.T @ _round(x, size, 1)


def products_exact_gradient(x, weight, grad, size):
    x, weight = _round(x, 1, size), _round(weight, size, size)
    return x @ weight.T, grad @ weight, grad.T @ _round(x, size, 1)


def products_forward_only(x, weight, grad, size):
    y = _round(x, 1, size) @ _round(weight, size, size).T
    return y, grad @ weight, grad.T @ x


def products_weight_exact_backward(x, weight, grad, size):
    xq, wq = _round(x, 1, size), _round(weight, size, size)
    row, column = _round(grad, 1, size), _round(grad, size, 1)
    return xq @ wq.T, row @ weight, column.T @ _round(xq, size, 1)


def products_exact_dw(x, weight, grad, size):
    xq, wq = _round(x, 1, size), _round(weight, size, size)
    return xq @ wq.T, _round(grad, 1, size) @ wq, grad.T @ x


def products_from_x_itself(x, weight, grad, size):
    xq, wq = _round(x, 1, size), _round(weight, size, size)
    row, column = _round(grad, 1, size), _round(grad, size, 1)
    return xq @ wq.T, row @ wq, column.T @ _round(x, size, 1)


def products_x_once(x, weight, grad, size):
    x, weight = _round(x, 1, size), _round(weight, size, size)
    row, column = _round(grad, 1, size), _round(grad, size, 1)
    return x @ weight.T, row @ weight, column.T @ x


def products_columns_forward(x, weight, grad, size):
    xq, wq = _round(x, size, 1), _round(weight, size, size)
    row, column = _round(grad, 1, size), _round(grad, size, 1)
    return xq @ wq.T, row @ wq, column.T @ _round(xq, size, 1)


def products_gradient_twice(x, weight, grad, size):
    x, weight, row = (
        _round(x, 1, size),
        _round(weight, size, size),
        _round(grad, 1, size),
    )
    return x @ weight.T, row @ weight, _round(row, size, 1).T @ _round(x, size, 1)


def products_gradient_once(x, weight, grad, size):
    x, weight = _round(x, 1, size), _round(weight, size, size)
    row = _round(grad, 1, size)
    return x @ weight.T, row @ weight, row.T @ _round(x, size, 1)


def products_gradient_exact_in_dw(x, weight, grad, size):
    x, weight = _round(x, 1, size), _round(weight, size, size)
    return x @ weight.T, _round(grad, 1, size) @ weight, grad.T @ _round(x, size, 1)


def products_gradient_exact_in_dx(x, weight, grad, size):
    x, weight = _round(x, 1, size), _round(weight, size, size)
    return x @ weight.T, grad @ weight, _round(grad, size, 1).T @ _round(x, size, 1)


def products_x_exact_in_dw(x, weight, grad, size):
    xq, wq = _round(x, 1, size), _round(weight, size, size)
    return xq @ wq.T, _round(grad, 1, size) @ wq, _round(grad, size, 1).T @ x


def products_squares(x, weight, grad, size):
    x, weight, grad = (_round(t, size, size) for t in (x, weight, grad))
    return x @ weight.T, grad @ weight, grad.T @ x


def products_whole_rows(x, weight, grad, size):
    N = len(x)
    x, weight = _round(x, 1, x.shape[1]), _round(weight, size, size)
    row, column = _round(grad, 1, grad.shape[1]), _round(grad, N, 1)
    return x @ weight.T, row @ weight, column.T @ _round(x, N, 1)


def products_weight_columns(x, weight, grad, size):
    x, weight = _round(x, 1, size), _round(weight, size, 1)
    row, column = _round(grad, 1, size), _round(grad, size, 1)
    return x @ weight.T, row @ weight, column.T @ _round(x, size, 1)


def products_weight_follows(x, weight, grad, size):
    x = _round(x, 1, size)
    row, column = _round(grad, 1, size), _round(grad, size, 1)
    y, dx = x @ _round(weight, 1, size).T, row @ _round(weight, size, 1)
    return y, dx, column.T @ _round(x, size, 1)


def products_exact(x, weight, grad, size):
    return x @ weight.T, grad @ weight, grad.T @ x


def products_swapped(x, weight, grad, size):
    y, dx, dw = products(x, weight, grad, size)
    return y, dw, dx


ANSWERS = {
    "13.1": Answers(
        right=[e4m3, e4m3_one_by_one, e4m3_from_a_table],
        wrong=[
            Wrong(e4m3_half_up, "go to the even number"),
            Wrong(e4m3_half_down, "halfway cases go down"),
            Wrong(e4m3_cut_off, "the fraction is cut off"),
            Wrong(e4m3_without_subnormals, "the steps grow ever finer"),
            Wrong(e4m3_guarded_at_the_smallest, "the steps grow ever finer"),
            Wrong(e4m3_flushed, "seven subnormal numbers"),
            Wrong(e4m3_of_zero, "0 has no logarithm"),
            Wrong(e4m3_one_power_late, "at the bottom the step is that of"),
            Wrong(e4m3_endless, "numbers above 448 do not exist"),
            Wrong(e4m3_power_clipped, "numbers above 448 do not exist"),
            Wrong(e4m3_integer_powers, "write 2.0 ** (p - 3)"),
            Wrong(e4m3_to_480, "480 is not a number"),
            Wrong(e4m3_to_240, "the largest is 448, not 240"),
            Wrong(e4m3_two_bits, "too few steps"),
            Wrong(e4m3_four_bits, "too many steps"),
            Wrong(e4m3_one_step, "one size everywhere"),
            Wrong(e4m3_positive, "lost their sign"),
            Wrong(e4m3_no_abs, "another way than positive"),
            Wrong(e4m3_in_torch, "leave torch out of it"),
        ],
    ),
    "13.2": Answers(
        right=[scales, scales_in_loops, scales_of_the_package],
        wrong=[
            Wrong(scales_tensor, "every tile has its own"),
            Wrong(scales_row, "every tile has its own"),
            Wrong(scales_row_spread, "all have the row's scale"),
            Wrong(scales_tensor_spread, "the scale of the tensor"),
            Wrong(scales_signed, "the sign is taken along"),
            Wrong(scales_upside_down, "scale_inv undoes that"),
            Wrong(scales_undivided, "not divided by the largest number"),
            Wrong(scales_means, "says nothing about the largest number"),
            Wrong(scales_whole_tiles_only, "the last tile is missing"),
            Wrong(scales_of_zeros, "let it be 1"),
            Wrong(scales_clamped, "the scale itself is 1"),
            Wrong(scales_least_amax, "the scale itself is 1"),
            Wrong(scales_amax_of_one, "the scale itself is 1"),
            Wrong(scales_reshape, "RuntimeError"),
            Wrong(scales_along_tokens, "a tile is one row"),
        ],
    ),
    "13.3": Answers(
        right=[powers, powers_by_frexp, powers_in_bytes],
        wrong=[
            Wrong(powers_floor, "rounded down"),
            Wrong(powers_rounded, "rounded to the nearest power"),
            Wrong(powers_floor_plus_one, "stays as it is"),
            Wrong(powers_frexp_only, "stays as it is"),
            Wrong(powers_of_amax, "the scale is that of amax / 448"),
            Wrong(powers_no_floor, "not raised to 1e-4"),
            Wrong(powers_floor_after, "take the maximum before dividing"),
            Wrong(powers_difference, "divide first"),
            Wrong(powers_np_max, "np.maximum compares"),
            Wrong(powers_python_max, "np.maximum compares"),
            Wrong(powers_zero_alone, "not raised to 1e-4"),
            Wrong(powers_no_bias, "the power plus 127"),
            Wrong(powers_bias_128, "127, not 128"),
            Wrong(powers_turned_round, "turned round"),
            Wrong(powers_of_e, "that of e, not of 2"),
            Wrong(powers_floats, "in an integer dtype"),
        ],
    ),
    "13.4": Answers(
        right=[read, read_by_blocks, read_with_kron],
        wrong=[
            Wrong(read_divided, "already the inverse"),
            Wrong(read_transposed, "have changed places"),
            Wrong(read_repeated, "again and again"),
            Wrong(read_unscaled, "have not been applied"),
            Wrong(read_twice, "applied twice"),
            Wrong(read_first_scale, "the scale of its first block"),
            Wrong(read_in_eight_bits, "into float32 before the product"),
            Wrong(read_padded, "the filling is still there"),
            Wrong(read_without_edges, "cut off by the edge"),
            Wrong(read_interleaved_uncut, "cut off by the edge"),
            Wrong(read_unspread, "spread the scales first"),
            Wrong(read_without_float, "values.float() first"),
        ],
    ),
    "13.5": Answers(
        right=[products, products_transposed_first],
        wrong=[
            Wrong(products_rows_everywhere, "the tiles of both factors"),
            Wrong(products_rows_again, "the tiles of both factors"),
            Wrong(products_weight_tiles, "blocks are square"),
            Wrong(products_weight_columns, "blocks are square"),
            Wrong(products_weight_follows, "blocks are square"),
            Wrong(products_squares, "only the weight's blocks are square"),
            Wrong(products_whole_rows, "not whole rows"),
            Wrong(products_gradient_twice, "not from what dX used"),
            Wrong(products_gradient_once, "not rounded anew for dW"),
            Wrong(products_gradient_exact_in_dw, "dY is not rounded for dW"),
            Wrong(products_gradient_exact_in_dx, "dY is not rounded for dX"),
            Wrong(products_x_exact_in_dw, "x is not rounded for dW"),
            Wrong(products_exact_gradient, "the gradients of Y are not rounded"),
            Wrong(products_forward_only, "only the first product"),
            Wrong(products_weight_exact_backward, "the weight of dX"),
            Wrong(products_exact_dw, "the factors of dW"),
            Wrong(products_from_x_itself, "only its rounded form was kept"),
            Wrong(products_x_once, "not rounded again for dW"),
            Wrong(products_columns_forward, "the first product sums over channels"),
            Wrong(products_exact, "nothing is rounded"),
            Wrong(products_swapped, "have changed places"),
        ],
    ),
}
