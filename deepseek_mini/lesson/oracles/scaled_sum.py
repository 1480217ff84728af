"""Exercise 20.2, x + scale * y: the smallest kernel with a mask."""

import numpy as np
import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, tensor
from deepseek_mini.lesson.oracles.kernel_faults import HOST_CODE, faults


def scaled_sum_kernel(x, y, out, n, scale, BLOCK):
    """The oracle: what `out` holds afterwards."""
    return (x.double() + scale * y.double()).to(out.dtype)


def _first_block_only(x, y, out, n, scale, BLOCK):
    want = scaled_sum_kernel(x, y, out, n, scale, BLOCK)
    want[BLOCK:] = torch.nan
    return want


def sum_cases(rng):
    for n, BLOCK, dtype, label in (
        (10, 4, torch.float32, "three programs, the last has two numbers"),
        (8, 8, torch.float32, "one full program"),
        (1, 16, torch.float32, "one number"),
        (int(rng.integers(65, 127)), 64, torch.float32, "two programs"),
        (int(rng.integers(130, 250)), 32, torch.float16, "float16"),
    ):
        x, y = tensor(rng, n, dtype=dtype), tensor(rng, n, dtype=dtype)
        out = torch.full((n,), torch.nan, dtype=dtype)
        scale = round(float(rng.normal()), 2) or 1.5
        yield Case((x, y, out, n, scale, BLOCK), f"{label}: n = {n}, BLOCK = {BLOCK}")


def judge_sum(theirs, rng):
    from deepseek_mini.lesson.judge_kernel import judge_kernel  # imports Triton

    judge_kernel(
        SUM,
        theirs,
        rng,
        grid=lambda x, y, out, n, s, B: (-(-n // B),),
        owner=lambda x, y, out, n, s, B: np.arange(n) // B,
        most=lambda x, y, *_: x.nbytes + y.nbytes,
    )


SUM = Exercise(
    id="20.2",
    title="A scaled sum",
    signature="scaled_sum_kernel(x, y, out, n, scale, BLOCK)",
    difficulty="a few lines",
    minutes=10,
    right=scaled_sum_kernel,
    cases=sum_cases,
    judge=judge_sum,
    mistakes=(
        *faults(
            "program p begins at place p * BLOCK",
            "Program p has the places p * BLOCK to (p + 1) * BLOCK - 1",
        ),
        Mistake(
            "the wrong one of the two is scaled",
            gives=lambda x, y, out, n, scale, B: (scale * x + y).to(out.dtype),
        ),
        Mistake(
            "both are scaled: only y is",
            gives=lambda x, y, out, n, scale, B: (scale * (x + y)).to(out.dtype),
        ),
        Mistake(
            "the scale plays no part",
            gives=lambda x, y, out, n, scale, B: x + y,
        ),
        Mistake(
            "only the first BLOCK numbers are right: every program has the same lanes, "
            "and tells its own work by its number",
            gives=_first_block_only,
        ),
        HOST_CODE,
    ),
    hint="take the ten numbers of the text: which of them has program 2, and where do "
    "its lanes load?",
)
