"""Lesson 08, mixture of experts: the oracles go token by token, in Python floats.

The lesson sorts whole arrays and scatters. Here a token's experts are ranked one by
one. The exercises after the gate have modules of their own.
"""

import math

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, array
from deepseek_mini.lesson.oracles.expert_balance import BALANCE
from deepseek_mini.lesson.oracles.expert_dispatch import DISPATCH
from deepseek_mini.lesson.oracles.expert_ways import WAYS
from deepseek_mini.lesson.oracles.moe_layer import LAYER

LESSON = "08_moe"

# --- 08.1 -------------------------------------------------------------------------


def gate(u, centroids, K, *, largest=True, affinity="softmax", keep=True, weigh=None):
    """The oracle; the keywords make the known mistakes."""
    out = np.zeros((len(u), len(centroids)))
    for t, row in enumerate(u):
        products = [math.fsum(a * b for a, b in zip(row, e)) for e in centroids]
        ranked = sorted(range(len(products)), key=products.__getitem__)
        best = ranked[-K:] if largest else ranked[:K]
        if affinity == "softmax":
            top = max(products)
            powers = [math.exp(p - top) for p in products]
            scores = [p / math.fsum(powers) for p in powers]
        elif affinity == "sigmoid":
            scores = [1 / (1 + math.exp(-max(p, -700))) for p in products]
        else:
            scores = products
        kept = best if keep else range(len(products))
        for i in kept:
            out[t, i] = scores[i] if weigh is None else weigh(scores, best, i)
    return out


def _gating(**mistake):
    return lambda u, centroids, K: gate(u, centroids, K, **mistake)


def _over_tokens(u, centroids, K):
    """The softmax of every expert over the tokens."""
    products = u @ centroids.T
    scores = np.exp(products - products.max(axis=0))
    scores /= scores.sum(axis=0)
    chosen = np.argsort(-scores, axis=1)[:, :K]
    out = np.zeros_like(scores)
    np.put_along_axis(out, chosen, np.take_along_axis(scores, chosen, 1), 1)
    return out


def _smallest(u, centroids, K):
    """Only for small products: of large ones the smallest powers are all 0."""
    return gate(u, centroids, K, largest=False) if abs(u).max() < 20 else None


def _from_zeroed(u, centroids, K):
    """The softmax after the products of the others were set to 0."""
    products = u @ centroids.T
    kept = np.where(gate(u, centroids, K) > 0, products, 0.0)
    scores = np.exp(kept - kept.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def _lost(got, want, args):
    """Of each token, whether it has NaN or no weight; None if products are small."""
    if not isinstance(got, np.ndarray) or got.shape != want.shape:
        return None
    lost = ~(np.nan_to_num(got) > 0).any(axis=1) | np.isnan(got).any(axis=1)
    return lost if lost.any() and abs(args[0]).max() > 20 else None


def _underflown(got, want, args):
    """The token with the largest product of all is right, and some are lost."""
    lost = _lost(got, want, args)
    if lost is None:
        return False
    return not lost[(args[0] @ args[1].T).max(axis=1).argmax()]


def _overflown(got, want, args):
    return _lost(got, want, args) is not None and not _underflown(got, want, args)


def gate_cases(rng):
    for n, d, n_experts, K, large, strided, label in (
        (5, 4, 7, 3, 1, False, "three of seven experts"),
        (1, 3, 4, 2, 1, False, "one token"),
        (4, 6, 5, 1, 1, False, "one expert for a token"),
        (3, 4, 6, 6, 1, False, "all experts for a token"),
        (6, 5, 8, 2, 40, False, "products in the thousands"),
        (7, 4, 9, 4, 1, True, "arrays that are not contiguous"),
    ):
        u = array(rng, n, d, strided=strided) * large
        centroids = array(rng, n_experts, d, strided=strided) * large
        said = f"{label}: u [{n}, {d}], centroids [{n_experts}, {d}], K = {K}"
        yield Case((u, centroids, K), said, tolerance=1e-8)


GATE = Exercise(
    id="08.1",
    title="The gate",
    signature="gate(u, centroids, K)",
    difficulty="a few lines",
    minutes=10,
    right=gate,
    cases=gate_cases,
    mistakes=(
        Mistake(
            "e to a large product is infinite, and infinity divided by "
            "infinity is no number; subtract the token's largest product first",
            when=_overflown,
        ),
        Mistake(
            "e to a very negative number is 0, and tokens have lost all their weights: "
            "one largest product was subtracted from all tokens, but each token has a "
            "largest one of its own",
            when=_underflown,
        ),
        Mistake(
            "the weights of a token add up to 1: they are the chosen scores as they "
            "are, and the softmax they come from runs over all experts",
            gives=_gating(weigh=lambda s, best, i: s[i] / sum(s[j] for j in best)),
        ),
        Mistake(
            "all experts have a weight: only the K best of each token should",
            gives=_gating(keep=False),
        ),
        Mistake(
            "the smallest scores were chosen, not the largest",
            gives=_smallest,
        ),
        Mistake(
            "the softmax runs over the tokens: one token's scores should not depend on "
            "the others",
            gives=_over_tokens,
        ),
        Mistake(
            "the scores are sigmoids, one expert by itself: here a softmax makes the "
            "experts compete",
            gives=_gating(affinity="sigmoid"),
        ),
        Mistake(
            "the weights are the products themselves, before the softmax",
            gives=_gating(affinity="product"),
        ),
        Mistake(
            "all chosen experts have the same weight: the score is the weight",
            gives=_gating(weigh=lambda s, best, i: 1 / len(best)),
        ),
        Mistake(
            "these are zeros and ones, who was chosen: the weight is the score",
            gives=_gating(weigh=lambda s, best, i: 1.0),
        ),
        Mistake(
            "a product of 0 still has the power e^0: the softmax comes first, over the "
            "products as they are, and the choice after it",
            gives=_from_zeroed,
        ),
        Mistake(
            "the weights of the chosen alone: give every expert a column, with 0 for "
            "those that were not chosen",
            when=lambda got, want, args: (
                np.shape(got) == (len(args[0]), args[2]) != np.shape(want)
            ),
        ),
    ),
    hint="print the scores of one token: over all experts they add up to 1; then which "
    "of them are left, and whether those have changed",
)

EXERCISES = (GATE, WAYS, BALANCE, LAYER, DISPATCH)
