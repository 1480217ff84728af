"""Byte-level BPE from scratch: train it, encode by merge rank, decode.

``deepseek_mini.tokenizer`` has the ``tokenizers`` library do this; here every step can
be read, and the ids are the same. Special tokens are taken out of the text where the
caller allows them; the rest is cut into pieces, which no token ever crosses; a piece
becomes bytes, each written as a character; neighbours are merged, the pair that was
learned first before all others. (Sennrich and others, 2016, §3.2; bytes as in GPT-2.)

Only the cutting is left to the library's regular expressions: other engines know other
versions of Unicode, and the same ids need the same cuts.
"""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from tokenizers import Regex, pre_tokenizers

from deepseek_mini.tokenizer import SPECIAL_TOKENS, V3_SPLITS, is_control

Pair = tuple[str, str]


def byte_characters() -> list[str]:
    """A printable character for each of the 256 bytes, all different.

    Printable Latin-1 stands for itself, the other 68 bytes take the characters from
    U+0100 on: a space is "Ġ", a newline "Ċ".
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


CHARACTER_OF = byte_characters()
BYTE_OF = {character: byte for byte, character in enumerate(CHARACTER_OF)}


def to_characters(text: str) -> str:
    """The UTF-8 bytes of ``text``, a character for each."""
    return "".join(CHARACTER_OF[byte] for byte in text.encode("utf-8"))


def cut(text: str, patterns: Sequence[str] = V3_SPLITS) -> list[str]:
    """The pieces of ``text``; joined, they are the text again.

    Every match of a pattern becomes a piece, and so does what is between matches; the
    next pattern cuts those pieces further.
    """
    return [piece for piece, _ in _splitter(tuple(patterns)).pre_tokenize_str(text)]


@lru_cache
def _splitter(patterns: tuple[str, ...]) -> pre_tokenizers.Sequence:
    splits = [pre_tokenizers.Split(Regex(p), behavior="isolated") for p in patterns]
    return pre_tokenizers.Sequence(splits)


def merge(word: Sequence[str], pair: Pair) -> list[str]:
    """``word`` with every ``pair`` of neighbours made one, from left to right."""
    merged: list[str] = []
    i = 0
    while i < len(word):
        here = tuple(word[i : i + 2]) == pair
        merged.append("".join(pair) if here else word[i])
        i += 2 if here else 1
    return merged


def learn(
    texts: Iterable[str], vocab_size: int, special: Sequence[str] = ()
) -> tuple[dict[str, int], list[Pair]]:
    """The entries with their ids (special, bytes, merged), and the merges in order.

    Each step merges the most frequent pair of neighbours; of equally frequent pairs the
    one with the smaller ids, the left one compared first. ValueError if ``vocab_size``
    has no room for the bytes, or the texts run out of pairs.
    """
    vocab = {token: id for id, token in enumerate([*special, *sorted(CHARACTER_OF)])}
    if vocab_size < len(vocab):
        raise ValueError(f"vocab_size must be at least {len(vocab)}, got {vocab_size}")
    counted = Counter(piece for text in texts for piece in cut(text))
    words = {piece: list(to_characters(piece)) for piece in counted}
    pairs: Counter[Pair] = Counter()
    where: dict[Pair, set[str]] = defaultdict(set)

    def count(piece: str, sign: int) -> None:
        for pair in pairwise(words[piece]):
            pairs[pair] += sign * counted[piece]
            where[pair].add(piece)

    for piece in words:
        count(piece, +1)
    merges: list[Pair] = []
    while len(vocab) < vocab_size:
        most = max(pairs.values(), default=0)
        if most == 0:
            full = f"the texts fill only {len(vocab)} of {vocab_size} entries"
            raise ValueError(f"{full}: give more text or a smaller vocab_size")
        ties = [pair for pair, times in pairs.items() if times == most]
        best = min(ties, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        merges.append(best)
        vocab.setdefault("".join(best), len(vocab))
        for piece in where.pop(best):  # only these words change
            count(piece, -1)
            words[piece] = merge(words[piece], best)
            count(piece, +1)
    return vocab, merges


def _any_of(tokens: Iterable[str]) -> re.Pattern:
    """Matches any of ``tokens``, the longest there is at a place; none, if empty."""
    longest_first = map(re.escape, sorted(tokens, key=len, reverse=True))
    return re.compile(f"({'|'.join(longest_first) or '(?!)'})")


class BPE:
    """A byte-level BPE tokenizer, every step of it in Python.

    ``vocab``: ids of entries in byte characters. ``merges``: in the order learned.
    ``added``: ids of further tokens, in plain text; those in ``special`` come out of a
    text only when allowed. ``patterns``: cut the text.
    """

    def __init__(
        self,
        vocab: dict[str, int],
        merges: Sequence[Pair],
        added: dict[str, int],
        special: Iterable[str],
        patterns: Sequence[str] = V3_SPLITS,
    ):
        self.vocab, self.merges, self.patterns = vocab, list(merges), tuple(patterns)
        self.added, self.special = added, frozenset(special)
        self.rank = {pair: rank for rank, pair in enumerate(self.merges)}
        self.entry_of = {id: entry for entry, id in {**vocab, **added}.items()}
        self._allowed = _any_of(added)
        self._plain = _any_of(token for token in added if token not in self.special)
        self.encode_piece = lru_cache(100_000)(self.encode_piece)  # pieces recur

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "BPE":
        """Learn from ``texts``, cut as DeepSeek-V3 does; errors as ``learn``."""
        special = list(SPECIAL_TOKENS.values())
        vocab, merges = learn(texts, vocab_size, special)
        return cls(vocab, merges, {name: vocab[name] for name in special}, special)

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> "BPE":
        """Read a ``tokenizer.json`` of the kind that DeepSeek releases.

        FileNotFoundError if there is none; ValueError for another kind of tokenizer.
        """
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        try:
            model, added = content["model"], content["added_tokens"]
            splits = content["pre_tokenizer"]["pretokenizers"][:-1]  # then the bytes
            patterns = [split["pattern"]["Regex"] for split in splits]
            # Older files write a merge as one string with a space in it.
            pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is no byte-level BPE: {error!r}") from None
        ids = {token["content"]: token["id"] for token in added}
        marks = [t["content"] for t in added if is_control(t["content"], t["special"])]
        return cls(model["vocab"], list(map(tuple, pairs)), ids, marks, patterns)

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """The ids of ``text``; special tokens in it are text unless allowed.

        ValueError (UnicodeEncodeError) for a text that is not valid Unicode.
        """
        text.encode("utf-8")  # a clear error for a lone surrogate
        ids: list[int] = []
        tokens = self._allowed if allow_special else self._plain
        for i, part in enumerate(tokens.split(text)):
            if i % 2:  # split gives text, token, text, token, ..., text
                ids.append(self.added[part])
            else:
                for piece in cut(part, self.patterns):
                    ids += self.encode_piece(to_characters(piece))
        return ids

    def encode_piece(self, characters: str) -> list[int]:
        """The ids of one piece: merge the pair of lowest rank, the leftmost first."""
        word = list(characters)
        while len(word) > 1:
            ranks = [self.rank.get(pair, len(self.rank)) for pair in pairwise(word)]
            i = ranks.index(min(ranks))
            if ranks[i] == len(self.rank):
                break  # no neighbours that were ever merged
            word[i : i + 2] = [word[i] + word[i + 1]]
        return [self.vocab[entry] for entry in word]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``; bytes that are no whole character become U+FFFD.

        ValueError for an id that no entry has.
        """
        data = bytearray()
        for id in ids:
            if id not in self.entry_of:
                raise ValueError(f"no entry has the id {id!r}")
            entry = self.entry_of[id]
            plain = not BYTE_OF.keys() >= set(entry)  # an added token
            data += entry.encode() if plain else bytes(map(BYTE_OF.get, entry))
        return data.decode("utf-8", errors="replace")
