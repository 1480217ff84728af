"""Exercise 03.4, YaRN: the oracle walks over the pairs one by one, in Python floats."""

import math

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def inverse_frequencies(head_dim, theta):
    ratio = math.exp(-2 * math.log(theta) / head_dim)  # each from the one before
    return np.array([ratio**i for i in range(head_dim // 2)])


def yarn_inverse_frequencies(
    head_dim, theta, factor, original_seq_len, beta_fast, beta_slow, **mistake
):
    """The oracle: a loop over the pairs; the keywords make the known mistakes."""
    turn, base = mistake.get("turn", 2 * math.pi), mistake.get("base", theta)
    down, up = mistake.get("rounding", (math.floor, math.ceil))
    lowest = mistake.get("lowest", 0)
    highest = mistake.get("highest", lambda d: d - 1)(head_dim)

    def pair(turns):  # the pair that turns so many times within the original context
        return head_dim / 2 * math.log(original_seq_len / turns / turn, base)

    low, high = max(down(pair(beta_fast)), lowest), min(up(pair(beta_slow)), highest)
    steps = (high - low or 0.001) + mistake.get("longer", 0)
    if mistake.get("forwards"):
        steps = max(steps, 0.001)
    freqs = []
    for i, plain in enumerate(inverse_frequencies(head_dim, theta)):
        keep = 1 - min(max((i - low) / steps, 0.0), 1.0)
        if mistake.get("in_turns"):  # the paper's ramp
            turns = original_seq_len * plain / turn
            share = (turns - beta_slow) / (beta_fast - beta_slow)
            keep = min(max(share, 0.0), 1.0)
        blend = mistake.get("blend", _blended)
        freqs.append(blend(keep, plain, plain / factor))
    return np.array(freqs)


def _blended(keep, plain, divided):
    return keep * plain + (1 - keep) * divided


def _with(**mistake):
    return lambda *args: yarn_inverse_frequencies(*args, **mistake)


def _betas_exchanged(**mistake):
    return lambda d, t, s, n, fast, slow: yarn_inverse_frequencies(
        d, t, s, n, slow, fast, **mistake
    )


def _share_outside(got, want, args):
    """Whether some pair is faster than it was, or slower than divided."""
    plain = inverse_frequencies(args[0], args[1])
    share = (got - plain / args[2]) / (plain - plain / args[2])
    return bool((share > 1 + 1e-6).any() or (share < -1e-6).any())


def _not_a_number(got, want, args):
    return bool(np.isnan(got).any())


def yarn_cases(rng):
    theta, length = int(rng.integers(8_000, 20_000)), int(rng.integers(2000, 9000))
    fast, slow = int(rng.integers(20, 40)), round(float(rng.uniform(1, 3)), 1)
    s = [round(float(rng.uniform(3, 50)), 1) for _ in range(5)]
    for numbers, label in (
        ((64, 10_000, 40, 4096, 32, 1), "DeepSeek-V3's numbers"),
        ((128, theta, s[0], length, fast, slow), "a wider head"),
        ((32, 10_000, s[1], 64, fast, slow), "a ramp that would start before pair 0"),
        ((64, 10_000, s[2], 131_072, 32, 1), "a ramp that ends after the last pair"),
        ((64, 100, s[3], 8192, 32, 0.1), "a ramp that would end after d - 1"),
        ((32, 10_000, s[4], 64, 32, 12), "a ramp that starts and ends at pair 0"),
    ):
        d, theta, factor, length, fast, slow = numbers
        args = (d, float(theta), float(factor), length, float(fast), float(slow))
        names = ("head_dim", "theta", "factor", "L", "betas")
        said = ", ".join(f"{n} {v}" for n, v in zip(names, numbers))
        yield Case(args, f"{label}: {said} and {slow}")


YARN = Exercise(
    id="03.4",
    title="YaRN",
    signature="yarn_inverse_frequencies(head_dim, theta, factor, original_seq_len, "
    "beta_fast, beta_slow)",
    difficulty="from the paper",
    minutes=25,
    right=yarn_inverse_frequencies,
    cases=yarn_cases,
    mistakes=(
        Mistake(
            "the ramp is linear in the number of turns, as in the paper; here it goes "
            "down in equal steps from pair to pair, as in DeepSeek's code",
            gives=_with(in_turns=True),
        ),
        Mistake(
            "the ramp is the wrong way round: fast pairs keep their own frequency, "
            "slow ones are divided by the factor",
            gives=_with(blend=lambda keep, f, g: _blended(1 - keep, f, g)),
        ),
        Mistake(
            "the two betas are exchanged: beta_fast belongs to the pairs that turn "
            "most often, at the start of the ramp",
            gives=_betas_exchanged(),
        ),
        Mistake(
            "the two betas are exchanged: beta_fast belongs to the pairs that turn "
            "most often, at the start of the ramp",
            gives=_betas_exchanged(forwards=True),
        ),
        Mistake(
            "every frequency is divided by the factor; that is linear scaling",
            gives=lambda d, t, s, *_: inverse_frequencies(d, t) / s,
        ),
        Mistake(
            "every frequency is as it was: nothing has been stretched",
            gives=lambda d, t, *_: inverse_frequencies(d, t),
        ),
        Mistake(
            "the ends of the ramp come from a natural logarithm; its base is theta",
            gives=_with(base=math.e),
        ),
        Mistake(
            "the ends of the ramp come from a logarithm to base 10; its base is theta",
            gives=_with(base=10),
        ),
        Mistake(
            "the ends of the ramp are not rounded to whole pairs: DeepSeek rounds "
            "both outwards",
            gives=_with(rounding=(float, float)),
        ),
        Mistake(
            "the ends of the ramp are rounded, but not outwards",
            gives=_with(rounding=(round, round)),
        ),
        Mistake(
            "the ramp starts and ends too late: a full turn is more than 1 radian",
            gives=_with(turn=1.0),
        ),
        Mistake(
            "the wavelengths are blended, not the frequencies",
            gives=_with(blend=lambda k, f, g: 1 / _blended(k, 1 / f, 1 / g)),
        ),
        Mistake(
            "the logarithms of the frequencies are blended, not the frequencies",
            gives=_with(blend=lambda k, f, g: f**k * g ** (1 - k)),
        ),
        Mistake(
            "what a pair does not keep is lost; it should be divided by the factor",
            gives=_with(blend=lambda keep, f, g: keep * f),
        ),
        Mistake(
            "the ramp is one step too short: its end, rounded up, is the first pair "
            "that keeps nothing",
            gives=_with(longer=-1),
        ),
        Mistake(
            "the ramp is one step too long: its end, rounded up, is the first pair "
            "that keeps nothing",
            gives=_with(longer=1),
        ),
        Mistake(
            "the ramp starts before pair 0, at a negative number: keep both ends "
            "between 0 and d - 1",
            gives=_with(lowest=-math.inf),
        ),
        Mistake(
            "the end of the ramp may lie after the last pair, up to d - 1: the ramp is "
            "then cut off, not steeper",
            gives=_with(highest=lambda d: d // 2 - 1),
        ),
        Mistake(
            "the end of the ramp may lie after the last pair, up to d - 1: the ramp is "
            "then cut off, not steeper",
            gives=_with(highest=lambda d: d // 2),
        ),
        Mistake(
            "the end of the ramp is larger than d - 1: keep both ends between 0 and "
            "d - 1",
            gives=_with(highest=lambda d: math.inf),
        ),
        Mistake(
            "0/0 is not a number: with both ends at the same pair, the ramp is a step",
            when=_not_a_number,
        ),
        Mistake(
            "some frequencies are above f_i or below f_i / s: is every pair's share "
            "between 0 and 1, outside the ramp too?",
            when=_share_outside,
        ),
    ),
    hint="print the two ends of the ramp and the share that every pair keeps: 1 up to "
    "the start, 0 from the end on, and equal steps between",
)
