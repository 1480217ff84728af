"""Exercise 17.2, the KL from samples: the oracle takes one number at a time."""

import math

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def kl_estimate(logps, ref_logps):
    """The oracle: with expm1, number by number."""
    pairs = zip(logps.ravel().tolist(), ref_logps.ravel().tolist())
    flat = [math.expm1(r - p) + (p - r) for p, r in pairs]
    return np.array(flat).reshape(logps.shape)


def _of_ratio(estimate):
    """A wrong version as a function of log(π_ref / π)."""
    return lambda logps, ref_logps: estimate(ref_logps - logps)


def kl_cases(rng):
    for shape, spread, label in (
        ((2, 5), 0.8, "two answers"),
        ((1, 1), 1.5, "one token"),
        ((3, 4), 0.3, "models that are near each other"),
        ((4, 3), 2.0, "models that are far from each other"),
    ):
        logps = -rng.uniform(0.1, 3, size=shape)
        ref_logps = np.minimum(logps + rng.normal(size=shape) * spread, -0.01)
        yield Case((logps, ref_logps), f"{label}: {list(shape)}")


_REVERSED = (
    "the ratio is upside down: what the reference gives stands above the line, and "
    "what the policy gives below"
)

KL = Exercise(
    id="17.2",
    title="A KL that is never negative",
    signature="kl_estimate(logps, ref_logps)",
    difficulty="a few lines",
    minutes=7,
    right=kl_estimate,
    cases=kl_cases,
    mistakes=(
        Mistake(
            "this is -log x alone: right in the mean, but negative wherever the "
            "reference finds a token likelier",
            gives=_of_ratio(lambda log_x: -log_x),
        ),
        Mistake(_REVERSED, gives=_of_ratio(lambda log_x: np.exp(-log_x) + log_x - 1)),
        Mistake(_REVERSED, gives=_of_ratio(lambda log_x: log_x)),
        Mistake(
            "the sign is reversed: this is never positive",
            gives=_of_ratio(lambda log_x: 1 + log_x - np.exp(log_x)),
        ),
        Mistake(
            "the 1 is missing: equal models should have a distance of 0",
            gives=_of_ratio(lambda log_x: np.exp(log_x) - log_x),
        ),
        Mistake(
            "1 is added: equal models should have a distance of 0",
            gives=_of_ratio(lambda log_x: np.exp(log_x) - log_x + 1),
        ),
        Mistake(
            "log x is added: take it away, or equal models are not at the minimum",
            gives=_of_ratio(lambda log_x: np.exp(log_x) + log_x - 1),
        ),
        Mistake(
            "half the square of log x is close for models that are near each other, "
            "and another number for others",
            gives=_of_ratio(lambda log_x: log_x**2 / 2),
        ),
        Mistake(
            "the square of log x is not this estimate",
            gives=_of_ratio(lambda log_x: log_x**2),
        ),
        Mistake(
            "a distance without a sign is biased: this is |log x|",
            gives=_of_ratio(np.abs),
        ),
        Mistake(
            "the negative ones were set to 0, which makes the mean too large: the rest "
            "of the formula takes care of the sign",
            gives=_of_ratio(lambda log_x: np.maximum(-log_x, 0.0)),
        ),
        Mistake(
            "x is a ratio of probabilities, and these are their logarithms",
            gives=lambda p, r: r / p - np.log(r / p) - 1,
        ),
        Mistake(
            "log x took the place of x as well: x itself is its exponential",
            gives=_of_ratio(lambda log_x: log_x - log_x - 1),
        ),
        Mistake(
            "each term is weighed with the token's probability: the tokens were drawn "
            "by it already",
            gives=lambda p, r: np.exp(p) * (np.exp(r - p) - (r - p) - 1),
        ),
        Mistake(
            "each term is weighed with the token's probability: the tokens were drawn "
            "by it already",
            gives=lambda p, r: np.exp(p) * (p - r),
        ),
        Mistake(
            "this is the mean: return the estimate of every token",
            when=lambda got, want, args: np.ndim(got) == 0 and want.ndim == 2,
        ),
    ),
    exact_dtype=False,
    hint="print log x and x for one token: which of the three terms is off?",
)
