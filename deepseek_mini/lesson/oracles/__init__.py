"""The form of an exercise's oracle, and where the oracles of a lesson are found.

The exercises of lesson NN are in `exNN.py`, which holds `LESSON = "NN_topic"` and
`EXERCISES`, a tuple of `Exercise`. A typical one is declared like this:

    Exercise(
        id="03.1",
        title="The frequencies",
        signature="inverse_frequencies(head_dim, theta)",
        difficulty="one line",
        minutes=3,
        right=inverse_frequencies,          # the oracle, called with the same arguments
        cases=frequency_cases,              # rng -> Case(args, label), ...
        mistakes=(Mistake("A hint ...", gives=a_wrong_version), ...),
        hint="What to look at when no known mistake fits.",
    )

An oracle is written independently of the code that the lesson teaches (another
formula, float64, complex numbers), because an oracle that shares a mistake proves
nothing. What does not fit the form (a class to be trained, say) gives `judge`, a
function of the learner's object and a random generator that calls it through
`deepseek_mini.lesson.judge.call` and raises `NotYet`.

A hint is read by someone whose answer is wrong. So it never tells them to try what
their answer already does rightly: `Exercise.hint`, given when no known mistake fits,
says how to look, not what an example gives.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules

import numpy as np
import torch


@dataclass(frozen=True)
class Case:
    """One call of the learner's function.

    args: what it is called with, by position. Draw at least part of it at random.
    label: the kind of input, said when it fails: "a batch of one".
    tolerance: of max|a - b| / max(1, max|b|); by the dtype when not given.
    """

    args: tuple
    label: str = ""
    tolerance: float | None = None


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people write, and the hint that puts them on the way.

    gives: the wrong function. The hint is given when the learner's result equals its.
    when: instead, a predicate of (got, want, args).
    raises: instead, a pattern that the exception shows as "KeyError: ('a', 'b')".
    The hint names what is wrong, not the line that mends it.
    """

    hint: str
    gives: Callable | None = None
    when: Callable[[object, object, tuple], bool] | None = None
    raises: str = ""


@dataclass(frozen=True)
class Exercise:
    """One exercise: what is asked, and how an answer is judged (see the module)."""

    id: str
    title: str
    signature: str  # "rotate(x, positions, theta)", the stub's name and parameters
    difficulty: str  # "one line", "a few lines", "some thought", "from the paper"
    minutes: int
    right: Callable | None = None
    cases: Callable[[np.random.Generator], Iterable[Case]] | None = None
    mistakes: tuple[Mistake, ...] = ()
    hint: str = ""
    exact_dtype: bool = True  # whether float32 is wrong where float64 is expected
    judge: Callable[[Callable, np.random.Generator], None] | None = None


@lru_cache
def lessons() -> dict[str, tuple[Exercise, ...]]:
    """Every lesson that has exercises: {"03_rope": (Exercise, ...)}, in order."""
    found = (module.name for module in iter_modules(__path__))
    names = sorted(name for name in found if re.fullmatch(r"ex\d\d", name))
    modules = [import_module(f"{__name__}.{name}") for name in names]
    return {module.LESSON: tuple(module.EXERCISES) for module in modules}


def find(id: object) -> Exercise:
    """The exercise with this id.

    Raises ValueError that lists the ids of the lesson when there is none.
    """
    by_id = {e.id: e for exercises in lessons().values() for e in exercises}
    if isinstance(id, str) and id in by_id:
        return by_id[id]
    number = re.match(r"\d\d", str(id))
    near = [i for i in by_id if number and i.startswith(number[0] + ".")]
    if near:
        raise ValueError(
            f"there is no exercise {id!r}; those of lesson {number[0]} are "
            + ", ".join(near)
        )
    known = ", ".join(lesson[:2] for lesson in lessons())
    raise ValueError(
        f"there is no exercise {id!r}; an id looks like '03.2', and the lessons that "
        f"have exercises are {known}"
    )


def array(rng: np.random.Generator, *shape: int, strided: bool = False) -> np.ndarray:
    """A random normal float64 array; `strided`: every second element of a larger."""
    if strided and shape:
        return rng.standard_normal((*shape[:-1], 2 * shape[-1]))[..., ::2]
    return rng.standard_normal(shape)


def tensor(
    rng: np.random.Generator,
    *shape: int,
    dtype: torch.dtype = torch.float64,
    strided: bool = False,
) -> torch.Tensor:
    """A random normal tensor; `strided`: with its last two axes swapped in memory."""
    if strided and len(shape) > 1:
        values = rng.standard_normal((*shape[:-2], shape[-1], shape[-2]))
        return torch.from_numpy(values).to(dtype).transpose(-1, -2)
    return torch.from_numpy(np.asarray(rng.standard_normal(shape))).to(dtype)
