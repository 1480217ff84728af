"""Exercise 13.5, the three products, and the numbers of E4M3 as a list.

The oracle rounds by search in the list.
"""

import numpy as np
import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake

# Every number of E4M3 from 0 to 448, by its code: subnormal, then power by power. The
# last one would be 480, whose code means NaN.
NUMBERS = np.array(
    [m * 2.0**-9 for m in range(8)]
    + [(8 + m) * 2.0 ** (power - 3) for power in range(-6, 9) for m in range(8)]
)[:-1]


def nearest(x):
    """Found by search; halfway the number with the even code."""
    x = np.asarray(x, dtype=np.float64)
    size = np.minimum(np.abs(x), NUMBERS[-1])
    above = np.searchsorted(NUMBERS, size).clip(1)
    low, high = NUMBERS[above - 1], NUMBERS[above]
    take_low = (size - low < high - size) | (
        (size - low == high - size) & (above % 2 == 1)
    )
    return np.copysign(np.where(take_low, low, high), x)


def blocks_rounded(x, rows, columns):
    """E4M3 with a scale for each block; the quotient is taken in float32."""
    x = np.asarray(x, dtype=np.float32)
    amax = np.abs(x)
    for axis, size in ((0, rows), (1, columns)):
        amax = np.maximum.reduceat(amax, np.arange(0, x.shape[axis], size), axis)
    scale = amax / np.float32(448)
    scale[scale == 0] = 1
    i, j = (np.arange(n) // size for n, size in zip(x.shape, (rows, columns)))
    scale = scale[np.ix_(i, j)]  # of every element
    return nearest(x / scale).astype(np.float32) * scale


def three_products(x, weight, grad, size, *, instead=lambda x, w, g, n: {}):
    """The oracle, from six factors; `instead` gives those of a known mistake."""
    x, w, g = (np.asarray(t, dtype=np.float32) for t in (x, weight, grad))
    n = size
    xq, wq = blocks_rounded(x, 1, n), blocks_rounded(w, n, n)
    factors = {
        "y_x": xq,
        "y_w": wq,
        "dx_g": blocks_rounded(g, 1, n),
        "dx_w": wq,
        "dw_g": blocks_rounded(g, n, 1),
        "dw_x": blocks_rounded(xq, n, 1),
        **instead(x, w, g, n),
    }
    y = factors["y_x"] @ factors["y_w"].T
    dx = factors["dx_g"] @ factors["dx_w"]
    dw = factors["dw_g"].T @ factors["dw_x"]
    return tuple(torch.from_numpy(p.astype(np.float32)) for p in (y, dx, dw))


def product_cases(rng):
    for N, D, out, size, label in (
        (16, 24, 32, 8, "whole tiles"),
        (13, 18, 7, 8, "tiles that are not full"),
        (1, 12, 9, 4, "one token"),
        (20, 5, 11, 4, "few channels"),
    ):
        x, w, g = (
            torch.from_numpy(rng.normal(size=s) * np.exp(rng.normal(size=s))).float()
            for s in ((N, D), (out, D), (N, out))
        )
        said = f"{label}: x [{N}, {D}], weight [{out}, {D}], size {size}"
        yield Case((x, w, g, size), said, tolerance=1e-5)


def _mistaken(hint, instead):
    def gives(x, weight, grad, size):
        return three_products(x, weight, grad, size, instead=instead)

    return Mistake(hint, gives=gives)


def _twice(x, first, second):
    """Rounded in blocks of one shape, and the result in blocks of another."""
    return blocks_rounded(blocks_rounded(x, *first), *second)


def _all_square(x, w, g, n):
    xq, gq = blocks_rounded(x, n, n), blocks_rounded(g, n, n)
    return {"y_x": xq, "dx_g": gq, "dw_g": gq, "dw_x": blocks_rounded(xq, n, n)}


def _whole_rows(x, w, g, n):
    N, D = x.shape
    return {
        "y_x": blocks_rounded(x, 1, D),
        "dx_g": blocks_rounded(g, 1, g.shape[1]),
        "dw_g": blocks_rounded(g, N, 1),
        "dw_x": _twice(x, (1, D), (N, 1)),
    }


def _swapped(x, weight, grad, size):
    y, dx, dw = three_products(x, weight, grad, size)
    return y, dw, dx


PRODUCTS = Exercise(
    id="13.5",
    title="The three products",
    signature="three_products(x, weight, grad, size)",
    difficulty="from the paper",
    minutes=20,
    right=three_products,
    cases=product_cases,
    mistakes=(
        _mistaken(
            "dW sums over tokens, so the tiles of both factors lie along the tokens",
            lambda x, w, g, n: {
                "dw_g": blocks_rounded(g, 1, n),
                "dw_x": blocks_rounded(x, 1, n),
            },
        ),
        *(
            _mistaken(
                "the weight's blocks are square: with tiles the second product would "
                "need other bytes",
                lambda x, w, g, n, first=first, second=second: {
                    "y_w": blocks_rounded(w, *(n if long else 1 for long in first)),
                    "dx_w": blocks_rounded(w, *(n if long else 1 for long in second)),
                },
            )
            for first, second in (
                ((False, True), (False, True)),
                ((True, False), (True, False)),
                ((False, True), (True, False)),
            )
        ),
        _mistaken(
            "only the weight's blocks are square: the tiles of x and dY are one number "
            "wide",
            _all_square,
        ),
        _mistaken("the tiles are `size` numbers long, not whole rows", _whole_rows),
        _mistaken(
            "the gradients of Y are not rounded: all three products have two factors "
            "in FP8",
            lambda x, w, g, n: {"dx_g": g, "dw_g": g},
        ),
        _mistaken(
            "only the first product is rounded",
            lambda x, w, g, n: {"dx_g": g, "dx_w": w, "dw_g": g, "dw_x": x},
        ),
        _mistaken("the weight of dX is not rounded", lambda x, w, g, n: {"dx_w": w}),
        _mistaken("dY is not rounded for dX", lambda x, w, g, n: {"dx_g": g}),
        _mistaken(
            "the factors of dW are not rounded",
            lambda x, w, g, n: {"dw_g": g, "dw_x": x},
        ),
        _mistaken("dY is not rounded for dW", lambda x, w, g, n: {"dw_g": g}),
        _mistaken(
            "dY is rounded from itself for dW, not from what dX used",
            lambda x, w, g, n: {"dw_g": _twice(g, (1, n), (n, 1))},
        ),
        _mistaken(
            "dY is not rounded anew for dW: its tiles are those of dX, which lie along "
            "the outputs",
            lambda x, w, g, n: {"dw_g": blocks_rounded(g, 1, n)},
        ),
        _mistaken(
            "x is not rounded for dW: its rounded form was kept, and that is rounded "
            "again",
            lambda x, w, g, n: {"dw_x": x},
        ),
        _mistaken(
            "x itself is no longer there when dW is computed: only its rounded form "
            "was kept, and that is rounded again",
            lambda x, w, g, n: {"dw_x": blocks_rounded(x, n, 1)},
        ),
        _mistaken(
            "x is not rounded again for dW: its tiles are those of the first product, "
            "which lie along the channels",
            lambda x, w, g, n: {"dw_x": blocks_rounded(x, 1, n)},
        ),
        _mistaken(
            "the first product sums over channels, so the tiles of x lie along them",
            lambda x, w, g, n: {
                "y_x": blocks_rounded(x, n, 1),
                "dw_x": _twice(x, (n, 1), (n, 1)),
            },
        ),
        _mistaken(
            "nothing is rounded",
            lambda x, w, g, n: (
                {"y_x": x, "y_w": w, "dx_g": g, "dx_w": w, "dw_g": g, "dw_x": x}
            ),
        ),
        Mistake("dX and dW have changed places", gives=_swapped),
    ),
    hint="look at one output at a time, and say for each of its two factors along "
    "which axis the product sums",
)
