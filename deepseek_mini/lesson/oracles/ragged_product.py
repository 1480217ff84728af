"""Exercise 20.5, a matrix product in tiles that divide nothing."""

import numpy as np
import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, tensor
from deepseek_mini.lesson.oracles.kernel_faults import HOST_CODE, UNDEFINED, faults


def matmul_kernel(a, b, out, M, N, K, BLOCK_M, BLOCK_N, BLOCK_K):
    """The oracle: torch's product in float64."""
    return (a.double() @ b.double()).to(out.dtype)


def _whole_steps(a, b, out, M, N, K, BLOCK_M, BLOCK_N, BLOCK_K):
    kept = K // BLOCK_K * BLOCK_K
    return (a[:, :kept].double() @ b[:kept].double()).to(out.dtype)


def _first_step(a, b, out, M, N, K, BLOCK_M, BLOCK_N, BLOCK_K):
    return (a[:, :BLOCK_K].double() @ b[:BLOCK_K].double()).to(out.dtype)


def _last_step(a, b, out, M, N, K, BLOCK_M, BLOCK_N, BLOCK_K):
    start = (K - 1) // BLOCK_K * BLOCK_K
    return (a[:, start:].double() @ b[start:].double()).to(out.dtype)


def _same_step(a, b, out, M, N, K, BLOCK_M, BLOCK_N, BLOCK_K):
    steps = -(-K // BLOCK_K)
    return steps * _first_step(a, b, out, M, N, K, BLOCK_M, BLOCK_N, BLOCK_K)


def _counted_twice(a, b, out, M, N, K, BLOCK_M, BLOCK_N, BLOCK_K):
    """total += tl.dot(x, y, total)"""
    total = torch.zeros(M, N).double()
    for x, y in zip(a.double().split(BLOCK_K, 1), b.double().split(BLOCK_K, 0)):
        total = 2 * total + x @ y
    return total.to(out.dtype)


def _steps_of(size):
    """Along K in steps of the wrong one of the three sizes."""

    def wrong(a, b, out, M, N, K, BLOCK_M, BLOCK_N, BLOCK_K):
        step, total = size(BLOCK_M, BLOCK_N), torch.zeros(M, N).double()
        for k in (slice(start, start + BLOCK_K) for start in range(0, K, step)):
            total += a[:, k].double() @ b[k].double()
        return total.to(out.dtype)

    return wrong


def _rounded(got, want, args):
    """Whether it is the product, but for errors of bf16's size."""
    if not isinstance(got, torch.Tensor) or got.shape != want.shape:
        return False
    wrong = (got - want).abs().max() / want.abs().max().clamp(min=1)
    return bool(wrong < 0.02)


def product_cases(rng):
    for M, N, K, tile, label in (
        (4, 4, 4, (4, 4, 4), "one tile"),
        (4, 8, 8, (4, 4, 4), "full tiles"),
        (5, 4, 8, (4, 4, 4), "M is no multiple of BLOCK_M"),
        (4, 7, 8, (4, 4, 4), "N is no multiple of BLOCK_N"),
        (4, 4, 10, (4, 4, 4), "K is no multiple of BLOCK_K"),
        (13, 7, 33, (8, 4, 16), "nothing is a multiple"),
        (1, 30, 19, (16, 16, 8), "one row"),
        (9, 10, 100, (16, 16, 16), "long sums"),
        (5, 9, 50, (4, 8, 32), "long steps"),
    ):
        a = tensor(rng, M, K, dtype=torch.bfloat16)
        b = tensor(rng, K, N, dtype=torch.bfloat16)
        out = torch.full((M, N), torch.nan)
        shown = (
            f"{label}: {M} x {K} times {K} x {N}, tiles {' x '.join(map(str, tile))}"
        )
        yield Case((a, b, out, M, N, K, *tile), shown)


def _owner(a, b, out, M, N, K, BLOCK_M, BLOCK_N, BLOCK_K):
    """The number of the program of each element of out, row by row of the grid."""
    rows, columns = np.arange(M) // BLOCK_M, np.arange(N) // BLOCK_N
    return rows[:, None] * -(-N // BLOCK_N) + columns  # [M, N]


def judge_product(theirs, rng):
    from deepseek_mini.lesson.judge_kernel import judge_kernel  # imports Triton

    judge_kernel(
        PRODUCT,
        theirs,
        rng,
        grid=lambda a, b, out, M, N, K, BM, BN, BK: (-(-M // BM), -(-N // BN)),
        owner=_owner,
        tiles=lambda a, b, out, M, N, K, BM, BN, BK: (
            # or one of K after the other, without tl.dot
            {"a": {BM * BK, BM}, "b": {BK * BN, BN}, "out": {BM * BN}}
        ),
        most=lambda a, b, out, M, N, K, BM, BN, BK: (
            2 * (M * K * -(-N // BN) + N * K * -(-M // BM))
        ),
    )


PRODUCT = Exercise(
    id="20.5",
    title="A product with ragged edges",
    signature="matmul_kernel(a, b, out, M, N, K, BLOCK_M, BLOCK_N, BLOCK_K)",
    difficulty="build it",
    minutes=25,
    right=matmul_kernel,
    cases=product_cases,
    judge=judge_product,
    mistakes=(
        *faults(
            "rows of a have K numbers, rows of b N",
            "Rows of out have N numbers",
        ),
        Mistake(
            "tl.dot(x, y, total) is total and the product: += adds the total twice",
            gives=_counted_twice,
        ),
        Mistake(
            "the steps along K have the width of BLOCK_K, not that of BLOCK_N",
            gives=_steps_of(lambda BLOCK_M, BLOCK_N: BLOCK_N),
        ),
        Mistake(
            "the steps along K have the width of BLOCK_K, not that of BLOCK_M",
            gives=_steps_of(lambda BLOCK_M, BLOCK_N: BLOCK_M),
        ),
        Mistake("only the first BLOCK_K products are summed", gives=_first_step),
        Mistake("only the last step along K is left in the sum", gives=_last_step),
        Mistake(
            "every step along K multiplies the same two tiles: their places move on",
            gives=_same_step,
        ),
        Mistake("the last, shorter step along K is missing", gives=_whole_steps),
        Mistake(
            "right to two digits: somewhere the sum has 16 bits. Which type has your "
            "tile of zeros, and which tl.dot?",
            when=_rounded,
        ),
        Mistake(
            "the two factors of tl.dot must be [BLOCK_M, BLOCK_K] and "
            "[BLOCK_K, BLOCK_N]: print the shapes of your tiles",
            raises="(inner dimension|First input shape|must match|broadcast)",
        ),
        UNDEFINED,
        HOST_CODE,
    ),
    hint="with K = BLOCK_K and one tile: is the product right? Then let each of M, N "
    "and K be one more, one after the other",
)
