"""Exercise 12.3, the loss of every depth: the oracle goes row by row, in floats."""

import math

import torch
from torch.nn import functional as F

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, tensor
from deepseek_mini.lesson.oracles.returned import NUMBER


def _nats(row, target):
    """Cross-entropy of one row, in float64."""
    values = [float(x) for x in row]
    top = max(values)
    return top + math.log(math.fsum(math.exp(x - top) for x in values)) - values[target]


def mtp_loss(logits, tokens):
    B, T = tokens.shape
    means = []
    for k, at_k in enumerate(logits, start=1):
        nats = [
            _nats(at_k[b, i], int(tokens[b, i + k + 1]))
            for b in range(B)
            for i in range(T - k - 1)
        ]
        means.append(math.fsum(nats) / len(nats))
    return torch.tensor(math.fsum(means) / len(means), dtype=logits[0].dtype)


def loss_cases(rng):
    for B, T, V, depth, label in (
        (2, 7, 5, 2, "two depths"),
        (1, 6, 4, 1, "one depth, a batch of one"),
        (3, 6, 7, 3, "three depths"),
        (2, 3, 5, 1, "one row that counts"),
    ):
        rows = [T - k for k in range(1, depth + 1)]
        logits = [2 * tensor(rng, B, n, V, dtype=torch.float32) for n in rows]
        tokens = torch.from_numpy(rng.integers(0, V, (B, T)))
        said = f"{label}: B = {B}, T = {T}, V = {V}, D = {depth}"
        yield Case((logits, tokens), said)


def _mean(rows, targets):
    """Mean cross-entropy by torch, rows [..., V] and targets [...]."""
    return -rows.log_softmax(-1).gather(-1, targets[..., None]).mean()


def _by_depth(rows, targets, join=lambda x: torch.stack(x).mean()):
    """The mean over depths, with rows and targets cut by (tensor, k, T)."""

    def wrong(logits, tokens):
        T, losses = tokens.shape[1], []
        for k, at_k in enumerate(logits, start=1):
            a, b = rows(at_k, k, T), targets(tokens, k, T)
            n = min(a.shape[1], b.shape[1])
            losses.append(_mean(a[:, :n], b[:, :n]))
        return join(losses)

    return wrong


def _past_the_end(fill):
    """All rows count; what the last has for a target is fill(tokens)."""

    def targets(tokens, k, T):
        return torch.cat((tokens[:, k + 1 :], fill(tokens)[:, None]), dim=1)

    return _by_depth(lambda x, k, T: x, targets)


def _reshaped(logits, tokens):
    """[B, V, R] by reshape, where the axes should be swapped."""
    B, T = tokens.shape
    nats = []
    for k, at_k in enumerate(logits, start=1):
        kept = at_k[:, : T - k - 1]
        swapped = kept.reshape(B, at_k.shape[2], -1)
        nats.append(F.cross_entropy(swapped, tokens[:, k + 1 :]))
    return torch.stack(nats).mean()


def _exact_rows(x, k, T):
    return x[:, : T - k - 1]


def _over_all_rows(logits, tokens):
    T, nats, n = tokens.shape[1], 0, 0
    for k, at_k in enumerate(logits, start=1):
        a, b = at_k[:, : T - k - 1], tokens[:, k + 1 :]
        nats, n = nats + _mean(a, b) * b.numel(), n + b.numel()
    return nats / n


def _per_position(logits, tokens):
    """The paper's division: by all T positions."""
    T, losses = tokens.shape[1], []
    for k, at_k in enumerate(logits, start=1):
        a, b = at_k[:, : T - k - 1], tokens[:, k + 1 :]
        losses.append(_mean(a, b) * b.shape[1] / T)
    return torch.stack(losses).mean()


LOSS = Exercise(
    id="12.3",
    title="The loss",
    signature="mtp_loss(logits, tokens)",
    difficulty="some thought",
    minutes=15,
    right=mtp_loss,
    cases=loss_cases,
    exact_dtype=False,
    mistakes=(
        Mistake(
            "row i predicts the token that it was told, i + k, and the last row counts "
            "too: both are one off",
            gives=_by_depth(lambda x, k, T: x, lambda t, k, T: t[:, k:]),
        ),
        Mistake(
            "the targets are one too early: token i + k is what the module was told",
            gives=_by_depth(_exact_rows, lambda t, k, T: t[:, k:]),
        ),
        Mistake(
            "the targets are one too late: row i of depth k predicts token i + k + 1",
            gives=_by_depth(_exact_rows, lambda t, k, T: t[:, k + 2 :]),
        ),
        Mistake(
            "every depth has the targets of depth 1: depth k looks k - 1 further",
            gives=_by_depth(_exact_rows, lambda t, k, T: t[:, 2:]),
        ),
        Mistake(
            "every depth has the targets of the model itself, token i + 1",
            gives=_by_depth(_exact_rows, lambda t, k, T: t[:, 1:]),
        ),
        Mistake(
            "the first rows are cut off instead of the last: row i stays row i",
            gives=_by_depth(
                lambda x, k, T: x[:, 1 : T - k], lambda t, k, T: t[:, k + 1 :]
            ),
        ),
        Mistake(
            "the depths are added up; asked for is their mean",
            gives=_by_depth(
                _exact_rows, lambda t, k, T: t[:, k + 1 :], lambda x: sum(x)
            ),
        ),
        Mistake(
            "the mean is over the rows of all depths together, so the first depth, "
            "with more rows, counts more",
            gives=_over_all_rows,
        ),
        Mistake(
            "the sum is divided by all T positions; T - k - 1 rows of depth k count",
            gives=_per_position,
        ),
        Mistake(
            "only the first depth is counted",
            gives=_by_depth(_exact_rows, lambda t, k, T: t[:, k + 1 :], lambda x: x[0]),
        ),
        Mistake(
            "only the first text of the batch is counted",
            gives=lambda logits, tokens: mtp_loss([x[:1] for x in logits], tokens[:1]),
        ),
        *(
            Mistake(
                "the last row of each depth is counted too: the token that it "
                "predicts is not there, whatever is put in its place",
                gives=_past_the_end(fill),
            )
            for fill in (
                lambda tokens: tokens[:, 0],  # rolled round
                lambda tokens: 0 * tokens[:, 0],
                lambda tokens: tokens[:, -1],
            )
        ),
        Mistake(
            "the logits are reshaped where axes should be swapped: reshape keeps the "
            "numbers in their order",
            gives=_reshaped,
        ),
        Mistake(
            "these are bits: the natural logarithm makes nats",
            gives=lambda *args: mtp_loss(*args) / math.log(2),
        ),
        NUMBER,
    ),
    hint="take one depth and one text, write down for each row which token it "
    "predicts, and compute that depth's mean alone",
)
