"""Exercise 16.2, the smallest set: the oracle takes the best one by one."""

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake

UNIT = 64  # scores are whole multiples of 1 / 64, so that sums are exact


def smallest_set(scores, p, *, best=max, enough=lambda total, p: total >= p):
    """The oracle; the keywords make the known mistakes."""
    left = dict(enumerate(scores.tolist()))
    out, total = np.zeros(len(scores), dtype=bool), 0.0
    while left and not enough(total, p):
        expert = best(left, key=left.get)  # of equals the first
        total += left.pop(expert)
        out[expert] = True
    return out


def _order(scores):
    return np.argsort(-scores, kind="stable")


def _without_the_last(scores, p):
    order = _order(scores)
    out = np.zeros(len(scores), dtype=bool)
    out[order[scores[order].cumsum() < p]] = True
    return out


def _by_number(scores, p):
    out = np.zeros(len(scores), dtype=bool)
    out[: int((scores.cumsum() < p).sum()) + 1] = True
    return out


def _places_of_the_sorted(scores, p):
    n = int(smallest_set(scores, p).sum())
    return np.arange(len(scores)) < n


def _later_of_equals(scores, p):
    return smallest_set(scores[::-1], p)[::-1].copy()


def _each_score_once(scores, p, of_equals):
    """The scores were sorted, and each looked up again: equals are one expert."""
    out, total = np.zeros(len(scores), dtype=bool), 0.0
    for score in np.sort(scores)[::-1]:
        if total < p:
            out[np.flatnonzero(scores == score)[of_equals]] = True
            total += score
    return out


def _all_that_tie(scores, p):
    return scores >= scores[smallest_set(scores, p)].min()


def _numbers_as_ranks(scores, p):
    return _order(scores) < smallest_set(scores, p).sum()


def _ranks_as_numbers(scores, p):
    return _places_of_the_sorted(scores, p)[_order(scores)]


def _nearest(scores, p):
    order = _order(scores)
    out = np.zeros(len(scores), dtype=bool)
    out[order[: np.abs(scores[order].cumsum() - p).argmin() + 1]] = True
    return out


def choice_cases(rng):
    many = tuple(rng.integers(1, 3, 200))
    for units, p, label in (
        ((20, 16, 12, 8, 6, 2), 30, "six experts, scores that add up to 1"),
        ((18, 13, 9, 5, 3), 31, "p is the sum of the two best exactly"),
        ((9, 7, 5, 3, 2, 1), 12, "scores that add up to less than 1"),
        ((12, 12, 12, 12, 8, 8), 20, "experts that tie"),
        ((30, 20, 10, 4), 64, "p = 1"),
        ((40, 14, 10), 9, "one is enough"),
        ((18, 13, 9, 5, 3), 32, "p is 1/64 above the sum of the two best"),
        ((40, 30, 20, 12, 8, 4), 100, "scores that add up to more than 1"),
        (many, sum(many) // 2, "200 experts, of which many tie"),
    ):
        order = rng.permutation(len(units))
        scores = np.array(units, dtype=float)[order] / UNIT
        yield Case((scores, p / UNIT), label)


def _as_numbers(got, want, args):
    return np.asarray(got).dtype.kind in "iu" and np.array_equal(
        np.sort(np.ravel(got)), np.flatnonzero(want)
    )


CHOICE = Exercise(
    id="16.2",
    title="The smallest set",
    signature="smallest_set(scores, p)",
    difficulty="a few lines",
    minutes=10,
    right=smallest_set,
    cases=choice_cases,
    mistakes=(
        Mistake(
            "these are the right experts as numbers: return bool [E]", when=_as_numbers
        ),
        Mistake(
            "these are the right experts as 0 and 1: the mask should hold True and "
            "False",
            when=lambda got, want, args: (
                np.shape(got) == want.shape
                and np.asarray(got).dtype != bool
                and np.array_equal(np.asarray(got) != 0, want)
            ),
        ),
        Mistake(
            "one too many: a sum of exactly p is enough",
            gives=lambda s, p: smallest_set(s, p, enough=lambda total, p: total > p),
        ),
        Mistake(
            "the expert that carries the sum over p belongs to the set",
            gives=_without_the_last,
        ),
        Mistake(
            "every score was compared with p: it is their sum that has to reach it",
            gives=lambda s, p: s >= p,
        ),
        Mistake(
            "the least relevant were taken first",
            gives=lambda s, p: smallest_set(s, p, best=min),
        ),
        Mistake(
            "the experts were added up by their number: the most relevant come first",
            gives=_by_number,
        ),
        Mistake(
            "there are as many as there should be, but the mask is in the order of "
            "the sorted scores",
            gives=_places_of_the_sorted,
        ),
        Mistake(
            "there are as many as there should be, but numbers of experts were taken "
            "for ranks, or the reverse: write down what one entry of the order means",
            gives=_numbers_as_ranks,
        ),
        Mistake(
            "there are as many as there should be, but numbers of experts were taken "
            "for ranks, or the reverse: write down what one entry of the order means",
            gives=_ranks_as_numbers,
        ),
        Mistake(
            "of two that tie, the one with the lower number comes first",
            gives=_later_of_equals,
        ),
        Mistake(
            "two that tie are two experts: sort the experts, not their scores",
            gives=lambda s, p: _each_score_once(s, p, 0),
        ),
        Mistake(
            "two that tie are two experts: sort the experts, not their scores",
            gives=lambda s, p: _each_score_once(s, p, -1),
        ),
        Mistake(
            "all that tie with the last were taken: the smallest set is asked for",
            gives=_all_that_tie,
        ),
        Mistake(
            "the sum nearest to p was taken: it has to be at least p",
            gives=_nearest,
        ),
        Mistake(
            "a sum that is still below p was taken: these sums are exact, and need no "
            "tolerance",
            gives=lambda s, p: smallest_set(s, p - 1.3 / UNIT),
        ),
        Mistake(
            "p was cut at 1: the scores may add up to more",
            gives=lambda s, p: smallest_set(s, min(p, 1.0)),
        ),
        Mistake(
            "every expert was taken: the smallest set is asked for",
            gives=lambda s, p: np.ones(len(s), dtype=bool),
        ),
        Mistake(
            "the scores were divided by their sum: p is compared with them as they are",
            gives=lambda s, p: smallest_set(s / s.sum(), p),
        ),
        Mistake(
            "p was taken as a share of the experts: it is a share of the scores",
            gives=lambda s, p: np.argsort(np.argsort(-s)) < np.ceil(p * len(s)),
        ),
        Mistake(
            "these have the right scores, but of two that tie the one with the lower "
            "number comes first: does your sort keep the order of equals?",
            when=lambda got, want, args: (
                isinstance(got, np.ndarray)
                and got.dtype == bool
                and np.array_equal(np.sort(args[0][got]), np.sort(args[0][want]))
            ),
        ),
    ),
    hint="print the scores from the best to the worst, and their running sum",
)
