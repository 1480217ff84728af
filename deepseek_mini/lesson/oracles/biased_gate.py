"""Exercise 11.2, choose with a bias, weigh without it: the oracle goes by token."""

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


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


def _over_the_batch(scores, bias, K, route_scale):
    kept = np.where(biased_gate(scores, bias, K, 1.0) > 0, scores, 0.0)
    return route_scale * kept / kept.sum()


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
            "scores were divided by a sum over all tokens: each token's weights add up "
            "to route_scale",
            gives=_over_the_batch,
        ),
        Mistake(
            "these are the K experts with the lowest sums: look at which end the sort "
            "leaves the best",
            gives=_gating(rank=lambda s, b: -(s + b)),
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
