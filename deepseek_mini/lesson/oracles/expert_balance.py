"""Exercise 08.3, the balance loss: the oracle counts expert by expert, in float64.

The inputs are float32, as a tensor is that says nothing else, so that torch.zeros and
.float() go with them; what a learner computes in float64 passes as well. The value is
judged as always, then the gradient: counts have none, scores have f / N.
"""

from dataclasses import replace

import numpy as np
import torch

from deepseek_mini.lesson.compare import difference
from deepseek_mini.lesson.explain import NotYet
from deepseek_mini.lesson.judge import call, judge_exercise
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.returned import NUMBER

TOLERANCE = 1e-5


def balance_loss(scores, chosen, *, counted=None, over=None, share=None, factor=None):
    """The oracle; the keywords make the known mistakes."""
    N, E = scores.shape
    K, total = chosen.shape[1], 0.0
    for i in range(E):
        load = int((chosen == i).sum()) if counted is None else counted(chosen, i)
        mean = scores[:, i].double().sum() / N if share is None else share(scores, i)
        total = total + load * mean
    scale = E / (K * N) if factor is None else factor(E, K, N)
    return (total * scale / (over(E) if over else 1)).to(scores.dtype)


def _balancing(**mistake):
    return lambda scores, chosen: balance_loss(scores, chosen, **mistake)


def _over_chosen(scores, chosen):
    """P from the weights of the chosen alone."""
    kept = torch.zeros_like(scores).scatter(1, chosen, scores.gather(1, chosen))
    return balance_loss(kept, chosen)


def _shares_twice(scores, chosen):
    P = scores.double().mean(0)
    return (scores.shape[1] * P * P).sum().to(scores.dtype)


def _loads_twice(scores, chosen):
    f = chosen.flatten().bincount(minlength=scores.shape[1]).double()
    f = f * scores.shape[1] / chosen.numel()
    return (f * f).mean().to(scores.dtype)


def balance_cases(rng):
    for N, E, K, label in (
        (11, 6, 2, "two of six experts"),
        (1, 5, 3, "one token"),
        (9, 4, 1, "one expert for a token"),
        (5, 12, 2, "experts that nobody chose"),
        (13, 7, 3, "three of seven experts"),
    ):
        logits = rng.standard_normal((N, E)) * 1.5 + rng.standard_normal(E)
        if "nobody" in label:
            logits[:, -4:] -= 9  # the last experts: a count that is too short shows
        scores = torch.from_numpy(logits).softmax(-1)
        chosen = scores.topk(K).indices
        said = f"{label}: scores [{N}, {E}], chosen [{N}, {K}]"
        yield Case((scores.float(), chosen), said, TOLERANCE)


def judge_balance(theirs, rng):
    """The value as always; then the gradient, which must be f / N."""
    judge_exercise(replace(BALANCE, judge=None), theirs, rng)
    for case in balance_cases(rng):
        scores, chosen = case.args
        leaf = scores.clone().requires_grad_()
        got = call(theirs, leaf, chosen, exercise=BALANCE)
        if got.grad_fn is None:
            raise NotYet(
                "the value is right, but no gradient reaches the scores",
                "what cuts the graph: .detach(), .item(), no_grad, or a new tensor "
                "made of numbers? The mean scores have to stay part of it",
            )
        (grad,) = torch.autograd.grad(got, leaf, allow_unused=True)
        N, E = scores.shape
        f = torch.stack([(chosen == i).sum() for i in range(E)]) * E / chosen.numel()
        grad = torch.zeros_like(scores) if grad is None else grad
        want = (f / N).to(scores.dtype).expand(N, E).clone()
        diff = difference(grad, want, TOLERANCE, exact_dtype=False)
        if diff is not None:
            raise NotYet(
                f"the value is right, but its gradient is not: {diff.reason} "
                f"(with {case.label})",
                "the gradient of every score of expert i is f_i / N: counts have none",
            )


BALANCE = Exercise(
    id="08.3",
    title="The balance loss",
    signature="balance_loss(scores, chosen)",
    difficulty="a few lines",
    minutes=12,
    right=balance_loss,
    cases=balance_cases,
    judge=judge_balance,
    exact_dtype=False,
    mistakes=(
        Mistake(
            "the load is divided by the number of tokens, but each makes K choices: "
            "even experts should have f = 1",
            gives=_balancing(factor=lambda E, K, N: E / N),
        ),
        Mistake(
            "a factor E is missing: f is the load in units of the mean load, and the "
            "products are added up over the experts, not averaged",
            gives=_balancing(factor=lambda E, K, N: 1 / (K * N)),
        ),
        Mistake(
            "f is the plain load: divide it by the mean load, K N / E",
            gives=_balancing(factor=lambda E, K, N: 1.0),
        ),
        Mistake(
            "only each token's first choice is counted in the load",
            gives=_balancing(counted=lambda chosen, i: int((chosen[:, 0] == i).sum())),
        ),
        Mistake(
            "only each token's first choice is counted in the load",
            gives=_balancing(
                counted=lambda chosen, i: int((chosen[:, 0] == i).sum()),
                factor=lambda E, K, N: E / N,
            ),
        ),
        Mistake(
            "P is made of the chosen scores alone: it is the mean over all tokens, "
            "also those that did not choose the expert",
            gives=_over_chosen,
        ),
        Mistake(
            "P is the sum over the tokens, not the mean",
            gives=_balancing(share=lambda s, i: s[:, i].double().sum()),
        ),
        Mistake(
            "f is made of scores as well: it should count choices",
            gives=_shares_twice,
        ),
        Mistake(
            "P is made of counts as well: it should be the mean of the scores",
            gives=_loads_twice,
        ),
        Mistake(
            "one number for each expert: add them up",
            when=lambda got, want, args: (
                np.shape(got) == (args[0].shape[1],) and want.ndim == 0
            ),
        ),
        NUMBER,
        Mistake(
            "one of the two may have fewer places than there are experts: a count "
            "that ends at the highest number chosen has none for those after it, and "
            "an expert that nobody chose has f = 0",
            raises="must match the size of tensor|inconsistent tensor size",
        ),
    ),
    hint="print f and P: the f of all experts have the mean 1, and the P of all "
    "experts add up to 1",
)
