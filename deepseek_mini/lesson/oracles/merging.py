"""Exercise 01.3: the oracle takes tokens off a list."""

import string

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def apply_merge(tokens, pair):
    left, right = pair
    merged, rest = [], list(tokens)
    while rest:
        if rest[:2] == [left, right]:
            merged.append(left + right)
            rest = rest[2:]
        else:
            merged.append(rest.pop(0))
    return merged


def first_only(tokens, pair):
    for i in range(len(tokens) - 1):
        if tuple(tokens[i : i + 2]) == tuple(pair):
            return [*tokens[:i], "".join(pair), *tokens[i + 2 :]]
    return list(tokens)


def _from_the_right(tokens, pair):
    turned = apply_merge([t[::-1] for t in tokens[::-1]], [p[::-1] for p in pair[::-1]])
    return [t[::-1] for t in turned[::-1]]


def _overlapping(tokens, pair):
    out, i = [], 0
    while i < len(tokens):
        if tuple(tokens[i : i + 2]) == tuple(pair):
            out.append("".join(pair))
            i += 1 if tuple(tokens[i + 1 : i + 3]) == tuple(pair) else 2
        else:
            out.append(tokens[i])
            i += 1
    return out


def _no_step_over(tokens, pair):
    """Every token looked at, also the second one of a pair that was merged."""
    following = [*tokens[1:], None]
    return [a + b if (a, b) == tuple(pair) else a for a, b in zip(tokens, following)]


def _last_lost(tokens, pair):
    merged = apply_merge(tokens, pair)
    ends_merged = len(tokens) > 1 and merged[-1:] != list(tokens[-1:])
    return merged if ends_merged else merged[:-1]


def merge_cases(rng):
    a, b, c = rng.permutation(list(string.ascii_lowercase))[:3].tolist()
    yield Case(([c, a, b, c, b, a], (a, b)), "one place")
    yield Case(([a, b, c, a, b, a, b], (a, b)), "several places")
    yield Case(([a, a, a, a, a, b], (a, a)), "a pair of equal tokens")
    yield Case(([a, a, a], (a, a)), "three equal tokens")
    yield Case(([a, b + c, a + b, c, c], (a + b, c)), "longer tokens")
    yield Case(([c + a, b, a, b + c, a, b], (a, b)), "tokens cut elsewhere")
    tokens = rng.choice([a, b, c, a + b], size=30).tolist()
    yield Case((tokens, (a, b)), "a long word")
    yield Case(([a], (a, b)), "a single token")
    yield Case(([], (a, b)), "no tokens")


MERGE = Exercise(
    id="01.3",
    title="Apply one merge",
    signature="apply_merge(tokens, pair)",
    difficulty="a few lines",
    minutes=8,
    right=apply_merge,
    cases=merge_cases,
    mistakes=(
        Mistake("only the first place was merged", gives=first_only),
        Mistake(
            "after a merge the second token is used up: step over it",
            gives=_no_step_over,
        ),
        Mistake(
            "after a merge the second token is used up: step over it (and the last "
            "token is lost)",
            gives=lambda tokens, pair: _no_step_over(tokens, pair)[:-1],
        ),
        Mistake(
            "a token is used twice: after a merge, go on behind both of its tokens",
            gives=_overlapping,
        ),
        Mistake(
            "the last token is lost where it is not part of the pair",
            gives=_last_lost,
        ),
        Mistake(
            "the merges start from the right: a a a is aa a, not a aa",
            gives=_from_the_right,
        ),
        Mistake(
            "borders between tokens count: the text of the pair may also stand in "
            "tokens that were cut elsewhere",
            when=lambda got, want, args: (
                isinstance(got, list)
                and all(isinstance(token, str) for token in got)
                and "".join(got) == "".join(want)
                and len(got) <= len(want)
            ),
        ),
        Mistake(
            "nothing was merged: is a list compared with a tuple? A list never equals "
            "a tuple",
            gives=lambda tokens, pair: list(tokens),
        ),
        Mistake(
            "the last token has no neighbour to the right",
            raises="^IndexError",
        ),
    ),
    hint="go through the tokens with an index, and print it with what you append",
)
