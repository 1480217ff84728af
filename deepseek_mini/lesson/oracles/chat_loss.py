"""Exercise 15.2, the loss on answers: the oracle goes token by token, in floats.

Then the gradient, which a loss is for; `judge_with_gradient` is 15.4's too.
"""

import math
from dataclasses import replace

import torch

from deepseek_mini.lesson.compare import difference
from deepseek_mini.lesson.explain import NotYet
from deepseek_mini.lesson.judge import call, judge_exercise
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, tensor
from deepseek_mini.lesson.oracles.returned import NUMBER

TOLERANCE = 1e-5  # float32 is good enough, whatever the inputs are; 16 bits are not


def judge_with_gradient(exercise, theirs, rng, gradient, cut):
    """The value as always; then the gradient by the first input.

    gradient(*args): what it must be, float64. `cut`: the hint where it is another.
    """
    judge_exercise(replace(exercise, judge=None), theirs, rng)
    name = exercise.signature.split("(")[1].split(",")[0]
    for case in exercise.cases(rng):
        leaf = case.args[0].clone().requires_grad_()
        try:
            got = call(theirs, leaf, *case.args[1:], exercise=exercise)
        except NotYet as problem:
            problem.reason += f" (with {name} that need a gradient)"
            problem.hint = "stay in torch, so that the gradient can flow back"
            raise
        grad = None
        if got.requires_grad:
            (grad,) = torch.autograd.grad(got, leaf, allow_unused=True)
        if grad is None:
            raise NotYet(
                f"the value is right, but no gradient reaches {name}, so nothing can "
                "be trained with it",
                "what cuts the graph: .detach(), .item(), no_grad, or a new tensor "
                "made of numbers?",
            )
        if not grad.isfinite().all():
            raise NotYet(
                f"the value is right, but the gradient by {name} is not finite (with "
                f"{case.label})",
                "where a softmax is exactly 0, its logarithm has an infinite slope, "
                "and `where` or `nansum` hide that in the value alone: take "
                "logarithm and softmax in one step",
            )
        want = gradient(*case.args)
        scale = float(want.abs().max())  # a mean's gradients are small
        diff = difference(
            grad.double() / scale, want / scale, max(case.tolerance, 1e-4)
        )
        if diff is not None:
            raise NotYet(
                f"the value is right, but the gradient by {name} (in units of its "
                f"largest) is not: {diff.reason} (with {case.label})",
                cut,
            )


def _nearly(got, want, args):
    if not isinstance(got, torch.Tensor) or not got.is_floating_point():
        return False
    near = 2e-2 if got.element_size() == 2 else 4e-3
    return difference(got.double(), want.double(), near) is None


SIXTEEN_BITS = Mistake(
    "this is right to two or three digits only: do float16 or bfloat16 come in, which "
    "hold no more, or is a small number added?",
    when=_nearly,
)


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
        (2, 7, 5, "a logit far above the others"),
    ):
        dtype = torch.float64 if label == "two tokens each" else torch.float32
        logits = 2 * tensor(rng, B, T, V, dtype=dtype, strided=label[0] == "f")
        if label.startswith("a logit"):
            logits[..., 1] += 400
        tokens = torch.from_numpy(rng.integers(0, V, (B, T)))
        trained = torch.from_numpy(rng.random((B, T)) < 0.5)
        trained[0, 1:] = True  # rows differ in how many count
        if B > 1:
            trained[1, 1:] = False
            trained[1, -1] = True
        trained[:, 0] = torch.from_numpy(rng.random(B) < 0.5)
        trained[0, 0] = True
        said = f"{label}: B = {B}, T = {T}, V = {V}"
        yield Case((logits, tokens, trained), said, TOLERANCE)


def judge_loss(theirs, rng):
    """The value, then the gradient by the logits."""
    judge_with_gradient(
        LOSS,
        theirs,
        rng,
        _gradient,
        "a part of the loss is cut off from the logits: all of a softmax depends on "
        "them",
    )


def _gradient(logits, tokens, trained):
    """At places that predict a trained token: the softmax, less 1 at that token."""
    gradient = torch.zeros(logits.shape, dtype=torch.float64)
    for b, t in trained[:, 1:].nonzero().tolist():
        gradient[b, t] = logits[b, t].double().softmax(0)
        gradient[b, t, tokens[b, t + 1]] -= 1
    return gradient / trained[:, 1:].sum()


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


def _over_rows(logits, tokens, trained):
    """The texts in one long row: a text's last place is asked for the next's first."""
    nats = _shifted(logits.flatten(0, 1)[None], tokens.flatten()[None])
    return _mean_where(nats, trained.flatten()[None, 1:])


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
    judge=judge_loss,
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
            "the last place of a text is asked for the first token of the next text: "
            "shift each text by itself",
            gives=_over_rows,
        ),
        Mistake(
            "a token counts here only if the token before it is trained too: so the "
            "first token of each answer is lost",
            gives=lambda x, t, m: _mean_where(_shifted(x, t), m[:, 1:] & m[:, :-1]),
        ),
        Mistake(
            "the softmax runs over time: it belongs over the vocabulary",
            gives=lambda x, t, m: _mean_where(
                -x.log_softmax(1)[:, :-1].gather(-1, t[:, 1:, None])[..., 0], m[:, 1:]
            ),
        ),
        Mistake(
            "this is -p: the logarithm is missing",
            gives=lambda x, t, m: _mean_where(
                -x.softmax(-1)[:, :-1].gather(-1, t[:, 1:, None])[..., 0], m[:, 1:]
            ),
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
        Mistake(
            "where a logit lies far above the others the result is not finite: a "
            "softmax may be 0 there, and exp may overflow; its logarithm is neither, "
            "so take both in one step",
            when=lambda got, want, args: (
                isinstance(got, torch.Tensor)
                and not got.isfinite().all()
                and float(args[0].abs().max()) > 100
            ),
        ),
        *(
            Mistake(
                SIXTEEN_BITS.hint,
                gives=lambda x, t, m, d=dtype: _mean_where(
                    _shifted(x.to(d), t), m[:, 1:]
                ),
            )
            for dtype in (torch.float16, torch.bfloat16)
        ),
        SIXTEEN_BITS,
        NUMBER,
    ),
    hint="take one text, write down for each trained token which place predicts it, "
    "and compute that mean alone",
)
