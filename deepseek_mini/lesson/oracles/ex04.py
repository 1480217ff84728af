"""Lesson 04, attention: the oracles go query by query and head by head, in float64.

The lesson works on whole tensors with masks of -inf. Here a query meets exactly the
keys that it may see, so there is nothing to mask. Exercise 04.4 is a class and is
judged by a procedure of its own: random pieces against a plain list of tokens.
"""

import math

import numpy as np
import torch

from deepseek_mini.config import GQA, Config, SwiGLU
from deepseek_mini.lesson.compare import difference
from deepseek_mini.lesson.explain import NotYet
from deepseek_mini.lesson.judge import call
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, array, tensor

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

# --- 04.2 -------------------------------------------------------------------------


def one_head(
    q, k, v, *, scale=None, cached=None, beyond=0, causal=True, over_queries=False
):
    """The oracle; the keywords make the known mistakes."""
    T, S = len(q), len(k)
    cached = S - T if cached is None else cached
    scale = 1 / math.sqrt(q.shape[1]) if scale is None else scale
    scores = np.full((T, S), -np.inf)
    for t in range(T):
        for s in range(min(cached + t + 1 + beyond, S) if causal else S):
            scores[t, s] = scale * float(np.dot(q[t], k[s]))
    axis = 0 if over_queries else 1
    weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
    weights /= weights.sum(axis=axis, keepdims=True)
    return weights @ v


def _heading(**mistake):
    return lambda q, k, v: one_head(q, k, v, **mistake)


def _not_normalised(q, k, v):
    weights = np.exp(q @ k.T / math.sqrt(q.shape[1]))
    return weights * causal_mask(len(q), len(k)).numpy() @ v


def _masked_with_zero(q, k, v):
    """Hidden scores set to 0, which a softmax does not leave out."""
    scores = q @ k.T / math.sqrt(q.shape[1])
    scores = np.where(causal_mask(len(q), len(k)).numpy(), scores, 0.0)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True) @ v


def _masked_after(q, k, v):
    """The softmax over all keys, and only then the weights of later ones set to 0."""
    scores = q @ k.T / math.sqrt(q.shape[1])
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights * causal_mask(len(q), len(k)).numpy() @ v


def _is_nan(got, *_):
    return isinstance(got, np.ndarray) and bool(np.isnan(got).any())


def head_cases(rng):
    for n, cached, d, wide, large, strided, label in (
        (4, 3, 6, 6, 1, False, "a cache of three tokens"),
        (1, 5, 3, 4, 1, False, "one new token, values wider than keys"),
        (6, 0, 16, 5, 1, False, "an empty cache"),
        (1, 0, 2, 2, 1, False, "the very first token"),
        (3, 2, 8, 4, 60, False, "scores in the thousands"),
        (5, 4, 4, 3, 1, True, "arrays that are not contiguous"),
    ):
        q = array(rng, n, d, strided=strided) * large
        k = array(rng, n + cached, d, strided=strided) * large
        v = array(rng, n + cached, wide, strided=strided)
        said = f"{label}: q [{n}, {d}], k [{n + cached}, {d}], v [{n + cached}, {wide}]"
        yield Case((q, k, v), said, tolerance=1e-7)


HEAD = Exercise(
    id="04.2",
    title="One head",
    signature="one_head(q, k, v)",
    difficulty="a few lines",
    minutes=12,
    right=one_head,
    cases=head_cases,
    mistakes=(
        Mistake(
            "the scores are not divided: they grow with the width of the queries",
            gives=_heading(scale=1.0),
        ),
        Mistake(
            "the scores are divided by d, not by its root",
            gives=lambda q, k, v: one_head(q, k, v, scale=1 / q.shape[1]),
        ),
        Mistake(
            "the scores are divided by the root of the wrong width: it is that of the "
            "queries and keys",
            gives=lambda q, k, v: one_head(q, k, v, scale=v.shape[1] ** -0.5),
        ),
        Mistake(
            "the scores are divided by the root of the number of keys, not of channels",
            gives=lambda q, k, v: one_head(q, k, v, scale=len(k) ** -0.5),
        ),
        Mistake(
            "queries see later tokens: nothing is hidden",
            gives=_heading(causal=False),
        ),
        Mistake(
            "the queries are taken for those of the first T tokens; they belong to the "
            "last T",
            gives=_heading(cached=0),
        ),
        Mistake(
            "queries look one token too far ahead",
            gives=_heading(beyond=1),
        ),
        Mistake(
            "the softmax runs over the queries: each query's weights should sum to 1",
            gives=_heading(over_queries=True),
        ),
        Mistake(
            "a hidden score of 0 still gets the weight e^0: what number does the "
            "exponential turn into 0?",
            gives=_masked_with_zero,
        ),
        Mistake(
            "later tokens are hidden after the softmax, so the weights that are left "
            "do not sum to 1",
            gives=_masked_after,
        ),
        Mistake(
            "the weights are never divided by their sum",
            gives=_not_normalised,
        ),
        Mistake(
            "not a number: e to a large score is infinite, and infinity divided by "
            "infinity is no number; subtract the row's largest score first",
            when=_is_nan,
        ),
    ),
    hint="print the weights [T, S]: each row should sum to 1, with 0 exactly at the "
    "tokens after the query's; if they do, work one score by hand",
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

# --- 04.4 -------------------------------------------------------------------------

_AGAIN = "the tokens of earlier calls come first, in their order, then the new ones"


def judge_cache(theirs, rng):
    """Random pieces and cuts, two caches in turn, against plain lists of tokens."""
    B, G, d = (int(rng.integers(1, 4)) for _ in range(3))
    caches = [call(theirs, exercise=CACHE) for _ in range(2)]
    for cache in caches:
        _check_methods(cache)
    known = [tensor(rng, 2, B, 0, G, d, dtype=torch.float32) for _ in caches]
    _same_length(caches[0], 0, "before any append")
    plan = [(0, 3, None), (0, 3, None), (1, 2, None), (0, 1, None), (0, 2, 5)]
    plan += [(1, 1, 1), (0, 1, 0), (0, 3, None), (1, 4, 2), (0, 1, 4)]
    said = []
    for which, n, cut in plan:
        cache = caches[which]
        name = f"cache {'AB'[which]}"
        if cut is not None:
            said.append(f"{name} truncated to {cut}")
            call(cache.truncate, cut)
            known[which] = known[which][:, :, :cut]
            _same_length(cache, cut, ", ".join(said[-3:]))
        new = tensor(rng, 2, B, n, G, d, dtype=torch.float32)
        before = known[which].shape[2]
        known[which] = torch.cat((known[which], new), dim=2)
        said.append(f"{n} tokens appended to {name}")
        got = call(cache.append, new[0].clone(), new[1].clone())
        where = ", ".join(said[-3:])
        others = known[1 - which]
        _compare(got, known[which], new, before, cut, others, where)
        _same_length(cache, known[which].shape[2], where)


def _check_methods(cache):
    for name in ("append", "truncate", "length"):
        if not hasattr(cache, name):
            raise NotYet(
                f"the new cache has no {name}",
                "keep the names that the exercise gives, and set `length` in __init__",
            )
    if callable(cache.length):
        raise NotYet(
            "length is a method, but should be a number",
            "make it an attribute that append and truncate keep up to date",
        )


def _same_length(cache, want, where):
    if isinstance(cache.length, int | np.integer) and cache.length == want:
        return
    raise NotYet(
        f"length is {cache.length!r}, but should be {want} ({where})",
        "`length` is the number of tokens in the cache: axis 1 of what append returns",
    )


def _compare(got, want, new, before, cut, others, where):
    """Raise NotYet with the hint that fits unless got is the pair `want`."""
    diff = difference(got, tuple(want), tolerance=0.0)
    if diff is None:
        return
    reason = f"{diff.reason} (after: {where})"
    pair = isinstance(got, tuple | list) and len(got) == 2
    keys = got[0] if pair else None
    if not isinstance(keys, torch.Tensor) or keys.ndim != 4:
        raise NotYet(reason, diff.hint or "append returns the pair (keys, values)")
    raise NotYet(reason, _cache_hint(got, want, new, before, cut, others))


def _cache_hint(got, want, new, before, cut, others):
    keys, n = got[0], want.shape[2]
    if keys.shape[0] > want.shape[1] or keys.shape[2] > want.shape[3]:
        return "tokens are on axis 1: the new ones were joined along another axis"
    same = [difference(a, b, tolerance=0.0) is None for a, b in zip(got, want)]
    swapped = difference(tuple(got), tuple(want.flip(0)), tolerance=0.0) is None
    if swapped:
        return "keys and values have changed places"
    if same[0] and difference(got[1], want[0], tolerance=0.0) is None:
        return "the values are the keys once more"
    if same[0] and not same[1]:
        return "the keys are right, the values are not: treat both alike"
    if before and difference(keys, new[0], tolerance=0.0) is None:
        return "the earlier tokens are lost: only the new ones come back"
    if cut is not None and keys.shape[1] > n:
        return (
            "truncate had no effect on what append returns: forgotten tokens are back"
        )
    if cut is not None and keys.shape[1] == new.shape[2] + others.shape[2] != n:
        return "two caches share their memory: keep nothing in the class itself"
    if keys.shape[1] > n:
        return "two caches share their memory: keep nothing in the class itself"
    turned = torch.cat((new[0], want[0][:, :before]), dim=1)
    if before and difference(keys, turned, tolerance=0.0) is None:
        return "the new tokens come first; the oldest should"
    if keys.shape[1] == before and before:
        return "this is what was there before: the new tokens belong to the result"
    if cut is not None and keys.shape == want[0].shape:
        return "truncate keeps the first `length` tokens, not the last"
    return _AGAIN


CACHE = Exercise(
    id="04.4",
    title="A cache",
    signature="Cache()",
    difficulty="a few lines",
    minutes=15,
    judge=judge_cache,
    hint=_AGAIN,
)

# --- 04.5 -------------------------------------------------------------------------


def decode_intensity(
    config,
    weights,
    context,
    batch_size,
    *,
    per_weight=2,
    per_score=4,
    cached_heads="n_kv_heads",
    asking_heads="n_heads",
    per_token=2,
    bytes_each=2,
    caches=None,
    copies=1,
    layers=None,
):
    """The oracle, one layer, sequence and head at a time; keywords make mistakes."""
    part = config.attention
    operations = fetched = 0
    layers = config.n_layers if layers is None else layers
    for _ in range(layers):
        for _ in range(getattr(part, asking_heads)):
            operations += per_score * part.head_dim * context * batch_size
        for _ in range(getattr(part, cached_heads)):
            n_caches = batch_size if caches is None else caches
            fetched += per_token * part.head_dim * context * n_caches
    operations += per_weight * weights * batch_size
    copies = batch_size if copies == "each" else copies
    return operations / (bytes_each * (fetched + copies * weights))


def _deciding(**mistake):
    return lambda *args: decode_intensity(*args, **mistake)


def intensity_cases(rng):
    for layers, groups, share, batch, label in (
        (3, 2, 4, 5, "grouped heads"),
        (2, 4, 1, 1, "multi-head, one sequence"),
        (4, 1, 6, 3, "multi-query"),
        (5, 3, 2, 40, "many sequences"),
    ):
        head_dim = 2 * int(rng.integers(4, 20))
        config = Config(
            vocab_size=100,
            dim=64,
            n_layers=layers,
            max_seq_len=8192,
            attention=GQA(groups * share, groups, head_dim),
            dense=SwiGLU(64),
        )
        weights, context = int(rng.integers(10**4, 10**5)), int(rng.integers(50, 500))
        said = f"{label}: weights {weights}, context {context}, batch_size {batch}"
        yield Case((config, weights, context, batch), said, tolerance=1e-9)


INTENSITY = Exercise(
    id="04.5",
    title="Operations per byte of a decode step",
    signature="decode_intensity(config, weights, context, batch_size)",
    difficulty="some thought",
    minutes=12,
    right=decode_intensity,
    cases=intensity_cases,
    mistakes=(
        Mistake(
            "the cache holds a key and a value for each key-value head, not for each "
            "query head",
            gives=_deciding(cached_heads="n_heads"),
        ),
        Mistake(
            "every query head works on every token of the context, whichever key it "
            "shares: count their operations by H",
            gives=_deciding(asking_heads="n_kv_heads"),
        ),
        Mistake(
            "the caches are fetched as if all sequences shared one",
            gives=_deciding(caches=1),
        ),
        Mistake(
            "the matrices are fetched once for the whole step, not once a sequence",
            gives=_deciding(copies="each"),
        ),
        Mistake(
            "a cached token has a key and a value; only one of them was counted",
            gives=_deciding(per_token=1),
        ),
        Mistake(
            "a weight takes part in a product and a sum: two operations",
            gives=_deciding(per_weight=1),
        ),
        Mistake(
            "half of attention's operations are missing: first the scores, then the "
            "weighted values",
            gives=_deciding(per_score=2),
        ),
        Mistake(
            "attention's own operations are missing",
            gives=_deciding(per_score=0),
        ),
        Mistake(
            "the cache is not among the bytes",
            gives=_deciding(per_token=0),
        ),
        Mistake(
            "a number has two bytes",
            gives=_deciding(bytes_each=1),
        ),
        Mistake(
            "attention and cache are counted for one layer; there are n_layers",
            gives=_deciding(layers=1),
        ),
        Mistake(
            "this is bytes per operation",
            gives=lambda *args: 1 / decode_intensity(*args),
        ),
        Mistake(
            "these are the operations of the step: divide by the bytes",
            when=lambda got, want, args: (
                abs(got - 2 * args[1] * args[3]) < 0.9 * got and got > 1000 * want
            ),
        ),
    ),
    hint="print operations and bytes, each split into weights and attention or cache, "
    "and compare the four numbers with those of a case by hand",
)

EXERCISES = (MASK, HEAD, SCORES, CACHE, INTENSITY)
