"""Exercise 19.4, proofs by hand: Lean itself is the oracle."""

import functools
import io
from contextlib import redirect_stdout

from deepseek_mini.lesson.explain import NotYet, an
from deepseek_mini.lesson.judge import call
from deepseek_mini.lesson.oracles import Exercise
from deepseek_mini.posttraining.lean import judge, missing
from deepseek_mini.posttraining.proofs import lean_term

LETTERS = "(a b c : Prop) : "
STATEMENTS = {
    "swap": "And a b → And b a",
    "either": "Or a b → Or b a",
    "chain": "(a → b) → (b → c) → a → c",
    "refute": "And a (a → False) → b",
    "share": "Or (And a b) c → And (Or a c) (Or b c)",
}
TABLE = ("intro", "exact", "apply", "use", "split", "parts", "inl", "inr", "cases",
         "absurd")  # fmt: skip
LONGEST = 40  # steps: the five need 14 at most, and Lean's memory is limited


def _judge(theirs, rng):
    printed = io.StringIO()

    def kept():
        with redirect_stdout(printed):
            return theirs()

    if callable(theirs):
        kept = functools.wraps(theirs)(kept)
    try:
        _judge_answer(call(kept, exercise=PROOFS))
    except NotYet as problem:
        problem.printed = printed.getvalue()
        raise


def _judge_answer(answer):
    if not isinstance(answer, dict):
        raise NotYet(
            f"the result is {an(type(answer).__name__)}, but should be a dictionary",
            "it has a list of steps for each name",
        )
    lacks = [name for name in STATEMENTS if name not in answer]
    if lacks:
        raise NotYet(
            f"your dictionary lacks {', '.join(lacks)}",
            f"the names are {', '.join(STATEMENTS)}",
        )
    if missing():
        raise NotYet(f"nobody can judge this here: {missing()}", "read on without it")
    for name in STATEMENTS:
        _check_texts(name, answer[name])
    begun = {name: _beginnings(answer[name]) for name in STATEMENTS}
    wholes = [
        (LETTERS + STATEMENTS[name], terms[-1]) for name, (terms, _) in begun.items()
    ]
    for (name, (terms, problem)), verdict in zip(begun.items(), judge(wholes)):
        if problem or not verdict.proved:
            raise _refused(name, list(answer[name]), terms, problem)


def _check_texts(name: str, steps: object) -> None:
    if not isinstance(steps, list | tuple) or not all(
        isinstance(step, str) for step in steps
    ):
        raise NotYet(
            f"{name}: the proof is {steps!r:.60}, but should be a list of texts",
            'a step is a text: "intro", or "exact h0"',
        )


def _beginnings(steps) -> tuple[list[str], tuple[str, str] | None]:
    """The terms of all beginnings that can be written, and why there is no longer one.

    The why is a reason and a hint, None if the last term is that of all steps.
    """
    terms = [lean_term([])]
    for i, step in enumerate(steps):
        if i == LONGEST:
            return terms, (
                f"{len(steps)} steps are too many, {LONGEST} are read",
                "none of the five needs more than 14",
            )
        word = (step.split() or [""])[0]
        if word not in TABLE:
            hint = f"the steps of the table are {', '.join(TABLE)}"
            return terms, (f"there is no step {word!r}", hint)
        try:
            terms.append(lean_term(steps[: i + 1]))
        except ValueError as problem:
            hint = "the table says which steps take a name"
            if "no hole left" in str(problem):
                hint = "the proof is whole before that step: leave the rest out"
            return terms, (str(problem), hint)
    return terms, None


def _refused(name, steps, terms, problem) -> NotYet:
    """What Lean says of the first step that is wrong, or of what is left."""
    verdicts = judge([(LETTERS + STATEMENTS[name], term) for term in terms])
    for i, verdict in enumerate(verdicts):
        if verdict.reason is not None:
            left = _left(verdicts[i - 1]) if i else ""
            return NotYet(
                f"{name}: Lean refuses step {i}, {steps[i - 1]!r}: {verdict.reason}",
                f"before that step {left}",
            )
    if problem:
        return NotYet(f"{name}: {problem[0]}", problem[1])
    return NotYet(
        f"{name}: the proof is not finished, {_left(verdicts[-1])}",
        "a step fills the first hole; go on until there is none",
    )


def _left(verdict) -> str:
    """What is left to be shown in the first hole, in words."""
    hole = verdict.holes[0]
    known = [f"{n} : {kind}" for n, kind in hole.known if kind != "Prop"]
    return f"you know {', '.join(known) or 'nothing'} and have to show {hole.goal}"


PROOFS = Exercise(
    id="19.4",
    title="Five proofs for Lean",
    signature="proofs()",
    difficulty="some thought",
    minutes=20,
    judge=_judge,
    hint="take one step after the other, and read what Lean says is left",
)
