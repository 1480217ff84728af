"""Theorems of propositional logic, and a prover that is complete for small ones.

They are what a small model can learn to prove: statements over three propositions with
→, And, Or and False, each with a proof in the steps of `proofs`. The prover is a plain
search; it makes the training data, and Lean has the last word on every proof.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

Formula = str | tuple  # "a", "False", or (sign, formula, formula): ("And", "a", "b")
LETTERS = ("a", "b", "c")


@dataclass(frozen=True)
class Theorem:
    """A formula that holds, and the shortest proof that the search found."""

    formula: Formula
    proof: tuple[str, ...]

    @property
    def statement(self) -> str:
        """As Lean reads it after a theorem's name."""
        return f"({' '.join(LETTERS)} : Prop) : {text(self.formula)}"


def text(formula: Formula, inner: bool = False) -> str:
    """Lean's notation, prefix but for →; in brackets if `inner` and not one word."""
    if isinstance(formula, str):
        return formula
    sign, left, right = formula
    if sign == "→":
        written = f"{text(left, left[0] == '→')} → {text(right)}"
    else:
        written = f"{sign} {text(left, True)} {text(right, True)}"
    return f"({written})" if inner else written


def theorems(
    seed: int, size: int = 6, steps: int = 1, held_out: bool = False
) -> Iterator[Theorem]:
    """Different theorems without end: up to `size` signs, at least `steps` steps.

    Those of training and those held out never overlap, whatever the seed, not even
    after renaming letters: a hash of the formula decides, every fifth is held out.
    """
    draw, seen = random.Random(seed), set()
    while True:
        formula = canonical(_random_formula(draw, draw.randint(2, size), True))
        if formula in seen or (_hash(formula) % 5 == 0) != held_out:
            continue
        seen.add(formula)
        proof = prove(formula)
        if proof is not None and len(proof) >= steps:
            yield Theorem(formula, proof)


def canonical(formula: Formula) -> Formula:
    """The formula with its letters renamed in the order in which they appear."""
    names: dict[str, str] = {}

    def rename(part: Formula) -> Formula:
        if part == "False":
            return part
        if isinstance(part, str):
            if part not in names:
                names[part] = LETTERS[len(names)]
            return names[part]
        return part[0], rename(part[1]), rename(part[2])

    return rename(formula)


def prove(formula: Formula, deepest: int = 4) -> tuple[str, ...] | None:
    """The steps of a proof, or None if none uses at most `deepest` choices in a row."""
    for depth in range(deepest + 1):
        steps = _search((), frozenset(), formula, depth, {})
        if steps is not None:
            return tuple(steps)
    return None


def _search(known, spent, goal, depth, failed) -> list[str] | None:
    """Steps that show `goal` from the formulas `known`, h0 first.

    `spent` are the numbers of those that were taken apart. First comes what is never
    wrong; then, `depth` times, a choice. `failed` remembers what could not be shown,
    and with how many choices.
    """
    if goal in known:
        return [f"exact h{known.index(goal)}"]
    if "False" in known:
        return [f"absurd h{known.index('False')}"]

    def go(new, goal, deeper=depth, used=None):
        used = spent if used is None else spent | {used}
        return _search((*known, *new), used, goal, deeper, failed)

    if goal[0] == "→":
        return _joined("intro", go([goal[1]], goal[2]))
    for i, part in enumerate(known):
        if i not in spent and part[0] == "And":
            return _joined(f"parts h{i}", go(part[1:], goal, used=i))
        if i not in spent and part[0] == "Or":
            left, right = go(part[1:2], goal, used=i), go(part[2:], goal, used=i)
            return _joined(f"cases h{i}", left, right)
    if goal[0] == "And":
        return _joined("split", go([], goal[1]), go([], goal[2]))
    sequent = (frozenset(known), goal)
    if depth <= failed.get(sequent, 0):
        return None
    found = []
    if goal[0] == "Or":
        found.append(_joined("inl", go([], goal[1], depth - 1)))
        found.append(_joined("inr", go([], goal[2], depth - 1)))
    for i, part in enumerate(known):
        if part[0] == "→" and part[2] not in known:
            first = go([], part[1], depth - 1)
            if first is None:
                continue
            if part[2] == goal:
                found.append([f"apply h{i}", *first])
            else:
                found.append(
                    _joined(f"use h{i}", first, go([part[2]], goal, depth - 1))
                )
    found = [steps for steps in found if steps is not None]
    if not found:
        failed[sequent] = depth
    return min(found, key=len, default=None)


def _joined(step: str, *parts: list[str] | None) -> list[str] | None:
    return None if None in parts else [step, *(s for part in parts for s in part)]


def _random_formula(draw: random.Random, size: int, top: bool = False) -> Formula:
    """A formula with `size` signs, an implication at the top."""
    if size == 0:
        return draw.choice((*LETTERS, *LETTERS, *LETTERS, "False"))
    sign = "→" if top else draw.choice(("→", "→", "And", "Or"))
    left = draw.randint(0, size - 1)
    again = top and size - 1 - left > 0 and draw.random() < 0.5
    right = _random_formula(draw, size - 1 - left, again)
    return sign, _random_formula(draw, left), right


def _hash(formula: Formula) -> int:
    return int.from_bytes(hashlib.sha256(repr(formula).encode()).digest()[:4], "big")
