"""A proof in parts: a lemma first, then the theorem with the lemma's help.

DeepSeek-Prover-V2 (arXiv 2504.21801, §2.1) lets a large model write a sketch of `have`
steps without their proofs, and a small one prove each, with those before as premises.
Here the sketch is the first `use` step of a known proof: it shows what an implication
asks for, the lemma, and goes on with what the implication gives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from deepseek_mini.posttraining.theorems import Formula, Theorem


@dataclass(frozen=True)
class Cut:
    """Two theorems of which the whole can be made.

    `steps` lead from the theorem to the cut, its `use` included; there `known` is
    known, h0 first. `parts`: the lemma from what is known, and the goal from what is
    known and what the lemma gave. Neither has a proof yet.
    """

    steps: tuple[str, ...]
    known: tuple[Formula, ...]
    parts: tuple[Theorem, Theorem]

    def stitched(self, lemma: Sequence[str], rest: Sequence[str]) -> list[str]:
        """The steps of the whole from those of the parts.

        What a part takes in by its first `intro` steps is there already in the whole,
        under the same names.
        """
        n = len(self.known)
        return [*self.steps, *lemma[n:], *rest[n + 1 :]]


def first_cut(theorem: Theorem) -> Cut | None:
    """Where the theorem's proof first uses an implication, before any branching; None
    if it does not.
    """
    known: list[Formula] = []
    goal = theorem.formula
    for i, step in enumerate(theorem.proof):
        word, *name = step.split()
        fact = known[int(name[0][1:])] if name else None
        if word == "intro":
            known, goal = [*known, goal[1]], goal[2]
        elif word == "parts":
            known += fact[1:]
        elif word == "use":
            parts = implied(known, fact[1]), implied([*known, fact[2]], goal)
            return Cut(theorem.proof[: i + 1], tuple(known), parts)
        else:
            return None
    return None


def implied(known: Sequence[Formula], goal: Formula) -> Theorem:
    """The theorem, without a proof, that what is known implies the goal."""
    for fact in reversed(known):
        goal = ("→", fact, goal)
    return Theorem(goal, ())
