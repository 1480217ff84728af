"""Exercise 17.1, a group's advantages: the oracle goes group by group."""

import math

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake

TOLERANCE = 1e-5  # the rounding of float32 is no mistake


def group_advantages(rewards):
    """The oracle: group by group, and flat where all rewards are one number."""
    rows = []
    for group in rewards.tolist():
        mean = math.fsum(group) / len(group)
        spread = math.sqrt(math.fsum((r - mean) ** 2 for r in group) / len(group))
        flat = max(group) == min(group)
        rows.append([0.0 if flat else (r - mean) / spread for r in group])
    return np.array(rows)


def _over(axis, ddof=0, more=0.0):
    """(r - mean) / std over an axis, 0 where nothing differs."""

    def wrong(rewards):
        centred = rewards - rewards.mean(axis=axis, keepdims=True)
        std = rewards.std(axis=axis, keepdims=True, ddof=ddof)
        flat = std <= 1e-9
        return np.where(flat, 0.0, centred / (np.where(flat, 1.0, std) + more))

    return wrong


def _centred(rewards):
    return rewards - rewards.mean(axis=1, keepdims=True)


def _equal_rewards_remain(got, want, args):
    """Right where rewards differ, and something else than 0 where they do not."""
    flat = np.ptp(args[0], axis=1) == 0
    if not isinstance(got, np.ndarray) or got.shape != want.shape or not flat.any():
        return False
    close = np.allclose(got[~flat], want[~flat], atol=1e-5)
    return close and not np.allclose(got[flat], 0.0, atol=1e-5)


def _little_is_nothing(got, want, args):
    """Zeros where rewards differ by little, and right where they differ by more."""
    if not isinstance(got, np.ndarray) or got.shape != want.shape:
        return False
    zero = (np.abs(got) < 1e-9).all(axis=1) & (np.abs(want) > 1e-3).any(axis=1)
    return zero.any() and np.allclose(got[~zero], want[~zero], atol=1e-5)


def _flipped(rewards):
    return -group_advantages(rewards)


def _by_variance(rewards):
    variance = rewards.var(axis=1, keepdims=True)
    return _centred(rewards) / np.where(variance < 1e-12, 1.0, variance)


def _by_batch_std(rewards):
    return _centred(rewards) / rewards.std()


def _unsquared(rewards):
    """Divided by the mean distance from the mean."""
    away = np.abs(_centred(rewards)).mean(axis=1, keepdims=True)
    return _centred(rewards) / np.where(away < 1e-9, 1.0, away)


def advantage_cases(rng):
    for N, G, label in (
        (3, 5, "three groups of five, each around another mean"),
        (1, 4, "one group"),
        (4, 7, "equal rewards of 0.7 in one group"),
        (2, 3, "a group of all right and one of all wrong"),
        (6, 2, "groups of two"),
        (3, 4, "one group whose rewards differ by about 0.0001"),
    ):
        ranks = rng.permuted(np.tile(np.arange(G), (N, 1)), axis=1)  # no std below 0.3
        rewards = ranks**1.5 + rng.uniform(-0.2, 0.2, size=(N, G))
        rewards += 2 * np.arange(N)[:, None]
        if "equal" in label:
            rewards[int(rng.integers(N))] = 0.7
        if "all right" in label:
            rewards[:] = [[1.0], [0.0]]
        if "differ" in label:
            row = int(rng.integers(N))  # around 0, where float32 keeps the differences
            rewards[row] = 1e-4 * (rewards[row] - 2 * row)
        if label == "one group":
            rewards = rng.permutation([[1.0], [0.0], [0.0], [0.0]]).T
        yield Case((rewards,), f"{label}: rewards [{N}, {G}]", TOLERANCE)


ADVANTAGES = Exercise(
    id="17.1",
    title="Better than the group",
    signature="group_advantages(rewards)",
    difficulty="one line",
    minutes=5,
    right=group_advantages,
    cases=advantage_cases,
    mistakes=(
        Mistake(
            "mean and std are those of all rewards together: every question has a "
            "group, and a mean, of its own",
            gives=_over((0, 1)),
        ),
        Mistake(
            "rewards are compared with those of other questions: a group is a row, not "
            "a column",
            gives=_over(0),
        ),
        Mistake(
            "the std is the sample's, with G - 1 below the line: this one has G",
            gives=_over(1, ddof=1),
        ),
        Mistake(
            "the group's mean is right, but the std is that of all groups together",
            gives=_by_batch_std,
        ),
        Mistake(
            "only the mean was taken away: divide by the group's std as well",
            gives=_centred,
        ),
        Mistake(
            "only the std is there: the group's mean has to be taken away first",
            gives=lambda r: r / np.maximum(r.std(axis=1, keepdims=True), 1e-12),
        ),
        Mistake(
            "the sign is reversed: better than the mean is above 0",
            gives=_flipped,
        ),
        Mistake(
            "this is divided by the variance: its root is the std", gives=_by_variance
        ),
        Mistake(
            "this is divided by the mean distance from the mean: the std is the root "
            "of the mean square",
            gives=_unsquared,
        ),
        *(
            Mistake(
                "the number added to the std changes the result: nothing is added "
                "here, and equal rewards are a case of their own",
                gives=_over(1, more=more),
            )
            for more in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
        ),
        Mistake(
            "rewards that differ by little are not equal: no threshold for the std, "
            "and no rounding of rewards",
            when=_little_is_nothing,
        ),
        *(
            Mistake(
                "rewards that differ by little are not equal: no threshold for the "
                "std, and no rounding of rewards",
                gives=lambda r, digits=digits: group_advantages(r.round(digits)),
            )
            for digits in (4, 5, 6)
        ),
        Mistake(
            "where all rewards of a group are equal the advantages should be 0. The "
            "std of such a group may be 0, or a rounding error away from it, since the "
            "mean is rounded: look at the rewards themselves",
            when=_equal_rewards_remain,
        ),
        Mistake(
            "a list of numbers is no array yet",
            when=lambda got, *_: isinstance(got, list),
        ),
    ),
    exact_dtype=False,
    hint="take one group: print its mean, its std, and the first reward less the mean",
)
