"""Lesson 04, attention: the oracles go query by query and head by head, in float64.

The lesson works on whole tensors. Exercises 04.2, 04.4 and 04.5 are in `one_head.py`,
`cache.py` and `intensity.py`.
"""

import numpy as np
import torch

from deepseek_mini.lesson.compare import difference
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, tensor
from deepseek_mini.lesson.oracles.cache import CACHE
from deepseek_mini.lesson.oracles.intensity import INTENSITY
from deepseek_mini.lesson.oracles.one_head import HEAD

LESSON = "04_attention"

# --- 04.1 -------------------------------------------------------------------------


def causal_mask(n_queries, n_keys, *, cached=None, beyond=0):
    """The oracle; the keywords make the known mistakes."""
    cached = n_keys - n_queries if cached is None else cached
    rows = [[s <= cached + t + beyond for s in range(n_keys)] for t in range(n_queries)]
    return torch.tensor(rows, dtype=torch.bool)


def mask_cases(rng):
    for n_queries, cached, label in (
        (int(rng.integers(2, 6)), int(rng.integers(2, 7)), "a cache and new tokens"),
        (1, int(rng.integers(2, 9)), "one new token"),
        (int(rng.integers(3, 9)), 0, "an empty cache"),
        (1, 0, "the very first token"),
        (int(rng.integers(9, 15)), 1, "one cached token"),
    ):
        n_keys = cached + n_queries
        yield Case((n_queries, n_keys), f"{label}: {n_queries} queries, {n_keys} keys")


MASK = Exercise(
    id="04.1",
    title="The mask",
    signature="causal_mask(n_queries, n_keys)",
    difficulty="one line",
    minutes=5,
    right=causal_mask,
    cases=mask_cases,
    mistakes=(
        Mistake(
            "the cache is forgotten: the first query is not that of the first token, "
            "and the last one should see every key",
            gives=lambda T, S: causal_mask(T, S, cached=0),
        ),
        Mistake(
            "the mask has a row for every token of the text: keep the last T rows",
            when=lambda got, want, args: (
                tuple(np.shape(got)) == (args[1], args[1]) != tuple(want.shape)
            ),
        ),
        Mistake(
            "make it boolean: True where a query may look",
            when=lambda got, want, args: (
                isinstance(got, torch.Tensor)
                and got.dtype != torch.bool
                and got.shape == want.shape
            ),
        ),
        Mistake(
            "True and False are exchanged: True is where a query may look",
            gives=lambda T, S: ~causal_mask(T, S),
        ),
        Mistake(
            "queries look one token too far ahead: which is the last key that the "
            "first query may see?",
            gives=lambda T, S: causal_mask(T, S, beyond=1),
        ),
        Mistake(
            "queries do not see their own token's key",
            gives=lambda T, S: causal_mask(T, S, beyond=-1),
        ),
        Mistake(
            "only the cached keys are seen, and all new tokens see the same: new "
            "tokens see each other too, as far as they have come",
            gives=lambda T, S: (torch.arange(S) < S - T).expand(T, S),
        ),
        Mistake(
            "queries see the new tokens only: the keys in the cache came before them",
            gives=lambda T, S: (
                causal_mask(T, S) & (torch.arange(S) >= S - T).expand(T, S)
            ),
        ),
        Mistake(
            "the mask is the wrong way round in time: queries see what comes later",
            gives=lambda T, S: ~causal_mask(T, S, beyond=-1),
        ),
        Mistake(
            "a row belongs to a query and a column to a key, not the reverse",
            when=lambda got, want, args: (
                tuple(np.shape(got)) == tuple(want.shape)[::-1] != tuple(want.shape)
            ),
        ),
    ),
    hint="write down for each query the number of its token in the whole text, and "
    "which keys that token may see",
)

# --- 04.3 -------------------------------------------------------------------------


def grouped_scores(q, k, *, pair=None, scale=None):
    """The oracle; the keywords make the known mistakes. pair: of h, H and G."""
    H, G = q.shape[2], k.shape[2]
    scale = q.shape[3] ** -0.5 if scale is None else scale
    out = q.new_empty(q.shape[0], H, q.shape[1], k.shape[1])
    for h in range(H):
        g = h * G // H if pair is None else pair(h, H, G)
        for b in range(q.shape[0]):
            scores = q[b, :, h].double() @ k[b, :, g].double().T
            out[b, h] = (scores * scale).to(q.dtype)
    return out


def _means(q, k):
    """Queries of a group averaged first, one score for all of them."""
    group = q.shape[2] // k.shape[2]
    mean = q.unflatten(2, (k.shape[2], group)).mean(3).repeat_interleave(group, dim=2)
    return grouped_scores(mean, k)


def _reshaped(*, both=True, keys_first=True):
    """Axes exchanged by reshape, which leaves the numbers in their order."""

    def wrong(q, k):
        (B, T, H, d), (S, G) = q.shape, k.shape[1:3]
        if keys_first:
            k = k.repeat_interleave(H // G, dim=2).reshape(B, H, S, d)
        else:
            k = k.reshape(B, G, S, d).repeat_interleave(H // G, dim=1)
        q = q.reshape(B, H, T, d) if both else q.transpose(1, 2)
        return q @ k.mT / d**0.5

    return wrong


def _only_later_keys_differ(got, want, args):
    """Whether a mask was applied: one number at the keys after the query's token."""
    T, S = want.shape[2:]
    for cached in (S - T, 0):
        seen = causal_mask(T, S, cached=cached)
        inside = difference(got[..., seen], want[..., seen]) is None
        if inside and not seen.all() and len(got[..., ~seen].unique()) == 1:
            return True
    return False


def _has_shape(*letters):
    """Whether the result has these axes, of B, H, G, T, S, and not the wanted ones."""

    def when(got, want, args):
        q, k = args
        sizes = {"B": q.shape[0], "T": q.shape[1], "H": q.shape[2]}
        sizes |= {"S": k.shape[1], "G": k.shape[2]}
        shape = tuple(np.shape(got))
        return shape == tuple(sizes[x] for x in letters) != tuple(want.shape)

    return when


def score_cases(rng):
    for B, T, S, H, G, d, strided, dtype, label in (
        (2, 3, 5, 6, 2, 8, False, torch.float64, "three queries to a key"),
        (1, 1, 4, 8, 4, 6, False, torch.float32, "a batch of one, one new token"),
        (2, 3, 4, 5, 1, 4, False, torch.float64, "multi-query"),
        (3, 2, 6, 4, 4, 6, False, torch.float32, "multi-head"),
        (2, 4, 7, 9, 3, 10, True, torch.float64, "tensors that are not contiguous"),
    ):
        q = tensor(rng, B, T, H, d, dtype=dtype, strided=strided)
        k = tensor(rng, B, S, G, d, dtype=dtype, strided=strided)
        yield Case((q, k), f"{label}: q {list(q.shape)}, k {list(k.shape)}")


SCORES = Exercise(
    id="04.3",
    title="Scores of grouped heads",
    signature="grouped_scores(q, k)",
    difficulty="some thought",
    minutes=12,
    right=grouped_scores,
    cases=score_cases,
    mistakes=(
        Mistake(
            "heads are paired with the wrong keys: here heads 0, G, 2G ... share one, "
            "but a group is made of neighbours",
            gives=lambda q, k: grouped_scores(q, k, pair=lambda h, H, G: h % G),
        ),
        Mistake(
            "heads 0 to G - 1 get a key each and all others the last one: every key "
            "head serves H / G heads",
            gives=lambda q, k: grouped_scores(q, k, pair=lambda h, H, G: min(h, G - 1)),
        ),
        Mistake(
            "every query head uses the first key head",
            gives=lambda q, k: grouped_scores(q, k, pair=lambda h, H, G: 0),
        ),
        Mistake(
            "the group number counts the heads in a group: head h belongs to group "
            "h // (H / G), not h // G",
            gives=lambda q, k: grouped_scores(
                q, k, pair=lambda h, H, G: min(h // G, G - 1)
            ),
        ),
        Mistake(
            "a group's queries are averaged: every query head has scores of its own",
            gives=_means,
        ),
        Mistake(
            "the scores are not divided by the root of d",
            gives=lambda q, k: grouped_scores(q, k, scale=1.0),
        ),
        Mistake(
            "the scores are divided by d, not by its root",
            gives=lambda q, k: grouped_scores(q, k, scale=1 / q.shape[3]),
        ),
        Mistake(
            "the scores are divided by the root of all heads' channels together; d is "
            "the width of one head",
            gives=lambda q, k: grouped_scores(
                q, k, scale=(q.shape[2] * q.shape[3]) ** -0.5
            ),
        ),
        Mistake(
            "no mask here: every query's score with every key is asked for",
            when=_only_later_keys_differ,
        ),
        Mistake(
            "no softmax here: the scores themselves are asked for",
            gives=lambda q, k: grouped_scores(q, k).softmax(-1),
        ),
        *(
            Mistake(
                "reshape does not move axes, it cuts the same row of numbers anew; "
                "transpose moves them",
                gives=_reshaped(both=both, keys_first=keys_first),
            )
            for both in (True, False)
            for keys_first in (True, False)
        ),
        Mistake(
            "each key head serves H / G query heads, so that there are H in all: print "
            "the shape of the keys where they meet the queries",
            raises="broadcast|must match the size",
        ),
        Mistake(
            "keys and queries have changed places: rows are queries, columns are keys",
            when=_has_shape("B", "H", "S", "T"),
        ),
        Mistake(
            "one matrix of scores for each key head: the H / G query heads that share "
            "it each need their own",
            when=_has_shape("B", "G", "T", "S"),
        ),
        Mistake(
            "the heads are still on the third axis: scores are [B, H, T, S]",
            when=_has_shape("B", "T", "H", "S"),
        ),
    ),
    hint="make a list of the key head that each of the H query heads uses, and compare "
    "one head's scores with a product of two matrices by hand",
)


EXERCISES = (MASK, HEAD, SCORES, CACHE, INTENSITY)
