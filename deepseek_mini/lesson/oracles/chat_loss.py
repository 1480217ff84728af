"""Exercise 15.2, the loss on answers: the oracle goes token by token, in floats."""

import math

import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, tensor
from deepseek_mini.lesson.oracles.returned import NUMBER


def _nats(row, target):
    """Cross-entropy of one row, in float64."""
    values = [float(x) for x in row]
    top = max(values)
    return top + math.log(math.fsum(math.exp(x - top) for x in values)) - values[target]


def answer_loss(logits, tokens, trained):
    nats = [
        _nats(logits[b, t - 1], int(tokens[b, t]))
        for b in range(tokens.shape[0])
        for t in range(1, tokens.shape[1])
        if trained[b, t]
    ]
    return torch.tensor(math.fsum(nats) / len(nats), dtype=logits.dtype)


def loss_cases(rng):
    for B, T, V, label in (
        (3, 9, 7, "three texts"),
        (1, 6, 5, "a batch of one"),
        (2, 2, 4, "two tokens each"),
        (4, 11, 6, "four texts"),
    ):
        logits = 2 * tensor(rng, B, T, V, dtype=torch.float32, strided=label[0] == "f")
        tokens = torch.from_numpy(rng.integers(0, V, (B, T)))
        trained = torch.from_numpy(rng.random((B, T)) < 0.5)
        trained[0, 1:] = True  # rows differ in how many count
        if B > 1:
            trained[1, 1:] = False
            trained[1, -1] = True
        trained[:, 0] = torch.from_numpy(rng.random(B) < 0.5)
        trained[0, 0] = True
        yield Case((logits, tokens, trained), f"{label}: B = {B}, T = {T}, V = {V}")


def _all_nats(logits, targets):
    return -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]


def _shifted(logits, tokens):
    """[B, T - 1]: the loss of tokens 1, 2, ..."""
    return _all_nats(logits[:, :-1], tokens[:, 1:])


def _mean_where(nats, mask):
    return nats[mask].mean()


def _of_rows(logits, tokens, trained):
    nats, mask = _shifted(logits, tokens), trained[:, 1:]
    rows = [n[m].mean() for n, m in zip(nats, mask) if m.any()]
    return torch.stack(rows).mean()


def _ignore_wrapped(logits, tokens, trained):
    """The targets rolled, so that the first token of a row is predicted by the last."""
    nats = _all_nats(logits, tokens.roll(-1, dims=1))
    return _mean_where(nats, trained.roll(-1, dims=1))


LOSS = Exercise(
    id="15.2",
    title="The loss",
    signature="answer_loss(logits, tokens, trained)",
    difficulty="some thought",
    minutes=12,
    right=answer_loss,
    cases=loss_cases,
    exact_dtype=False,
    mistakes=(
        Mistake(
            "nothing is shifted: place t predicts token t + 1, and here it is asked "
            "for token t",
            gives=lambda x, t, m: _mean_where(_all_nats(x, t), m),
        ),
        Mistake(
            "the mask is not shifted like the targets: what counts is whether the "
            "predicted token is trained",
            gives=lambda x, t, m: _mean_where(_shifted(x, t), m[:, :-1]),
        ),
        Mistake(
            "the shift goes the wrong way: place t is asked for token t - 1",
            gives=lambda x, t, m: _mean_where(
                _all_nats(x[:, 1:], t[:, :-1]), m[:, :-1]
            ),
        ),
        Mistake(
            "the mask is not used: every token counts here, the questions too",
            gives=lambda x, t, m: _shifted(x, t).mean(),
        ),
        Mistake(
            "the mask is turned round: these are the tokens that are not trained",
            gives=lambda x, t, m: _mean_where(_shifted(x, t), ~m[:, 1:]),
        ),
        Mistake(
            "the sum over trained tokens is right; it is divided by the number of all "
            "tokens, not by that of the trained ones",
            gives=lambda x, t, m: (_shifted(x, t) * m[:, 1:]).mean(),
        ),
        Mistake(
            "the sum over trained tokens is right; it is divided by B T",
            gives=lambda x, t, m: (_shifted(x, t) * m[:, 1:]).sum() / m.numel(),
        ),
        Mistake(
            "the number that divides counts the first tokens of the texts too: nothing "
            "predicts them",
            gives=lambda x, t, m: (_shifted(x, t) * m[:, 1:]).sum() / m.sum(),
        ),
        Mistake(
            "this is the sum; asked for is the mean",
            gives=lambda x, t, m: (_shifted(x, t) * m[:, 1:]).sum(),
        ),
        Mistake(
            "each text has a mean of its own, and their mean is taken: so a token in a "
            "short answer counts more",
            gives=_of_rows,
        ),
        Mistake(
            "the first token of a text is predicted by its last place: after that "
            "there is no token",
            gives=_ignore_wrapped,
        ),
        Mistake(
            "these are bits: the natural logarithm makes nats",
            gives=lambda *args: answer_loss(*args) / math.log(2),
        ),
        Mistake(
            "the logits went into a loss for probabilities, or had their softmax twice",
            gives=lambda x, t, m: _mean_where(_shifted(x.softmax(-1), t), m[:, 1:]),
        ),
        Mistake(
            "the sign is turned round: -ln p is never negative",
            gives=lambda *args: -answer_loss(*args),
        ),
        Mistake(
            "a loss for each token is asked for nowhere: one number comes back",
            when=lambda got, want, args: isinstance(got, torch.Tensor) and got.ndim > 0,
        ),
        NUMBER,
    ),
    hint="take one text, write down for each trained token which place predicts it, "
    "and compute that mean alone",
)
