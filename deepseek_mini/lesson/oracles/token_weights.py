"""Exercise 17.4, what a token weighs: the oracle reads an answer up to its end."""

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def token_weights(answers, end_id, average):
    """The oracle, answer by answer: count first, then write."""
    rows = answers.tolist()
    counts = [row.index(end_id) + 1 if end_id in row else len(row) for row in rows]
    weights = np.zeros(answers.shape)
    for i, n in enumerate(counts):
        below = {"length": len(rows) * n, "tokens": sum(counts), "sum": len(rows)}
        weights[i, :n] = 1 / below[average]
    return weights


def _mask(answers, end_id, more=0):
    """bool [B, T] of an answer's tokens, `more` after its end."""
    ends = answers == end_id
    T = answers.shape[1]
    n = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1 + more, T)
    return np.arange(T) < n[:, None]


def _weighing(mask):
    """A wrong version with another mask."""

    def wrong(answers, end_id, average):
        m = mask(answers, end_id).astype(float)
        n = np.maximum(m.sum(axis=1, keepdims=True), 1)
        below = {"length": len(m) * n, "tokens": max(m.sum(), 1), "sum": len(m)}
        return m / below[average]

    return wrong


def _averaging(change):
    """A wrong version whose number below the line is another."""

    def wrong(answers, end_id, average):
        m = _mask(answers, end_id).astype(float)
        B, T = m.shape
        n = m.sum(axis=1, keepdims=True)
        below = {"length": B * n, "tokens": m.sum(), "sum": B}
        return m / {**below, **change(m, n, B, T)}[average]

    return wrong


def weight_cases(rng):
    for B, T, average, label in (
        (3, 6, "length", "an answer without an end"),
        (3, 7, "tokens", "all answers end"),
        (4, 5, "sum", "an answer without an end"),
        (1, 4, "length", "one answer"),
        (5, 8, "length", "a long answer among short ones"),
        (4, 9, "tokens", "an answer without an end"),
    ):
        end_id = int(rng.integers(0, 5))
        answers = rng.integers(5, 30, size=(B, T))
        ends = rng.integers(0, T - 2, size=B)
        ends[0] = T - 2 if "long" in label else 1  # the end is one token, no more
        ends = rng.permutation(ends)
        for i, e in enumerate(ends):
            answers[i, e:] = rng.integers(0, 30, size=T - e)  # what follows is noise
            answers[i, e] = end_id
            answers[i, min(e + 2, T - 1)] = end_id  # another end changes nothing
        if "without" in label:
            answers[int(rng.integers(B))] = rng.integers(5, 30, size=T)
        args = (answers, end_id, average)
        said = f"{label}: answers [{B}, {T}], average {average!r}"
        yield Case(args, said, 1e-6)


WEIGHTS = Exercise(
    id="17.4",
    title="What a token weighs",
    signature="token_weights(answers, end_id, average)",
    difficulty="some thought",
    minutes=13,
    right=token_weights,
    cases=weight_cases,
    mistakes=(
        Mistake(
            "the token that ends an answer is part of it: the policy chose it, and has "
            "to learn when",
            gives=_weighing(
                lambda a, e: _mask(a, e, -1) & (_mask(a, e, -1) | (a != e))
            ),
        ),
        Mistake(
            "one token after the end counts as well: the mask is off by one",
            gives=_weighing(lambda a, e: _mask(a, e, +1)),
        ),
        Mistake(
            "only tokens that are not the end are counted, even those after it",
            gives=_weighing(lambda a, e: a != e),
        ),
        Mistake(
            "what stands after the first end is not part of the answer, whatever it is",
            gives=_weighing(
                lambda a, e: (
                    np.arange(a.shape[1])
                    <= np.where(
                        (a == e).any(axis=1),
                        a.shape[1] - 1 - (a == e)[:, ::-1].argmax(axis=1),
                        a.shape[1],
                    )[:, None]
                )
            ),
        ),
        Mistake(
            "every place counts, also those after the end",
            gives=_weighing(lambda a, e: np.ones(a.shape, dtype=bool)),
        ),
        Mistake(
            "an answer without an end ran out of room: all its T tokens count",
            gives=_weighing(lambda a, e: _mask(a, e) & (a == e).any(axis=1)[:, None]),
        ),
        Mistake(
            "an answer without an end ran out of room: all its T tokens count",
            gives=_weighing(
                lambda a, e: np.arange(a.shape[1]) <= (a == e).argmax(axis=1)[:, None]
            ),
        ),
        Mistake(
            '"length" divides by the answer\'s own number of tokens: this is the width '
            "of the batch",
            gives=_averaging(lambda m, n, B, T: {"length": B * T}),
        ),
        Mistake(
            "the mean over the answers is missing: each answer is one of B",
            gives=_averaging(lambda m, n, B, T: {"length": n, "sum": 1}),
        ),
        Mistake(
            "the mean over the answers is missing: each answer is one of B",
            gives=_averaging(lambda m, n, B, T: {"sum": 1}),
        ),
        Mistake(
            "the mean over the answers is missing: each answer is one of B",
            gives=_averaging(lambda m, n, B, T: {"length": n}),
        ),
        Mistake(
            '"tokens" divides by the number of tokens of all answers together: padding '
            "is none of them",
            gives=_averaging(lambda m, n, B, T: {"tokens": B * T}),
        ),
        Mistake(
            '"tokens" divides by the number of tokens of all answers together: this is '
            'what "length" does',
            gives=_averaging(lambda m, n, B, T: {"tokens": B * n}),
        ),
        Mistake(
            '"length" weighs each answer alike: this is what "tokens" does',
            gives=_averaging(lambda m, n, B, T: {"length": m.sum()}),
        ),
        Mistake(
            '"sum" divides by the number of answers alone: their lengths play no part',
            gives=_averaging(lambda m, n, B, T: {"sum": B * n}),
        ),
        Mistake(
            "these are whole numbers, which have no room for a half: zeros_like takes "
            "the dtype of the ids, so make zeros of floats",
            when=lambda got, want, args: (
                isinstance(got, np.ndarray) and got.dtype.kind == "i" and not got.any()
            ),
        ),
        Mistake(
            "these are only zeros and ones: what divides them is missing",
            when=lambda got, want, args: (
                isinstance(got, np.ndarray) and got.dtype.kind in "bi"
            ),
        ),
    ),
    exact_dtype=False,
    hint="print which tokens count in the first answer, then what its row adds up to: "
    "1/B, a share of the tokens, or |o|/B",
)
