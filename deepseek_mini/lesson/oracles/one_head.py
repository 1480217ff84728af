"""Exercise 04.2: the oracle goes query by query, so there is nothing to mask."""

import math

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, array


def one_head(
    q, k, v, *, scale=None, cached=None, beyond=0, causal=True, over_queries=False
):
    """The oracle; the keywords make the known mistakes."""
    T, S = len(q), len(k)
    cached = S - T if cached is None else cached
    scale = 1 / math.sqrt(q.shape[1]) if scale is None else scale
    scores = np.full((T, S), -np.inf)
    for t in range(T):
        for s in range(min(cached + t + 1 + beyond, S) if causal else S):
            scores[t, s] = scale * float(np.dot(q[t], k[s]))
    axis = 0 if over_queries else 1
    weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
    weights /= weights.sum(axis=axis, keepdims=True)
    return weights @ v


def _seen(q, k):
    return np.tri(len(q), len(k), len(k) - len(q), dtype=bool)  # [T, S]


def _heading(**mistake):
    return lambda q, k, v: one_head(q, k, v, **mistake)


def _not_normalised(q, k, v):
    weights = np.exp(q @ k.T / math.sqrt(q.shape[1]))
    return weights * _seen(q, k) @ v


def _masked_with_zero(q, k, v):
    """Hidden scores set to 0, which a softmax does not leave out."""
    scores = q @ k.T / math.sqrt(q.shape[1])
    scores = np.where(_seen(q, k), scores, 0.0)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True) @ v


def _masked_after(q, k, v):
    """The softmax over all keys, and only then the weights of later ones set to 0."""
    scores = q @ k.T / math.sqrt(q.shape[1])
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights * _seen(q, k) @ v


def _nan_as(function):
    """Whether the result is not a number where that of a wrong function is not."""

    def when(got, want, args):
        if not isinstance(got, np.ndarray) or not np.isnan(got).any():
            return False
        with np.errstate(all="ignore"):
            return bool((np.isnan(got) == np.isnan(function(*args))).all())

    return when


def _less_the_largest(q, k, v, *, axis=None, hide_first=True):
    """The softmax with the largest score of other places subtracted."""
    seen = _seen(q, k)
    scores = q @ k.T / math.sqrt(q.shape[1])
    shown = np.where(seen, scores, -np.inf) if hide_first else scores
    weights = np.exp(shown - shown.max(axis=axis, keepdims=True)) * seen
    return weights / weights.sum(axis=1, keepdims=True) @ v


def _less_hidden(q, k, v):
    return _less_the_largest(q, k, v, axis=1, hide_first=False)


def _filled(number):
    """Hidden scores set to a number that a visible score can be below."""

    def wrong(q, k, v):
        scores = q @ k.T / math.sqrt(q.shape[1])
        scores = np.where(_seen(q, k), scores, number)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True) @ v

    return wrong


def _far_cases(rng):
    """Scores thousands apart: of the visible, of one query, of a hidden key."""

    def case(scores, label):
        """Keys that give these scores [T, S] to queries along the first axes."""
        T, S = scores.shape
        q, k = np.zeros((T, 4)), np.zeros((S, 4))
        q[:, :T], k[:, :T] = np.eye(T), 2 * scores.T  # / sqrt(4)
        return Case((q, k, array(rng, S, 3)), label, tolerance=1e-7)

    yield case(array(rng, 1, 5) * 3000, "one new token, scores in the thousands")
    apart = array(rng, 2, 4)
    apart[0] -= 3000
    yield case(apart, "two new tokens, all scores of the first about -3000")
    hidden = array(rng, 3, 5)
    hidden[0, 4] += 3000
    yield case(hidden, "three new tokens, a hidden score of 3000")


def head_cases(rng):
    for n, cached, d, wide, strided, label in (
        (4, 3, 6, 6, False, "a cache of three tokens"),
        (1, 5, 3, 4, False, "one new token, values wider than keys"),
        (6, 0, 16, 5, False, "an empty cache"),
        (1, 0, 2, 2, False, "the very first token"),
        (5, 4, 4, 3, True, "arrays that are not contiguous"),
    ):
        q = array(rng, n, d, strided=strided)
        k = array(rng, n + cached, d, strided=strided)
        v = array(rng, n + cached, wide, strided=strided)
        said = f"{label}: q [{n}, {d}], k [{n + cached}, {d}], v [{n + cached}, {wide}]"
        yield Case((q, k, v), said, tolerance=1e-7)
    yield from _far_cases(rng)


HEAD = Exercise(
    id="04.2",
    title="One head",
    signature="one_head(q, k, v)",
    difficulty="a few lines",
    minutes=12,
    right=one_head,
    cases=head_cases,
    mistakes=(
        Mistake(
            "the scores are not divided: they grow with the width of the queries",
            gives=_heading(scale=1.0),
        ),
        Mistake(
            "the scores are divided by d, not by its root",
            gives=lambda q, k, v: one_head(q, k, v, scale=1 / q.shape[1]),
        ),
        Mistake(
            "the scores are divided by the root of the wrong width: it is that of the "
            "queries and keys",
            gives=lambda q, k, v: one_head(q, k, v, scale=v.shape[1] ** -0.5),
        ),
        Mistake(
            "the scores are divided by the root of the number of keys, not of channels",
            gives=lambda q, k, v: one_head(q, k, v, scale=len(k) ** -0.5),
        ),
        Mistake(
            "queries see later tokens: nothing is hidden",
            gives=_heading(causal=False),
        ),
        Mistake(
            "the queries are taken for those of the first T tokens; they belong to the "
            "last T",
            gives=_heading(cached=0),
        ),
        Mistake(
            "queries look one token too far ahead: which is the last key that the "
            "first query may see?",
            gives=_heading(beyond=1),
        ),
        Mistake(
            "queries do not see their own token's key",
            gives=_heading(beyond=-1),
        ),
        Mistake(
            "these are the weights; they still have to meet v",
            gives=lambda q, k, v: one_head(q, k, np.eye(len(k))),
        ),
        Mistake(
            "the softmax runs over the queries: each query's weights should sum to 1",
            gives=_heading(over_queries=True),
        ),
        *(
            Mistake(
                "hidden scores are set to a number that visible scores can be below: "
                "only e to minus infinity is 0 beside all of them",
                gives=_filled(number),
            )
            for number in (-1, -5, -10, -20, -50, -100, -500, -1000)
        ),
        Mistake(
            "a hidden score of 0 still gets the weight e^0: what number does the "
            "exponential turn into 0?",
            gives=_masked_with_zero,
        ),
        Mistake(
            "later tokens are hidden after the softmax, so the weights that are left "
            "do not sum to 1",
            gives=_masked_after,
        ),
        Mistake(
            "the weights are never divided by their sum",
            gives=_not_normalised,
        ),
        Mistake(
            "not a number, 0 / 0: the largest score of all rows is subtracted, and in "
            "a row far below it every e^x is 0; each row has its own largest",
            when=_nan_as(_less_the_largest),
        ),
        Mistake(
            "not a number, 0 / 0: the largest score of all rows is subtracted, and in "
            "a row far below it every e^x is 0; each row has its own largest",
            when=_nan_as(lambda *args: _less_the_largest(*args, hide_first=False)),
        ),
        Mistake(
            "not a number, 0 / 0: the score that is subtracted belongs to a hidden "
            "key; take the largest of those that the query sees",
            when=_nan_as(_less_hidden),
        ),
        Mistake(
            "not a number: e to a large score is infinite, and infinity divided by "
            "infinity is no number; subtract the row's largest score first",
            when=lambda got, want, args: (
                isinstance(got, np.ndarray) and bool(np.isnan(got).any())
            ),
        ),
    ),
    hint="print the weights [T, S]: each row should sum to 1, with 0 exactly at the "
    "tokens after the query's; if they do, work one score by hand",
)
