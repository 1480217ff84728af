"""Exercise 07.1: a text, cut for filling in the middle."""

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake

BEGIN, HOLE, END = (f"<｜fim▁{name}｜>" for name in ("begin", "hole", "end"))


def fill_in_the_middle(text, first, second):
    pieces = {"prefix": text[:first], "middle": text[first:second]}
    pieces["suffix"] = text[second:]
    return f"{BEGIN}{{prefix}}{HOLE}{{suffix}}{END}{{middle}}".format(**pieces)


def _marked(written):
    """A version that writes the pieces a (before), b (hidden) and c (after) so."""
    return lambda text, i, j: written(text[:i], text[i:j], text[j:])


def cut_cases(rng):
    letters = "".join(rng.choice(list("abcdefghij é\n"), size=18).tolist())
    first, second = sorted(rng.choice(np.arange(3, 15), size=2, replace=False).tolist())
    yield Case((letters, first, second), f"a text of 18 characters, {first}, {second}")
    yield Case(("print(a + b)", 6, 11), "print(a + b), 6 and 11")
    yield Case((letters, 0, second), "an empty prefix")
    yield Case((letters, first, 18), "an empty suffix")
    yield Case((letters, first, first), "an empty middle")
    yield Case(("x = x", 4, 5), "a middle that stands in the prefix, too")


CUT = Exercise(
    id="07.1",
    title="Prefix, suffix, middle",
    signature="fill_in_the_middle(text, first, second)",
    difficulty="one line",
    minutes=4,
    right=fill_in_the_middle,
    cases=cut_cases,
    mistakes=(
        Mistake(
            "the suffix comes first: that is SPM, which DeepSeek does not use",
            gives=_marked(lambda a, b, c: BEGIN + c + HOLE + a + END + b),
        ),
        Mistake(
            "the pieces stand as in the text: the middle has to go last, where a model "
            "can write it after it has read both sides",
            gives=_marked(lambda a, b, c: BEGIN + a + HOLE + b + END + c),
        ),
        Mistake(
            "the middle is missing: this is the prompt of a user, and a training text "
            "ends with the answer",
            gives=_marked(lambda a, b, c: BEGIN + a + HOLE + c + END),
        ),
        Mistake(
            "the begin mark is missing: without it the model learns that it is to fill "
            "a gap only when it comes to the hole",
            gives=_marked(lambda a, b, c: a + HOLE + c + END + b),
        ),
        Mistake(
            "the hole mark stands where the middle is; it stands where the middle was, "
            "between prefix and suffix",
            gives=_marked(lambda a, b, c: BEGIN + a + END + c + HOLE + b),
        ),
        Mistake(
            "the end mark comes last; it ends the suffix, and the middle follows it",
            gives=_marked(lambda a, b, c: BEGIN + a + HOLE + c + b + END),
        ),
        Mistake(
            "the character at `second` is in two pieces or in none: text[i:j] ends "
            "before j",
            gives=lambda t, i, j: BEGIN + t[:i] + HOLE + t[j + 1 :] + END + t[i:j],
        ),
        Mistake(
            "the character at `second` is in two pieces or in none: text[i:j] ends "
            "before j",
            gives=lambda t, i, j: BEGIN + t[:i] + HOLE + t[j:] + END + t[i : j + 1],
        ),
        Mistake(
            "the character at `second` is in two pieces or in none: text[i:j] ends "
            "before j",
            gives=lambda t, i, j: (
                BEGIN + t[:i] + HOLE + t[j + 1 :] + END + t[i : j + 1]
            ),
        ),
        *(
            Mistake(
                "this looks for the middle's letters, which may stand elsewhere too, "
                "or be none at all: cut at the places that are given",
                gives=gives,
            )
            for gives in (
                lambda t, i, j: BEGIN + t.replace(t[i:j], HOLE) + END + t[i:j],
                lambda t, i, j: BEGIN + t.replace(t[i:j], HOLE, 1) + END + t[i:j],
            )
        ),
        Mistake(
            "an empty separator: the middle may be empty, so cut at the places that "
            "are given",
            raises="^ValueError: empty separator",
        ),
        Mistake(
            "the pieces come back one by one; join them to one text",
            when=lambda got, want, args: isinstance(got, tuple | list),
        ),
    ),
    hint="write the three pieces of print(a + b) under their names, then join them",
)
