"""Lesson 12, multi-token prediction: the worth of drafts, the rule, the loss.

The oracles go token by token in plain Python floats. Exercises 12.3 and 12.4 are in
`mtp_loss.py` and `mtp_module.py`.
"""

import math

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.mtp_loss import LOSS
from deepseek_mini.lesson.oracles.mtp_module import MODULE

LESSON = "12_multi_token_prediction"

# --- 12.1 -------------------------------------------------------------------------


def worth(p, D, c):
    """Over the number of accepted drafts and its probability."""
    tokens = (D + 1) * p**D
    for n in range(D):
        tokens += (n + 1) * p**n * (1 - p)
    return float(tokens), tokens / (1 + D * c)


def worth_cases(rng):
    drawn = float(rng.uniform(0.2, 0.9)), int(rng.integers(3, 7))
    for p, D, c, label in (
        (0.5, 2, 0.1, "the example by hand"),
        (*drawn, float(rng.uniform(0.1, 0.5)), "numbers at random"),
        (float(rng.uniform(0.3, 0.9)), 1, 0.25, "one draft"),
        (1.0, 4, 0.2, "every draft accepted"),
        (0.0, 3, 0.1, "no draft accepted"),
        (0.7, 0, 0.3, "no drafts"),
    ):
        yield Case((p, D, c), label)


def _tokens(tokens, time=lambda p, D, c: 1 + D * c):
    def wrong(p, D, c):
        n = float(tokens(p, D))
        return n, n / time(p, D, c)

    return wrong


def _right_tokens(p, D):
    return worth(p, D, 0)[0]


WORTH = Exercise(
    id="12.1",
    title="What a chain of drafts is worth",
    signature="worth(p, D, c)",
    difficulty="a few lines",
    minutes=8,
    right=worth,
    cases=worth_cases,
    mistakes=(
        Mistake(
            "a draft counts only if all before it were accepted, so the chance of the "
            "k-th is not p",
            gives=_tokens(lambda p, D: 1 + D * p),
        ),
        Mistake(
            "the pass's own token is missing: it comes even if no draft is accepted",
            gives=_tokens(lambda p, D: _right_tokens(p, D) - 1),
        ),
        Mistake(
            "the sum ends one too early: with D drafts at most D + 1 tokens come out",
            gives=_tokens(lambda p, D: _right_tokens(p, D) - p**D),
        ),
        Mistake(
            "only the case in which all drafts are accepted is counted",
            gives=_tokens(lambda p, D: 1 + D * p**D),
        ),
        Mistake(
            "the tokens are right; the time is not: every one of the D drafts takes c",
            gives=_tokens(_right_tokens, lambda p, D, c: 1 + c),
        ),
        Mistake(
            "the tokens are right; the speed is not: the time of the drafts is missing",
            gives=_tokens(_right_tokens, lambda p, D, c: 1),
        ),
        Mistake(
            "the tokens are right; the speed is not: the pass itself takes 1, and the "
            "drafts come on top",
            gives=_tokens(_right_tokens, lambda p, D, c: D * c or 1),
        ),
        Mistake(
            "p = 1 divides by zero: this formula needs a case of its own there",
            raises="ZeroDivisionError",
        ),
    ),
    hint="write down the chance that exactly n drafts are accepted, for n = 0 to D",
    exact_dtype=False,
)

# --- 12.2 -------------------------------------------------------------------------


def rule(p, q):
    accept, above = [], []
    for a, b in zip(p.tolist(), q.tolist()):
        accept.append(1.0 if a >= b else a / b)
        above.append(a - b if a > b else 0.0)
    total = math.fsum(above)
    rest = [x / total for x in above] if total else p.tolist()
    return np.array(accept), np.array(rest)


def rule_cases(rng):
    yield Case(
        (np.array([0.6, 0.3, 0.1, 0.0]), np.array([0.2, 0.4, 0.0, 0.4])),
        "the example by hand",
    )
    for n in (2, 9):
        yield Case(tuple(rng.dirichlet(np.ones(n), size=2)), f"{n} tokens")
    greedy = np.eye(6)[rng.permutation(6)[:2]]
    yield Case(tuple(greedy), "greedy: one token each, not the same")
    p = rng.dirichlet(np.ones(5))
    yield Case((p, p.copy()), "p equal to q")


def _pair(accept=None, rest=None):
    def wrong(p, q):
        with np.errstate(all="ignore"):
            right = rule(p, q)
            first = right[0] if accept is None else accept(p, q)
            return first, (right[1] if rest is None else rest(p, q))

    return wrong


def _scaled(x):
    return x / x.sum()


RULE = Exercise(
    id="12.2",
    title="The rule",
    signature="rule(p, q)",
    difficulty="some thought",
    minutes=12,
    right=rule,
    cases=rule_cases,
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
            gives=_pair(accept=lambda p, q: np.minimum(1, q / p)),
        ),
        Mistake(
            "a probability of acceptance is above 1",
            when=lambda got, want, args: bool(np.nanmax(got[0]) > 1 + 1e-9),
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
    "times the residual, and see for which token that is not p",
)

EXERCISES = (WORTH, RULE, LOSS, MODULE)
