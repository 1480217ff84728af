"""Exercise 11.4, V3's sequence-wise loss: the oracle counts sequence by sequence.

The value is judged as always, then the gradient, which flows through P alone.
"""

from dataclasses import replace

import numpy as np
import torch

from deepseek_mini.lesson.compare import difference
from deepseek_mini.lesson.explain import NotYet
from deepseek_mini.lesson.judge import call, judge_exercise
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake

TOLERANCE = 1e-5  # a count divided by a count is float32 in torch


def sequence_balance(scores, K, *, share=None, scale=None, joined=False, most=None):
    """The oracle; the keywords make the known mistakes."""
    wide = scores.double()
    if joined:
        wide = wide.reshape(1, -1, wide.shape[-1])
    B, T, E = wide.shape
    losses = []
    for sequence in wide:
        counts = [0] * E
        for token in sequence.tolist():
            for i in sorted(range(E), key=token.__getitem__)[-(most or K) :]:
                counts[i] += 1
        P = (share or _normalised)(sequence)
        f = [c * (scale(E, K, T) if scale else E / (K * T)) for c in counts]
        losses.append(sum(a * P[i] for i, a in enumerate(f)))
    return (sum(losses) / B).to(scores.dtype)


def _normalised(sequence):
    return (sequence / sequence.sum(-1, keepdim=True)).mean(0)


def _losing(**mistake):
    return lambda scores, K: sequence_balance(scores, K, **mistake)


def _weights_for_scores(scores, K):
    """P from the K best alone, divided by their sum."""
    best = scores.topk(K)
    kept = best.values / best.values.sum(-1, keepdim=True)
    sparse = torch.zeros_like(scores).scatter(-1, best.indices, kept)
    counts = (sparse > 0).sum(1) * scores.shape[2] / (K * scores.shape[1])
    return (counts * sparse.mean(1)).sum(-1).mean()


def _over_the_chosen(scores, K):
    def share(s):
        return (s / s.topk(K).values.sum(-1, keepdim=True)).mean(0)

    return sequence_balance(scores, K, share=share)


def sequence_cases(rng):
    for B, T, E, K, dtype, strided, label in (
        (3, 7, 6, 2, torch.float64, False, "three sequences"),
        (1, 5, 4, 1, torch.float64, False, "one sequence, one expert for a token"),
        (4, 1, 5, 3, torch.float64, False, "sequences of one token"),
        (2, 9, 8, 3, torch.float32, False, "float32"),
        (5, 4, 6, 2, torch.float64, True, "scores that are not contiguous"),
    ):
        lean = 1.5 * rng.standard_normal((B, 1, E))  # every text has its favourites
        scores = torch.from_numpy(rng.standard_normal((B, T, E)) + lean)
        scores = scores.sigmoid().to(dtype)
        if strided:
            scores = scores.transpose(1, 2).contiguous().transpose(1, 2)
        yield Case((scores, K), f"{label}: scores [{B}, {T}, {E}], K = {K}", TOLERANCE)


def judge_sequence(theirs, rng):
    """The value as always; then the gradient."""
    judge_exercise(replace(SEQUENCE, judge=None), theirs, rng)
    for case in sequence_cases(rng):
        scores, K = case.args
        leaf = scores.clone().requires_grad_()
        got = call(theirs, leaf, K, exercise=SEQUENCE)
        if got.grad_fn is None:
            raise NotYet(
                "the value is right, but no gradient reaches the scores",
                "what cuts the graph: .detach(), .item(), no_grad, or a new tensor "
                "made of numbers? P has to stay part of it",
            )
        (grad,) = torch.autograd.grad(got, leaf, allow_unused=True)
        reference = scores.clone().requires_grad_()
        (want,) = torch.autograd.grad(sequence_balance(reference, K), reference)
        grad = torch.zeros_like(scores) if grad is None else grad
        diff = difference(grad, want, TOLERANCE)
        if diff is not None:
            raise NotYet(
                f"the value is right, but its gradient is not: {diff.reason} "
                f"(with {case.label})",
                _gradient_hint(grad, scores, K),
            )


def _gradient_hint(grad, scores, K):
    """Whether the sum below the line was taken for a constant, or f was not one."""
    leaf = scores.clone().requires_grad_()
    loss = sequence_balance(
        leaf, K, share=lambda s: (s / s.detach().sum(-1, keepdim=True)).mean(0)
    )
    (detached,) = torch.autograd.grad(loss, leaf)
    if difference(grad, detached, TOLERANCE) is None:
        return "the sum that the scores are divided by depends on them too"
    return "all of it should come through P: f is made of counts, which have none"


SEQUENCE = Exercise(
    id="11.4",
    title="The sequence-wise loss",
    signature="sequence_balance(scores, K)",
    difficulty="some thought",
    minutes=13,
    right=sequence_balance,
    cases=sequence_cases,
    judge=judge_sequence,
    mistakes=(
        Mistake(
            "the scores in P are not divided by their sum over the experts: sigmoids "
            "do not add up to 1",
            gives=_losing(share=lambda s: s.mean(0)),
        ),
        Mistake(
            "the scores in P were divided after the mean over the tokens: each token's "
            "scores have a sum of their own",
            gives=_losing(share=lambda s: s.mean(0) / s.mean(0).sum()),
        ),
        Mistake(
            "the scores in P went through a softmax: divide them by their sum",
            gives=_losing(share=lambda s: s.softmax(-1).mean(0)),
        ),
        Mistake(
            "all sequences were counted as one: f and P belong to a sequence, and the "
            "losses are averaged",
            gives=_losing(joined=True),
        ),
        Mistake(
            "the losses of the sequences were added up: return their mean",
            gives=lambda scores, K: sequence_balance(scores, K) * len(scores),
        ),
        Mistake(
            "the load is divided by the number of tokens, but each makes K choices: "
            "even experts should have f = 1",
            gives=_losing(scale=lambda E, K, T: E / T),
        ),
        Mistake(
            "the load is not divided by T: even experts should have f = 1",
            gives=_losing(scale=lambda E, K, T: E / K),
        ),
        Mistake(
            "a factor E is missing: f is the load in units of the mean load",
            gives=_losing(scale=lambda E, K, T: 1 / (K * T)),
        ),
        Mistake(
            "only each token's best expert is counted in f: it has K of them",
            gives=_losing(most=1),
        ),
        Mistake(
            "only each token's best expert is counted in f: it has K of them",
            gives=_losing(most=1, scale=lambda E, K, T: E / T),
        ),
        Mistake(
            "P is made of the chosen scores alone: it is a mean of all",
            gives=_weights_for_scores,
        ),
        Mistake(
            "one number for each sequence: return their mean",
            when=lambda got, want, args: (
                np.shape(got) == (len(args[0]),) and want.ndim == 0
            ),
        ),
        Mistake(
            "`.item()` and `float()` make a number, and a number has no gradient: "
            "return the tensor",
            when=lambda got, *_: isinstance(got, float),
        ),
        Mistake(
            "the scores in P were divided by the sum over the tokens: it should be "
            "that over the experts",
            gives=_losing(share=lambda s: (s / s.sum(0)).mean(0)),
        ),
        Mistake(
            "the scores in P were divided by the sum of the chosen: it should be that "
            "over all experts",
            gives=_over_the_chosen,
        ),
    ),
    exact_dtype=False,  # counts may be float64 and the scores float32
    hint="take one sequence: the P of its experts add up to 1, and their f have the "
    "mean 1",
)
