"""Exercise 20.3, RMSNorm of rows that lie apart: what is between them is NaN."""

import numpy as np
import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, tensor
from deepseek_mini.lesson.oracles.kernel_faults import (
    HOST_CODE,
    faults,
    has_nan,
    same,
)


def rms_norm_kernel(x, weight, out, stride, D, eps, BLOCK):
    """The oracle: row by row in float64."""
    rows = []
    for row in x.double().numpy():
        h = row[:D]
        rms = np.sqrt(np.dot(h, h) / D + eps)
        rows.append(weight.double().numpy() * (h / rms))
    return torch.from_numpy(np.array(rows)).to(out.dtype)


def _with(scale):
    """A wrong version: each row times scale(mean square's sum, D, eps, BLOCK)."""

    def wrong(x, weight, out, stride, D, eps, BLOCK):
        h = x[:, :D].double()
        squares = h.square().sum(-1, keepdim=True)
        return (weight.double() * h * scale(squares, h, D, eps, BLOCK)).to(out.dtype)

    return wrong


def _weightless(x, weight, out, stride, D, eps, BLOCK):
    h = x[:, :D].double()
    return (h * (h.square().mean(-1, keepdim=True) + eps).rsqrt()).to(out.dtype)


def _close_rows(x, weight, out, stride, D, eps, BLOCK):
    packed = x.flatten()[: out.numel()].reshape(out.shape)
    return rms_norm_kernel(packed, weight, out, D, D, eps, BLOCK)


def norm_cases(rng):
    for rows, D, stride, dtype, label in (
        (2, 3, 5, torch.float32, "two rows of three"),
        (3, 8, 8, torch.float32, "rows that fill the block"),
        (1, 33, 40, torch.float32, "one row"),
        (5, 48, 64, torch.float32, "five rows"),
        (4, 100, 104, torch.bfloat16, "bf16"),
        (2, 70, 90, torch.bfloat16, "bf16 with a large number"),
    ):
        x = torch.full((rows, stride), torch.nan, dtype=dtype)
        x[:, :D] = 0.2 * tensor(rng, rows, D, dtype=dtype)
        if label.endswith("large number"):
            x[:, 1] = 300  # 256 squared is where bf16 no longer counts single steps
        weight = (1 + 0.3 * tensor(rng, D)).to(dtype)
        out = torch.full((rows, D), torch.nan, dtype=dtype)
        eps = float(rng.choice([1e-2, 3e-2]))
        BLOCK = 1 << (D - 1).bit_length()
        args = (x, weight, out, stride, D, eps, BLOCK)
        yield Case(args, f"{label}: {rows} x {D}, stride {stride}, BLOCK {BLOCK}")


def judge_norm(theirs, rng):
    from deepseek_mini.lesson.judge_kernel import judge_kernel  # imports Triton

    judge_kernel(
        NORM,
        theirs,
        rng,
        grid=lambda x, *_: (len(x),),
        owner=lambda x, w, out, *_: np.arange(out.numel()) // out.shape[1],
        most=lambda x, w, out, stride, D, *_: 2 * len(x) * D * x.element_size(),
    )


NORM = Exercise(
    id="20.3",
    title="RMSNorm, a row a program",
    signature="rms_norm_kernel(x, weight, out, stride, D, eps, BLOCK)",
    difficulty="some thought",
    minutes=15,
    right=rms_norm_kernel,
    cases=norm_cases,
    judge=judge_norm,
    mistakes=(
        *faults(
            "row r of x begins at r * stride, and weight has D numbers",
            "out has no gaps: row r begins at place r * D",
        ),
        Mistake(
            "on a GPU a sum of bf16 would be rounded after every addition: make the "
            "numbers float32 first",
            raises="TypeError: a reduction or scan",
        ),
        Mistake(
            "the mean is over the D numbers of a row; BLOCK counts lanes, some of them "
            "without a number",
            gives=_with(lambda s, h, D, eps, B: (s / B + eps).rsqrt()),
        ),
        Mistake(
            "this is the sum of the squares, not their mean",
            gives=_with(lambda s, h, D, eps, B: (s + eps).rsqrt()),
        ),
        Mistake(
            "eps is missing, or it is not the one that the kernel is given",
            when=same(_with(lambda s, h, D, eps, B: (s / D).rsqrt())),
        ),
        Mistake(
            "eps stands under the root, beside the mean square",
            gives=_with(lambda s, h, D, eps, B: 1 / ((s / D).sqrt() + eps)),
        ),
        Mistake(
            "eps is added to the mean, not to the sum before it is divided by D",
            gives=_with(lambda s, h, D, eps, B: ((s + eps) / D).rsqrt()),
        ),
        Mistake(
            "the mean of D numbers divides by D, not by D - 1",
            gives=_with(lambda s, h, D, eps, B: (s / (D - 1) + eps).rsqrt()),
        ),
        Mistake(
            "the root is missing",
            gives=_with(lambda s, h, D, eps, B: 1 / (s / D + eps)),
        ),
        Mistake(
            "this multiplies by the root where it should divide by it",
            gives=_with(lambda s, h, D, eps, B: (s / D + eps).sqrt()),
        ),
        Mistake(
            "the mean was taken away: that is LayerNorm",
            gives=_with(
                lambda s, h, D, eps, B: (
                    (1 - h.mean(-1, keepdim=True) / h)
                    * (h.var(-1, correction=0, keepdim=True) + eps).rsqrt()
                )
            ),
        ),
        Mistake("the weight plays no part", gives=_weightless),
        Mistake(
            "row 1 begins stride numbers after row 0, not D",
            when=same(_close_rows),
        ),
        Mistake(
            "NaN came out. What lies between the rows is NaN: which lanes load what is "
            "not theirs? And a masked lane is NaN unless the load has a third "
            "argument: the sum takes all lanes",
            when=has_nan,
        ),
        HOST_CODE,
    ),
    hint="take the row (3, 4) of the text through your kernel by hand, lane by lane",
)
