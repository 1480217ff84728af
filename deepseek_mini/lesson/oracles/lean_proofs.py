"""Exercise 19.4, proofs by hand: Lean itself is the oracle."""

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


def _judge(theirs, rng):
    answer = call(theirs, exercise=PROOFS)
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
    terms = {name: _term(name, answer[name]) for name in STATEMENTS}
    pairs = [(LETTERS + STATEMENTS[name], term) for name, term in terms.items()]
    for name, verdict in zip(STATEMENTS, judge(pairs)):
        if not verdict.proved:
            raise _refused(name, list(answer[name]))


def _term(name: str, steps: object) -> str:
    if not isinstance(steps, list | tuple) or not all(
        isinstance(step, str) for step in steps
    ):
        raise NotYet(
            f"{name}: the proof is {steps!r:.60}, but should be a list of texts",
            'a step is a text: "intro", or "exact h0"',
        )
    try:
        return lean_term(steps)
    except ValueError as problem:
        hint = "the table above has every step, and says which take a name"
        if "no hole left" in str(problem):
            hint = "the proof is whole before that step: leave the rest out"
        raise NotYet(f"{name}: {problem}", hint) from None


def _refused(name: str, steps: list[str]) -> NotYet:
    """What Lean says of the first step that is wrong, or of what is left."""
    prefixes = [lean_term(steps[:i]) for i in range(len(steps) + 1)]
    verdicts = judge([(LETTERS + STATEMENTS[name], term) for term in prefixes])
    for i, verdict in enumerate(verdicts):
        if verdict.reason is not None:
            left = _left(verdicts[i - 1]) if i else ""
            return NotYet(
                f"{name}: Lean refuses step {i}, {steps[i - 1]!r}: {verdict.reason}",
                f"before that step {left}",
            )
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
