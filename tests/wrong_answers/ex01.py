"""Lesson 01, the tokenizer."""

from collections import Counter
from itertools import pairwise

from . import Answers, Wrong

# --- 01.1 -------------------------------------------------------------------------


def _stands_for_itself(byte):
    return 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255


def characters(text):
    moved = [byte for byte in range(256) if not _stands_for_itself(byte)]
    out = ""
    for byte in text.encode():
        out += chr(byte) if _stands_for_itself(byte) else chr(256 + moved.index(byte))
    return out


def characters_of_text(text):
    moved = [byte for byte in range(256) if not _stands_for_itself(byte)]
    return "".join(
        chr(256 + moved.index(ord(c))) if ord(c) in moved else c for c in text
    )


def characters_latin(text):
    return "".join(chr(byte) for byte in text.encode())


def characters_shifted(text):
    return "".join(
        chr(byte) if _stands_for_itself(byte) else chr(256 + byte)
        for byte in text.encode()
    )


def characters_ascii_only(text):
    moved = [byte for byte in range(256) if not 33 <= byte <= 126]
    return "".join(
        chr(256 + moved.index(byte)) if byte in moved else chr(byte)
        for byte in text.encode()
    )


def characters_soft_hyphen(text):
    moved = [*range(33), *range(127, 161)]
    return "".join(
        chr(256 + moved.index(byte)) if byte in moved else chr(byte)
        for byte in text.encode()
    )


def characters_list(text):
    return list(characters(text))


def characters_space_only(text):
    return "".join(chr(byte) for byte in text.encode()).replace(" ", "Ġ")


def characters_isprintable(text):
    moved = [n for n in range(256) if not chr(n).isprintable()]
    return "".join(
        chr(256 + moved.index(n)) if n in moved else chr(n) for n in text.encode()
    )


def characters_space_kept(text):
    return characters(text).replace("Ġ", " ")


def characters_numbered_by_text(text):
    moved = []
    out = ""
    for byte in text.encode():
        if _stands_for_itself(byte):
            out += chr(byte)
            continue
        if byte not in moved:
            moved.append(byte)
        out += chr(256 + moved.index(byte))
    return out


def characters_no_return(text):
    characters(text)


# --- 01.2 -------------------------------------------------------------------------


def pairs(words):
    counts = Counter()
    for word, times in words.items():
        for left, right in pairwise(word):
            counts[left, right] += times
    return counts


def pairs_by_index(words):
    counts = {}
    for word, times in words.items():
        for i in range(len(word) - 1):
            pair = (word[i], word[i + 1])
            counts.setdefault(pair, 0)
            counts[pair] += times
    return counts


def pairs_once(words):
    return Counter(pair for word in words for pair in pairwise(word))


def pairs_across(words):
    return Counter(pairwise([token for word in words for token in word]))


def pairs_every_second(words):
    counts = Counter()
    for word, times in words.items():
        for pair in zip(word[::2], word[1::2]):
            counts[pair] += times
    return counts


def pairs_sorted(words):
    counts = Counter()
    for word, times in words.items():
        for pair in pairwise(word):
            counts[tuple(sorted(pair))] += times
    return counts


def pairs_overwrite(words):
    counts = {}
    for word, times in words.items():
        for pair in pairwise(word):
            counts[pair] = times
    return counts


def pairs_joined(words):
    counts = Counter()
    for word, times in words.items():
        for left, right in pairwise(word):
            counts[left + right] += times
    return counts


def pairs_of_first_word(words):
    counts = Counter()
    for word, times in words.items():
        for pair in pairwise(word):
            counts[pair] += times
        return counts
    return counts


def pairs_first_only(words):
    counts = {}
    for word, times in words.items():
        for pair in pairwise(word):
            counts[pair] = counts.get(pair, 0) + times
            return counts
    return counts


def pairs_first_is_one(words):
    counts = {}
    for word, times in words.items():
        for pair in pairwise(word):
            if pair in counts:
                counts[pair] += times
            else:
                counts[pair] = 1
    return counts


def pairs_with_zeros(words):
    tokens = {token for word in words for token in word}
    counts = {(a, b): 0 for a in tokens for b in tokens}
    for word, times in words.items():
        for pair in pairwise(word):
            counts[pair] += times
    return counts


def pairs_last_lost(words):
    counts = Counter()
    for word, times in words.items():
        for i in range(len(word) - 2):
            counts[word[i], word[i + 1]] += times
    return counts


def pairs_key_error(words):
    counts = {}
    for word, times in words.items():
        for pair in pairwise(word):
            counts[pair] += times
    return counts


def pairs_set(words):
    counts = Counter()
    for word, times in words.items():
        for pair in set(pairwise(word)):
            counts[pair] += times
    return counts


def pairs_as_list(words):
    return list(pairs(words).items())


# --- 01.3 -------------------------------------------------------------------------


def merged(tokens, pair):
    out = []
    i = 0
    while i < len(tokens):
        if i + 1 < len(tokens) and (tokens[i], tokens[i + 1]) == pair:
            out.append(tokens[i] + tokens[i + 1])
            i += 2
        else:
            out.append(tokens[i])
            i += 1
    return out


def merged_by_skipping(tokens, pair):
    out, skip = [], False
    for left, right in zip(tokens, [*tokens[1:], None]):
        if skip:
            skip = False
        elif (left, right) == pair:
            out.append(left + right)
            skip = True
        else:
            out.append(left)
    return out


def merged_first(tokens, pair):
    for i in range(len(tokens) - 1):
        if (tokens[i], tokens[i + 1]) == pair:
            return [*tokens[:i], tokens[i] + tokens[i + 1], *tokens[i + 2 :]]
    return tokens


def merged_loses_last(tokens, pair):
    out = []
    i = 0
    while i < len(tokens) - 1:
        if (tokens[i], tokens[i + 1]) == pair:
            out.append(tokens[i] + tokens[i + 1])
            i += 2
        else:
            out.append(tokens[i])
            i += 1
    return out


def merged_overlapping(tokens, pair):
    out = []
    i = 0
    while i < len(tokens):
        here = tuple(tokens[i : i + 2]) == pair
        out.append("".join(pair) if here else tokens[i])
        following = tuple(tokens[i + 1 : i + 3]) == pair
        i += 2 if here and not following else 1
    return out


def merged_in_place(tokens, pair):
    i = 0
    while i < len(tokens) - 1:
        if (tokens[i], tokens[i + 1]) == pair:
            tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
        i += 1
    return tokens


def merged_as_text(tokens, pair):
    text = " ".join(tokens)
    return text.replace(pair[0] + " " + pair[1], pair[0] + pair[1]).split()


def merged_no_step(tokens, pair):
    out = []
    i = 0
    while i < len(tokens):
        if tuple(tokens[i : i + 2]) == pair:
            out.append(tokens[i] + tokens[i + 1])
        else:
            out.append(tokens[i])
        i += 1
    return out


def merged_by_pairwise(tokens, pair):
    return [a + b if (a, b) == pair else a for a, b in pairwise(tokens)]


def merged_list_against_tuple(tokens, pair):
    out = []
    i = 0
    while i < len(tokens):
        if tokens[i : i + 2] == pair:
            out.append(tokens[i] + tokens[i + 1])
            i += 2
        else:
            out.append(tokens[i])
            i += 1
    return out


def merged_past_the_end(tokens, pair):
    out = []
    i = 0
    while i < len(tokens):
        if (tokens[i], tokens[i + 1]) == pair:
            out.append(tokens[i] + tokens[i + 1])
            i += 2
        else:
            out.append(tokens[i])
            i += 1
    return out


# --- 01.4 -------------------------------------------------------------------------


def encoded(word, merges):
    rank = {pair: i for i, pair in enumerate(merges)}
    tokens = list(word)
    while len(tokens) > 1:
        best = min(pairwise(tokens), key=lambda pair: rank.get(pair, float("inf")))
        if best not in rank:
            break
        tokens = merged(tokens, best)
    return tokens


def encoded_in_one_pass(word, merges):
    tokens = list(word)
    for pair in merges:
        tokens = merged_by_skipping(tokens, pair)
    return tokens


def encoded_by_text(word, merges):
    tokens = list(word)
    i = 0
    while i < len(tokens) - 1:
        if (tokens[i], tokens[i + 1]) in merges:
            tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
            i = 0
        else:
            i += 1
    return tokens


def encoded_longest(word, merges):
    entries = {left + right for left, right in merges}
    tokens = []
    while word:
        for end in range(len(word), 0, -1):
            if end == 1 or word[:end] in entries:
                tokens.append(word[:end])
                word = word[end:]
                break
    return tokens


def encoded_latest(word, merges):
    tokens = list(word)
    while known := [pair for pair in pairwise(tokens) if pair in merges]:
        tokens = merged(tokens, max(known, key=merges.index))
    return tokens


def encoded_each_once(word, merges):
    tokens = list(word)
    for pair in merges:
        tokens = merged_first(tokens, pair)
    return tokens


def encoded_stops(word, merges):
    tokens = list(word)
    for pair in merges:
        if pair not in pairwise(tokens):
            break
        tokens = merged(tokens, pair)
    return tokens


def encoded_joined(word, merges):
    return " ".join(encoded(word, merges))


def encoded_alphabetical(word, merges):
    tokens = list(word)
    while known := [pair for pair in pairwise(tokens) if pair in merges]:
        tokens = merged(tokens, min(known))
    return tokens


def encoded_sorts(word, merges):
    merges.sort(key=lambda pair: -len(pair[0]))
    return encoded(word, merges)


ANSWERS = {
    "01.1": Answers(
        right=[characters],
        wrong=[
            Wrong(characters_of_text, "has several bytes in UTF-8"),
            Wrong(characters_latin, "none was moved"),
            Wrong(characters_shifted, "without gaps"),
            Wrong(characters_ascii_only, "stand for themselves"),
            Wrong(characters_soft_hyphen, "the soft hyphen"),
            Wrong(characters_list, "join the characters"),
            Wrong(characters_space_only, "only the space was moved"),
            Wrong(characters_isprintable, "the space moves too"),
            Wrong(characters_space_kept, "the space moves too"),
            Wrong(characters_numbered_by_text, "over all 256"),
            Wrong(characters_no_return, "returns nothing: is `return` missing?"),
        ],
    ),
    "01.2": Answers(
        right=[pairs, pairs_by_index],
        wrong=[
            Wrong(pairs_once, "as often as it occurs"),
            Wrong(pairs_across, "inside a word"),
            Wrong(pairs_every_second, "only every second token"),
            Wrong(pairs_sorted, "has an order"),
            Wrong(pairs_overwrite, "keeps only the last count"),
            Wrong(pairs_joined, "tuples of two tokens"),
            Wrong(pairs_of_first_word, "`return` stand inside the loop"),
            Wrong(pairs_first_only, "`return` stand inside the loop"),
            Wrong(pairs_first_is_one, "for the first time counts 1"),
            Wrong(pairs_with_zeros, "not even with 0"),
            Wrong(pairs_last_lost, "has n - 1 pairs"),
            Wrong(pairs_key_error, "is not in the dictionary yet"),
            Wrong(pairs_set, "is counted once a word"),
            Wrong(pairs_as_list, "a list, but should be a dictionary"),
        ],
    ),
    "01.3": Answers(
        right=[merged, merged_by_skipping],
        wrong=[
            Wrong(merged_first, "only the first place"),
            Wrong(merged_loses_last, "the last token is lost"),
            Wrong(merged_overlapping, "used twice"),
            Wrong(merged_in_place, "changed its input tokens in place"),
            Wrong(merged_as_text, "borders between tokens count"),
            Wrong(merged_no_step, "the second token is used up"),
            Wrong(merged_by_pairwise, "the second token is used up"),
            Wrong(merged_list_against_tuple, "A list never equals a tuple"),
            Wrong(merged_past_the_end, "has no neighbour to the right"),
        ],
    ),
    "01.4": Answers(
        right=[encoded, encoded_in_one_pass],
        wrong=[
            Wrong(encoded_by_text, "in the order of the text"),
            Wrong(encoded_longest, "the longest entry from the left"),
            Wrong(encoded_latest, "learned last is applied first"),
            Wrong(encoded_each_once, "in one place only"),
            Wrong(encoded_stops, "ends the loop"),
            Wrong(encoded_joined, "as a list"),
            Wrong(encoded_alphabetical, "in alphabetical order"),
            Wrong(encoded_sorts, "changed its input merges in place"),
        ],
    ),
}
