"""Exercise 08.2, ways to choose: the oracle multiplies and divides factor by factor.

A float passes no more than a wrong number does: the last case has more digits than a
float holds, and then the type is looked at.
"""

import math
from dataclasses import replace

import numpy as np

from deepseek_mini.lesson.explain import NotYet
from deepseek_mini.lesson.judge import call, judge_exercise
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def ways_to_choose(n_experts, n_activated, m, n_shared):
    """The oracle: factors one by one, each division exact."""
    n, k, ways = m * n_experts - n_shared, m * n_activated - n_shared, 1
    for i in range(k):
        ways = ways * (n - i) // (i + 1)
    return ways


def ways_cases(rng):
    n = int(rng.integers(5, 9))
    yield Case((n, 2, 1, 0))
    yield Case((n, 3, 2, 0))
    yield Case((n, 2, 3, 1))
    yield Case((int(rng.integers(9, 12)), 2, 3, 2))
    yield Case((16, 2, 4, int(rng.integers(1, 3))))
    yield Case((16, 8, 4, 1))  # 18 digits: a float has 15 to 17


def judge_ways(theirs, rng):
    """The values as always; then that they are whole numbers, not floats."""
    judge_exercise(replace(WAYS, judge=None), theirs, rng)
    got = call(theirs, 4, 2, 2, 1, exercise=WAYS)
    if not isinstance(got, int | np.integer):
        raise NotYet(
            f"the result is {got}, a {type(got).__name__}, but should be an int",
            "a float holds 15 to 17 digits, this may have more: `/` and float() "
            "make one",
        )


def _rounded(got, want, args):
    """A number that is near, not exact."""
    return isinstance(got, int | float | np.number) and abs(got - want) < 1e-9 * want


WAYS = Exercise(
    id="08.2",
    title="Ways to choose",
    signature="ways_to_choose(n_experts, n_activated, m, n_shared)",
    difficulty="one line",
    minutes=8,
    right=ways_to_choose,
    cases=ways_cases,
    judge=judge_ways,
    mistakes=(
        Mistake(
            "only the last digits differ: on the way it was a float, which holds 15 to "
            "17 digits; stay with whole numbers from the first step to the last",
            when=_rounded,
        ),
        Mistake(
            "the order counts here: choosing experts 3 and 5 is the same as choosing 5 "
            "and 3",
            gives=lambda E, K, m, s: math.perm(m * E - s, m * K - s),
        ),
        Mistake(
            "the shared experts are still among those to choose from and to be chosen: "
            "they serve every token, so there is nothing to choose",
            gives=lambda E, K, m, s: math.comb(m * E, m * K),
        ),
        Mistake(
            "a token's shared experts count among those that it gets, so the router "
            "has fewer to choose",
            gives=lambda E, K, m, s: math.comb(m * E - s, m * K),
        ),
        Mistake(
            "the shared experts are none of those that the router can choose from",
            gives=lambda E, K, m, s: math.comb(m * E, m * K - s),
        ),
        Mistake(
            "m times as many shared experts are taken off: n_shared counts narrow ones",
            gives=lambda E, K, m, s: math.comb(m * (E - s), m * (K - s)),
        ),
        Mistake(
            "the shared experts come on top here: they are some of the narrow experts "
            "there are, not more of them",
            gives=lambda E, K, m, s: math.comb(m * E + s, m * K + s),
        ),
        Mistake(
            "only the experts are cut: a token gets m times as many of them",
            gives=lambda E, K, m, s: math.comb(m * E - s, K - s),
        ),
        Mistake(
            "the experts are not cut: m does not appear",
            gives=lambda E, K, m, s: math.comb(E - s, K - s),
        ),
        Mistake(
            "the ways of whole experts were multiplied by m, or raised to it: count "
            "the narrow experts, and choose among all of them",
            when=lambda got, want, a: (
                got in (a[2] * math.comb(a[0], a[1]), math.comb(a[0], a[1]) ** a[2])
            ),
        ),
    ),
    hint="write down how many narrow experts the router sees, and how many of them a "
    "token gets by choice; then count sets",
)
