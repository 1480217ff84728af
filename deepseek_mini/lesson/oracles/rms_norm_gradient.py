"""Exercise 02.2: the oracle is autograd's gradient."""

import numpy as np
import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, array


def rms_norm_backward(grad, x, weight, eps):
    """Autograd through the norm, written as a product with a power."""
    leaves = [
        torch.tensor(a, dtype=torch.float64).requires_grad_() for a in (x, weight)
    ]
    mean_square = torch.linalg.vector_norm(leaves[0], dim=-1) ** 2 / x.shape[-1]
    y = leaves[1] * leaves[0] * (mean_square + eps).pow(-0.5).unsqueeze(-1)
    y.backward(torch.tensor(grad, dtype=torch.float64))
    return tuple(leaf.grad.numpy() for leaf in leaves)


def _mean(x):
    return x.mean(-1, keepdims=True)


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


def _r_as_the_root(grad, x, weight, eps):
    r = np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    n, g = r * x, grad * weight
    return r * (g - n * _mean(g * n)), (grad * n).sum(0)


def backward_cases(rng):
    for n, dim, scale, eps, strided, label in (
        (5, 8, 1.0, 1e-2, False, "five tokens"),
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
            "both gradients are asked for: return both, that of x first",
            when=lambda got, want, args: not isinstance(got, tuple | list),
        ),
        Mistake(
            "the gradient of the weight is one number, but there is one weight for "
            "each channel: sum over the tokens only, axis 0",
            when=lambda got, want, args: np.shape(got[1]) == (),
        ),
        Mistake(
            "the gradient of the weight is summed over the channels: sum over the "
            "tokens, axis 0",
            gives=_backward(into_weight=lambda g, n, r, w, x: (g * n).sum(-1)),
        ),
        Mistake(
            "eps is forgotten in the root",
            gives=lambda grad, x, weight, eps: rms_norm_backward(grad, x, weight, 0.0),
        ),
        Mistake(
            "r is one over the root, not the root itself",
            gives=_r_as_the_root,
        ),
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
