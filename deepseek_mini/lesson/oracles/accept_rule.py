"""Exercise 12.2, the rule of speculative decoding: the oracle goes token by token."""

import math
from dataclasses import replace
from functools import wraps

import numpy as np

from deepseek_mini.lesson.judge import judge_exercise
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def rule(p, q):
    accept, above = [], []
    for a, b in zip(p.tolist(), q.tolist()):
        accept.append(1.0 if a >= b else a / b)
        above.append(a - b if a > b else 0.0)
    total = math.fsum(above)
    rest = [x / total for x in above] if total else p.tolist()
    return np.array(accept), np.array(rest)


def rule_cases(rng):
    greedy = np.eye(6)[rng.permutation(6)[:2]]
    p = rng.dirichlet(np.ones(5))
    by_hand = np.array([0.6, 0.3, 0.1, 0, 0]), np.array([0.2, 0.4, 0, 0.4, 0])
    for pair, label in (
        (by_hand, "the example by hand"),
        (rng.dirichlet(np.ones(2), size=2), "2 tokens"),
        (rng.dirichlet(np.ones(9), size=2), "9 tokens"),
        (greedy, "greedy: one token each, not the same"),
        ((p, p.copy()), "p equal to q"),
    ):
        yield Case(tuple(pair), label, tolerance=1e-6)


def judge_rule(theirs, rng):
    """As always, but whole numbers pass: min(1, x / y) is the int 1 if p = q."""

    def as_floats(value):
        whole = isinstance(value, np.ndarray) and value.dtype.kind in "iu"
        return value.astype(float) if whole else value

    @wraps(theirs)
    def in_floats(p, q):
        got = theirs(p, q)
        return tuple(map(as_floats, got)) if isinstance(got, tuple | list) else got

    judge_exercise(replace(RULE, judge=None), in_floats, rng)


def _wrong_where_never_drafted(got, want, args):
    """Right where q is above 0, and some other number than 1 where it is 0."""
    never = args[1] == 0
    return bool(
        np.shape(got[0]) == never.shape
        and np.allclose(got[0][~never], want[0][~never], atol=1e-6)
        and np.isfinite(got[0]).all()
        and (got[0][never] != 1).any()
    )


def _pair(accept=None, rest=None):
    def wrong(p, q):
        with np.errstate(all="ignore"):
            right = rule(p, q)
            first = right[0] if accept is None else accept(p, q)
            return first, (right[1] if rest is None else rest(p, q))

    return wrong


def _scaled(x):
    return x / x.sum()


def _zeros_if_equal(p, q):
    above = np.maximum(0, p - q)
    return above / max(above.sum(), 1e-300)


RULE = Exercise(
    id="12.2",
    title="The rule",
    signature="rule(p, q)",
    difficulty="some thought",
    minutes=12,
    right=rule,
    cases=rule_cases,
    judge=judge_rule,
    exact_dtype=False,
    mistakes=(
        Mistake(
            "every draft is accepted: then the draft's distribution comes out, not p",
            gives=_pair(accept=lambda p, q: np.ones_like(p)),
        ),
        Mistake(
            "a draft is accepted with the model's probability p alone; how often it is "
            "drafted counts too",
            gives=_pair(accept=lambda p, q: p),
        ),
        Mistake(
            "min(p, q) is how often a token is drafted and accepted; asked for is how "
            "often it is accepted when it was drafted",
            gives=_pair(accept=np.minimum),
        ),
        Mistake(
            "the ratio is upside down: a token that the draft overrates is refused",
            gives=_pair(accept=lambda p, q: np.where(p > 0, np.minimum(1, q / p), 1.0)),
        ),
        Mistake(
            "a probability of acceptance is above 1",
            when=lambda got, want, args: bool(np.nanmax(got[0]) > 1 + 1e-9),
        ),
        Mistake(
            "a token that is never drafted (q = 0) has another number than the text "
            "asks for; look at one that p never gives either",
            when=_wrong_where_never_drafted,
        ),
        Mistake(
            "not a number: where q is 0, or p equals q, something is divided by 0",
            when=lambda got, want, args: bool(
                np.isnan(got[0]).any() or np.isnan(got[1]).any()
            ),
        ),
        Mistake(
            "after a rejection a token is drawn from p itself: what was accepted "
            "already is then given out twice",
            gives=_pair(rest=lambda p, q: p),
        ),
        Mistake(
            "the residual is all zeros: where p = q nothing is left over, and the text "
            "says what to return then",
            gives=_pair(rest=_zeros_if_equal),
        ),
        Mistake(
            "the residual does not add up to 1: divide by its sum",
            gives=_pair(rest=lambda p, q: np.maximum(0, p - q)),
        ),
        Mistake(
            "the residual is negative where the draft is above the model",
            when=lambda got, want, args: bool(np.min(got[1]) < -1e-9),
        ),
        Mistake(
            "the residual is what the draft has above the model; turn it round",
            gives=_pair(rest=lambda p, q: _scaled(np.maximum(0, q - p))),
        ),
        Mistake(
            "|p - q| also has what the draft has above the model; it belongs to nobody",
            gives=_pair(rest=lambda p, q: _scaled(np.abs(p - q))),
        ),
        Mistake(
            "a softmax never gives 0: the residual is divided by its sum",
            gives=_pair(rest=lambda p, q: _scaled(np.exp(np.maximum(0, p - q)))),
        ),
    ),
    hint="q * accept is what is drafted and accepted; add to it what was rejected "
    "times the residual, and see for which token that is not p (it shows nothing of "
    "tokens with q = 0)",
)
