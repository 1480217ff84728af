"""Exercise 15.4, the reverse KL: the oracle sums in float64, entry by entry.

Then the gradient by the student's logits, in closed form.
"""

import math

import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, tensor
from deepseek_mini.lesson.oracles.chat_loss import (
    SIXTEEN_BITS,
    TOLERANCE,
    judge_with_gradient,
)
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


def judge_kl(theirs, rng):
    """The value, then the gradient by the student."""
    judge_with_gradient(
        DIVERGENCE,
        theirs,
        rng,
        _gradient,
        "the student's p stands in it twice, as the weight and in the logarithm, and "
        "the gradient flows through both: is one of them cut off?",
    )


def _gradient(student, teacher, mask):
    """By logit v: p(v) (ln p(v) - ln q(v) - KL), over the number of tokens."""
    gradient = torch.zeros(student.shape, dtype=torch.float64)
    for b, t in mask.nonzero().tolist():
        log_p = torch.tensor(_logs(student[b, t]), dtype=torch.float64)
        each = log_p - torch.tensor(_logs(teacher[b, t]), dtype=torch.float64)
        gradient[b, t] = log_p.exp() * (each - (log_p.exp() * each).sum())
    return gradient / mask.sum()


def kl_cases(rng):
    for B, T, V, label in (
        (2, 5, 7, "two texts"),
        (1, 4, 6, "a batch of one"),
        (3, 6, 5, "three texts"),
        (2, 4, 6, "logits far apart"),
    ):
        far = label == "logits far apart"
        dtype = torch.float64 if label == "three texts" else torch.float32
        student = tensor(rng, B, T, V, dtype=dtype, strided=not far)
        teacher = tensor(rng, B, T, V, dtype=dtype)
        if far:  # p is 0 but for two entries, and q is 0 at one of these
            student[..., :2] += 1000
            teacher[..., 1:3] += 1000
        mask = torch.from_numpy(rng.random((B, T)) < 0.6)
        mask[0, :2] = mask[:, 0] = True  # in every text one at least, and not all
        mask[-1, -1] = False
        if B > 1:
            mask[-1, 1:] = False  # texts differ in how many count
        said = f"{label}: B = {B}, T = {T}, V = {V}"
        # of a logit of 1,000, float32 keeps four digits after the point
        yield Case((student, teacher, mask), said, 1e-3 if far else TOLERANCE)


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


def _replaced(student, teacher, mask):
    p, q = student.softmax(-1), teacher.softmax(-1)
    return (p * (p / q).log()).nan_to_num(0, 0, 0).sum(-1)[mask].mean()


def _moved(student, teacher, mask, places, tokens):
    return _tokens(student, teacher)[:, places][mask[:, tokens]].mean()


_FIRST, _LATER = slice(None, -1), slice(1, None)
_NO_SHIFT = (
    "nothing is shifted here: `mask[b, t]` is for the logits at place t, the first and "
    "the last too"
)


def _is_far(args):
    return float(args[0].abs().max()) > 100


def _not_finite(got):
    return isinstance(got, torch.Tensor) and not got.isfinite().all()


def _cut_off(got, want, args):
    """Far too small, and not 0, where ln q is about -1000."""
    if not isinstance(got, torch.Tensor) or got.ndim > 0 or not _is_far(args):
        return False
    return 0 < float(got) < float(want) / 5


DIVERGENCE = Exercise(
    id="15.4",
    title="Learn from a teacher",
    signature="reverse_kl(student, teacher, mask)",
    difficulty="from the paper",
    minutes=15,
    right=reverse_kl,
    cases=kl_cases,
    judge=judge_kl,
    exact_dtype=False,
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
        *(
            Mistake(_NO_SHIFT, gives=lambda *a, p=places, t=tokens: _moved(*a, p, t))
            for places in (_FIRST, _LATER)
            for tokens in (_FIRST, _LATER)
        ),
        Mistake(
            "this is divided by B: `batchmean` divides by the length of the first "
            "axis, and asked for is the mean over the masked tokens",
            gives=lambda s, t, m: _tokens(s, t).sum() / len(m),
        ),
        Mistake(
            "the sum over the masked tokens is right; it is divided by B, the number "
            "of texts",
            gives=lambda s, t, m: _tokens(s, t)[m].sum() / len(m),
        ),
        Mistake(
            "this is the mean of |ln p - ln q|: the differences keep their signs, and "
            "the sum is positive all the same",
            gives=lambda s, t, m: (
                (s.softmax(-1) * (s.log_softmax(-1) - t.log_softmax(-1)).abs())
                .sum(-1)[m]
                .mean()
            ),
        ),
        Mistake(
            "the weight in front of the logarithm is ln p here: it is p",
            gives=lambda s, t, m: (
                (s.log_softmax(-1) * (s.log_softmax(-1) - t.log_softmax(-1)))
                .sum(-1)[m]
                .mean()
            ),
        ),
        Mistake(
            "no logits lie far apart here, and a logarithm of something negative was "
            "taken: `kl_div` takes its second argument for probabilities, unless "
            "`log_target` says otherwise",
            when=lambda got, want, args: _not_finite(got) and not _is_far(args),
        ),
        Mistake(
            "where logits lie far apart the result is not finite: a q that the "
            "computer rounds to 0 gives ln q = -inf, and torch's `Categorical` takes "
            "that 0 at its word too; take logarithm and softmax in one step",
            when=lambda got, want, args: _not_finite(got) and _is_far(args),
        ),
        Mistake(
            "what was not finite is replaced: but ln q is about -1000 there, neither 0 "
            "nor the largest number",
            gives=_replaced,
        ),
        Mistake(
            "what was not finite is replaced: but ln q is about -1000 there, neither 0 "
            "nor the largest number",
            when=lambda got, want, args: (
                isinstance(got, torch.Tensor) and got.ndim == 0 and float(got) > 1e30
            ),
        ),
        Mistake(
            "a small number is added, or probabilities are cut off from below: that "
            "changes ln q, which may be -1000",
            when=_cut_off,
        ),
        *(
            Mistake(
                SIXTEEN_BITS.hint,
                gives=lambda s, t, m, d=dtype: _tokens(s.to(d), t.to(d))[m].mean(),
            )
            for dtype in (torch.float16, torch.bfloat16)
        ),
        SIXTEEN_BITS,
        Mistake(
            "a divergence for each token is asked for nowhere: one number comes back",
            when=lambda got, want, args: isinstance(got, torch.Tensor) and got.ndim > 0,
        ),
        NUMBER,
    ),
    hint="take one token with two entries, and compute its sum by hand",
)
