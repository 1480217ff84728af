"""Exercise 20.4, the softmax of rows longer than a block."""

import numpy as np
import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, tensor
from deepseek_mini.lesson.oracles.kernel_faults import HOST_CODE, faults, same


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


def _by_maxima(maximum):
    """In float32, each piece beside maximum(the one so far, its own)."""

    def wrong(x, out, D, BLOCK):
        largest, total = torch.full((len(x), 1), -torch.inf), torch.zeros(len(x), 1)
        for piece in x.split(BLOCK, dim=-1):
            new = maximum(largest, piece.amax(-1, keepdim=True))
            total = total * (largest - new).exp()
            total, largest = total + (piece - new).exp().sum(-1, keepdim=True), new
        return (x - largest).exp() / total

    return wrong


def _the_first(old, new):
    return torch.where(old.isfinite(), old, new)


def softmax_cases(rng):
    for rows, D, BLOCK, label in (
        (2, 5, 4, "two pieces"),
        (2, 8, 4, "full pieces"),
        (1, 7, 8, "one piece"),
        (2, 20, 8, "the largest number in the last piece"),
        (1, 20, 8, "the largest number in the first piece"),
        (2, 21, 8, "large numbers"),
        (1, 19, 8, "negative numbers alone"),
        (2, 20, 8, "rows that rise"),
        (2, 20, 8, "rows that fall"),
        (1, 19, 16, "a row far below 0"),
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
        if "rise" in label or "fall" in label:  # e to the power of 89 is no float32
            x += (100.0 if "rise" in label else -100.0) * (torch.arange(D) // BLOCK)
        if "far" in label:
            x -= 20_000.0
        out = torch.full((rows, D), torch.nan)
        shown = f"{label}: {rows} x {D}, BLOCK {BLOCK}"
        # exp(x - (m + log s)) is right as well, and float32 has steps of 0.002 there.
        tolerance = 0.01 if "far" in label else 1e-5
        yield Case((x, out, D, BLOCK), shown, tolerance)


def judge_softmax(theirs, rng):
    from deepseek_mini.lesson.judge_kernel import judge_kernel  # imports Triton

    judge_kernel(
        SOFTMAX,
        theirs,
        rng,
        grid=lambda x, *_: (len(x),),
        owner=lambda x, *_: np.arange(x.numel()) // x.shape[1],
        most=lambda x, *_: 2 * x.nbytes,
        tiles=lambda x, out, D, BLOCK: {"x": {BLOCK}, "out": {BLOCK}},
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
        *faults(
            "row r begins at r * D, and the last piece is a shorter one",
            "Row r begins at r * D, and its last piece is a shorter one",
        ),
        Mistake(
            "the maximum is that over all pieces so far, not that of this piece: a row "
            "may fall",
            when=same(_by_maxima(lambda old, new: new)),
        ),
        Mistake(
            "the maximum is that over all pieces so far, not that of the first one: a "
            "row may rise",
            when=same(_by_maxima(_the_first)),
        ),
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
            "the maximum begins at minus infinity, and so do lanes without a number: "
            "the numbers of a row may be smaller than any finite one",
            when=lambda got, want, args: (
                float(args[0].max()) < -10_000 and not bool(got.nan_to_num().any())
            ),
        ),
        Mistake(
            "lanes without a number took part as zeros: e to the power of 0 is 1",
            when=same(_zeros_counted),
        ),
        Mistake(
            "only the last piece's exponentials were summed", gives=_last_piece_total
        ),
        Mistake(
            "NaN or infinity came out: e to the power of 89 is no float32, a "
            "difference of two infinities is NaN, and so is, here, a masked lane whose "
            "load has no third argument",
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
        Mistake(
            "every row came out as row 0: where does row r begin?",
            when=lambda got, want, args: (
                len(got) > 1
                and torch.allclose(got, want[:1].expand_as(got), equal_nan=True)
            ),
        ),
        HOST_CODE,
    ),
    hint="take the row of the text, BLOCK 2: what are the maximum and the sum after "
    "each piece?",
)
