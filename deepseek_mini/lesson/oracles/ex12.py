"""Lesson 12, multi-token prediction: the worth of drafts, over what may be accepted.

The exercises after it have modules of their own.
"""

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.accept_rule import RULE
from deepseek_mini.lesson.oracles.mtp_loss import LOSS
from deepseek_mini.lesson.oracles.mtp_module import MODULE
from deepseek_mini.lesson.oracles.several import in_one_array

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
            "the tokens are right; the time is not: a draft that is refused was made "
            "as well",
            gives=_tokens(
                _right_tokens, lambda p, D, c: 1 + c * (_right_tokens(p, D) - 1)
            ),
        ),
        Mistake(
            "the tokens are right; the time is not: all D drafts are there before the "
            "pass looks at the first",
            gives=_tokens(
                _right_tokens,
                lambda p, D, c: 1 + c * (_right_tokens(p, D - 1) if D else 0),
            ),
        ),
        Mistake(
            "the tokens are right; the time is not: times that follow each other are "
            "added up",
            gives=_tokens(_right_tokens, lambda p, D, c: (1 + c) ** D),
        ),
        Mistake(
            "the tokens are right; the speed is upside down: it is tokens per time",
            gives=lambda p, D, c: (
                _right_tokens(p, D),
                (1 + D * c) / _right_tokens(p, D),
            ),
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
            "the tokens are right; the speed is not: write down what a pass with D "
            "drafts takes",
            when=lambda got, want, args: (
                isinstance(got, tuple | list)
                and len(got) == 2
                and abs(got[0] - want[0]) < 1e-9
            ),
        ),
        in_one_array("tokens, speed"),
        Mistake(
            "p = 1 divides by zero: this formula needs a case of its own there",
            raises="ZeroDivisionError",
        ),
    ),
    hint="write down the chance that exactly n drafts are accepted, for n = 0 to D",
    exact_dtype=False,
)

EXERCISES = (WORTH, RULE, LOSS, MODULE)
