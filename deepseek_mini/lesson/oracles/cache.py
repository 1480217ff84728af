"""Exercise 04.4: a class, judged by random pieces against a plain list of tokens."""

import numpy as np
import torch

from deepseek_mini.lesson.compare import NO_RETURN, difference
from deepseek_mini.lesson.explain import NotAttempted, NotYet
from deepseek_mini.lesson.judge import attribute, call
from deepseek_mini.lesson.oracles import Exercise, tensor

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
            left = known[which].shape[2] - cut
            _call(cache, "truncate", said, cut)
            known[which] = known[which][:, :, :cut]
            _same_length(cache, cut, ", ".join(said[-3:]), left)
        new = tensor(rng, 2, B, n, G, d, dtype=torch.float32)
        before = known[which].shape[2]
        known[which] = torch.cat((known[which], new), dim=2)
        said.append(f"{n} token{'s'[: n > 1]} appended to {name}")
        got = _call(cache, "append", said, new[0].clone(), new[1].clone())
        where = ", ".join(said[-3:])
        others = known[1 - which]
        _compare(got, known[which], new, before, cut, others, where)
        _same_length(cache, known[which].shape[2], where)
    _empty_truncated(call(theirs, exercise=CACHE))


def _empty_truncated(cache):
    said = ["a new cache truncated to 0"]
    _call(cache, "truncate", said, 0)
    _same_length(cache, 0, said[0])


def _call(cache, name, said, *args):
    """The result of a method; what goes wrong is placed after what was `said`."""
    try:
        return call(attribute(cache, name), *args)
    except NotAttempted:
        raise NotYet(
            f"`{name}` is still empty",
            "append and truncate are both asked for; the rest was right so far",
        ) from None
    except NotYet as problem:
        problem.reason = f"`{name}`: {problem.reason} (after: {', '.join(said[-3:])})"
        if said[-1] == "a new cache truncated to 0":
            problem.hint = "an empty cache has nothing to cut, but may be asked to"
        raise


def _length(cache):
    try:
        return attribute(cache, "length")
    except NotYet as problem:
        problem.hint = (
            "a new cache is empty and its `length` is 0, so it must be there from "
            "__init__ on"
        )
        raise


def _check_methods(cache):
    for name in ("append", "truncate"):
        attribute(cache, name)
    if callable(_length(cache)):
        raise NotYet(
            "length is a method, but should be a number",
            "make it an attribute that append and truncate keep up to date, or a "
            "property",
        )


def _same_length(cache, want, where, dropped=None):
    length = _length(cache)
    if isinstance(length, int | np.integer) and length == want:
        return
    hint = "`length` is the number of tokens in the cache: tokens are on axis 1"
    if isinstance(length, int | np.integer) and length == dropped:
        hint = "truncate's `length` is how many tokens stay, not how many go"
    raise NotYet(f"length is {length!r}, but should be {want} (after: {where})", hint)


def _compare(got, want, new, before, cut, others, where):
    """Raise NotYet with the hint that fits unless got is the pair `want`."""
    if got is None:
        raise NotYet(f"append returns nothing: {NO_RETURN}")
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
            "truncate had no effect on what append returns: forgotten tokens are back "
            "(tokens are on axis 1)"
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
