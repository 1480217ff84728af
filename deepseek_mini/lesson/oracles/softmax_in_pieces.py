"""Exercise 20.4, the softmax of rows longer than a block."""

import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, tensor
from deepseek_mini.lesson.oracles.kernel_faults import FAULTS, HOST_CODE, UNWRITTEN


def softmax_kernel(x, out, D, BLOCK):
    """The oracle: torch's own, in float64."""
    return torch.softmax(x.double(), dim=-1).to(out.dtype)


def _pieces(x, BLOCK):
    return x.double().split(BLOCK, dim=-1)


def _each_piece(x, out, D, BLOCK):
    return torch.cat([p.softmax(-1) for p in _pieces(x, BLOCK)], -1).to(out.dtype)


def _never_rescaled(x, out, D, BLOCK):
    """The sum is that of each piece beside the maximum known so far."""
    total, largest = 0, torch.full((len(x), 1), -torch.inf).double()
    for piece in _pieces(x, BLOCK):
        largest = torch.maximum(largest, piece.amax(-1, keepdim=True))
        total = total + (piece - largest).exp().sum(-1, keepdim=True)
    return ((x.double() - largest).exp() / total).to(out.dtype)


def _zeros_counted(x, out, D, BLOCK):
    """Lanes without a number are 0 instead of -inf."""
    padded = torch.nn.functional.pad(x.double(), (0, -D % BLOCK))
    return padded.softmax(-1)[:, :D].to(out.dtype)


def _last_piece_total(x, out, D, BLOCK):
    largest = x.double().amax(-1, keepdim=True)
    total = (_pieces(x, BLOCK)[-1] - largest).exp().sum(-1, keepdim=True)
    return ((x.double() - largest).exp() / total).to(out.dtype)


def softmax_cases(rng):
    for rows, D, BLOCK, label in (
        (2, 5, 4, "two pieces"),
        (2, 8, 4, "full pieces"),
        (1, 7, 8, "one piece"),
        (2, 20, 8, "the largest number in the last piece"),
        (1, 20, 8, "the largest number in the first piece"),
        (2, 21, 8, "large numbers"),
        (1, 19, 8, "negative numbers alone"),
    ):
        x = 2 * tensor(rng, rows, D, dtype=torch.float32)
        if "last" in label:
            x[:, -1] = 9.0
        if "first" in label:
            x[:, 0] = 9.0
        if "large numbers" in label:
            x += 200.0
        if "negative" in label:
            x -= 150.0
        out = torch.full((rows, D), torch.nan)
        yield Case((x, out, D, BLOCK), f"{label}: {rows} x {D}, BLOCK {BLOCK}")


def judge_softmax(theirs, rng):
    from deepseek_mini.lesson.judge_kernel import judge_kernel  # imports Triton

    judge_kernel(
        SOFTMAX,
        theirs,
        rng,
        grid=lambda x, *_: (len(x),),
        most=lambda x, *_: 2 * 4 * x.numel(),
    )


SOFTMAX = Exercise(
    id="20.4",
    title="A softmax in pieces",
    signature="softmax_kernel(x, out, D, BLOCK)",
    difficulty="some thought",
    minutes=20,
    right=softmax_kernel,
    cases=softmax_cases,
    judge=judge_softmax,
    mistakes=(
        *FAULTS,
        Mistake(
            "each piece is a softmax of its own: the sum goes over the whole row",
            gives=_each_piece,
        ),
        Mistake(
            "when a larger maximum turns up, the sum so far is still relative to the "
            "old one",
            gives=_never_rescaled,
        ),
        Mistake(
            "lanes without a number took part as zeros: e to the power of 0 is 1",
            gives=_zeros_counted,
        ),
        Mistake(
            "only the last piece's exponentials were summed", gives=_last_piece_total
        ),
        Mistake(
            "NaN or infinity came out: e to the power of 200 is no float32, a "
            "difference of two infinities is NaN, and out holds NaN before the launch",
            when=lambda got, want, args: (
                isinstance(got, torch.Tensor) and not bool(got.isfinite().all())
            ),
        ),
        Mistake(
            "nothing but zeros: the exponentials are too small for float32 unless the "
            "maximum is taken away first",
            when=lambda got, want, args: (
                isinstance(got, torch.Tensor) and bool((got == 0).all(-1).any())
            ),
        ),
        UNWRITTEN,
        HOST_CODE,
    ),
    hint="take the row of the text, BLOCK 2: what are the maximum and the sum after "
    "each piece?",
)
