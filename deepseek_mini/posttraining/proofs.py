"""Proofs as steps: each fills the leftmost hole of a Lean term.

A tactic of Lean does the same. After every step the term, with `_` for its holes, is
something that Lean can read, so that it can say what is left to be shown.
"""

import re
from collections.abc import Sequence

# What a step writes into a hole. `x` is the name that it is given; `k` and `l` are new
# names; `?` is a hole in which no new name is known, `?k` and `?l` one where they are.
STEPS = {
    "intro": "(fun k => ?k)",
    "exact": "x",
    "apply": "(x ?)",
    "use": "(have k := x ?; ?k)",
    "split": "(And.intro ? ?)",
    "parts": "(have k := And.left x; have l := And.right x; ?l)",
    "inl": "(Or.inl ?)",
    "inr": "(Or.inr ?)",
    "cases": "(Or.elim x (fun k => ?k) (fun k => ?k))",
    "absurd": "(False.elim x)",
    "refl": "(Eq.refl *)",
    "symm": "(Eq.symm ?)",
    "succ": "(Eq.succ ?)",
    "induct": "(N.induct ? ?)",
}
NAMED = {step for step, text in STEPS.items() if re.search(r"\bx\b", text)}
_HOLE = re.compile(r"\?(\d+)")


def lean_term(steps: Sequence[str]) -> str:
    """The Lean term that steps such as "intro" or "exact h0" make, `_` where open.

    The names of hypotheses are h0, h1, ... in the order of their making on the way from
    the root of the term to the hole.

    Raises:
        ValueError: no such step, a name too many or too few, or no hole left to fill.
    """
    term = "?0"
    for step in steps:
        hole = _HOLE.search(term)
        if hole is None:
            raise ValueError(f"the proof has no hole left for the step {step!r}")
        term = term[: hole.start()] + _written(step, int(hole[1])) + term[hole.end() :]
    return _HOLE.sub("_", term).replace("*", "_")


def open_holes(steps: Sequence[str]) -> int:
    """How many holes the steps leave; errors as for `lean_term`."""
    lean_term(steps)
    counts = [STEPS[step.split()[0]].count("?") - 1 for step in steps]
    return 1 + sum(counts)


def _written(step: str, n_names: int) -> str:
    """What a step writes where `n_names` hypotheses are known."""
    word, *names = step.split()
    if word not in STEPS:
        raise ValueError(f"there is no step {word!r}; there are: {', '.join(STEPS)}")
    if len(names) != (word in NAMED) or not all(
        re.fullmatch(r"h\d+", n) for n in names
    ):
        wanted = "one name, such as h0" if word in NAMED else "no name"
        raise ValueError(f"the step is {step!r}, but {word} takes {wanted}")
    new = {"k": f"h{n_names}", "l": f"h{n_names + 1}", **dict(zip("x", names))}

    def fill(match: re.Match) -> str:
        mark = match[0]
        if mark[0] == "?":
            return f"?{n_names + {'': 0, 'k': 1, 'l': 2}[mark[1:]]}"
        return new[mark]

    return re.sub(r"\?[kl]?|\b[klx]\b", fill, STEPS[word])
