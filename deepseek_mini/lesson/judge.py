"""How an answer is judged: call it, compare it, and find the sentence that fits.

`judge_exercise` runs an exercise's cases; the functions below it are also for oracles
that need a procedure of their own.
"""

import contextlib
import copy
import inspect
import io
import re
import warnings
from collections.abc import Callable

import numpy as np
import torch

from deepseek_mini.lesson.compare import NO_RETURN, Difference, difference
from deepseek_mini.lesson.explain import (
    NotAttempted,
    NotYet,
    an,
    describe,
    explain,
    inputs_shown,
)
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def judge_exercise(ex: Exercise, theirs: object, rng: np.random.Generator) -> None:
    """Return when the answer is right; otherwise raise NotAttempted or NotYet."""
    if not callable(theirs):
        raise NotYet(
            f"expected the function itself, got {_kind(theirs)}",
            f'write check("{ex.id}", {ex.signature.split("(")[0]}), without calling it',
        )
    if ex.judge is not None:
        ex.judge(theirs, rng)
        return
    cases = list(ex.cases(rng))
    _check_parameters(theirs, cases[0].args, ex)
    for number, case in enumerate(cases):
        shown = inputs_shown(_names(ex), case.args)  # before an answer changes them
        want = ex.right(*_copies(case.args))
        try:
            got, printed = _run(theirs, case.args, ex)
        except NotYet as problem:
            problem.reason = _placed(problem.reason, shown, case)
            raise
        diff = difference(got, want, case.tolerance, ex.exact_dtype)
        if got is None and want is not None:
            if not _none_is_meant(ex, theirs, cases):
                reason = f"your function returns nothing: {NO_RETURN}"
                raise NotYet(_placed(reason, shown, case), "", printed)
            diff = Difference(f"the result is None, but should be {want!r:.80}")
        if diff is not None:
            hint = _hint(ex, theirs, diff, got, want, case, cases)
            raise NotYet(_placed(diff.reason, shown, case), hint, printed)
        if number == 0:
            again, printed = _run(theirs, case.args, ex)
            if difference(again, got, case.tolerance, ex.exact_dtype) is not None:
                raise NotYet(
                    "a second call with the same inputs gave another result",
                    "keep nothing between calls, and draw no random numbers",
                    printed,
                )


def _placed(reason: str, shown: str, case: Case) -> str:
    """The reason with the inputs that it is about: all of them, or their label."""
    if shown:
        return f"for {shown}: {reason}"
    return f"{reason} (with {case.label})" if case.label else reason


def _names(ex: Exercise) -> list[str]:
    return re.findall(r"\w+", ex.signature)[1:]


def attribute(owner: object, name: str) -> object:
    """`owner.name`, where a property may raise: NotYet says what it raised.

    Raises NotAttempted for a stub, and NotYet where there is no such attribute.
    """
    known = name in dir(owner)
    try:
        return getattr(owner, name)
    except AttributeError as problem:
        if not known:
            raise NotYet(
                f"the new {type(owner).__name__} has no `{name}`",
                "keep the names that the exercise gives",
            ) from None
        raise _raised(name, problem) from None
    except Exception as problem:
        raise _raised(name, problem) from None


def _raised(name: str, problem: Exception) -> NotAttempted | NotYet:
    said = explain(problem, "", "")
    if isinstance(said, NotYet):
        said.reason = f"`{name}` raised {said.reason}"
    return said


def call(theirs: Callable, *args: object, exercise: Exercise | None = None) -> object:
    """The result of the learner's function.

    Its prints are kept for a NotYet, its warnings are not shown. Raises NotAttempted
    for a stub, and NotYet for its exceptions, for other parameters than asked for, and
    for changed inputs.
    """
    return _run(theirs, args, exercise)[0]


def _run(
    theirs: Callable, args: tuple, exercise: Exercise | None
) -> tuple[object, str]:
    """The result of a call, and what it printed; raises what `call` does."""
    _check_parameters(theirs, args, exercise)
    before = _copies(args)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = theirs(*args)
    except KeyboardInterrupt:
        raise NotYet(*STOPPED, printed.getvalue()) from None
    except (Exception, SystemExit) as problem:
        raise _explained(problem, theirs, before, exercise, printed) from None
    for i, (old, new) in enumerate(zip(before, args)):
        if _changed(old, new):
            raise NotYet(
                f"your function changed its input {_parameter(theirs, i)} in place",
                "the caller still needs that input: write into a new one",
                printed.getvalue(),
            )
    return result, printed.getvalue()


def _explained(
    problem: BaseException,
    theirs: Callable,
    args: tuple,
    ex: Exercise | None,
    printed: io.StringIO,
) -> NotAttempted | NotYet:
    """The verdict on an exception, with the exercise's own hint where it has one."""
    named = [describe(_parameter(theirs, i), arg) for i, arg in enumerate(args)]
    if ex is not None and ex.judge is None and inputs_shown(_names(ex), args):
        named = []  # they stand in front of the reason
    said = explain(problem, ex.id if ex else "", ", ".join(named))
    if isinstance(said, NotYet):
        said.printed = printed.getvalue()
        shown = f"{type(problem).__name__}: {problem}"
        for mistake in ex.mistakes if ex else ():
            if mistake.raises and re.search(mistake.raises, shown):
                said.hint = mistake.hint
                break
    return said


def _changed(old: object, new: object) -> bool:
    """Whether tensors and arrays, also those in lists and dicts, hold other values."""
    if isinstance(new, tuple | list):
        return len(old) != len(new) or any(map(_changed, old, new))
    if isinstance(new, dict):
        return old.keys() != new.keys() or any(_changed(old[k], new[k]) for k in new)
    if isinstance(new, torch.Tensor | np.ndarray):
        return _other_values(old, new)
    if isinstance(new, str | int | float):
        return old is not new and old != new
    return False  # a module or a config: what it is, the oracle must know


def _other_values(
    old: torch.Tensor | np.ndarray, new: torch.Tensor | np.ndarray
) -> bool:
    """Whether an element differs; a NaN that is still one does not."""
    if (old.shape, old.dtype) != (new.shape, new.dtype):
        return True
    if isinstance(new, torch.Tensor) and new.is_floating_point():
        old, new = old.double(), new.double()  # eight bits cannot be compared
    return not bool(((old == new) | ((old != old) & (new != new))).all())


def _check_parameters(theirs: Callable, args: tuple, exercise: Exercise | None) -> None:
    try:
        signature = inspect.signature(theirs)
    except (TypeError, ValueError):  # some built-in functions have none
        return
    try:
        signature.bind(*args)
    except TypeError:
        asked = exercise.signature if exercise else f"{len(args)} arguments"
        raise NotYet(
            f"your function takes {signature}, but it is called as {asked}",
            "keep the parameters that the exercise gives",
        ) from None


def _parameter(theirs: Callable, i: int) -> str:
    try:
        return list(inspect.signature(theirs).parameters)[i]
    except (TypeError, ValueError, IndexError):
        return f"number {i + 1}"


def _copies(args: tuple) -> tuple:
    return tuple(
        a.detach().clone() if isinstance(a, torch.Tensor) else copy.deepcopy(a)
        for a in args
    )


def _kind(value: object) -> str:
    return "None" if value is None else an(type(value).__name__)


def _hint(
    ex: Exercise,
    theirs: Callable,
    diff: Difference,
    got: object,
    want: object,
    case: Case,
    cases: list[Case],
) -> str:
    """The hint of the known mistake that gives what the learner's function gives.

    When several give it in this case, the one that agrees in the most cases wins.
    """
    fitting = [m for m in ex.mistakes if _fits(m, got, want, case, ex)]
    if len(fitting) > 1:
        others = [c for c in cases if c is not case]
        results = [_quietly(theirs, c.args) for c in others]

        def agreement(mistake: Mistake) -> int:
            return sum(
                _fits(mistake, result, None, other, ex)
                for result, other in zip(results, others)
            )

        fitting.sort(key=agreement, reverse=True)  # stable: first declared wins a tie
    if fitting:
        return fitting[0].hint
    return diff.hint or ex.hint


def _fits(
    mistake: Mistake, got: object, want: object, case: Case, ex: Exercise
) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if mistake.raises:
                return False
            if mistake.gives is None:
                return want is not None and bool(mistake.when(got, want, case.args))
            wrong = mistake.gives(*_copies(case.args))
        return difference(got, wrong, case.tolerance, ex.exact_dtype) is None
    except Exception:  # a wrong version may not stand every input
        return False


def _none_is_meant(ex: Exercise, theirs: Callable, cases: list[Case]) -> bool:
    """Whether None is right for some inputs, and the answer returns more than that."""
    if all(ex.right(*_copies(case.args)) is not None for case in cases):
        return False
    return any(_quietly(theirs, case.args) is not None for case in cases)


STOPPED = (
    "it was stopped while your function was running",
    "a loop that never ends? print what its condition looks at",
)


def _quietly(theirs: Callable, args: tuple) -> object:
    try:
        return call(theirs, *_copies(args))
    except (NotYet, NotAttempted):
        return None
