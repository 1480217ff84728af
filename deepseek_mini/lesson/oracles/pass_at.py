"""Exercise 18.1, pass@k: the oracle draws one answer after the other."""

from fractions import Fraction
from math import comb

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake

TOLERANCE = 1e-6


def pass_at_k(n, correct, k):
    """The oracle: the chance that k draws without putting back all miss."""
    chances = []
    for c in correct.tolist():
        missed = Fraction(1)
        for drawn in range(k):
            missed *= Fraction(max(n - c - drawn, 0), n - drawn)
        chances.append(1 - missed)
    return float(sum(chances) / len(chances))


def _mean(chance):
    """The mean over problems of chance(n, c, k)."""

    def wrong(n, correct, k):
        return float(np.mean([chance(n, int(c), k) for c in correct]))

    return wrong


def _pooled(n, correct, k):
    total, right = n * len(correct), int(correct.sum())
    return 1 - comb(total - right, k) / comb(total, k)


def _mean_first(n, correct, k):
    c = round(float(correct.mean()))
    return 1 - comb(n - c, k) / comb(n, k)


def _summed(n, correct, k):
    return pass_at_k(n, correct, k) * len(correct)


def pass_cases(rng):
    for n, k, P, label in (
        (8, 3, 5, "five problems"),
        (16, 4, 1, "one problem"),
        (9, 2, 6, "a problem never and one always right"),
        (6, 5, 4, "more draws than wrong answers"),
        (10, 1, 3, "k = 1"),
        (200, 100, 3, "many answers, large binomials"),
        (7, 7, 4, "all answers drawn"),
    ):
        correct = rng.integers(1, n // 2 + 1, size=P)
        if "never" in label:
            correct[:2] = 0, n
        if "all answers" in label:
            correct[:2] = 0, 1
        if "more draws" in label:
            correct = rng.integers(2, n, size=P)
        yield Case((n, correct, k), label, TOLERANCE)


PASS = Exercise(
    id="18.1",
    title="pass@k without bias",
    signature="pass_at_k(n, correct, k)",
    difficulty="a few lines",
    minutes=8,
    right=pass_at_k,
    cases=pass_cases,
    mistakes=(
        Mistake(
            "this draws with putting back, as if c/n were the true chance: each of n "
            "answers can be drawn once",
            gives=_mean(lambda n, c, k: 1 - (1 - c / n) ** k),
        ),
        Mistake(
            "this is the chance that all k are right: one is enough",
            gives=_mean(lambda n, c, k: comb(c, k) / comb(n, k)),
        ),
        Mistake(
            "this is the chance that not all k are right: it should be that not all "
            "are wrong",
            gives=_mean(lambda n, c, k: 1 - comb(c, k) / comb(n, k)),
        ),
        Mistake(
            "this is the chance that no answer is right",
            gives=_mean(lambda n, c, k: comb(n - c, k) / comb(n, k)),
        ),
        Mistake(
            "this is pass@1, whatever k is: k plays no part",
            gives=_mean(lambda n, c, k: c / n),
        ),
        Mistake(
            "k times the chance of one counts two right answers twice",
            gives=_mean(lambda n, c, k: min(1.0, k * c / n)),
        ),
        Mistake(
            "this asks whether any of the n answers is right, not any of k drawn",
            gives=_mean(lambda n, c, k: float(c > 0)),
        ),
        Mistake(
            "the answers of all problems went into one pot: each problem has its own n",
            gives=_pooled,
        ),
        Mistake(
            "the mean is taken of c, and then pass@k of that: take the mean last, for "
            "pass@k is no straight line in c",
            gives=_mean_first,
        ),
        Mistake("the problems are added up: their mean is wanted", gives=_summed),
        Mistake(
            "one number for each problem: their mean is wanted",
            when=lambda got, *_: isinstance(got, np.ndarray | list),
        ),
    ),
    exact_dtype=False,
    hint="take n = 4, c = 2, k = 2, write down all six pairs, and count",
)
