"""Exercise 01.2: the oracle looks at slices."""

import string
from itertools import pairwise

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def count_pairs(words):
    counts = {}
    for word, times in words.items():
        for i in range(len(word)):
            pair = word[i : i + 2]
            if len(pair) == 2:
                counts[pair] = counts.get(pair, 0) + times
    return counts


def _once(words):
    return count_pairs(dict.fromkeys(words, 1))


def _joined(words):
    return count_pairs({tuple(t for w, n in words.items() for t in w * n): 1})


def _all_in_a_row(words):
    return count_pairs({tuple(t for word in words for t in word): 1})


def _without_overlap(words):
    counts = {}
    for word, times in words.items():
        i = 0
        while i < len(word) - 1:
            pair = word[i : i + 2]
            counts[pair] = counts.get(pair, 0) + times
            i += 2 if word[i : i + 3] == pair + pair[:1] and pair[0] == pair[1] else 1
    return counts


def _every_second(words):
    counts = {}
    for word, times in words.items():
        for i in range(0, len(word) - 1, 2):
            pair = word[i : i + 2]
            counts[pair] = counts.get(pair, 0) + times
    return counts


def _unordered(words):
    counts = {}
    for pair, n in count_pairs(words).items():
        pair = tuple(sorted(pair))
        counts[pair] = counts.get(pair, 0) + n
    return counts


def _overwritten(words):
    return {p: n for w, n in words.items() for p in pairwise(w)}


def _each_pair_once(words):
    counts = {}
    for word, times in words.items():
        for pair in set(pairwise(word)):
            counts[pair] = counts.get(pair, 0) + times
    return counts


def _first_counts_one(words):
    counts = {}
    for word, times in words.items():
        for pair in pairwise(word):
            counts[pair] = counts[pair] + times if pair in counts else 1
    return counts


def _last_pair_lost(words):
    counts = {}
    for word, times in words.items():
        for pair in pairwise(word[:-1]):
            counts[pair] = counts.get(pair, 0) + times
    return counts


def _first_word(words):
    return count_pairs(dict([*words.items()][:1]))


def _first_pair(words):
    return dict([*_first_word(words).items()][:1])


def _words(rng, letters, n):
    words = {}
    for _ in range(n):
        word = tuple(rng.choice(letters, size=int(rng.integers(2, 7))).tolist())
        words[word] = int(rng.integers(2, 9))
    return words


def pair_cases(rng):
    a, b, c = rng.permutation(list(string.ascii_lowercase))[:3].tolist()
    yield Case(({(a, b, c): 3, (c, b, a, b): 2},), "two words")
    yield Case(({(a, a, a, b): 4, (b, a + b, a + b): 5},), "the same token twice")
    yield Case(({(a,): 7, (b, c): 2},), "a word of one token")
    yield Case((_words(rng, [a, b, c, a + b], 8),), "longer tokens")
    yield Case(({},), "no words")


PAIRS = Exercise(
    id="01.2",
    title="Count the pairs",
    signature="count_pairs(words)",
    difficulty="a few lines",
    minutes=8,
    right=count_pairs,
    cases=pair_cases,
    mistakes=(
        Mistake("each word counts as often as it occurs, not once", gives=_once),
        Mistake(
            "only the first word was looked at: does `return` stand inside the loop?",
            gives=_first_word,
        ),
        Mistake(
            "only the first pair was counted: does `return` stand inside the loop?",
            gives=_first_pair,
        ),
        Mistake(
            "a pair that is seen for the first time counts 1; it occurs as often as "
            "its word",
            gives=_first_counts_one,
        ),
        Mistake(
            "the last pair of every word is lost: a word of n tokens has n - 1 pairs",
            gives=_last_pair_lost,
        ),
        Mistake(
            "a pair that a word has several times is counted once a word",
            gives=_each_pair_once,
        ),
        Mistake(
            "a pair that does not occur should not be in the dictionary, not even "
            "with 0",
            when=lambda got, want, args: isinstance(got, dict) and 0 in got.values(),
        ),
        Mistake(
            "that pair is not in the dictionary yet when you add to it",
            raises="^KeyError",
        ),
        Mistake(
            "pairs reach from one word into the next; neighbours are counted inside a "
            "word",
            gives=_joined,
        ),
        Mistake(
            "pairs reach from one word into the next; neighbours are counted inside a "
            "word",
            gives=_all_in_a_row,
        ),
        Mistake(
            "only every second token starts a pair: all neighbours count, so a token "
            "is in two pairs",
            gives=_every_second,
        ),
        Mistake(
            "pairs of equal tokens that overlap are counted too: a a a has two",
            gives=_without_overlap,
        ),
        Mistake("a pair has an order: (a, b) is not (b, a)", gives=_unordered),
        Mistake(
            "a pair that occurs again keeps only the last count: add to it",
            gives=_overwritten,
        ),
        Mistake(
            "the pairs are joined to strings; keep them as tuples of two tokens",
            when=lambda got, want, args: (
                isinstance(got, dict) and any(isinstance(key, str) for key in got)
            ),
        ),
    ),
    hint="take the first word alone and write down its neighbours: which of them does "
    "your dictionary lack, or have too often?",
)
