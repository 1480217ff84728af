"""Exercise 06.3: the oracle takes one number at a time."""

import math

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, array
from deepseek_mini.lesson.oracles.several import in_another_order


def adamw(
    w, grad, m, v, step, lr, beta1, beta2, eps, decay, *, late=0, correct=(True, True),
    coupled=False, **mistake
):  # fmt: skip
    """The oracle: one number at a time."""
    new = [np.empty_like(w) for _ in range(3)]
    for i in np.ndindex(*w.shape):
        g = grad[i] + (decay * w[i] if coupled else 0)
        mean = beta1 * m[i] + (1 - beta1) * g
        square = beta2 * v[i] + (1 - beta2) * g * g
        up = mean / (1 - beta1 ** (step + late) if correct[0] else 1)
        down = square / (1 - beta2 ** (step + late) if correct[1] else 1)
        if mistake.get("eps_inside"):
            move = up / math.sqrt(down + eps)
        else:
            move = up / (math.sqrt(down) + eps)
        shrink = 0 if coupled else decay * (1 if mistake.get("rate_free") else lr)
        if mistake.get("no_decay"):
            shrink = 0
        start = w[i] * (1 - shrink)
        if mistake.get("decay_last"):
            values = ((w[i] - lr * move) * (1 - shrink), mean, square)
        elif mistake.get("keeps_corrected"):
            values = (start - lr * move, up, down)
        else:
            values = (start - lr * move, mean, square)
        for array_, value in zip(new, values):
            array_[i] = value
    return tuple(new)


def _stepping(**mistake):
    return lambda *args: adamw(*args, **mistake)


def _corrected_by(power):
    """1 - power(beta, step) in place of 1 - beta^step."""

    def wrong(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
        _, mean, square = adamw(w, grad, m, v, step, lr, beta1, beta2, eps, decay)
        up = mean / (1 - power(beta1, step))
        down = square / (1 - power(beta2, step))
        return (1 - lr * decay) * w - lr * up / (np.sqrt(down) + eps), mean, square

    return wrong


def _corrected_first(kept):
    """The old m and v are divided, and their means are used as they come out."""

    def wrong(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
        old = m / (1 - beta1**step), v / (1 - beta2**step)
        up = beta1 * old[0] + (1 - beta1) * grad
        down = beta2 * old[1] + (1 - beta2) * grad**2
        moved = (1 - lr * decay) * w - lr * up / (np.sqrt(down) + eps)
        if kept:
            return moved, up, down
        return moved, *adamw(w, grad, m, v, step, lr, beta1, beta2, eps, decay)[1:]

    return wrong


def _not_squared(got, want, args):
    """v is a mean of the gradient itself; so w may be NaN."""
    _, grad, _, v, _, _, _, beta2, *_ = args
    return np.allclose(got[2], beta2 * v + (1 - beta2) * grad)


def _root_of_negative(got, want, args):
    """w is NaN somewhere, though m and v are right."""
    right = all(np.allclose(a, b) for a, b in zip(got[1:], want[1:]))
    return right and bool(np.isnan(got[0]).any())


def adamw_cases(rng):
    for shape, step, strided, label in (
        ((3, 4), 1, False, "the first step"),
        ((5,), 7, False, "the seventh step, one axis"),
        ((2, 3, 4), 200, True, "arrays that are not contiguous"),
    ):
        w, grad, m = (array(rng, *shape, strided=strided) for _ in range(3))
        v = np.square(array(rng, *shape)) + 0.01
        if step == 1:
            m, v = np.zeros(shape), np.zeros(shape)
        rates = (float(rng.uniform(0.05, 0.2)), 0.8, float(rng.uniform(0.9, 0.97)))
        yield Case((w, grad, m, v, step, *rates, 0.02, 0.3), label)


ADAMW = Exercise(
    id="06.3",
    title="One step of AdamW",
    signature="adamw(w, grad, m, v, step, lr, beta1, beta2, eps, decay)",
    difficulty="from the paper",
    minutes=12,
    right=adamw,
    cases=adamw_cases,
    mistakes=(
        Mistake(
            "the decay went into the gradient, where Adam divides it away again; that "
            "is Adam with an L2 penalty, and not AdamW",
            gives=_stepping(coupled=True),
        ),
        Mistake(
            "m and v are not corrected: they start at 0, and are too small at first",
            gives=_stepping(correct=(False, False)),
        ),
        Mistake(
            "only m is corrected; v starts at 0 as well",
            gives=_stepping(correct=(True, False)),
        ),
        Mistake(
            "only v is corrected; m starts at 0 too",
            gives=_stepping(correct=(False, True)),
        ),
        Mistake(
            "the corrected m and v were kept; the next step needs those that are not",
            gives=_stepping(keeps_corrected=True),
        ),
        Mistake(
            "the decay is in the gradient as well, and so in m and v; it acts on the "
            "weights alone",
            gives=lambda w, grad, *rest: adamw(w, grad + rest[-1] * w, *rest),
        ),
        Mistake("eps stands outside the square root", gives=_stepping(eps_inside=True)),
        Mistake(
            "the correction is one step ahead: the first step is number 1",
            gives=_stepping(late=1),
        ),
        Mistake(
            "the correction is that of the first step at every step: beta is to be "
            "raised to the power of the step",
            gives=_corrected_by(lambda beta, step: beta),
        ),
        Mistake(
            "w has a NaN, the root of a negative number: beta to the power of the step "
            "is between 0 and 1, so print what you divide v by",
            when=_root_of_negative,
        ),
        *(
            Mistake(
                "the old m and v are corrected, before the gradient is in them; "
                "correct the new ones",
                gives=_corrected_first(kept),
            )
            for kept in (True, False)
        ),
        Mistake(
            "v is the running mean of the gradient's square, which is never negative",
            when=_not_squared,
        ),
        in_another_order("the three arrays are right; they are asked for as w, m, v"),
        Mistake(
            "the decay is multiplied by the learning rate, too",
            gives=_stepping(rate_free=True),
        ),
        Mistake("the decay is missing", gives=_stepping(no_decay=True)),
        Mistake(
            "the decay shrinks the weights from before the step, not those after it",
            gives=_stepping(decay_last=True),
        ),
    ),
    hint="compute the second step of the example by hand, formula by formula, and "
    "print what your code has after each: which is the first that differs?",
)
