"""Lesson 07, Coder: near duplicates.

07.1 and 07.5 are in `cuts` and `packed_cuts`, 07.2 and 07.3 in `import_paths` and
`file_order`.
"""

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.cuts import CUT
from deepseek_mini.lesson.oracles.file_order import ORDER
from deepseek_mini.lesson.oracles.import_paths import IMPORT
from deepseek_mini.lesson.oracles.packed_cuts import PACKING

LESSON = "07_coder_fim"

# --- 07.4 -------------------------------------------------------------------------

PRIME = 2**31 - 1


def similarity(a, b, factors, terms):
    """The oracle: Python's whole numbers, one hash function after the other."""
    same = 0
    for factor, term in zip(factors.tolist(), terms.tolist()):
        first, second = (
            min((factor * x + term) % PRIME for x in hashes.tolist())
            for hashes in (a, b)
        )
        same += first == second
    return same / len(factors)


def _signatures(a, b, factors, terms):
    made = [(np.outer(factors, x) + terms[:, None]) % PRIME for x in (a, b)]
    return [values.min(axis=1) for values in made]


def _jaccard(a, b, factors, terms):
    a, b = set(a.tolist()), set(b.tolist())
    return len(a & b) / len(a | b)


def _anywhere(a, b, factors, terms):
    first, second = _signatures(a, b, factors, terms)
    return float(np.isin(first, second).mean())


def _with(value):
    """Values by another formula, all at once: of factors, hashes and terms."""

    def wrong(a, b, factors, terms):
        first, second = (
            value(factors[:, None], x, terms[:, None]).min(axis=1) for x in (a, b)
        )
        return float((first == second).mean())

    return wrong


def _places(a, b, factors, terms):
    """Where in each set the smallest value is, in place of the value."""
    tables = [(np.outer(factors, x) + terms[:, None]) % PRIME for x in (a, b)]
    first, second = (table.argmin(axis=1) for table in tables)
    return float((first == second).mean())


def _of_each_hash(a, b, factors, terms):
    """The smallest over the functions, one number for each hash."""
    tables = [(np.outer(factors, x) + terms[:, None]) % PRIME for x in (a, b)]
    first, second = (table.min(axis=0) for table in tables)
    return float((first == second).mean())


def set_cases(rng):
    for both, only_a, only_b, k, label in (
        (60, 20, 20, 128, "most in common"),
        (30, 40, 50, 64, "some in common"),
        (12, 0, 0, 16, "the same set in another order"),
        (1, 0, 1, 100, "one hash and two"),
        (0, 15, 25, 16, "nothing in common"),
    ):
        n = both + only_a + only_b
        drawn = rng.choice(2**31 - 2, size=n, replace=False).astype(np.int64)
        a = rng.permutation(drawn[: both + only_a])
        b = rng.permutation(np.concatenate([drawn[:both], drawn[both + only_a :]]))
        factors, terms = rng.integers(1, PRIME, size=(2, k))
        said = f"{label}: {len(a)} and {len(b)} hashes, {k} functions"
        yield Case((a, b, factors, terms), said)
    # Function 2 i gives the first set what function 2 i + 1 gives the second.
    x, y = rng.choice(2**31 - 2, size=2, replace=False).tolist()
    factors, terms = rng.integers(1, PRIME, size=(2, 20))
    terms[1::2] = (factors[::2] * x + terms[::2] - factors[1::2] * y) % PRIME
    yield Case((np.array([x]), np.array([y]), factors, terms), "two single hashes")


SIMILARITY = Exercise(
    id="07.4",
    title="Near duplicates",
    signature="similarity(a, b, factors, terms)",
    difficulty="a few lines",
    minutes=12,
    right=similarity,
    cases=set_cases,
    mistakes=(
        Mistake(
            "this is the true share of common hashes; MinHash estimates it from the K "
            "smallest values alone",
            gives=_jaccard,
        ),
        Mistake(
            "the largest values are compared, not the smallest",
            gives=_with(lambda factor, x, term: -((factor * x + term) % PRIME)),
        ),
        Mistake(
            "the terms change nothing here: are they in the hash functions, and under "
            "the modulo?",
            gives=_with(lambda factor, x, term: factor * x % PRIME),
        ),
        Mistake(
            "the order of the values is that of the hashes themselves: the modulo is "
            "missing, comes after the smallest is taken, or covers the term alone",
            gives=_with(lambda factor, x, term: x + 0 * factor),
        ),
        Mistake(
            "the modulo is not p here: p is 2^31 - 1, all of it",
            gives=_with(lambda factor, x, term: (factor * x + term) % 2**31),
        ),
        Mistake(
            "the term is multiplied by the factor as well; it comes after",
            gives=_with(lambda factor, x, term: factor * (x + term) % PRIME),
        ),
        Mistake(
            "these are the places of the smallest values, which depend on the order "
            "of the hashes; compare the values",
            gives=_places,
        ),
        Mistake(
            "the smallest are taken over the functions: a signature has one number "
            "for every function, not for every hash",
            gives=_of_each_hash,
        ),
        Mistake(
            "every value of one signature is looked for anywhere in the other: compare "
            "function k with function k",
            gives=_anywhere,
        ),
        Mistake(
            "the number of equal values is right; divide it by the number of functions",
            gives=lambda a, b, f, t: round(similarity(a, b, f, t) * len(f)),
        ),
        Mistake(
            "a truth value for each function: give their mean, one number",
            when=lambda got, want, args: np.size(got) == len(args[2]) > 1,
        ),
        Mistake(
            "the hashes themselves are compared place by place; they have no order",
            when=lambda got, want, args: (
                len(args[0]) == len(args[1])
                and got == float(np.mean(args[0] == args[1]))
            ),
        ),
    ),
    hint="print the signatures of both sets for the example, and compare them with "
    "those by hand",
)

EXERCISES = (CUT, IMPORT, ORDER, SIMILARITY, PACKING)
