"""Exercise 10.1, experts on a few devices: the oracle takes one token at a time and
sorts Python lists.
"""

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def limited_weights(scores, n_devices, n_limited, K):
    """The oracle, one token at a time, with Python's sort."""
    return _weights(scores, n_devices, n_limited, K)


def _weights(scores, D, M, K, worth=max, on=None, each=None, allowed=None):
    """The oracle's work; keywords make the known mistakes."""
    E = scores.shape[1]
    device_of = on or (lambda i: i // (E // D))
    out = np.zeros_like(scores)
    for n, row in enumerate(scores):
        members = {d: [i for i in range(E) if device_of(i) == d] for d in range(D)}
        value = {d: worth([row[i] for i in members[d]]) for d in range(D)}
        best = sorted(range(D), key=lambda d: -value[d])[:M]
        if allowed:
            best = allowed(best, value, D, M)
        groups = [[i for d in best for i in members[d]]]
        if each:  # so many on each allowed device
            groups = [members[d] for d in best]
        for group in groups:
            for i in sorted(group, key=lambda i: -row[i])[: each(K, M) if each else K]:
                out[n, i] = row[i]
    return out


def _choosing(**mistake):
    return lambda scores, D, M, K: _weights(scores, D, M, K, **mistake)


def _over_their_sum(scores, D, M, K):
    weights = _weights(scores, D, M, K)
    return weights / weights.sum(1, keepdims=True)


def _same_for_all(scores, D, M, K):
    """The devices of the whole batch, not of each token."""
    worth = scores.max(0).reshape(D, -1).max(1)
    best = np.argsort(-worth)[:M]
    out = np.zeros_like(scores)
    for n, row in enumerate(scores):
        inside = [i for i in np.argsort(-row) if i // (len(row) // D) in best]
        out[n, inside[:K]] = row[inside[:K]]
    return out


def _devices_of_the_best(scores, D, M, K):
    """Of the free choice, what lies on the M best devices: sometimes fewer than K."""
    free, limited = _weights(scores, D, D, K), _weights(scores, D, M, K)
    return np.where(limited > 0, free, 0.0)


def _all_allowed(scores, D, M, K):
    return _weights(scores, D, M, scores.shape[1])


def choice_cases(rng):
    for N, D, size, M, K, label in (
        (40, 4, 4, 2, 3, "four devices with four experts, at most two"),
        (1, 3, 5, 2, 4, "one token"),
        (30, 8, 3, 3, 6, "eight devices, at most three"),
        (25, 5, 2, 1, 2, "at most one device"),
        (20, 4, 3, 4, 5, "all devices allowed"),
        (30, 4, 3, 2, 6, "as many experts as two devices hold"),
    ):
        logits = rng.standard_normal((N, D * size)) * 1.5
        scores = np.exp(logits - logits.max(1, keepdims=True))
        scores /= scores.sum(1, keepdims=True)
        yield Case((scores, D, M, K), f"{label}, K = {K}")


CHOICE = Exercise(
    id="10.1",
    title="Experts on a few devices",
    signature="limited_weights(scores, n_devices, n_limited, K)",
    difficulty="a few lines",
    minutes=15,
    right=limited_weights,
    cases=choice_cases,
    mistakes=(
        Mistake(
            "a device is worth its best expert here, not the sum of all",
            gives=_choosing(worth=sum),
        ),
        Mistake(
            "a device is worth its best expert here, not the sum of its two best (V3)",
            gives=_choosing(worth=lambda values: sum(sorted(values)[-2:])),
        ),
        Mistake(
            "these are the K best of all experts: the limit to devices has no effect",
            gives=lambda scores, D, M, K: _weights(scores, D, D, K),
        ),
        Mistake(
            "experts lie on the devices in order: neighbours share a device, not every "
            "D-th expert",
            gives=lambda scores, D, M, K: _weights(scores, D, M, K, on=lambda i: i % D),
        ),
        Mistake(
            "a device has E / n_devices experts, and there are n_devices of them: here "
            "the two are exchanged",
            gives=lambda scores, D, M, K: _weights(scores, scores.shape[1] // D, M, K),
        ),
        Mistake(
            "the weights are the scores as they are: V2 does not divide by their sum",
            gives=_over_their_sum,
        ),
        Mistake(
            "the devices are chosen for each token, not once for the batch",
            gives=_same_for_all,
        ),
        Mistake(
            "the K best are chosen first and some are then struck out, so that tokens "
            "get fewer than K: the limit comes before the choice",
            gives=_devices_of_the_best,
        ),
        Mistake(
            "the allowed devices' experts all have a weight: only K of them are chosen",
            gives=_all_allowed,
        ),
        Mistake(
            "K are taken from each allowed device: it is K in all",
            gives=_choosing(each=lambda K, M: K),
        ),
        Mistake(
            "the devices that are worth least are allowed: look at which end the sort "
            "leaves the best",
            gives=_choosing(
                allowed=lambda best, value, D, M: sorted(value, key=value.get)[:M]
            ),
        ),
    ),
    hint="take one token on paper: what is each device worth, which are allowed, and "
    "which of their experts are best?",
)
