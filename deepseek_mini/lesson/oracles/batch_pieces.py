"""Exercise 06.4: every number's weighted mean, then one common factor."""

import math

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, array


def gather(pieces, counts, max_norm, *, weigh=True, divide=True, clip="all"):
    """The oracle: every number's weighted mean, then one common factor."""
    total = sum(counts) if weigh else len(counts)
    mean = []
    for number in range(len(pieces[0])):
        value = np.zeros_like(pieces[0][number])
        for piece, count in zip(pieces, counts):
            value = value + piece[number] * (count if weigh else 1)
        mean.append(value / (total if divide else 1))
    squares = [float(np.sum(np.square(value))) for value in mean]
    norms = [math.sqrt(square) for square in squares]
    norm = sum(norms) if clip == "sum of norms" else math.sqrt(sum(squares))
    if clip == "each":
        return [g * min(1, max_norm / n) for g, n in zip(mean, norms)]
    if clip == "values":
        return [np.clip(g, -max_norm, max_norm) for g in mean]
    if clip == "always":
        return [g * (max_norm / norm) for g in mean]
    factor = 1.0 if clip == "none" else min(1.0, max_norm / norm)
    return [g * factor for g in mean]


def _gathering(**mistake):
    return lambda *args: gather(*args, **mistake)


def _clipped_first(pieces, counts, max_norm):
    clipped = [gather([piece], [1], max_norm) for piece in pieces]
    return gather(clipped, counts, max_norm)


def _by_pieces(pieces, counts, max_norm):
    """The weights are counts over the number of pieces."""
    weighted = [[g * count for g in piece] for piece, count in zip(pieces, counts)]
    return gather(weighted, counts, max_norm, weigh=False)


def _divided_by_counts(pieces, counts, max_norm):
    parts = [[g / count for g in piece] for piece, count in zip(pieces, counts)]
    return gather(parts, counts, max_norm, weigh=False, divide=False)


def _to_length_one(pieces, counts, max_norm):
    whole = gather(pieces, counts, math.inf)
    length = math.sqrt(sum(float(np.square(g).sum()) for g in whole))
    return gather([whole], [1], 1.0) if length > max_norm else whole


def _of_mean_square(pieces, counts, max_norm):
    """The root of the mean square in place of the length."""
    whole = gather(pieces, counts, math.inf)
    size = sum(g.size for g in whole)
    return gather([whole], [1], max_norm * math.sqrt(size))


def _without_root(pieces, counts, max_norm):
    whole = gather(pieces, counts, math.inf)
    square = sum(float(np.square(g).sum()) for g in whole)
    return [g * min(1.0, max_norm / square) for g in whole]


def gather_cases(rng):
    for shapes, counts, factor, label in (
        (((3, 4), (5,)), (7, 2, 4), 0.5, "a gradient that is too long"),
        (((2, 3), (3,), (1,)), (1, 9), 30.0, "a gradient that is short enough"),
        (((4,),), (6,), 0.3, "one piece, one parameter"),
    ):
        scale = rng.uniform(0.5, 3, size=len(counts))
        pieces = [[s * array(rng, *shape) for shape in shapes] for s in scale]
        exact = gather(pieces, counts, math.inf)
        norm = math.sqrt(sum(float(np.square(g).sum()) for g in exact))
        # PyTorch divides by the length + 1e-6, which is as good.
        yield Case((pieces, list(counts), factor * norm), label, tolerance=1e-5)


GATHER = Exercise(
    id="06.4",
    title="A large batch in pieces",
    signature="gather(pieces, counts, max_norm)",
    difficulty="some thought",
    minutes=12,
    right=gather,
    cases=gather_cases,
    mistakes=(
        Mistake(
            "a short gradient was made longer; only a long one changes",
            gives=_gathering(clip="always"),
        ),
        Mistake(
            "the pieces have equal weight; a piece with more tokens counts for more",
            gives=_gathering(weigh=False),
        ),
        Mistake(
            "this is the sum of the pieces' gradients; divide by what was counted",
            gives=_gathering(weigh=False, divide=False),
        ),
        Mistake(
            "the weights are the counts, but they must add up to 1",
            gives=_gathering(divide=False),
        ),
        Mistake(
            "each parameter was clipped by itself, which turns the gradient: the "
            "length is that of all parameters together",
            gives=_gathering(clip="each"),
        ),
        Mistake(
            "each number was clipped, which turns the gradient; here it is shortened",
            gives=_gathering(clip="values"),
        ),
        Mistake(
            "lengths do not add up: the squares of all numbers do",
            gives=_gathering(clip="sum of norms"),
        ),
        Mistake("nothing was clipped", gives=_gathering(clip="none")),
        Mistake(
            "each mean was weighed by its tokens, but then divided by the number of "
            "pieces: the weights must add up to 1",
            gives=_by_pieces,
        ),
        Mistake(
            "the pieces' means were divided by their counts: a mean is divided "
            "already, and a piece with more tokens counts for more",
            gives=_divided_by_counts,
        ),
        Mistake(
            "a gradient that was too long has the length 1 now; it should have the "
            "length max_norm",
            gives=_to_length_one,
        ),
        Mistake(
            "this is the root of the mean square; the length is that of the sum",
            gives=_of_mean_square,
        ),
        Mistake("this is the length squared: its root is missing", gives=_without_root),
        Mistake(
            "the pieces were clipped before they were added up; what counts is the "
            "length of the whole gradient",
            gives=_clipped_first,
        ),
    ),
    hint="first let max_norm be infinite and compare the mean; then look at the length",
)
