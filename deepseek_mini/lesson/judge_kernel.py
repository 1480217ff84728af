"""How a learner's Triton kernel is judged: launched through the interpreter.

An exercise about a kernel declares `right` and `cases` like any other. Its arguments
are the kernel's, an output among them; `right` returns what that output should hold.

    ADD = Exercise(..., right=added, cases=add_cases, judge=judge_add)

    def judge_add(theirs, rng):
        judge_kernel(ADD, theirs, rng, grid=lambda x, y, out, n, BLOCK: ...)
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from deepseek_mini.lesson.explain import NotYet
from deepseek_mini.lesson.interpreting import HERE, interpreted
from deepseek_mini.lesson.judge import _changed, judge_exercise
from deepseek_mini.lesson.oracles import Exercise
from deepseek_mini.lesson.watch import MemoryFault, Traffic


def judge_kernel(
    ex: Exercise,
    theirs: object,
    rng: np.random.Generator,
    grid: Callable[..., tuple[int, ...]],
    owner: Callable[..., np.ndarray],
    most: Callable[..., int],
    tiles: Callable[..., dict[str, set[int]]] | None = None,
) -> None:
    """Judge a kernel by what it leaves in its argument `out`, and how it gets there.

    grid, owner, most, tiles: functions of the kernel's arguments: the programs; for
    each element of `out` the program that stores it (in a grid of two axes its number
    row by row); the bytes that may be loaded in all; how many lanes the widest load or
    store may have, by tensor. Each element of `out` may be stored once.

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
    objections: list[tuple[str, str]] = []
    names = list(inspect.signature(theirs.fn).parameters)

    def launched(*args: object) -> torch.Tensor:
        mine = [x.clone() if isinstance(x, torch.Tensor) else x for x in args]
        with interpreted() as seen:
            theirs[grid(*args)](*mine)
        for name, before, after in zip(names, args, mine):
            stored = name in seen.writers and (seen.writers[name] >= 0).any()
            if name != "out" and (stored or _changed(before, after)):
                raise MemoryFault(f"the kernel stores into {name}", "input")
        out = mine[names.index("out")]
        _all_stored(seen, out)
        wanted = tiles(*args) if tiles else {}
        objections.extend(_objections(seen, out, owner(*args), most(*args), wanted))
        return out

    launched.__signature__ = inspect.signature(theirs.fn)
    try:
        judge_exercise(replace(ex, judge=None), launched, rng)
    except NotYet as problem:
        if _masks_by_words(theirs.fn):
            problem.hint = (
                "masks are combined by &, each comparison in brackets of its own: "
                "(i < n) & (j < m); Python's `and`, and 0 <= i < n, are for numbers"
            )
        raise
    if objections:
        reason, hint = objections[0]
        raise NotYet(f"the result is right, but {reason}", hint)


def _all_stored(seen: Traffic, out: torch.Tensor) -> None:
    """A fault if part of the output was left as it was."""
    never = np.flatnonzero(seen.writers["out"] < 0)
    never = [i for i in never.tolist() if out.flatten()[i].isnan()]  # no tl.atomic_add
    if never:
        more = f", nor {len(never) - 1} more" if len(never) > 1 else ""
        raise MemoryFault(f"element {never[0]:,} of out is never stored{more}", "never")


def _objections(
    seen: Traffic,
    out: torch.Tensor,
    owner: np.ndarray,
    most: int,
    tiles: dict[str, set[int]],
) -> Iterator[tuple[str, str]]:
    """What is wrong, and a hint, with the way to a right result."""
    writers, owner = seen.writers["out"], np.ravel(owner)
    strange = np.flatnonzero((writers != owner) & (writers >= 0))
    if strange.size:
        at = strange[0]
        yield (
            f"program {writers[at]} stores element {at:,} of out, which is program "
            f"{owner[at]}'s",
            "programs run at the same time on a GPU, and each has its own part of the "
            "work: which one is said in the text",
        )
    for name, allowed in tiles.items():
        if (lanes := seen.tiles.get(name, 0)) not in allowed:
            yield (
                f"the widest tile of {name} has {lanes} lanes, where the sizes that "
                f"the kernel is given make {max(allowed)}",
                "the caller chooses the size of a tile: is there a number in your "
                "kernel where BLOCK should stand?",
            )
    if seen.loaded > most:
        yield (
            f"{seen.loaded:,} bytes are loaded, not {most:,}",
            "a lane that has no number of its own loads nothing, and what has been "
            "loaded once is in registers, and can be used again",
        )
    if seen.stored > out.nbytes:
        yield (
            f"{seen.stored:,} bytes are stored, not {out.nbytes:,}",
            "what is not final stays in registers: each number of out is stored once",
        )


def _masks_by_words(kernel: Callable) -> bool:
    """Whether `and`, or a chain of comparisons, stands where a mask may be meant."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kernel)))
    except (OSError, TypeError, SyntaxError):
        return False
    branches = [n.test for n in ast.walk(tree) if isinstance(n, ast.If | ast.While)]
    of_branches = {id(node) for test in branches for node in ast.walk(test)}
    return any(
        isinstance(node, ast.BoolOp)
        or (isinstance(node, ast.Compare) and len(node.ops) > 1)
        for node in ast.walk(tree)
        if id(node) not in of_branches
    )
