"""Exercise 02.1: the oracle is a vector over its Euclidean length."""

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, array


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


def _narrow(x, weight, eps):
    """In float32 throughout, whatever comes in."""
    x, weight = x.astype(np.float32), weight.astype(np.float32)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + np.float32(eps)) * weight


def _rounded_on_the_way(got, want, args):
    """Right to float32's digits, where float64 came in."""
    return (
        isinstance(got, np.ndarray)
        and args[0].dtype == np.float64
        and got.shape == want.shape
        and np.abs(got - want).max() <= 3e-6 * max(1, np.abs(want).max())
    )


def _along_second_axis(x, weight, eps):
    wide = x.astype(np.float64)
    root = np.sqrt((wide**2).mean(1, keepdims=True) + eps)
    return (wide / root * weight).astype(x.dtype)


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
            "right to about 7 digits: float64 is rounded to float32 on the way",
            when=_rounded_on_the_way,
        ),
        Mistake(
            "the mean runs along axis 1, which is that of the channels only where x "
            "has two axes: the channels are the last axis",
            gives=_along_second_axis,
        ),
        Mistake(
            "with a single vector there is no axis 1: the channels are the last axis",
            raises="^AxisError",
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
