"""Exercise 12.4, the MTP module: the oracle takes one row at a time, in float64."""

import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, tensor

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


def _block_of(matrix):
    """A causal stand-in for a block: every row also reads the mean of those so far."""

    def block(x):
        count = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]
        return x + torch.tanh(x.cumsum(1) / count @ matrix.to(x.dtype).T)

    return block


def module_cases(rng):
    for B, T, D, k, dtype, strided, label in (
        (2, 6, 5, 1, torch.float64, False, "depth 1"),
        (1, 7, 4, 3, torch.float32, False, "depth 3, a batch of one"),
        (2, 3, 6, 2, torch.float64, False, "one row comes out"),
        (3, 8, 5, 2, torch.float64, True, "tensors that are not contiguous"),
    ):
        hidden = 2 * tensor(rng, B, T - k + 1, D, dtype=dtype, strided=strided)
        embedded = tensor(rng, B, T, D, dtype=dtype, strided=strided)
        w = {name: 1 + 0.3 * tensor(rng, D, dtype=dtype) for name in NORMS}
        w["eh_proj"] = tensor(rng, D, 2 * D, dtype=dtype) * (2 * D) ** -0.5
        block = _block_of(1.5 * tensor(rng, D, D) * D**-0.5)
        said = f"{label}: hidden [{B}, {T - k + 1}, {D}], embedded [{B}, {T}, {D}]"
        yield Case((hidden, embedded, w, block, k), said)


def _told(hint, **wrong):
    return Mistake(hint, gives=lambda *args: oracle(*args, **wrong))


def _swapped_gains(hidden, embedded, w, block, k):
    w = {**w, "enorm": w["hnorm"], "hnorm": w["enorm"]}
    return oracle(hidden, embedded, w, block, k)


MODULE = Exercise(
    id="12.4",
    title="The module",
    signature="mtp_module(hidden, embedded, w, block, k)",
    difficulty="from the paper",
    minutes=20,
    right=mtp_module,
    cases=module_cases,
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
