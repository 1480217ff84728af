"""Exercise 06.5: the oracle adds up over pairs of points."""

import math

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.several import in_another_order, in_one_array


def power_law(x, y, *, freedom=2, root=True, **mistake):
    """The oracle: sums over pairs of points."""
    points = [(math.log(p), math.log(q)) for p, q in zip(x, y)]
    n = len(points)
    spread = sum((p - r) ** 2 for p, _ in points for r, _ in points) / (2 * n)
    together = sum((p - r) * (q - s) for p, q in points for r, s in points) / (2 * n)
    b = together / spread
    at_one = sum(q - b * p for p, q in points) / n
    rest = sum((q - at_one - b * p) ** 2 for p, q in points) / (n - freedom)
    variance = rest if mistake.get("of_residuals") else rest / spread
    return (
        at_one if mistake.get("log_a") else math.exp(at_one),
        b,
        math.sqrt(variance) if root else variance,
    )


def _fitting(**mistake):
    return lambda *args: power_law(*args, **mistake)


def _straight_line(x, y):
    """A line through the points as they are."""
    return power_law(np.exp(x), np.exp(y), log_a=True)


def _error(change):
    """The right law; its error is `change(error, p, r)` of logarithms, residuals."""

    def wrong(x, y):
        a, b, error = power_law(x, y)
        p = np.log(x)
        return a, b, float(change(error, p, np.log(y) - math.log(a) - b * p))

    return wrong


def _through_the_origin(spread_of_p):
    """The slope of sums of products, without the means."""

    def wrong(x, y):
        p, q = np.log(x), np.log(y)
        b = float((p * q).sum() / (p * p).sum())
        log_a = float(q.mean() - b * p.mean())
        spread = np.square(p if spread_of_p else p - p.mean()).sum()
        rest = np.square(q - log_a - b * p).sum() / (len(p) - 2) / spread
        return math.exp(log_a), b, float(np.sqrt(rest))

    return wrong


def _plain_residuals(x, y):
    """The residuals of y in place of those of its logarithm."""
    a, b, _ = power_law(x, y)
    p = np.log(x)
    rest = np.square(y - a * x**b).sum() / (len(x) - 2)
    return a, b, float(np.sqrt(rest / np.square(p - p.mean()).sum()))


def law_cases(rng):
    for n, exponent, label in (
        (6, -0.3, ""),
        (3, 0.5, "three points"),
        (9, -0.05, "an exponent near 0"),
    ):
        x = np.exp(rng.uniform(-1, 1) + rng.permutation(n) * 0.7)
        noise = np.exp(0.05 * rng.standard_normal(n))
        yield Case((x, rng.uniform(2, 5) * x**exponent * noise), label, tolerance=1e-7)


LAW = Exercise(
    id="06.5",
    title="A power law and its uncertainty",
    signature="power_law(x, y)",
    difficulty="some thought",
    minutes=15,
    right=power_law,
    cases=law_cases,
    exact_dtype=False,
    mistakes=(
        Mistake(
            "this is a straight line through the points; a power law is one through "
            "their logarithms",
            gives=_straight_line,
        ),
        Mistake("a is e to the line's value at 0", gives=_fitting(log_a=True)),
        Mistake(
            "a was taken from a logarithm of another base",
            when=lambda got, want, _: any(
                np.allclose(got, (other, *want[1:]))
                for other in (10 ** math.log(want[0]), math.exp(math.log10(want[0])))
            ),
        ),
        Mistake(
            "two numbers were fitted, so n - 2 residuals are free, not n",
            gives=_fitting(freedom=0),
        ),
        Mistake(
            "two numbers were fitted, so n - 2 residuals are free, not n - 1",
            gives=_fitting(freedom=1),
        ),
        Mistake(
            "this is the variance of b; its square root is asked for",
            gives=_fitting(root=False),
        ),
        Mistake(
            "this is how far the points are from the line; b's error also depends on "
            "how far apart the points lie on the x axis",
            gives=_fitting(of_residuals=True),
        ),
        Mistake(
            "the spread of the p is their sum of squares about the mean, and here it "
            "is divided by their number",
            gives=_error(lambda error, p, r: error * math.sqrt(len(p))),
        ),
        Mistake(
            "the spread of the p is their sum of squares about the mean, and here it "
            "is divided by their number less one",
            gives=_error(lambda error, p, r: error * math.sqrt(len(p) - 1)),
        ),
        Mistake(
            "this is the standard error of ln a; that of b is asked for",
            gives=_error(
                lambda error, p, r: error * math.sqrt(float(np.square(p).mean()))
            ),
        ),
        Mistake(
            "the residuals are not in this error: points far from the line should "
            "make it larger",
            gives=_error(
                lambda error, p, r: 1 / math.sqrt(np.square(p - p.mean()).sum())
            ),
        ),
        Mistake(
            "the residuals are those of the straight line, so between logarithms",
            gives=_plain_residuals,
        ),
        *(
            Mistake(
                "this is the slope of a line through the origin: p and q are to be "
                "taken from their means",
                gives=_through_the_origin(spread_of_p),
            )
            for spread_of_p in (True, False)
        ),
        in_another_order("all three are right; they are asked for as a, b, s_b"),
        in_one_array("a, b, error"),
        Mistake(
            "x and y have changed places",
            gives=lambda x, y: power_law(y, x),
        ),
        Mistake(
            "the exponent's sign is wrong: the law is a x^b, also when it falls",
            gives=lambda x, y: (
                power_law(x, y)[0],
                -power_law(x, y)[1],
                power_law(x, y)[2],
            ),
        ),
    ),
    hint="draw ln y over ln x with your line; then compare each of the three numbers "
    "with the example",
)
