"""Wrong answers that a person would write, and right ones written another way.

For lesson NN, `exNN.py` holds `ANSWERS`, one entry for each exercise:

    ANSWERS = {
        "03.1": Answers(
            right=[with_a_loop],
            wrong=[Wrong(counts_channels, "for a pair of channels"), ...],
        ),
    }

`tests/test_exercises.py` asks for at least three wrong answers and one right answer
for every exercise; each wrong one must be rejected on several seeds with a reason or
hint that holds its `says`, and each right one must pass. Write them as a learner would:
whole functions with one slip in them, not variations of the oracle.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Wrong:
    """A wrong answer, and a fragment that its reason or hint must contain."""

    answer: Callable
    says: str


@dataclass(frozen=True)
class Answers:
    """What is known to be right and wrong for one exercise."""

    right: Sequence[Callable]
    wrong: Sequence[Wrong]
