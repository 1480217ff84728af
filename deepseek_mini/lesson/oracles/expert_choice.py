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


def _without_the_last(scores, p):
    order = np.argsort(-scores, kind="stable")
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


def choice_cases(rng):
    for units, p, label in (
        ((20, 16, 12, 8, 6, 2), 30, "six experts, scores that add up to 1"),
        ((18, 13, 9, 5, 3), 31, "p is the sum of the two best exactly"),
        ((9, 7, 5, 3, 2, 1), 12, "scores that add up to less than 1"),
        ((12, 12, 12, 12, 8, 8), 20, "experts that tie"),
        ((30, 20, 10, 4), 64, "p = 1"),
        ((40, 14, 10), 9, "one is enough"),
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
            "of two that tie, the one with the lower number comes first",
            gives=_later_of_equals,
        ),
        Mistake(
            "the scores were divided by their sum: p is compared with them as they are",
            gives=lambda s, p: smallest_set(s / s.sum(), p),
        ),
        Mistake(
            "p was taken as a share of the experts: it is a share of the scores",
            gives=lambda s, p: np.argsort(np.argsort(-s)) < np.ceil(p * len(s)),
        ),
    ),
    hint="print the scores from the best to the worst, and their running sum",
)
