"""Lesson 01, the tokenizer: the oracles work on strings, not on lists of pairs.

Exercise 01.1 decodes by `str.translate`, 01.2 looks at slices, 01.3 and 01.4 write
tokens as one string with separators and replace in it.
"""

import string
from itertools import pairwise

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake

LESSON = "01_tokenizer"

# --- 01.1 -------------------------------------------------------------------------

PRINTABLE = "!-~", "¡-¬", "®-ÿ"  # first and last character of each range


def _table(ranges=PRINTABLE, first=256):
    kept = {n for r in ranges for n in range(ord(r[0]), ord(r[-1]) + 1)}
    moved = [n for n in range(256) if n not in kept]
    return {n: first + i for i, n in enumerate(moved)}


def to_characters(text):
    return text.encode("utf-8").decode("latin-1").translate(_table())


def _with(table):
    return lambda text: text.encode("utf-8").decode("latin-1").translate(table)


def character_cases(rng):
    def some(low, high, n):
        return "".join(chr(c) for c in rng.integers(low, high, size=n))

    yield Case((some(33, 127, 12),), "printable ASCII")
    yield Case((" " + some(97, 123, 4) + "\n\t" + some(97, 123, 3),), "white space")
    yield Case((some(0xC0, 0x250, 12) + "\u00a0\u00ad\u00ed",), "letters with accents")
    yield Case((some(0x4E00, 0x9FA5, 8),), "Chinese")
    yield Case((some(0, 0x80, 40) + "\x7f" + some(0x1F300, 0x1F700, 6),), "all kinds")
    yield Case(("",), "an empty text")


CHARACTERS = Exercise(
    id="01.1",
    title="Bytes as characters",
    signature="to_characters(text)",
    difficulty="a few lines",
    minutes=10,
    right=to_characters,
    cases=character_cases,
    mistakes=(
        Mistake(
            "a list is not a text: join the characters",
            when=lambda got, want, args: isinstance(got, list),
        ),
        Mistake(
            "the bytes are all there, but none was moved: which of them cannot be "
            "printed?",
            gives=_with({}),
        ),
        Mistake(
            "a character above 127 has several bytes in UTF-8, and each of them "
            "becomes a character",
            gives=lambda text: text.translate(_table()),
        ),
        Mistake(
            "only the space was moved: 67 other bytes cannot be printed either",
            gives=_with({32: 288}),
        ),
        Mistake(
            "the moved bytes are numbered in order, without gaps: byte 127 is the 34th "
            "of them, not the 128th",
            gives=_with({n: 256 + n for n in _table()}),
        ),
        Mistake(
            "bytes 128 to 255 that Latin-1 can print stand for themselves",
            gives=_with(_table(ranges=("!-~",))),
        ),
        Mistake(
            "byte 173, the soft hyphen, is invisible: it is one of those that move",
            gives=_with(_table(ranges=("!-~", "¡-ÿ"))),
        ),
    ),
    hint="make the table of 256 first and look at it: 188 entries are chr(byte), and "
    "the other 68 are U+0100, U+0101, ... in the order of their bytes",
)

# --- 01.2 -------------------------------------------------------------------------


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

# --- 01.3 -------------------------------------------------------------------------


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


def _first_only(tokens, pair):
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
        Mistake("only the first place was merged", gives=_first_only),
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
        Mistake("nothing was merged", gives=lambda tokens, pair: list(tokens)),
    ),
    hint="go through the tokens with an index, and print it with what you append",
)

# --- 01.4 -------------------------------------------------------------------------

_GAP = "\0"


def encode(word, merges):
    """Every merge in the order learned, by replacing in a string with gaps.

    This is encoding by rank where no entry can be made in two ways, as in the cases.
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
        tokens = _first_only(tokens, pair)
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
    yield Case((a + b + c, [(b, c), (a, b)]), "a late pair on the left")
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
    hint="print the tokens after every merge, with the rank of the pair: it should "
    "never be larger than that of another pair that stands there",
)

EXERCISES = (CHARACTERS, PAIRS, MERGE, ENCODE)
