"""Mistakes that every exercise with several results invites."""

from itertools import permutations

import numpy as np

from deepseek_mini.lesson.compare import difference
from deepseek_mini.lesson.oracles import Mistake


def in_another_order(hint: str) -> Mistake:
    """All results are right, and stand in another order."""

    def when(got, want, args):
        others = list(permutations(want))[1:]
        return isinstance(got, tuple | list) and any(
            difference(got, other, 1e-7, exact_dtype=False) is None for other in others
        )

    return Mistake(hint, when=when)


def in_one_array(returned: str) -> Mistake:
    """The numbers come back as one array; `returned` is how they should."""
    return Mistake(
        f"the numbers are in one array: return them one by one, `return {returned}`",
        when=lambda got, want, args: (
            isinstance(got, np.ndarray) and got.shape == (len(want),)
        ),
    )
