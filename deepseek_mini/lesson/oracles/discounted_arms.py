"""Exercise 19.3, discounted UCB: the oracle updates arm by arm, as time goes on."""

import math

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def ducb(rewards, gamma):
    """The oracle: W ← γ W + r and N ← γ N + 1 with every choice."""
    sums, counts = [], []
    for history in rewards:
        w = n = 0.0
        for r in history.tolist():
            w, n = gamma * w + r, gamma * n + 1
        sums.append(w)
        counts.append(n)
    total = math.fsum(counts)
    scores = [
        w / n + math.sqrt(2 * math.log(total) / n) if n else math.inf
        for w, n in zip(sums, counts)
    ]
    return np.array(scores)


def _scored(mean=None, bonus=None, weights=None):
    """Scores in which one part is another; of an arm: rewards r, weights w, total N."""
    weights = weights or (lambda n, gamma: gamma ** np.arange(n)[::-1])
    mean = mean or (lambda r, w: (w * r).sum() / w.sum())
    bonus = bonus or (lambda w, n, total: np.sqrt(2 * np.log(total) / w.sum()))

    def wrong(rewards, gamma):
        each = [weights(len(r), gamma) for r in rewards]
        total = sum(w.sum() for w in each)
        with np.errstate(all="ignore"):
            return np.array(
                [
                    mean(r, w) + bonus(w, len(r), total) if len(r) else np.inf
                    for r, w in zip(rewards, each)
                ]
            )

    return wrong


def _counted(count, plain_sum=False):
    """Scores with another N: `count(n, gamma)` of an arm that was chosen n times."""

    def wrong(rewards, gamma):
        N = np.array([float(count(len(r), gamma)) for r in rewards])
        W = [
            r.sum() if plain_sum else (gamma ** np.arange(len(r))[::-1] * r).sum()
            for r in rewards
        ]
        with np.errstate(all="ignore"):
            scores = np.array(W) / N + np.sqrt(2 * np.log(N.sum()) / N)
        return np.where([len(r) > 0 for r in rewards], scores, np.inf)

    return wrong


def _n(n, gamma):
    return sum(gamma**t for t in range(n))


def _zero_over_zero(got, want, args):
    """The closed form (1 - γ^n) / (1 - γ) at γ = 1: nan where an arm was chosen."""
    rewards, gamma = args
    chosen = np.array([len(r) > 0 for r in rewards])
    return gamma == 1 and bool(np.isnan(np.asarray(got, float))[chosen].any())


def _never_chosen(got, want, args):
    """Right for the chosen arms, and anything but infinity for the others."""
    got, new = np.asarray(got, float), np.isinf(want)
    return (
        new.any() and np.allclose(got[~new], want[~new]) and (got[new] != np.inf).any()
    )


def _shared_time(rewards, gamma):
    """All arms age with every choice of any arm, in the order of the list."""
    ages = np.cumsum([0, *(len(r) for r in rewards[::-1])])[:-1][::-1]
    each = [gamma ** (np.arange(len(r))[::-1] + a) for r, a in zip(rewards, ages)]
    total = sum(w.sum() for w in each)
    return np.array(
        [
            (w * r).sum() / w.sum() + np.sqrt(2 * np.log(total) / w.sum())
            if len(r)
            else np.inf
            for r, w in zip(rewards, each)
        ]
    )


def _plain_total(rewards, gamma):
    total = sum(map(len, rewards))
    return _scored(bonus=lambda w, n, t: np.sqrt(2 * np.log(total) / w.sum()))(
        rewards, gamma
    )


def _zero_for_new(rewards, gamma):
    scores = ducb(rewards, gamma)
    return np.where(np.isinf(scores), 0.0, scores)


def arm_cases(rng):
    for sizes, gamma, label in (
        ((5, 3, 8), 0.7, "three arms"),
        ((4, 9), 0.99, "two arms, γ = 0.99"),
        ((6, 0, 3), 0.8, "an arm that was never chosen"),
        ((5, 7, 2, 6), 1.0, "γ = 1"),
        ((1,), 0.9, "one arm, chosen once"),
        ((0, 0), 0.9, "nothing chosen yet"),
        ((12, 7), 0.5, "γ = ½"),
    ):
        rewards = [rng.integers(0, 2, size=n).astype(float) for n in sizes]
        for r in rewards:
            if len(r) > 2:
                r[0], r[-1] = 1.0, 0.0  # what is old is worth less than what is new
        yield Case((rewards, gamma), label)


DUCB = Exercise(
    id="19.3",
    title="Discounted UCB",
    signature="ducb(rewards, gamma)",
    difficulty="a few lines",
    minutes=12,
    right=ducb,
    cases=arm_cases,
    mistakes=(
        Mistake(
            "γ plays no part: older rewards, and older choices, count less",
            gives=_scored(weights=lambda n, gamma: np.ones(n)),
        ),
        Mistake(
            "the oldest reward has the largest weight: the newest counts 1",
            gives=_scored(mean=lambda r, w: (w[::-1] * r).sum() / w.sum()),
        ),
        Mistake(
            "the newest reward counts γ: its exponent is 0",
            gives=_scored(weights=lambda n, g: g ** (np.arange(n)[::-1] + 1)),
        ),
        Mistake(
            "the newest reward counts γ: its exponent is 0",
            gives=lambda rewards, g: _scored(
                mean=lambda r, w: g * (w * r).sum() / w.sum()
            )(rewards, g),
        ),
        Mistake(
            "the rewards are divided by the number of choices: N is the discounted one",
            gives=_scored(mean=lambda r, w: (w * r).sum() / len(r)),
        ),
        Mistake(
            "the mean is that of all rewards: W is discounted, as N is",
            gives=_scored(mean=lambda r, w: r.mean()),
        ),
        Mistake(
            "the bonus divides by the number of choices: N is the discounted one",
            gives=_scored(bonus=lambda w, n, t: np.sqrt(2 * np.log(t) / n)),
        ),
        Mistake(
            "the logarithm is of the number of all choices: of the sum of the "
            "discounted N",
            gives=_plain_total,
        ),
        Mistake(
            "there is no bonus: what was chosen rarely has to be tried again",
            gives=_scored(bonus=lambda w, n, t: 0.0),
        ),
        Mistake(
            "the rewards are missing: this is the bonus alone",
            gives=_scored(mean=lambda r, w: 0.0),
        ),
        Mistake(
            "the sum of the rewards is not divided by N",
            gives=_scored(mean=lambda r, w: (w * r).sum()),
        ),
        Mistake(
            "the 2 under the root is missing",
            gives=_scored(bonus=lambda w, n, t: np.sqrt(np.log(t) / w.sum())),
        ),
        Mistake(
            "the root is missing",
            gives=_scored(bonus=lambda w, n, t: 2 * np.log(t) / w.sum()),
        ),
        Mistake(
            "the root is of the logarithm alone: it is of the whole fraction",
            gives=_scored(bonus=lambda w, n, t: np.sqrt(2 * np.log(t)) / w.sum()),
        ),
        Mistake(
            "the 2 stands before the root: it belongs under it",
            gives=_scored(bonus=lambda w, n, t: 2 * np.sqrt(np.log(t) / w.sum())),
        ),
        Mistake(
            "ln is the natural logarithm",
            gives=_scored(bonus=lambda w, n, t: np.sqrt(2 * np.log10(t) / w.sum())),
        ),
        Mistake(
            "ln is the natural logarithm",
            gives=_scored(bonus=lambda w, n, t: np.sqrt(2 * np.log2(t) / w.sum())),
        ),
        Mistake(
            "the logarithm is of the arm's own N: it is of the sum over all arms",
            gives=_scored(bonus=lambda w, n, t: np.sqrt(2 * np.log(w.sum()) / w.sum())),
        ),
        Mistake(
            "N is the number of choices here: it is discounted, as W is",
            gives=_counted(lambda n, g: n),
        ),
        Mistake(
            "W is the plain sum of the rewards here: it is discounted, as N is",
            gives=_counted(_n, plain_sum=True),
        ),
        Mistake(
            "the newest choice counts γ in N: the sum begins with t = 0, and γ⁰ is 1",
            gives=_counted(lambda n, g: g * _n(n, g)),
        ),
        Mistake(
            "N has one term too many: t goes from 0 to n - 1",
            gives=_counted(lambda n, g: _n(n + 1, g) if n else 0),
        ),
        Mistake(
            "N has one term too many: t goes from 0 to n - 1",
            gives=_counted(lambda n, g: _n(n + 1, g)),
        ),
        Mistake(
            "the logarithm is of the sum plus 1: of the sum itself",
            gives=_scored(bonus=lambda w, n, t: np.sqrt(2 * np.log(t + 1) / w.sum())),
        ),
        Mistake(
            "the bonus is taken away: it is added",
            gives=_scored(bonus=lambda w, n, t: -np.sqrt(2 * np.log(t) / w.sum())),
        ),
        Mistake(
            "an arm ages with the choices of others: each has a clock of its own",
            gives=_shared_time,
        ),
        Mistake(
            "an arm that was never chosen comes first: its score is infinite",
            gives=_zero_for_new,
        ),
        Mistake(
            "at γ = 1 the closed form of N is 0/0: N is then the number of choices",
            when=_zero_over_zero,
        ),
        Mistake(
            "an arm that was never chosen has N = 0: its score is infinite",
            when=_never_chosen,
        ),
        Mistake(
            "an arm that was never chosen has N = 0: its score is infinite",
            when=lambda got, want, args: bool(np.isnan(np.asarray(got, float)).any()),
        ),
        Mistake(
            "an arm that was never chosen has N = 0: its score is infinite (and at "
            "γ = 1 the closed form of N is 0/0)",
            raises="ZeroDivisionError",
        ),
        Mistake(
            "nothing was chosen yet: ln is of 0, and all scores are infinite",
            raises="math domain error",
        ),
    ),
    exact_dtype=False,
    hint="compute W, N, the mean and the bonus of one arm on paper, and print yours",
)
