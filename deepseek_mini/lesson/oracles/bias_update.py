"""Exercise 11.1, the update of the bias: the oracle compares whole numbers."""

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def moved_bias(bias, load, speed):
    """The oracle compares E times the load with the sum: whole numbers alone."""
    moves = []
    for c in load.tolist():
        gap = sum(load.tolist()) - len(load) * c
        moves.append((gap > 0) - (gap < 0))
    return np.array([b + m * speed for b, m in zip(bias.tolist(), moves)])


def _moving(move):
    return lambda bias, load, speed: bias + speed * move(load.astype(float))


def _centred(bias, load, speed):
    new = bias + speed * np.sign(load.mean() - load)
    return new - new.mean()


def bias_cases(rng):
    for E, mean, label in (
        (6, 20, "six experts, one with the mean load"),
        (1, 5, "one expert"),
        (4, 7, "all loads equal"),
        (9, 11, "nine experts, two without tokens"),
        (7, 8, "seven experts, and a mean load that is no whole number"),
    ):
        load = np.full(E, mean)
        if "equal" not in label and E > 1:
            moves = rng.permutation(np.arange(1, E // 2 + 1)) * 2
            load[: E // 2] += moves  # far from the mean in different measures,
            load[E // 2 : 2 * (E // 2)] -= moves  # and the median is not the mean
            load[E // 2] -= 3
            load[E // 2 + 1] += 3
            if "without" in label:
                load[-3:] = (0, 0, load[-3:].sum())
            if "whole" in label:  # the mean is 8 and a part: 8 is below it, 9 above
                more = int(rng.integers(1, 7))
                load = np.array([8, 9, 8, 9, 2, 5, 15 + more])
            load = load[rng.permutation(E)]
        bias = rng.normal(size=E) * 0.3
        yield Case((bias, load, float(rng.uniform(0.001, 0.1))), label)


_ROUNDED = (
    "the mean load was made a whole number: an expert that is off by less than 1 "
    "should move as well"
)

BIAS = Exercise(
    id="11.1",
    title="The thermostat",
    signature="moved_bias(bias, load, speed)",
    difficulty="one line",
    minutes=5,
    right=moved_bias,
    cases=bias_cases,
    mistakes=(
        Mistake(
            "the direction is reversed: this gives the busy experts more tokens still",
            gives=_moving(lambda c: np.sign(c - c.mean())),
        ),
        Mistake(
            "how far an expert is from the mean makes no difference here: all move by "
            "the same amount",
            gives=_moving(lambda c: c.mean() - c),
        ),
        Mistake(
            "how far an expert is from the mean makes no difference here: all move by "
            "the same amount",
            gives=_moving(lambda c: (c.mean() - c) / c.mean()),
        ),
        Mistake(
            "an expert with exactly the mean load should stay where it is",
            gives=_moving(lambda c: np.where(c > c.mean(), -1, 1)),
        ),
        Mistake(
            "an expert with exactly the mean load should stay where it is",
            gives=_moving(lambda c: np.where(c < c.mean(), 1, -1)),
        ),
        Mistake(
            "only one of the two sides moves: experts above the mean go down, those "
            "below it go up",
            gives=_moving(lambda c: -(c > c.mean()).astype(float)),
        ),
        Mistake(
            "only one of the two sides moves: experts above the mean go down, those "
            "below it go up",
            gives=_moving(lambda c: (c < c.mean()).astype(float)),
        ),
        Mistake(
            "only the busiest and the idlest expert have moved: all of them should",
            gives=_moving(
                lambda c: (c == c.min()).astype(float) - (c == c.max()).astype(float)
            ),
        ),
        Mistake(
            "the old biases are missing: the moves add up from step to step",
            gives=lambda bias, load, speed: speed * np.sign(load.mean() - load),
        ),
        Mistake(
            "loads are compared with their median: it should be their mean",
            gives=_moving(lambda c: np.sign(np.median(c) - c)),
        ),
        Mistake(_ROUNDED, gives=_moving(lambda c: np.sign(np.floor(c.mean()) - c))),
        Mistake(_ROUNDED, gives=_moving(lambda c: np.sign(np.ceil(c.mean()) - c))),
        Mistake(_ROUNDED, gives=_moving(lambda c: np.sign(np.round(c.mean()) - c))),
        Mistake(
            "the speed is missing: these moves are by 1",
            gives=lambda bias, load, speed: bias + np.sign(load.mean() - load),
        ),
        Mistake(
            "biases are compared with their mean: it is loads that should be",
            gives=lambda bias, load, speed: bias + speed * np.sign(bias.mean() - bias),
        ),
        Mistake(
            "a list of numbers is no array yet",
            when=lambda got, *_: isinstance(got, list),
        ),
        Mistake(
            "the biases were moved to a mean of 0 as well: a common shift changes no "
            "choice, and nobody asks for it",
            gives=_centred,
        ),
    ),
    hint="print the mean load, then the direction of each expert's move",
)
