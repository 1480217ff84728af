"""Exercise 10.2, the communication loss: the oracle fills a set of devices for every
token. The value is judged as always, then the gradient: f'' / N for each score.
"""

from dataclasses import replace

import torch

from deepseek_mini.lesson.compare import difference
from deepseek_mini.lesson.explain import NotYet
from deepseek_mini.lesson.judge import call, judge_exercise
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake

TOLERANCE = 1e-5  # a count divided by a count is float32 in torch


def _frequencies(scores, chosen, D, M, sent=None, over=None, on=None):
    """f'' of every device, [D]; keywords make the known mistakes."""
    N, E = scores.shape
    device_of = on or (lambda i: i // (E // D))  # D and beyond: counted nowhere
    count = [0] * D
    for row in chosen.tolist():
        devices = [device_of(i) for i in row]
        for d in devices if sent == "every choice" else set(devices):
            if d < D:
                count[d] += 1
    scale = over(D, M, N, chosen.shape[1]) if over else D / (M * N)
    return torch.tensor(count, dtype=torch.float64) * scale


def _loss(scores, chosen, D, M, share=None, share_on=None, **mistake):
    N, E = scores.shape
    f, on = _frequencies(scores, chosen, D, M, **mistake), share_on
    total = torch.zeros((), dtype=torch.float64)
    for i in range(E):
        d = on(i) if on else i // (E // D)
        total = total + f[d] * scores[:, i].double().sum() / N
    if share == "mean":
        total = total / (E // D)
    if share == "sum":
        total = total * N
    return total.to(scores.dtype)


def communication_loss(scores, chosen, n_devices, n_limited):
    """The oracle, in float64."""
    return _loss(scores, chosen, n_devices, n_limited)


def _with(**mistake):
    return lambda scores, chosen, D, M: _loss(scores, chosen, D, M, **mistake)


def _of_the_chosen(scores, chosen, D, M):
    """P'' from the scores of the chosen experts alone."""
    kept = torch.zeros_like(scores).scatter(1, chosen, scores.gather(1, chosen))
    f = _frequencies(scores, chosen, D, M)
    P = kept.double().mean(0).reshape(D, -1).sum(1)
    return (f * P).sum().to(scores.dtype)


def _device_loss(scores, chosen, D, M):
    return _loss(scores, chosen, D, M, sent="every choice", over=_per_choice)


def _per_choice(D, M, N, K):
    return D / (K * N)


def _interleaved(scores, chosen, D, M):
    return _loss(scores, chosen, D, M, on=lambda i: i % D, share_on=lambda i: i % D)


def _interleaved_counts(scores, chosen, D, M):
    return _loss(scores, chosen, D, M, on=lambda i: i % D)


def _divided_by_devices(scores, chosen, D, M):
    return _loss(scores, chosen, D, M, on=lambda i: i // D)


def communication_cases(rng):
    for N, D, size, K, M, dtype, label in (
        (11, 3, 4, 3, 2, torch.float64, "three devices with four experts"),
        (1, 4, 2, 3, 2, torch.float64, "one token"),
        (9, 2, 5, 4, 1, torch.float32, "two devices, at most one"),
        (7, 6, 3, 2, 4, torch.float64, "devices that nobody is sent to"),
        (13, 5, 2, 4, 3, torch.float32, "five devices with two experts"),
    ):
        logits = torch.from_numpy(rng.standard_normal((N, D * size)) * 1.5)
        if "nobody" in label:
            logits[:, -2 * size :] -= 9  # the last devices: a short count shows
        scores = logits.softmax(-1)
        worth = scores.reshape(N, D, size).amax(-1)
        best = worth.topk(M).indices
        allowed = torch.zeros(N, D, dtype=torch.bool).scatter(1, best, True)
        inside = allowed.repeat_interleave(size, dim=1)
        chosen = scores.where(inside, 0.0).topk(K).indices
        said = f"{label}: scores [{N}, {D * size}], chosen [{N}, {K}], M = {M}"
        yield Case((scores.to(dtype), chosen, D, M), said, TOLERANCE)


def judge_communication(theirs, rng):
    """The value as always; then the gradient, which must be f'' / N."""
    judge_exercise(replace(COMMUNICATION, judge=None), theirs, rng)
    for case in communication_cases(rng):
        scores, chosen, D, M = case.args
        leaf = scores.clone().requires_grad_()
        got = call(theirs, leaf, chosen, D, M, exercise=COMMUNICATION)
        if got.grad_fn is None:
            raise NotYet(
                "the value is right, but no gradient reaches the scores",
                "what cuts the graph: .detach(), .item(), no_grad, or a new tensor "
                "made of numbers? The mean scores have to stay part of it",
            )
        (grad,) = torch.autograd.grad(got, leaf, allow_unused=True)
        grad = torch.zeros_like(scores) if grad is None else grad
        f = _frequencies(scores, chosen, D, M).repeat_interleave(scores.shape[1] // D)
        want = (f / len(scores)).to(scores.dtype).expand_as(scores).clone()
        diff = difference(grad, want, TOLERANCE)
        if diff is not None:
            raise NotYet(
                f"the value is right, but its gradient is not: {diff.reason} "
                f"({case.label})",
                "counts have no gradient; each mean score has its device's f''",
            )


_DEVICE = (
    "a device has E / D experts, and it is by this number that an expert's own says "
    "where it lies: it gives 0 to D - 1"
)

COMMUNICATION = Exercise(
    id="10.2",
    title="The communication loss",
    signature="communication_loss(scores, chosen, n_devices, n_limited)",
    difficulty="a few lines",
    minutes=15,
    right=communication_loss,
    cases=communication_cases,
    judge=judge_communication,
    mistakes=(
        Mistake(
            "every choice was counted: a token with two experts on a device is sent "
            "there once",
            gives=_with(sent="every choice"),
        ),
        Mistake("that is the device loss: it counts choices", gives=_device_loss),
        Mistake(
            "the count is divided by K where the formula has M",
            gives=_with(over=_per_choice),
        ),
        Mistake(
            "M is missing: a token may be sent to M devices",
            gives=_with(over=lambda D, M, N, K: D / N),
        ),
        Mistake(
            "D is missing: an even load should have the frequency 1",
            gives=_with(over=lambda D, M, N, K: 1 / (M * N)),
        ),
        Mistake(
            "a 1 / N is missing: f'' is a share of the N tokens, and the scores in P'' "
            "are means over them",
            gives=_with(over=lambda D, M, N, K: D / M),
        ),
        Mistake(
            "both 1 / N are missing: f'' is a share of the N tokens, and the scores in "
            "P'' are means over them",
            gives=_with(over=lambda D, M, N, K: D / M, share="sum"),
        ),
        Mistake(
            "P'' is the sum over a device's experts, not their mean",
            gives=_with(share="mean"),
        ),
        Mistake(
            "P'' is made of all scores, not of the chosen alone", gives=_of_the_chosen
        ),
        Mistake(
            "experts lie on the devices in order: neighbours share a device, not every "
            "D-th expert",
            gives=_interleaved,
        ),
        Mistake(
            "experts lie on the devices in order: in f'' every D-th expert shares a "
            "device, where neighbours should",
            gives=_interleaved_counts,
        ),
        Mistake(_DEVICE, gives=_divided_by_devices),
        Mistake(_DEVICE, raises="out of (bounds|range)|smaller than num_classes"),
        Mistake(
            "`.item()` and `float()` make a number, and a number has no gradient: "
            "return the tensor",
            when=lambda got, *_: isinstance(got, float),
        ),
    ),
    exact_dtype=False,  # counts may be float64 and the scores float32
    hint="print how many tokens are sent to each device, f'' and P'', and compare each "
    "with the example",
)
