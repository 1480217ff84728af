"""Exercise 16.1, the average gate score: the oracle goes sample by sample."""

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def gate_score(chosen, weights, pad, n_experts):
    """The oracle adds up one weight after the other."""
    out = np.zeros(n_experts)
    n_samples = len(chosen)
    for experts, given, padding in zip(chosen, weights, pad):
        real = [t for t, is_pad in enumerate(padding.tolist()) if not is_pad]
        for t in real:
            for expert, g in zip(experts[t].tolist(), given[t].tolist()):
                out[expert] += g / len(real) / n_samples
    return out


def _summed(weights, chosen, n_experts):
    out = np.zeros(n_experts)
    np.add.at(out, chosen.ravel(), weights.ravel())
    return out


def _with(value, count):
    """`value` of what is added up, and `count` of what it is divided by."""

    def wrong(chosen, weights, pad, n_experts):
        real = ~pad
        share = real / count(real)  # [B, T]
        return _summed(value(weights) * share[..., None], chosen, n_experts)

    return wrong


def _weights(weights):
    return weights


def _ones(weights):
    return np.ones_like(weights)


def _a_sample(real):
    return real.sum(1, keepdims=True) * len(real)


def _in_the_sum_only(chosen, weights, pad, n_experts):
    share = np.ones(pad.shape) / _a_sample(~pad)
    return _summed(weights * share[..., None], chosen, n_experts)


def _renormalised(chosen, weights, pad, n_experts):
    whole = weights / weights.sum(-1, keepdims=True)
    return gate_score(chosen, whole, pad, n_experts)


def _last_weight_only(chosen, weights, pad, n_experts):
    """What `out[experts] += weights` does with an expert that is there twice."""
    out = np.zeros((len(chosen), n_experts))
    for row, experts, given, real in zip(out, chosen, weights, ~pad):
        row[experts[real]] = given[real]
        row /= real.sum()
    return out.mean(0)


def _tokens_by_length(taken):
    """The tokens that `taken` says for a row of `pad`, whatever else is padding."""

    def wrong(chosen, weights, pad, n_experts):
        by_length = np.ones_like(pad)
        for row, padding in zip(by_length, pad):
            row[taken(padding)] = False
        share = ~by_length / _a_sample(~pad)
        return _summed(weights * share[..., None], chosen, n_experts)

    return wrong


def _of_those_who_chose(chosen, weights, pad, n_experts):
    real = np.repeat(~pad[..., None], chosen.shape[2], axis=2)
    counts = _summed(real.astype(float), chosen, n_experts)
    return _summed(weights * real, chosen, n_experts) / np.maximum(counts, 1)


def _of_those_in_a_sample(chosen, weights, pad, n_experts):
    samples = zip(chosen[:, None], weights[:, None], pad[:, None])
    return np.mean([_of_those_who_chose(*s, n_experts) for s in samples], axis=0)


def score_cases(rng):
    for B, T, K, E, unused, padded, label in (
        (3, 7, 2, 5, 0, "right", "samples of several lengths, padding at the end"),
        (4, 6, 3, 8, 0, "left", "padding at the beginning"),
        (1, 5, 1, 4, 0, "", "one sample, one expert a token"),
        (2, 9, 2, 30, 4, "right", "experts that nobody chose, the last among them"),
        (3, 8, 2, 6, 0, "any", "padding anywhere"),
    ):
        numbers = np.tile(np.arange(E - unused), (B, T, 1))
        chosen = rng.permuted(numbers, axis=2)[..., :K]
        weights = rng.uniform(0.05, 0.9 / K, (B, T, K))
        pad = np.zeros((B, T), dtype=bool)
        lengths = rng.permutation(np.arange(1, T))[:B] if padded else [T] * B
        for row, length in zip(pad, lengths):
            if padded == "right":
                row[length:] = True
            if padded == "left":
                row[: T - length] = True
            if padded == "any":
                row[rng.permutation(T)[length:]] = True
        yield Case((chosen, weights, pad, E), label)


SCORE = Exercise(
    id="16.1",
    title="The average gate score",
    signature="gate_score(chosen, weights, pad, n_experts)",
    difficulty="a few lines",
    minutes=12,
    right=gate_score,
    cases=score_cases,
    mistakes=(
        Mistake(
            "padding was counted: the gate routes it too, but it is not of the task",
            gives=lambda c, w, pad, E: gate_score(c, w, np.zeros_like(pad), E),
        ),
        Mistake(
            "padding was left out of the sum, but not of the length that it is "
            "divided by",
            gives=_with(_weights, lambda real: real.size),
        ),
        Mistake(
            "padding was left out of the length, but not of the sum",
            gives=_in_the_sum_only,
        ),
        Mistake(
            "every token counts alike here, so a long sample counts more: take the "
            "mean of a sample first, then the mean of the samples",
            gives=_with(_weights, lambda real: real.sum()),
        ),
        Mistake(
            "choices were counted: this score adds up the weights",
            gives=_with(_ones, _a_sample),
        ),
        Mistake(
            "choices were counted and divided by K: that is the token selection ratio",
            gives=lambda c, w, p, E: _with(_ones, _a_sample)(c, w, p, E) / c.shape[2],
        ),
        Mistake(
            "the weights were divided by K: only the token selection ratio is",
            gives=lambda c, w, p, E: gate_score(c, w, p, E) / c.shape[2],
        ),
        Mistake(
            "the samples were added up: their mean is asked for",
            gives=lambda c, w, p, E: gate_score(c, w, p, E) * len(c),
        ),
        Mistake(
            "the tokens of a sample were added up: their mean is asked for",
            gives=_with(_weights, lambda real: len(real)),
        ),
        Mistake(
            "this is the mean over the tokens that chose an expert: a token that did "
            "not choose it counts as 0",
            gives=_of_those_who_chose,
        ),
        Mistake(
            "this is the mean over the tokens that chose an expert: a token that did "
            "not choose it counts as 0",
            gives=_of_those_in_a_sample,
        ),
        Mistake(
            "each token's weights were divided by their sum: take them as they are",
            gives=_renormalised,
        ),
        Mistake(
            "an expert that several tokens chose has one weight only: an index array "
            "that names it twice writes it once",
            gives=_last_weight_only,
        ),
        *(
            Mistake(
                "padding may stand anywhere: ask `pad` for every token, not only for "
                "how many there are",
                gives=_tokens_by_length(taken),
            )
            for taken in (
                lambda padding: slice(0, (~padding).sum()),
                lambda padding: slice(padding.sum(), None),
                lambda padding: slice(0, np.append(padding, True).argmax()),
            )
        ),
        Mistake(
            "only each token's first choice was counted: it has K",
            gives=lambda c, w, p, E: gate_score(c[..., :1], w[..., :1], p, E),
        ),
        Mistake(
            "the mask is the wrong way round: pad is True for what is not counted",
            gives=lambda c, w, p, E: gate_score(c, w, ~p, E),
        ),
        Mistake(
            "the scores were divided by their sum: the gate's weights need not add up "
            "to 1, and neither do these",
            gives=lambda c, w, p, E: (
                gate_score(c, w, p, E) / gate_score(c, w, p, E).sum()
            ),
        ),
        Mistake(
            "E is `n_experts`: the last ones may be chosen by nobody",
            when=lambda got, want, args: np.ndim(got) == 1 and len(got) < len(want),
        ),
        Mistake(
            "right up to the precision of float32: where do you leave float64?",
            when=lambda got, want, args: (
                isinstance(got, np.ndarray)
                and got.shape == want.shape
                and np.allclose(got, want, rtol=1e-6, atol=1e-7)
            ),
        ),
    ),
    hint="take one sample and one expert, and print what each token adds to its score",
)
