"""How a learner's Triton kernel is judged: launched through the interpreter.

An exercise about a kernel declares `right` and `cases` like any other. Its arguments
are the kernel's, an output among them; `right` returns what that output should hold.

    ADD = Exercise(..., right=added, cases=add_cases, judge=judge_add)

    def judge_add(theirs, rng):
        judge_kernel(ADD, theirs, rng, grid=lambda x, y, out, n, BLOCK: ...)
"""

import inspect
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from deepseek_mini.lesson.explain import NotYet
from deepseek_mini.lesson.interpreting import HERE, interpreted
from deepseek_mini.lesson.judge import _changed, judge_exercise
from deepseek_mini.lesson.oracles import Exercise
from deepseek_mini.lesson.watch import MemoryFault


def judge_kernel(
    ex: Exercise,
    theirs: object,
    rng: np.random.Generator,
    grid: Callable[..., tuple[int, ...]],
    most: Callable[..., int] | None = None,
) -> None:
    """Judge a kernel by what it leaves in its argument `out`.

    grid, most: functions of the kernel's arguments: the programs, and the bytes that
    they may load in all.

    Raises NotAttempted or NotYet, as `judge_exercise` does; NotYet as well for what is
    no kernel, and where there is no Triton.
    """
    if not HERE:
        raise NotYet(
            "kernels are checked by Triton's interpreter, and there is no Triton here",
            "it exists for Linux alone: open this notebook in Colab",
        )
    if not (hasattr(theirs, "arg_names") and hasattr(theirs, "fn")):
        raise NotYet(
            "expected a kernel, got something else",
            f'`@triton.jit` stands above it; write check("{ex.id}", '
            f"{ex.signature.split('(')[0]})",
        )
    too_much: list[str] = []
    names = list(inspect.signature(theirs.fn).parameters)

    def launched(*args: object) -> torch.Tensor:
        mine = [x.clone() if isinstance(x, torch.Tensor) else x for x in args]
        with interpreted() as seen:
            theirs[grid(*args)](*mine)
        for name, before, after in zip(names, args, mine):
            if name != "out" and _changed(before, after):
                raise MemoryFault(f"the kernel stores into {name}", "input")
        if most is not None and seen.loaded > most(*args):
            too_much.append(f"{seen.loaded:,} bytes are loaded, not {most(*args):,}")
        return mine[names.index("out")]

    launched.__signature__ = inspect.signature(theirs.fn)
    judge_exercise(replace(ex, judge=None), launched, rng)
    if too_much:
        raise NotYet(
            f"the result is right, but {too_much[0]}",
            "a lane that has no number of its own loads nothing, and what has been "
            "loaded once is in registers, and can be used again",
        )
