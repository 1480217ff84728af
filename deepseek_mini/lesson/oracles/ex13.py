"""Lesson 13, FP8: the oracles look numbers up in the list of all that E4M3 has.

The lesson computes with powers and steps. Here the list of the numbers from 0 to 448 is
written out, and the nearest is found by search. Exercises 13.2 and 13.4 are in
fp8_tiles, 13.5 in fp8_products.
"""

import math

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.fp8_products import NUMBERS, PRODUCTS, nearest
from deepseek_mini.lesson.oracles.fp8_tiles import DEQUANTISE, SCALES

LESSON = "13_fp8"

# --- 13.1 -------------------------------------------------------------------------


def to_e4m3(x):
    """The oracle."""
    return nearest(x)


def _steps(x, *, rule=np.rint, bits=3, lowest=-6, largest=448.0):
    """Rounding by powers and steps; the keywords make the known mistakes."""
    x = np.asarray(x, dtype=np.float64)
    size = np.minimum(np.abs(x), largest)
    power = np.frexp(np.maximum(size, 2.0**lowest))[1] - 1
    step = np.ldexp(1.0, power - bits)
    return np.copysign(rule(size / step) * step, x)


def _half_up(x):
    return np.floor(x + 0.5)


def _half_down(x):
    return np.ceil(x - 0.5)


def _finer(got, want, args):
    """Wrong below 2^-6 alone, and there nearer to x than E4M3 has numbers."""
    wrong = got != want
    nearer = np.abs(got - args[0]) < np.abs(want - args[0])
    return bool(np.all(nearer[wrong] & (np.abs(args[0][wrong]) < 2.0**-6)))


def number_cases(rng):
    ties = (NUMBERS[1:] + NUMBERS[:-1]) / 2
    for values, label in (
        (rng.uniform(-3, 3, (4, 5)), "numbers around 1"),
        (rng.choice(ties[8:], 30) * rng.choice([-1, 1], 30), "halfway cases"),
        (rng.uniform(-0.03, 0.03, (3, 1, 7)), "numbers around the smallest normal one"),
        (rng.choice(ties[:8], 8) * rng.choice([-1, 1], 8), "subnormal halfway cases"),
        (rng.uniform(200, 448, 9) * rng.choice([-1, 1], 9), "numbers below 448"),
        (rng.uniform(449, 5000, 9) * rng.choice([-1, 1], 9), "numbers above 448"),
        (10 ** rng.uniform(-12, 12, 50) * rng.normal(size=50), "numbers of all sizes"),
        (np.append(rng.choice(NUMBERS, 20), 0.0), "numbers of E4M3 itself, and 0"),
        (rng.uniform(0.1, 0.9, 1), "a single number"),
    ):
        yield Case((values,), label, tolerance=1e-12)


def _nan(got, *_):
    return isinstance(got, np.ndarray) and bool(np.isnan(got).any())


NEAREST = Exercise(
    id="13.1",
    title="The nearest number of E4M3",
    signature="to_e4m3(x)",
    difficulty="a few lines",
    minutes=12,
    right=to_e4m3,
    cases=number_cases,
    mistakes=(
        Mistake(
            "halfway cases are rounded up in size; they go to the even number of steps",
            gives=lambda x: _steps(x, rule=_half_up),
        ),
        Mistake(
            "halfway cases go down; they go to the even number of steps",
            gives=lambda x: _steps(x, rule=_half_down),
        ),
        Mistake(
            "the fraction is cut off: the nearest number may be the one above",
            gives=lambda x: _steps(x, rule=np.floor),
        ),
        Mistake(
            "below 2^-6 the steps grow ever finer, but there they stay what they were",
            when=_finer,
        ),
        Mistake(
            "what is below 2^-6 becomes 0: there are seven subnormal numbers between",
            gives=lambda x: np.where(np.abs(x) < 2.0**-6, 0.0, _steps(x)),
        ),
        Mistake(
            "the steps become coarser one power too low or too high: at the bottom the "
            "step is that of 2^-6 to 2^-5",
            gives=lambda x: _steps(x, lowest=-7),
        ),
        Mistake(
            "numbers above 448 do not exist: the largest takes their place",
            when=lambda got, *_: bool((np.abs(got) > 448).any()),
        ),
        Mistake(
            "480 is not a number of E4M3: its code, with all bits set, means NaN",
            gives=lambda x: _steps(x, largest=480.0),
        ),
        Mistake(
            "the largest is 448, not 240: E4M3 keeps only one code of the highest "
            "exponent for NaN",
            gives=lambda x: _steps(x, largest=240.0),
        ),
        Mistake(
            "there are too few steps from a power of two to the next: three bits of "
            "fraction make eight",
            gives=lambda x: _steps(x, bits=2),
        ),
        Mistake(
            "there are too many steps from a power of two to the next: three bits of "
            "fraction make eight",
            gives=lambda x: _steps(x, bits=4),
        ),
        Mistake(
            "the steps have one size everywhere, but they double at each power of two",
            gives=lambda x: np.clip(np.rint(np.asarray(x) * 512) / 512, -448, 448),
        ),
        Mistake(
            "negative numbers have lost their sign, or have gone another way than "
            "positive ones",
            when=lambda got, want, args: (
                np.shape(got) == want.shape
                and np.allclose(got[args[0] >= 0], want[args[0] >= 0])
                and not np.allclose(got, want)
            ),
        ),
        Mistake("0 has no logarithm: what is its step?", when=_nan),
        Mistake(
            "integers have no negative powers here: write 2.0 ** (p - 3)",
            raises="Integers to negative integer powers",
        ),
    ),
    hint="print the power of two below the first wrong number and its step there: 0.3 "
    "has the power -2 and the step 1/32",
)

# --- 13.3 -------------------------------------------------------------------------


def ue8m0(amax, *, floor=1e-4, largest=448, bias=127, step=0):
    """The oracle: the first power of two, from below, that is large enough."""
    codes = []
    for value in np.asarray(amax).reshape(-1):
        wanted = max(float(value), floor) / largest
        power = -400
        while math.ldexp(1.0, power) < wanted:
            power += 1
        codes.append(power + bias + step)
    return np.array(codes).reshape(np.shape(amax))


def _logs(rule, **how):
    def wrong(amax):
        wanted = np.maximum(amax, how.get("floor", 1e-4)) / how.get("largest", 448)
        return (rule(np.log2(wanted)) + 127).astype(int)

    return wrong


def power_cases(rng):
    for amax, label in (
        (10 ** rng.uniform(-3, 5, 12), "random amax"),
        (
            448 * 2.0 ** rng.permutation(np.arange(-20, 12)),
            "amax that is 448 times a power of two",
        ),
        (2.0 ** rng.integers(-9, 12, 6), "amax that is a power of two"),
        (10 ** rng.uniform(-12, -5, (2, 3)), "amax below 1e-4"),
        (np.append(10 ** rng.uniform(-1, 3, 3), 0.0), "an amax of 0 among others"),
    ):
        yield Case((amax,), label)


POWERS = Exercise(
    id="13.3",
    title="Scales in one byte",
    signature="ue8m0(amax)",
    difficulty="a few lines",
    minutes=8,
    right=ue8m0,
    cases=power_cases,
    mistakes=(
        Mistake(
            "rounded down, the scale is too small, and the largest number of the tile "
            "would not fit",
            gives=_logs(np.floor),
        ),
        Mistake(
            "rounded to the nearest power, half of the scales are too small for the "
            "largest number of their tile",
            gives=_logs(np.rint),
        ),
        Mistake(
            "an exact power of two stays as it is; here it goes one further",
            gives=_logs(lambda power: np.floor(power) + 1),
        ),
        Mistake(
            "log2(a) - log2(448) is not exact: divide first",
            gives=lambda amax: (
                np.ceil(np.log2(np.maximum(amax, 1e-4)) - np.log2(448)) + 127
            ).astype(int),
        ),
        Mistake(
            "np.maximum compares element by element; max and np.max look for the "
            "largest of all",
            raises="cannot be interpreted as an integer|truth value of an array",
        ),
        Mistake(
            "this is the power of amax; the scale is that of amax / 448",
            gives=_logs(np.ceil, largest=1),
        ),
        Mistake(
            "a small amax is not raised to 1e-4",
            gives=_logs(np.ceil, floor=1e-300),
        ),
        Mistake(
            "the 1e-4 is the least amax: take the maximum before dividing by 448",
            gives=_logs(np.ceil, floor=448e-4),
        ),
        Mistake(
            "the power itself may be negative: the byte is the power plus 127",
            gives=lambda amax: ue8m0(amax, bias=0),
        ),
        Mistake(
            "the bias of UE8M0 is 127, not 128",
            gives=lambda amax: ue8m0(amax, bias=128),
        ),
        Mistake(
            "the sign of the power is turned round: this is the scale that numbers are "
            "divided by, so a larger amax has a larger code",
            gives=lambda amax: 254 - ue8m0(amax),
        ),
        Mistake(
            "the power is that of e, not of 2",
            gives=lambda amax: (
                np.ceil(np.log(np.maximum(amax, 1e-4) / 448)) + 127
            ).astype(int),
        ),
        Mistake(
            "the codes are whole numbers in an integer dtype, whichever: convert them "
            "once they are rounded",
            when=lambda got, *_: getattr(got, "dtype", np.dtype(int)).kind == "f",
        ),
    ),
    hint="decode your byte, 2^(code - 127): it should be at least amax / 448, and half "
    "of it should not be",
)

EXERCISES = (NEAREST, SCALES, POWERS, DEQUANTISE, PRODUCTS)
