"""Lesson 02, RMSNorm and SwiGLU."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from . import Answers, Wrong

# --- 02.1 -------------------------------------------------------------------------


def norm(x, weight, eps):
    wide = x.astype(np.float32) if x.dtype == np.float16 else x
    inverse = 1 / np.sqrt(np.square(wide).mean(axis=-1, keepdims=True) + eps)
    return (wide * inverse * weight).astype(x.dtype)


def norm_by_loop(x, weight, eps):
    out = np.empty_like(x)
    for index in np.ndindex(x.shape[:-1]):
        row = [float(v) for v in x[index]]
        root = math.sqrt(math.fsum(v * v for v in row) / len(row) + eps)
        out[index] = [v / root * float(w) for v, w in zip(row, weight)]
    return out


def norm_mean_of_x(x, weight, eps):
    wide = x.astype(np.float64)
    root = np.sqrt(wide.mean(-1, keepdims=True) ** 2 + eps)
    return (wide / root * weight).astype(x.dtype)


def norm_eps_outside(x, weight, eps):
    wide = x.astype(np.float64)
    root = np.sqrt((wide**2).mean(-1, keepdims=True)) + eps
    return (wide / root * weight).astype(x.dtype)


def norm_wrong_axis(x, weight, eps):
    wide = x.astype(np.float64)
    root = np.sqrt((wide**2).mean(axis=0) + eps)
    return (wide / root * weight).astype(x.dtype)


def norm_of_everything(x, weight, eps):
    return x / np.sqrt((x**2).mean() + eps) * weight


def norm_layer(x, weight, eps):
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    root = np.sqrt(wide.var(-1, keepdims=True) + eps)
    return (centred / root * weight).astype(x.dtype)


def norm_length(x, weight, eps):
    wide = x.astype(np.float64)
    length = np.sqrt(np.sum(wide**2, axis=-1, keepdims=True) + eps)
    return (wide / length * weight).astype(x.dtype)


def norm_no_root(x, weight, eps):
    return x / ((x**2).mean(-1, keepdims=True) + eps) * weight


def norm_no_weight(x, weight, eps):
    return norm(x, np.ones_like(weight), eps)


def norm_in_half(x, weight, eps):
    mean_square = (x**2).mean(-1, keepdims=True)
    return (x / np.sqrt(mean_square + eps) * weight).astype(x.dtype)


def norm_promotes(x, weight, eps):
    wide = x.astype(np.float64)
    return wide / np.sqrt((wide**2).mean(-1, keepdims=True) + eps) * weight


def norm_in_place(x, weight, eps):
    x *= weight / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    return x


def norm_no_keepdims(x, weight, eps):
    return x / np.sqrt((x**2).mean(-1) + eps) * weight


def norm_float32(x, weight, eps):
    wide = x.astype(np.float32)
    root = np.sqrt((wide**2).mean(axis=-1, keepdims=True) + eps)
    return (wide / root * weight).astype(x.dtype)


def norm_mean_float32(x, weight, eps):
    mean_square = np.mean(x.astype(np.float64) ** 2, -1, np.float32, keepdims=True)
    return (x / np.sqrt(mean_square + eps) * weight).astype(x.dtype)


def norm_axis_1(x, weight, eps):
    wide = x.astype(np.float64)
    root = np.sqrt((wide**2).mean(axis=1, keepdims=True) + eps)
    return (wide / root * weight).astype(x.dtype)


def norm_no_return(x, weight, eps):
    norm(x, weight, eps)


# --- 02.2 -------------------------------------------------------------------------


def _parts(grad, x, weight, eps):
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    return grad * weight, r * x, r


def backward(grad, x, weight, eps):
    g, n, r = _parts(grad, x, weight, eps)
    dx = r * (g - n * (g * n).mean(-1, keepdims=True))
    return dx, (grad * n).sum(0)


def backward_by_jacobian(grad, x, weight, eps):
    dx, dweight = np.zeros_like(x), np.zeros_like(weight)
    dim = x.shape[1]
    for t, row in enumerate(x):
        s = row @ row / dim + eps
        jacobian = np.diag(weight) @ (np.eye(dim) * s - np.outer(row, row) / dim)
        dx[t] = grad[t] @ jacobian / s**1.5
        dweight += grad[t] * row / math.sqrt(s)
    return dx, dweight


def backward_root_constant(grad, x, weight, eps):
    g, n, r = _parts(grad, x, weight, eps)
    return r * g, (grad * n).sum(0)


def backward_no_weight(grad, x, weight, eps):
    _, n, r = _parts(grad, x, weight, eps)
    dx = r * (grad - n * (grad * n).mean(-1, keepdims=True))
    return dx, (grad * n).sum(0)


def backward_weight_once(grad, x, weight, eps):
    g, n, r = _parts(grad, x, weight, eps)
    dx = r * (g - n * (grad * n).mean(-1, keepdims=True))
    return dx, (grad * n).sum(0)


def backward_sum(grad, x, weight, eps):
    g, n, r = _parts(grad, x, weight, eps)
    dx = r * (g - n * (g * n).sum(-1, keepdims=True))
    return dx, (grad * n).sum(0)


def backward_plus(grad, x, weight, eps):
    g, n, r = _parts(grad, x, weight, eps)
    dx = r * (g + n * (g * n).mean(-1, keepdims=True))
    return dx, (grad * n).sum(0)


def backward_no_r(grad, x, weight, eps):
    g, n, _ = _parts(grad, x, weight, eps)
    return g - n * (g * n).mean(-1, keepdims=True), (grad * n).sum(0)


def backward_global_mean(grad, x, weight, eps):
    g, n, r = _parts(grad, x, weight, eps)
    return r * (g - n * (g * n).mean()), (grad * n).sum(0)


def backward_weight_not_summed(grad, x, weight, eps):
    dx, _ = backward(grad, x, weight, eps)
    return dx, grad * _parts(grad, x, weight, eps)[1]


def backward_weight_mean(grad, x, weight, eps):
    dx, _ = backward(grad, x, weight, eps)
    return dx, (grad * _parts(grad, x, weight, eps)[1]).mean(0)


def backward_weight_from_x(grad, x, weight, eps):
    dx, _ = backward(grad, x, weight, eps)
    return dx, (grad * x).sum(0)


def backward_only_x(grad, x, weight, eps):
    return backward(grad, x, weight, eps)[0]


def backward_no_eps(grad, x, weight, eps):
    return backward(grad, x, weight, 0.0)


def backward_r_is_root(grad, x, weight, eps):
    r = np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    g, n = grad * weight, r * x
    return r * (g - n * (g * n).mean(-1, keepdims=True)), (grad * n).sum(0)


def backward_scalar_weight(grad, x, weight, eps):
    dx, _ = backward(grad, x, weight, eps)
    return dx, (grad * _parts(grad, x, weight, eps)[1]).sum()


def backward_weight_over_channels(grad, x, weight, eps):
    dx, _ = backward(grad, x, weight, eps)
    return dx, (grad * _parts(grad, x, weight, eps)[1]).sum(-1)


# --- 02.3 -------------------------------------------------------------------------


def swiglu(x, w1, w2, w3):
    return F.linear(F.silu(F.linear(x, w1)) * F.linear(x, w3), w2)


def swiglu_by_formula(x, w1, w2, w3):
    gate, value = x @ w1.T, x @ w3.T
    return (gate / (1 + torch.exp(-gate)) * value) @ w2.T


def swiglu_exchanged(x, w1, w2, w3):
    return ((x @ w1.T) * F.silu(x @ w3.T)) @ w2.T


def swiglu_sigmoid(x, w1, w2, w3):
    return (torch.sigmoid(x @ w1.T) * (x @ w3.T)) @ w2.T


def swiglu_gelu(x, w1, w2, w3):
    return (F.gelu(x @ w1.T) * (x @ w3.T)) @ w2.T


def swiglu_relu(x, w1, w2, w3):
    return (F.relu(x @ w1.T) * (x @ w3.T)) @ w2.T


def swiglu_of_product(x, w1, w2, w3):
    return F.silu((x @ w1.T) * (x @ w3.T)) @ w2.T


def swiglu_sum(x, w1, w2, w3):
    return (F.silu(x @ w1.T) + x @ w3.T) @ w2.T


def swiglu_no_value(x, w1, w2, w3):
    return F.silu(x @ w1.T) @ w2.T


def swiglu_no_way_back(x, w1, w2, w3):
    return F.silu(x @ w1.T) * (x @ w3.T)


def swiglu_not_transposed(x, w1, w2, w3):
    return (F.silu(x @ w1) * (x @ w3)) @ w2


def swiglu_wide(x, w1, w2, w3):
    x, w1, w2, w3 = x.double(), w1.double(), w2.double(), w3.double()
    return (F.silu(x @ w1.T) * (x @ w3.T)) @ w2.T


def swiglu_matrix_first(x, w1, w2, w3):
    return w2 @ (F.silu(w1 @ x) * (w3 @ x))


def swiglu_no_transpose_back(x, w1, w2, w3):
    return (F.silu(x @ w1.T) * (x @ w3.T)) @ w2


def swiglu_other_order(x, w1, w3, w2):
    return (F.silu(x @ w1.T) * (x @ w3.T)) @ w2.T


def swiglu_sign(x, w1, w2, w3):
    gate = x @ w1.T
    return (gate / (1 + torch.exp(gate)) * (x @ w3.T)) @ w2.T


# --- 02.4 -------------------------------------------------------------------------


def width(dim, multiple):
    return -(-8 * dim // (3 * multiple)) * multiple


def width_by_ceil(dim, multiple):
    return math.ceil(8 * dim / 3 / multiple) * multiple


def width_4d(dim, multiple):
    return math.ceil(4 * dim / multiple) * multiple


def width_down(dim, multiple):
    return 8 * dim // 3 // multiple * multiple


def width_nearest(dim, multiple):
    return round(8 * dim / 3 / multiple) * multiple


def width_one_more(dim, multiple):
    return (8 * dim // 3 // multiple + 1) * multiple


def width_cut_first(dim, multiple):
    exact = int(2 * (4 * dim) / 3)
    return multiple * ((exact + multiple - 1) // multiple)


def width_not_rounded(dim, multiple):
    return int(8 * dim / 3)


def width_count(dim, multiple):
    return math.ceil(8 * dim / 3 / multiple)


def width_two_thirds(dim, multiple):
    return math.ceil(2 * dim / 3 / multiple) * multiple


ANSWERS = {
    "02.1": Answers(
        right=[norm, norm_by_loop],
        wrong=[
            Wrong(norm_mean_of_x, "which mean gives RMS its name"),
            Wrong(norm_eps_outside, "the formula has it inside"),
            Wrong(norm_wrong_axis, "each token is normalised on its own"),
            Wrong(norm_of_everything, "each token has its own"),
            Wrong(norm_layer, "this is LayerNorm"),
            Wrong(norm_length, "with more channels the result gets smaller"),
            Wrong(norm_no_root, "its root is missing"),
            Wrong(norm_no_weight, "the weight is missing"),
            Wrong(norm_in_half, "float16 ends at 65,504"),
            Wrong(norm_promotes, "give back x's dtype"),
            Wrong(norm_in_place, "changed its input x in place"),
            Wrong(norm_no_keepdims, "matched from the right"),
            Wrong(norm_float32, "rounded to float32 on the way"),
            Wrong(norm_mean_float32, "rounded to float32 on the way"),
            Wrong(norm_axis_1, "the channels are the last axis"),
            Wrong(norm_no_return, "is `return` missing?"),
        ],
    ),
    "02.2": Answers(
        right=[backward, backward_by_jacobian],
        wrong=[
            Wrong(backward_root_constant, "treats the root as a constant"),
            Wrong(backward_no_weight, "g is grad times weight"),
            Wrong(backward_weight_once, "not in the second"),
            Wrong(backward_sum, "a sum where the formula has a mean"),
            Wrong(backward_plus, "wrong sign"),
            Wrong(backward_no_r, "the factor r in front is missing"),
            Wrong(backward_global_mean, "channels of one token"),
            Wrong(backward_weight_not_summed, "still one for every token"),
            Wrong(backward_weight_mean, "in several places add"),
            Wrong(backward_weight_from_x, "the weight multiplies n"),
            Wrong(backward_only_x, "return both"),
            Wrong(backward_no_eps, "eps is forgotten"),
            Wrong(backward_r_is_root, "one over the root"),
            Wrong(backward_scalar_weight, "sum over the tokens only, axis 0"),
            Wrong(backward_weight_over_channels, "sum over the tokens, axis 0"),
        ],
    ),
    "02.3": Answers(
        right=[swiglu, swiglu_by_formula],
        wrong=[
            Wrong(swiglu_exchanged, "silu belongs to the gate"),
            Wrong(swiglu_sigmoid, "a factor a besides"),
            Wrong(swiglu_gelu, "GEGLU"),
            Wrong(swiglu_relu, "ReLU, not silu"),
            Wrong(swiglu_of_product, "only the gate goes through it"),
            Wrong(swiglu_sum, "a gate multiplies"),
            Wrong(swiglu_no_value, "w3 is not used"),
            Wrong(swiglu_no_way_back, "leads back to D channels"),
            Wrong(swiglu_not_transposed, "as in nn.Linear"),
            Wrong(swiglu_matrix_first, "as in nn.Linear"),
            Wrong(swiglu_no_transpose_back, "as in nn.Linear"),
            Wrong(swiglu_other_order, "as in nn.Linear"),
            Wrong(swiglu_sign, "the sign in the exponent"),
            Wrong(swiglu_wide, "give back x's dtype"),
        ],
    ),
    "02.4": Answers(
        right=[width, width_by_ceil],
        wrong=[
            Wrong(width_4d, "how many matrices has SwiGLU"),
            Wrong(width_down, "rounded down"),
            Wrong(width_nearest, "nearest multiple"),
            Wrong(width_one_more, "once more"),
            Wrong(width_cut_first, "cut to a whole number"),
            Wrong(width_not_rounded, "not rounded"),
            Wrong(width_count, "not how many channels"),
            Wrong(width_two_thirds, "4 * dim wide"),
        ],
    ),
}
