"""Lesson 11, bias balancing: the oracles go expert by expert and token by token."""

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.group_choice import GROUPS
from deepseek_mini.lesson.oracles.sequence_balance import SEQUENCE

LESSON = "11_bias_balancing"

# --- 11.1 -------------------------------------------------------------------------


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
            load = load[rng.permutation(E)]
        bias = rng.normal(size=E) * 0.3
        yield Case((bias, load, float(rng.uniform(0.001, 0.1))), label)


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
        Mistake(
            "the biases were moved to a mean of 0 as well: a common shift changes no "
            "choice, and nobody asks for it",
            gives=_centred,
        ),
    ),
    hint="print the mean load, then the direction of each expert's move",
)

# --- 11.2 -------------------------------------------------------------------------


def biased_gate(scores, bias, K, route_scale, **mistake):
    """The oracle, token by token; the keywords make the known mistakes."""
    out = np.zeros(scores.shape)
    for t, s in enumerate(scores):
        ranked = mistake.get("rank", lambda s, b: s + b)(s, bias)
        best = sorted(range(len(s)), key=lambda i: ranked[i])[-K:]
        weighs = mistake.get("weigh", lambda s, b: s)(s, bias)
        total = mistake.get("total", lambda w, best: sum(w[i] for i in best))
        for i in best:
            out[t, i] = route_scale * weighs[i] / total(weighs, best)
    return out


def _gating(**mistake):
    return lambda *args: biased_gate(*args, **mistake)


def gate_cases(rng):
    for N, E, K, label in (
        (6, 5, 2, "two of five experts"),
        (1, 4, 1, "one token, one expert"),
        (5, 4, 4, "all experts for a token"),
        (7, 9, 3, "three of nine experts"),
    ):
        bias = rng.permutation(np.linspace(-0.5, 0.6, E)) if E > 1 else np.zeros(1)
        scores = 1 / (1 + np.exp(-rng.normal(size=(N, E)) * 1.2))
        scale = float(rng.choice((1.5, 2.5, 3.5)))
        yield Case((scores, bias, K, scale), f"{label}: scores [{N}, {E}], K = {K}")


GATE = Exercise(
    id="11.2",
    title="Choose with it, weigh without it",
    signature="biased_gate(scores, bias, K, route_scale)",
    difficulty="a few lines",
    minutes=12,
    right=biased_gate,
    cases=gate_cases,
    mistakes=(
        Mistake(
            "the right experts, but with the bias in their weights: it only chooses",
            gives=_gating(weigh=lambda s, b: s + b),
        ),
        Mistake(
            "the experts were chosen without the bias",
            gives=_gating(rank=lambda s, b: s),
        ),
        Mistake(
            "the bias is subtracted: a higher bias should bring an expert more tokens",
            gives=_gating(rank=lambda s, b: s - b),
        ),
        Mistake(
            "scores were divided by the sum over all experts: only those of the chosen "
            "belong in it",
            gives=_gating(total=lambda w, best: sum(w)),
        ),
        Mistake(
            "scores were divided by the sum over all experts before the bias was "
            "added: the bias belongs to the scores as they are",
            gives=_gating(rank=lambda s, b: s / s.sum() + b),
        ),
        Mistake(
            "scores were divided by the sum over all experts before the bias was "
            "added: the bias belongs to the scores as they are",
            gives=_gating(
                rank=lambda s, b: s / s.sum() + b, total=lambda w, best: sum(w)
            ),
        ),
        Mistake(
            "the chosen scores are not divided by their sum",
            gives=_gating(total=lambda w, best: 1.0),
        ),
        Mistake(
            "the factor route_scale is missing",
            gives=lambda s, b, K, scale: biased_gate(s, b, K, 1.0),
        ),
        Mistake(
            "the weights are a softmax over the chosen: divide the scores themselves",
            gives=_gating(weigh=lambda s, b: np.exp(s)),
        ),
        Mistake(
            "every expert has a weight: only the K best of each token should",
            gives=lambda s, b, K, scale: biased_gate(s, b, s.shape[1], scale),
        ),
        Mistake(
            "only the K weights of the chosen: put them in a row of E, at the places "
            "of their experts",
            when=lambda got, want, args: (
                np.shape(got) == (len(args[0]), args[2]) != np.shape(want)
            ),
        ),
    ),
    hint="look first at which experts have a weight, then at what a token's weights "
    "add up to",
)

EXERCISES = (BIAS, GATE, GROUPS, SEQUENCE)
