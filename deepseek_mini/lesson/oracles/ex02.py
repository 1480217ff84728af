"""Lesson 02, RMSNorm and SwiGLU: the oracles go other ways than the lesson.

The norm is a vector over its Euclidean length, its gradient is autograd's, SwiGLU is a
sum over the middle channels in float64, and the width is found by counting up.
"""

import numpy as np
import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, array, tensor

LESSON = "02_norm_and_swiglu"

# --- 02.1 -------------------------------------------------------------------------


def rms_norm(x, weight, eps):
    wide = x.astype(np.float64)
    dim = x.shape[-1]
    length = np.sqrt(np.einsum("...i,...i->...", wide, wide) + dim * eps)
    return (wide * np.sqrt(dim) / length[..., None] * weight).astype(x.dtype)


def _other_norm(bottom, top=lambda x: x):
    """The norm with another denominator, of (x, eps), or another numerator."""

    def wrong(x, weight, eps):
        wide = x.astype(np.float64)
        return (top(wide) / bottom(wide, eps) * weight).astype(x.dtype)

    return wrong


def _mean(x):
    return x.mean(-1, keepdims=True)


def _variance(x):
    return x.var(-1, keepdims=True)


def _along_tokens(x, weight, eps):
    wide = x.astype(np.float64)
    root = np.sqrt((wide**2).mean(0, keepdims=True) + eps)
    return (wide / root * weight).astype(x.dtype)


def _over_everything(x, weight, eps):
    wide = x.astype(np.float64)
    return (wide / np.sqrt((wide**2).mean() + eps) * weight).astype(x.dtype)


def _in_half_precision(got, want, args):
    """The right shape and dtype, from squares that overflowed."""
    x = args[0]
    if x.dtype != np.float16 or np.shape(got) != want.shape:
        return False
    with np.errstate(all="ignore"):
        overflow = ~np.isfinite(x**2).all()
    return bool(overflow) and getattr(got, "dtype", None) == want.dtype


def norm_cases(rng):
    for shape, dtype, scale, eps, strided, label in (
        ((5, 8), np.float64, 1.0, 1e-6, False, "five tokens"),
        ((2, 3, 7), np.float64, 3.0, 1e-6, False, "a batch of two"),
        ((6, 6), np.float64, 0.01, 1e-4, False, "as many tokens as channels"),
        ((9,), np.float64, 1.0, 0.1, False, "a single vector"),
        ((4, 10), np.float64, 0.1, 0.01, True, "an array that is not contiguous"),
        ((3, 16), np.float32, 1.0, 1e-5, False, "float32"),
        ((4, 12), np.float16, 400.0, 1e-5, False, "float16 with large numbers"),
    ):
        x = (array(rng, *shape, strided=strided) + 0.4) * scale
        x = x if dtype == np.float64 else x.astype(dtype)
        if dtype == np.float16:
            x[..., 0] = 300.0  # its square is beyond float16
        weight = (1 + 0.3 * array(rng, shape[-1])).astype(dtype)
        said = f"{label}: x {np.dtype(dtype).name} {list(shape)}, eps {eps:g}"
        yield Case((x, weight, eps), said)


NORM = Exercise(
    id="02.1",
    title="RMSNorm",
    signature="rms_norm(x, weight, eps)",
    difficulty="a few lines",
    minutes=8,
    right=rms_norm,
    cases=norm_cases,
    mistakes=(
        Mistake(
            "float16 ends at 65,504, so squares of numbers above 255 are infinite: "
            "take them in a wider dtype, and cast only the result",
            when=_in_half_precision,
        ),
        Mistake(
            "the denominator has the mean of the numbers; which mean gives RMS its "
            "name?",
            gives=_other_norm(lambda x, eps: np.sqrt(_mean(x) ** 2 + eps)),
        ),
        Mistake(
            "the denominator has the mean of the numbers; which mean gives RMS its "
            "name?",
            gives=_other_norm(lambda x, eps: _mean(x) + eps),
        ),
        Mistake(
            "eps is added to the root; the formula has it inside",
            gives=_other_norm(lambda x, eps: np.sqrt(_mean(x**2)) + eps),
        ),
        Mistake(
            "eps is missing",
            gives=_other_norm(lambda x, eps: np.sqrt(_mean(x**2))),
        ),
        Mistake(
            "this divides by the mean square itself; its root is missing",
            gives=_other_norm(lambda x, eps: _mean(x**2) + eps),
        ),
        Mistake(
            "this multiplies by the root mean square; the norm divides by it",
            gives=_other_norm(lambda x, eps: 1 / np.sqrt(_mean(x**2) + eps)),
        ),
        Mistake(
            "the squares are summed, and the formula has their mean: with more "
            "channels the result gets smaller",
            gives=_other_norm(
                lambda x, eps: np.sqrt((x**2).sum(-1, keepdims=True) + eps)
            ),
        ),
        Mistake(
            "this is LayerNorm: RMSNorm does not subtract the mean",
            gives=_other_norm(
                lambda x, eps: np.sqrt(_variance(x) + eps), lambda x: x - _mean(x)
            ),
        ),
        Mistake(
            "the denominator is the standard deviation, which is taken about the "
            "mean; RMS is taken about 0",
            gives=_other_norm(lambda x, eps: np.sqrt(_variance(x) + eps)),
        ),
        Mistake(
            "the mean runs over the tokens; each token is normalised on its own, over "
            "its channels",
            gives=_along_tokens,
        ),
        Mistake(
            "one mean is taken of the whole array; each token has its own",
            gives=_over_everything,
        ),
        Mistake(
            "the weight is missing",
            gives=lambda x, w, eps: rms_norm(x, np.ones_like(w), eps),
        ),
        Mistake(
            "this multiplies by 1 + weight; here the weight itself is the factor",
            gives=lambda x, w, eps: rms_norm(x, 1 + w, eps),
        ),
        Mistake(
            "something wider promotes the result: give back x's dtype",
            when=lambda got, want, args: (
                isinstance(got, np.ndarray)
                and got.shape == want.shape
                and got.dtype.itemsize > want.dtype.itemsize
            ),
        ),
    ),
    hint="print the mean square of every token: its shape should be that of x with 1 "
    "as the last axis; then work one token by hand",
)

# --- 02.2 -------------------------------------------------------------------------


def rms_norm_backward(grad, x, weight, eps):
    """Autograd through the norm, written as a product with a power."""
    leaves = [
        torch.tensor(a, dtype=torch.float64).requires_grad_() for a in (x, weight)
    ]
    mean_square = torch.linalg.vector_norm(leaves[0], dim=-1) ** 2 / x.shape[-1]
    y = leaves[1] * leaves[0] * (mean_square + eps).pow(-0.5).unsqueeze(-1)
    y.backward(torch.tensor(grad, dtype=torch.float64))
    return tuple(leaf.grad.numpy() for leaf in leaves)


def _backward(into_x=None, into_weight=None):
    """The backward pass with one half replaced, a function of (grad, n, r, w, x)."""

    def wrong(grad, x, weight, eps):
        r = 1 / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
        dx, dweight = rms_norm_backward(grad, x, weight, eps)
        parts = (grad, r * x, r, weight, x)
        return (
            dx if into_x is None else into_x(*parts),
            dweight if into_weight is None else into_weight(*parts),
        )

    return wrong


def backward_cases(rng):
    for n, dim, scale, eps, strided, label in (
        (5, 8, 1.0, 1e-6, False, "five tokens"),
        (1, 7, 1.0, 1e-6, False, "a single token"),
        (6, 6, 0.5, 1e-6, False, "as many tokens as channels"),
        (4, 3, 0.1, 0.02, False, "a large eps"),
        (3, 10, 2.0, 1e-5, True, "arrays that are not contiguous"),
    ):
        grad = array(rng, n, dim, strided=strided)
        x = (array(rng, n, dim, strided=strided) + 0.4) * scale
        weight = 1 + 0.3 * array(rng, dim)
        said = f"{label}: x [{n}, {dim}], eps {eps:g}"
        yield Case((grad, x, weight, eps), said, tolerance=1e-8)


BACKWARD = Exercise(
    id="02.2",
    title="The gradient of RMSNorm",
    signature="rms_norm_backward(grad, x, weight, eps)",
    difficulty="some thought",
    minutes=15,
    right=rms_norm_backward,
    cases=backward_cases,
    mistakes=(
        Mistake(
            "the gradient of x treats the root as a constant: the second term is "
            "missing",
            gives=_backward(lambda g, n, r, w, x: r * g * w),
        ),
        Mistake(
            "the gradient of x forgets the weight: g is grad times weight",
            gives=_backward(lambda g, n, r, w, x: r * (g - n * _mean(g * n))),
        ),
        Mistake(
            "the weight is in the first term of the gradient of x, not in the second",
            gives=_backward(lambda g, n, r, w, x: r * (g * w - n * _mean(g * n))),
        ),
        Mistake(
            "the second term has the wrong sign: is the result at right angles to x?",
            gives=_backward(lambda g, n, r, w, x: r * (g * w + n * _mean(g * w * n))),
        ),
        Mistake(
            "the second term has a sum where the formula has a mean",
            gives=_backward(
                lambda g, n, r, w, x: (
                    r * (g * w - n * (g * w * n).sum(-1, keepdims=True))
                )
            ),
        ),
        Mistake(
            "the second term has x where the formula has n",
            gives=_backward(lambda g, n, r, w, x: r * (g * w - x * _mean(g * w * x))),
        ),
        Mistake(
            "the factor r in front is missing: ten times the x means a "
            "tenth of the gradient",
            gives=_backward(lambda g, n, r, w, x: g * w - n * _mean(g * w * n)),
        ),
        Mistake(
            "the mean runs over the tokens or over everything; it is over the "
            "channels of one token",
            gives=_backward(
                lambda g, n, r, w, x: r * (g * w - n * (g * w * n).mean(0))
            ),
        ),
        Mistake(
            "the mean runs over the tokens or over everything; it is over the "
            "channels of one token",
            gives=_backward(lambda g, n, r, w, x: r * (g * w - n * (g * w * n).mean())),
        ),
        Mistake(
            "the gradient of the weight is still one for every token: one weight "
            "serves them all, so what do their gradients do?",
            when=lambda got, want, args: (
                isinstance(got, tuple | list)
                and len(got) == 2
                and np.shape(got[1]) == args[1].shape
            ),
        ),
        Mistake(
            "the gradient of the weight is a mean over the tokens; gradients of one "
            "weight in several places add",
            gives=_backward(into_weight=lambda g, n, r, w, x: (g * n).mean(0)),
        ),
        Mistake(
            "the gradient of the weight is taken from x; the weight multiplies n",
            gives=_backward(into_weight=lambda g, n, r, w, x: (g * x).sum(0)),
        ),
        Mistake(
            "the gradient of the weight has the weight as a factor: y = n * weight is "
            "linear in it",
            gives=_backward(into_weight=lambda g, n, r, w, x: (g * w * n).sum(0)),
        ),
        Mistake(
            "the two gradients are exchanged: that of x comes first",
            gives=lambda *args: rms_norm_backward(*args)[::-1],
        ),
    ),
    hint="compare with a difference: change one x by 1e-6 and see how sum(grad * y) "
    "changes; print r, n and the mean of g * n for one token",
)

# --- 02.3 -------------------------------------------------------------------------


def swiglu(x, w1, w2, w3, *, function=None, both=None):
    """The oracle, in float64; the keywords make the known mistakes."""
    wide, a, b, c = (t.detach().double() for t in (x, w1, w2, w3))
    gate = torch.einsum("...d,fd->...f", wide, a)
    value = torch.einsum("...d,fd->...f", wide, c)
    if both is not None:
        middle = both(gate, value)
    else:
        sigmoid = 0.5 * (1 + torch.tanh(gate / 2))
        middle = (gate * sigmoid if function is None else function(gate)) * value
    return torch.einsum("...f,df->...d", middle, b).to(x.dtype)


def _swiglu(**mistake):
    return lambda x, w1, w2, w3: swiglu(x, w1, w2, w3, **mistake)


def _silu(a):
    return a * torch.sigmoid(a)


def _not_transposed(x, w1, w2, w3):
    middle = torch.nn.functional.silu(x @ w1) * (x @ w3)
    return middle @ w2


def swiglu_cases(rng):
    for shape, inter_dim, dtype, strided, label in (
        ((5, 6), 11, torch.float64, False, "five tokens"),
        ((2, 3, 8), 5, torch.float32, False, "a batch of two"),
        ((7,), 4, torch.float64, False, "a single vector"),
        ((4, 6), 6, torch.float64, False, "a middle as wide as the ends"),
        ((3, 4, 6), 10, torch.float32, True, "tensors that are not contiguous"),
        ((3, 8), 16, torch.bfloat16, False, "bfloat16"),
    ):
        dim = shape[-1]
        x = tensor(rng, *shape, dtype=dtype, strided=strided)
        w1, w3 = (
            tensor(rng, inter_dim, dim, dtype=dtype, strided=strided) for _ in range(2)
        )
        w2 = tensor(rng, dim, inter_dim, dtype=dtype, strided=strided)
        w1, w2, w3 = w1 * dim**-0.5, w2 * inter_dim**-0.5, w3 * dim**-0.5
        if strided:
            w1, w2, w3 = (w.t().contiguous().t() for w in (w1, w2, w3))
        name = str(dtype).removeprefix("torch.")
        said = f"{label}: x {name} {list(shape)}, F {inter_dim}"
        tolerance = 5e-2 if dtype == torch.bfloat16 else None
        yield Case((x, w1, w2, w3), said, tolerance)


SWIGLU = Exercise(
    id="02.3",
    title="SwiGLU from its weights",
    signature="swiglu(x, w1, w2, w3)",
    difficulty="a few lines",
    minutes=8,
    right=swiglu,
    cases=swiglu_cases,
    mistakes=(
        Mistake(
            "silu is on the value; w1 makes the gate, and silu belongs to the gate",
            gives=lambda x, w1, w2, w3: swiglu(x, w3, w2, w1),
        ),
        Mistake(
            "the gate is a sigmoid; silu(a) has a factor a besides",
            gives=_swiglu(function=torch.sigmoid),
        ),
        Mistake(
            "the gate is GELU (that is GEGLU), not silu",
            gives=_swiglu(function=torch.nn.functional.gelu),
        ),
        Mistake(
            "the gate is GELU (that is GEGLU), not silu",
            gives=_swiglu(
                function=lambda a: torch.nn.functional.gelu(a, approximate="tanh")
            ),
        ),
        Mistake(
            "the gate is ReLU, not silu",
            gives=_swiglu(function=torch.relu),
        ),
        Mistake(
            "nothing bends: the gate went through no function",
            gives=_swiglu(function=lambda a: a),
        ),
        Mistake(
            "silu is taken of the product; only the gate goes through it",
            gives=_swiglu(both=lambda gate, value: _silu(gate * value)),
        ),
        Mistake(
            "silu is on both; the value goes through unchanged",
            gives=_swiglu(both=lambda gate, value: _silu(gate) * _silu(value)),
        ),
        Mistake(
            "gate and value are added; a gate multiplies",
            gives=_swiglu(both=lambda gate, value: _silu(gate) + value),
        ),
        Mistake(
            "there is no gate here: w3 is not used",
            gives=_swiglu(both=lambda gate, value: _silu(gate)),
        ),
        Mistake(
            "the matrices are used the other way round: their rows are the outputs",
            gives=_not_transposed,
        ),
        Mistake(
            "this is the middle; w2 leads back to D channels",
            gives=lambda x, w1, w2, w3: (
                _silu(x.double() @ w1.double().mT) * (x.double() @ w3.double().mT)
            ).to(x.dtype),
        ),
        Mistake(
            "something wider than x promotes the result: give back x's dtype",
            when=lambda got, want, args: (
                isinstance(got, torch.Tensor)
                and got.shape == want.shape
                and got.dtype.itemsize > want.dtype.itemsize
            ),
        ),
    ),
    hint="print the shapes of gate and value, both [..., F], and work one channel in "
    "the middle by hand",
)

# --- 02.4 -------------------------------------------------------------------------


def swiglu_width(dim, multiple):
    width = multiple
    while 3 * dim * width < 2 * dim * (4 * dim):
        width += multiple
    return width


def width_cases(rng):
    fixed = ((4096, 256), (96, 64), (100, 1), (256, 31), (2048, 128), (64, 512))
    drawn = (int(rng.integers(300, 9000)), int(rng.integers(3, 300)))
    for dim, multiple in (*fixed, drawn):
        yield Case((dim, multiple), f"dim {dim}, multiple {multiple}")


WIDTH = Exercise(
    id="02.4",
    title="The width at equal cost",
    signature="swiglu_width(dim, multiple)",
    difficulty="one line",
    minutes=5,
    right=swiglu_width,
    cases=width_cases,
    mistakes=(
        Mistake(
            "this is 4 * dim rounded up: how many matrices has SwiGLU, and how many "
            "the MLP?",
            gives=lambda dim, multiple: -(-4 * dim // multiple) * multiple,
        ),
        Mistake(
            "this is a multiple, but rounded down: it costs less than the MLP",
            gives=lambda dim, multiple: 8 * dim // 3 // multiple * multiple,
        ),
        Mistake(
            "this is rounded to the nearest multiple, which may cost less than the MLP",
            gives=lambda dim, multiple: round(8 * dim / 3 / multiple) * multiple,
        ),
        Mistake(
            "a width that is a multiple already is rounded up once more",
            gives=lambda dim, multiple: (8 * dim // 3 // multiple + 1) * multiple,
        ),
        Mistake(
            "8/3 of dim is cut to a whole number before it is rounded up, so that a "
            "width just below it counts as enough",
            gives=lambda dim, multiple: -(-(8 * dim // 3) // multiple) * multiple,
        ),
        Mistake(
            "this is how many multiples, not how many channels",
            gives=lambda dim, multiple: swiglu_width(dim, multiple) // multiple,
        ),
        Mistake(
            "this is not rounded: the width is a multiple of `multiple`",
            gives=lambda dim, multiple: 8 * dim / 3,
        ),
        Mistake(
            "this is not rounded: the width is a multiple of `multiple`",
            gives=lambda dim, multiple: 8 * dim // 3,
        ),
        Mistake(
            "a SwiGLU of two thirds of dim is much smaller than the MLP: its middle is "
            "4 * dim wide",
            gives=lambda dim, multiple: -(-2 * dim // (3 * multiple)) * multiple,
        ),
    ),
    hint="count both: the MLP has 2 * dim * (4 * dim) parameters, yours has 3 * dim * "
    "width; the next smaller multiple should have fewer than the MLP",
)

EXERCISES = (NORM, BACKWARD, SWIGLU, WIDTH)
