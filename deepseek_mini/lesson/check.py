"""`check("03.2", rotate)`: is the learner's answer right, and if not, what is wrong?"""

import random
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from deepseek_mini.lesson.explain import NotAttempted, NotYet, explain
from deepseek_mini.lesson.judge import STOPPED, judge_exercise
from deepseek_mini.lesson.oracles import find
from deepseek_mini.lesson.progress import record

_PRINTED_LINES = 40


@dataclass(frozen=True)
class Result:
    """A verdict. It is true when the exercise passed, and displays nothing itself.

    printed: what the learner's function printed in the case that failed.
    """

    id: str
    status: str  # "passed", "not attempted" or "not yet"
    reason: str = ""
    hint: str = ""
    printed: str = ""

    def __bool__(self) -> bool:
        return self.status == "passed"

    def __str__(self) -> str:
        text = f"{self.id}: {self.status}"
        if self.reason:
            text += f" - {self.reason}"
        if self.hint:
            text += f"\n  hint: {self.hint}"
        if self.printed.strip():
            text += "\n  your function printed:" + _indented(self.printed)
        return text

    def _ipython_display_(self) -> None:
        """As a cell's last expression it shows nothing more than `check` printed."""


def check(id: str, theirs: object, *, seed: int = 0) -> Result:
    """Judge the learner's answer to an exercise, print the verdict and return it.

    id: "03.2", lesson and number. theirs: the function or class that was asked for.
    seed: of the random inputs; another seed draws others.

    Prints `03.2: passed`, `03.2: not attempted`, or `03.2: not yet - <reason>` and a
    line with a hint; below it what the answer printed in the case that failed (prints
    of the cases before are not shown). Never raises for a wrong answer, and an
    interrupt (the square button) is a verdict too; raises ValueError for an id that
    does not exist. The global random generators are left as they were.
    """
    result = verdict(id, theirs, seed=seed)
    print(result)
    if result:
        record(id)
    return result


def verdict(id: str, theirs: object, *, seed: int = 0) -> Result:
    """What `check` prints, without printing or remembering it."""
    exercise = find(id)
    rng = np.random.default_rng([seed, *(int(part) for part in id.split("."))])
    try:
        with _generators_kept(seed):
            judge_exercise(exercise, theirs, rng)
    except NotAttempted:
        return Result(id, "not attempted")
    except NotYet as problem:
        return _not_yet(id, problem)
    except KeyboardInterrupt:
        return Result(id, "not yet", *STOPPED)
    except Exception as problem:  # out of the answer, where no judge expected one
        said = explain(problem, id, "")
        if isinstance(said, NotAttempted):
            return Result(id, "not attempted")
        return _not_yet(id, said)
    return Result(id, "passed")


def _not_yet(id: str, problem: NotYet) -> Result:
    return Result(id, "not yet", problem.reason, problem.hint, problem.printed)


def _indented(printed: str) -> str:
    """The first lines of what was printed, as lines that belong to the verdict.

    Strict nbval takes lines that are indented as part of it.
    """
    lines = printed.strip("\n").splitlines()
    shown = [line[:200] for line in lines[:_PRINTED_LINES]]
    if len(lines) > len(shown):
        shown.append(f"... and {len(lines) - len(shown)} more lines")
    return "".join(f"\n    {line}" for line in shown)


@contextmanager
def _generators_kept(seed: int):
    """Seed the global generators for the check, and put them back afterwards.

    So no later cell depends on whether an exercise is solved.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
