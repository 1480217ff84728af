"""Exercise 01.4: the oracle replaces in a string with gaps."""

import string
from itertools import pairwise

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.merging import apply_merge, first_only

_GAP = "\0"


def encode(word, merges):
    """Every merge in the order learned, by replacing in a string with gaps.

    This is encoding by rank where no token is made by two pairs and its parts come
    first, as in the cases and in every list that training makes: where the letters of
    a token stand together uncut, the same merges meet them, and so the same pair is
    the last one.
    """
    text = _GAP + (_GAP * 2).join(word) + _GAP if word else ""
    for left, right in merges:
        text = text.replace(
            f"{_GAP}{left}{_GAP}{_GAP}{right}{_GAP}", f"{_GAP}{left}{right}{_GAP}"
        )
    return [token for token in text.split(_GAP) if token]


def _by_text(word, merges):
    tokens = list(word)
    while True:
        for i, pair in enumerate(pairwise(tokens)):
            if pair in merges:
                tokens[i : i + 2] = ["".join(pair)]
                break
        else:
            return tokens


def _last_learned_first(word, merges):
    tokens = list(word)
    while known := [pair for pair in pairwise(tokens) if pair in merges]:
        tokens = apply_merge(tokens, max(known, key=merges.index))
    return tokens


def _alphabetical(word, merges):
    tokens = list(word)
    while known := [pair for pair in pairwise(tokens) if pair in merges]:
        tokens = apply_merge(tokens, min(known))
    return tokens


def _longest_entry(word, merges):
    entries = {"".join(pair) for pair in merges} | set(word)
    tokens, i = [], 0
    while i < len(word):
        end = max(j for j in range(i + 1, len(word) + 1) if word[i:j] in entries)
        tokens.append(word[i:end])
        i = end
    return tokens


def _one_merge(word, merges):
    for pair in merges:
        if pair in list(pairwise(word)):
            return apply_merge(list(word), pair)
    return list(word)


def _each_once(word, merges):
    tokens = list(word)
    for pair in merges:
        tokens = first_only(tokens, pair)
    return tokens


def _stops_at_a_gap(word, merges):
    tokens = list(word)
    for pair in merges:
        if pair not in list(pairwise(tokens)):
            break
        tokens = apply_merge(tokens, pair)
    return tokens


def encode_cases(rng):
    letters = rng.permutation(list(string.ascii_lowercase)).tolist()
    a, b, c, d, e = letters[:5]
    yield Case((a + b + c, [(b, c), (a, b)]), "an order that is not that of the text")
    learned = [(a, b), (c, d), (a + b, c + d), (d, e)]
    yield Case((a + b + c + d + e + a + b, learned), "merges of merges")
    yield Case((b + a + d + e + d + e, learned), "merges that are not used")
    learned = [(b, c), (a, b), (c, d), (b + c, d), (a, b + c + d)]
    yield Case((a + b + c + d + c + d + a + b + c, learned), "merges that compete")
    yield Case((a * 5, [(a, a), (a + a, a + a)]), "the same letter again and again")
    entries, learned = [a, b, c, d], []
    while len(learned) < 10:
        left, right = rng.choice(entries, size=2).tolist()
        if left + right not in entries and len(left + right) < 5:
            entries.append(left + right)
            learned.append((left, right))
    word = "".join(rng.choice(entries, size=15).tolist())
    yield Case((word, learned), "a long word")
    yield Case((a, learned), "a single letter")
    yield Case(("", learned), "an empty word")


ENCODE = Exercise(
    id="01.4",
    title="Encode by rank",
    signature="encode(word, merges)",
    difficulty="some thought",
    minutes=15,
    right=encode,
    cases=encode_cases,
    mistakes=(
        Mistake(
            "the pairs are merged in the order of the text: the merge that was learned "
            "first comes first, wherever it stands",
            gives=_by_text,
        ),
        Mistake(
            "the merge that was learned last is applied first",
            gives=_last_learned_first,
        ),
        Mistake(
            "pairs are taken in alphabetical order; rank is the place in `merges`",
            gives=_alphabetical,
        ),
        Mistake(
            "this takes the longest entry from the left; BPE never looks at entries, "
            "only at pairs and their rank",
            gives=_longest_entry,
        ),
        Mistake(
            "it stops after one kind of merge: what was merged may merge again",
            gives=_one_merge,
        ),
        Mistake(
            "each merge is applied in one place only; the same pair may stand in "
            "several",
            gives=_each_once,
        ),
        Mistake(
            "a learned pair that this word lacks ends the loop: those learned after it "
            "still count",
            gives=_stops_at_a_gap,
        ),
        Mistake(
            "nothing was merged: start from the letters and look for learned pairs",
            gives=lambda word, merges: list(word),
        ),
        Mistake(
            "the tokens are joined to one text; give them back as a list",
            when=lambda got, want, args: isinstance(got, str),
        ),
    ),
    hint="print the tokens and the rank of the pair before every merge: no other pair "
    "of neighbours may have a lower rank",
)
