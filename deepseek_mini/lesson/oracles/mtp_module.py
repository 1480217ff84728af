"""Exercise 12.4, the MTP module: the oracle takes one row at a time, in float64.

The inputs are float32; a result in another dtype passes as well. Norms that are not
quite RMSNorm are computed over whole tensors.
"""

from dataclasses import replace

import torch

from deepseek_mini.lesson.explain import NotYet
from deepseek_mini.lesson.judge import judge_exercise
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, tensor
from deepseek_mini.lesson.oracles.other_norms import OTHER_NORMS
from deepseek_mini.lesson.oracles.returned import wrong_product

NORMS = ("enorm", "hnorm", "norm")


def _normed(x, gain):
    return x / (torch.dot(x, x) / len(x) + 1e-6) ** 0.5 * gain


def mtp_module(hidden, embedded, w, block, k):
    return oracle(hidden, embedded, w, block, k)


def oracle(
    hidden,
    embedded,
    w,
    block,
    k,
    *,
    skip=(),
    shift=0,
    shift_state=0,
    state_first=False,
    blind=False,
    bare_block=False,
    norm_first=False,
):
    """`mtp_module`; the keywords make the known mistakes."""
    wide = {name: x.double() for name, x in w.items()}

    def norm(name, x):
        return x if name in skip else _normed(x, wide[name])

    rows = []
    for states, texts in zip(hidden.double(), embedded.double()):
        row = []
        for i in range(len(texts) - k):
            told = texts[min(max(i + k + shift, 0), len(texts) - 1)]
            e = norm("enorm", told) * (not blind)
            h = norm("hnorm", states[min(i + shift_state, len(states) - 1)])
            both = torch.cat((h, e) if state_first else (e, h))
            row.append(wide["eh_proj"] @ both)
        rows.append(torch.stack(row))
    x = torch.stack(rows)
    if norm_first:
        x = torch.stack([torch.stack([norm("norm", r) for r in row]) for row in x])
    x = x if bare_block else block(x)
    if not norm_first:
        x = torch.stack([torch.stack([norm("norm", r) for r in row]) for row in x])
    return x.to(embedded.dtype)


class Block:
    """A causal stand-in for a block: every row also reads the mean of those so far.

    It counts its calls.
    """

    def __init__(self, matrix):
        self.matrix, self.calls = matrix, 0

    def __call__(self, x):
        self.calls += 1
        count = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]
        return x + torch.tanh(x.cumsum(1) / count @ self.matrix.to(x.dtype).T)


def module_cases(rng):
    for B, T, D, k, strided, small, label in (
        (2, 6, 5, 1, False, 1, "depth 1"),
        (1, 7, 4, 3, False, 1, "depth 3, a batch of one"),
        (2, 3, 6, 2, False, 1, "one row comes out"),
        (3, 8, 5, 2, True, 1, "tensors that are not contiguous"),
        (2, 5, 4, 1, False, 1e-3, "states and embeddings of about 0.001"),
    ):

        def draw(*shape, strided=False):
            return tensor(rng, *shape, dtype=torch.float32, strided=strided)

        hidden = 2 * small * draw(B, T - k + 1, D, strided=strided)
        embedded = small * draw(B, T, D, strided=strided)
        w = {name: 1 + 0.3 * draw(D) for name in NORMS}
        w["eh_proj"] = draw(D, 2 * D) * (2 * D) ** -0.5
        block = Block(1.5 * draw(D, D) * D**-0.5)
        said = f"{label}: hidden [{B}, {T - k + 1}, {D}], embedded [{B}, {T}, {D}]"
        yield Case((hidden, embedded, w, block, k), said)


def judge_module(theirs, rng):
    """As always; if a result is wrong and `block` did not get all rows, say so."""
    cases = list(module_cases(rng))
    try:
        judge_exercise(replace(MODULE, judge=None, cases=lambda _: cases), theirs, rng)
    except NotYet as problem:
        first, *others = [case.args[3].calls for case in cases]
        calls = max(others) or first
        if calls > 1 and "second call" not in problem.reason:
            problem.reason += f"; block was called {calls} times"
            problem.hint = (
                "rows read each other in the block, so it has to get all of them at "
                "once, in one tensor"
            )
        raise


def _told(hint, **wrong):
    return Mistake(hint, gives=lambda *args: oracle(*args, **wrong))


def _swapped_gains(hidden, embedded, w, block, k):
    w = {**w, "enorm": w["hnorm"], "hnorm": w["enorm"]}
    return oracle(hidden, embedded, w, block, k)


def _module_with(norm, residual=False):
    """The module with another norm of x [B, R, D] and its gain."""

    def wrong(hidden, embedded, w, block, k):
        e = norm(embedded[:, k:], w["enorm"])
        h = norm(hidden[:, : e.shape[1]], w["hnorm"])
        x = torch.cat((e, h), dim=-1) @ w["eh_proj"].T
        return norm(block(x) + x * residual, w["norm"])

    return wrong


def _rms(x, gain):
    return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * gain


MODULE = Exercise(
    id="12.4",
    title="The module",
    signature="mtp_module(hidden, embedded, w, block, k)",
    difficulty="from the paper",
    minutes=20,
    right=mtp_module,
    cases=module_cases,
    judge=judge_module,
    exact_dtype=False,
    mistakes=(
        _told(
            "state and embedding are joined the other way round: that is the paper's "
            "order, and these are released weights",
            state_first=True,
        ),
        _told("nothing is read of the next token's embedding", blind=True),
        Mistake(
            "row i reads the embedding of token i, which its state has read already",
            gives=lambda h, e, w, block, k: oracle(h, e, w, block, k, shift=-k),
        ),
        Mistake(
            "every depth reads token i + 1; depth k is told a later one",
            gives=lambda h, e, w, block, k: oracle(h, e, w, block, k, shift=1 - k),
        ),
        _told("row i is told one token too early for depth k", shift=-1),
        _told(
            "row i is told the token that it should predict",
            shift=1,
        ),
        _told(
            "the first state is cut off, not the last: row i starts from state i",
            shift_state=1,
        ),
        _told("the norm of the embedding is missing", skip=("enorm",)),
        _told("the norm of the state is missing", skip=("hnorm",)),
        _told("the norms of embedding and state are missing", skip=("enorm", "hnorm")),
        _told("the norm of the result is missing", skip=("norm",)),
        _told("the block is missing", bare_block=True),
        _told("the last norm comes after the block, not before it", norm_first=True),
        Mistake("the gains of enorm and hnorm are exchanged", gives=_swapped_gains),
        *(Mistake(hint, gives=_module_with(norm)) for norm, hint in OTHER_NORMS),
        Mistake(
            "what the block reads is added to its result once more: the block itself "
            "has its residuals",
            gives=_module_with(_rms, residual=True),
        ),
        wrong_product(
            "M x = `x @ M.T`: print the shapes of the two that are multiplied; x has "
            "2 D channels there, and M a row for each of its D outputs"
        ),
        Mistake("w is a dict: `w['enorm']`", raises="'dict' object has no attribute"),
        Mistake(
            "one row too many: the last state has no token that it could be told",
            when=lambda got, want, args: (
                isinstance(got, torch.Tensor)
                and got.ndim == 3
                and got.shape[1] == want.shape[1] + 1
            ),
        ),
    ),
    hint="let block be the identity and eh_proj pick out one half of what it reads: "
    "then the result shows which token and which state a row has",
)
