"""Exercise 18.3, the vote of the majority: the oracle counts name by name."""

from collections import Counter

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def majority(answers):
    """The oracle: whoever has most votes, looked for in the order given."""
    best, most = None, 0
    for answer in answers:
        votes = sum(other == answer for other in answers)
        if answer is not None and votes > most:
            best, most = answer, votes
    return best


def _valid(answers):
    return [a for a in answers if a is not None]


def _with_none(answers):
    return Counter(answers).most_common(1)[0][0]


def _tied(answers):
    votes = Counter(_valid(answers))
    return [a for a in votes if votes[a] == max(votes.values())]


def _by_size(pick):
    def wrong(answers):
        return pick(_tied(answers), key=int) if _valid(answers) else None

    return wrong


def _last(answers):
    valid = _valid(answers)
    return majority(valid[::-1])


def _first_to_reach(answers):
    votes, best = Counter(), None
    for answer in _valid(answers):
        votes[answer] += 1
        if best is None or votes[answer] > votes[best]:
            best = answer
    return best


def _as_numbers(answers):
    return majority([a if a is None else str(int(a)) for a in answers])


def _over_half(answers):
    best = majority(answers)
    return best if 2 * answers.count(best) > len(answers) else None


def _over_half_of_votes(answers):
    best, valid = majority(answers), _valid(answers)
    return best if 2 * valid.count(best) > len(valid) else None


def _count(answers):
    return max(Counter(_valid(answers)).values(), default=0)


def vote_cases(rng):
    names = [str(n) for n in rng.choice(range(10, 90), size=7, replace=False)]
    a, b, c, d, e, f, g = names
    low, first, early, late, high = sorted((a, b, c, d, e), key=int)
    yield Case((_mixed(rng, [a] * 4 + [b] * 2 + [c]),), "a clear winner")
    yield Case((_mixed(rng, [a] * 3 + [b] * 2 + [None] * 4),), "many without answer")
    yield Case(([None, *_mixed(rng, [a, b, c, d, a, e])],), "less than half")
    tied = [first, early, early, low, high, first, low, high, late, late, f]
    yield Case((tied,), "five with two votes each")
    yield Case(([a, b, b, a, c],), "two with two votes each")
    yield Case(([None, g, f, e, d, c, b, a],), "seven with one vote each")
    yield Case(([None] * 4,), "nobody answers")
    yield Case(([None, a],), "one vote")
    yield Case((["", a, "", None],), "empty texts")
    yield Case(([a, f" {a}", b, b],), "a text with a space")
    yield Case(([a, f"0{a}", b, b],), "a text with a 0 in front")


def _mixed(rng, answers):
    return [answers[i] for i in rng.permutation(len(answers))]


VOTE = Exercise(
    id="18.3",
    title="The vote of the majority",
    signature="majority(answers)",
    difficulty="a few lines",
    minutes=8,
    right=majority,
    cases=vote_cases,
    mistakes=(
        Mistake(
            "None was counted as an answer: it is no vote, however often it comes",
            gives=_with_none,
        ),
        Mistake(
            "of equals the last given was taken: it should be the first", gives=_last
        ),
        Mistake(
            "of equals the first to reach its votes was taken: it should be the one "
            "whose first place is earliest",
            gives=_first_to_reach,
        ),
        Mistake(
            'an empty text is a text, and votes: only None does not, so ask "is not '
            'None"',
            gives=lambda answers: majority([a or None for a in answers]),
        ),
        Mistake(
            "texts vote as they stand: one with a space at its end or a 0 in front is "
            "another text",
            gives=lambda answers: majority([a and a.strip() for a in answers]),
        ),
        Mistake(
            "texts vote as they stand: one with a space at its end or a 0 in front is "
            "another text",
            gives=_as_numbers,
        ),
        Mistake(
            "texts vote as they stand, and need not be numbers",
            raises=r"ValueError.*(invalid literal|could not convert)",
        ),
        Mistake(
            "of equals the smallest number was taken: it should be the first given",
            gives=_by_size(min),
        ),
        Mistake(
            "of equals the largest number was taken: it should be the first given",
            gives=_by_size(max),
        ),
        Mistake(
            "more than half is asked for: the most votes are enough", gives=_over_half
        ),
        Mistake(
            "more than half is asked for: the most votes are enough",
            gives=_over_half_of_votes,
        ),
        Mistake("these are the votes: the answer they went to is wanted", gives=_count),
        Mistake(
            "the first answer is no vote of anybody else: count how often each comes",
            gives=lambda answers: next(iter(_valid(answers)), None),
        ),
        Mistake(
            "no answer at all leaves nothing to count: the result is None then",
            raises=r"(Index|Value|Statistics)Error.*(range|empty|no mode)",
        ),
        Mistake(
            "of answers with equally many votes another one was taken: a set keeps no "
            "order, and the first given is wanted",
            when=lambda got, want, args: got in _tied(args[0]) and got != want,
        ),
    ),
    hint="print the votes of each answer beside the list, and see who should win",
)
