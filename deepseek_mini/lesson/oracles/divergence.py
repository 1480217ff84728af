"""Exercise 15.4, the reverse KL: the oracle sums in float64, entry by entry."""

import math

import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, tensor
from deepseek_mini.lesson.oracles.returned import NUMBER


def _logs(row):
    """Log-probabilities of one row of scores, floats."""
    values = [float(x) for x in row]
    top = max(values)
    log_z = top + math.log(math.fsum(math.exp(x - top) for x in values))
    return [x - log_z for x in values]


def reverse_kl(student, teacher, mask):
    values = []
    for b, t in mask.nonzero().tolist():
        log_p, log_q = _logs(student[b, t]), _logs(teacher[b, t])
        values.append(math.fsum(math.exp(a) * (a - c) for a, c in zip(log_p, log_q)))
    return torch.tensor(math.fsum(values) / len(values), dtype=student.dtype)


def kl_cases(rng):
    for B, T, V, label in (
        (2, 5, 7, "two texts"),
        (1, 4, 6, "a batch of one"),
        (3, 6, 5, "three texts"),
        (2, 4, 6, "logits far apart"),
    ):
        far = label == "logits far apart"
        student = tensor(rng, B, T, V, strided=not far)
        teacher = tensor(rng, B, T, V)
        if far:
            student[..., 0] += 1000
            teacher[..., 1] += 1000
        mask = torch.from_numpy(rng.random((B, T)) < 0.6)
        mask[0, :2] = True
        mask[-1, -1] = False
        yield Case((student, teacher, mask), f"{label}: B = {B}, T = {T}, V = {V}")


def _terms(student, teacher):
    return student.log_softmax(-1), teacher.log_softmax(-1)


def _tokens(student, teacher):
    """[B, T]: the right divergence of every token."""
    log_p, log_q = _terms(student, teacher)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _cross_entropy(student, teacher, mask):
    log_p, log_q = _terms(student, teacher)
    return -(log_p.exp() * log_q).sum(-1)[mask].mean()


def _per_entry(student, teacher, mask):
    log_p, log_q = _terms(student, teacher)
    return (log_p.exp() * (log_p - log_q))[mask].mean()


def _of_logits(student, teacher, mask):
    log_p, _ = _terms(student, teacher)
    return (log_p.exp() * (student - teacher)).sum(-1)[mask].mean()


def _of_texts(student, teacher, mask):
    rows = [k[m].mean() for k, m in zip(_tokens(student, teacher), mask) if m.any()]
    return torch.stack(rows).mean()


def _over_time(student, teacher, mask):
    log_p, log_q = student.log_softmax(1), teacher.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)[mask].mean()


def _nearly(got, want, args):
    """Off by very little, or far too small where ln q is about -1000."""
    if not isinstance(got, torch.Tensor) or got.ndim > 0:
        return False
    got, want = float(got), float(want)
    return abs(got - want) < 1e-4 or (want > 100 and 0 < got < 100)


DIVERGENCE = Exercise(
    id="15.4",
    title="Learn from a teacher",
    signature="reverse_kl(student, teacher, mask)",
    difficulty="from the paper",
    minutes=15,
    right=reverse_kl,
    cases=kl_cases,
    mistakes=(
        Mistake(
            "this is the forward divergence, weighed by the teacher: here the "
            "student's probabilities weigh",
            gives=lambda s, t, m: _tokens(t, s)[m].mean(),
        ),
        Mistake(
            "the sign is turned round: a divergence is never negative",
            gives=lambda s, t, m: -_tokens(s, t)[m].mean(),
        ),
        Mistake(
            "ln p is missing: this is the cross-entropy of the two, which is not 0 "
            "when they agree",
            gives=_cross_entropy,
        ),
        Mistake(
            "the mask is not used: every token counts here",
            gives=lambda s, t, m: _tokens(s, t).mean(),
        ),
        Mistake(
            "the sum over the masked tokens is right; it is divided by the number of "
            "all tokens",
            gives=lambda s, t, m: (_tokens(s, t) * m).mean(),
        ),
        Mistake(
            "this is a sum over tokens; asked for is their mean",
            gives=lambda s, t, m: _tokens(s, t)[m].sum(),
        ),
        Mistake(
            "each text has a mean of its own, and their mean is taken",
            gives=_of_texts,
        ),
        Mistake(
            "the mean is over the vocabulary too: over its entries there is a sum",
            gives=_per_entry,
        ),
        Mistake(
            "these are differences of logits: they are log-probabilities only after "
            "their own normalisation",
            gives=_of_logits,
        ),
        Mistake(
            "the softmax runs over time: it belongs over the vocabulary",
            gives=_over_time,
        ),
        Mistake(
            "these are bits: the natural logarithm makes nats",
            gives=lambda s, t, m: _tokens(s, t)[m].mean() / math.log(2),
        ),
        Mistake(
            "where logits lie far apart the result is not finite: the logarithm of a "
            "softmax that is 0 is -inf, so take both in one step",
            when=lambda got, want, args: (
                isinstance(got, torch.Tensor) and not got.isfinite().all()
            ),
        ),
        Mistake(
            "a small number is added, or probabilities are cut off from below: that "
            "changes ln q, which may be -1000",
            when=_nearly,
        ),
        Mistake(
            "a divergence for each token is asked for nowhere: one number comes back",
            when=lambda got, want, args: isinstance(got, torch.Tensor) and got.ndim > 0,
        ),
        NUMBER,
    ),
    hint="take one token with two entries, and compute its sum by hand",
)
