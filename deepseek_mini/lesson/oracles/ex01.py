"""Lesson 01, the tokenizer: the oracles work on strings, not on lists of pairs.

Exercise 01.1 decodes by `str.translate`; the others are in `count_pairs.py`,
`merging.py` and `encoding.py`.
"""

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.count_pairs import PAIRS
from deepseek_mini.lesson.oracles.encoding import ENCODE
from deepseek_mini.lesson.oracles.merging import MERGE

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


def _space_stays(text, first=256):
    """`isprintable` for the bytes that stay: it is True of a space."""
    moved = [n for n in range(256) if not chr(n).isprintable()]
    return _with({n: first + i for i, n in enumerate(moved)})(text)


def _numbered_in_this_text(text, order=sorted):
    moved = [n for n in order(dict.fromkeys(text.encode())) if n in _table()]
    return _with({n: 256 + i for i, n in enumerate(moved)})(text)


def character_cases(rng):
    def some(low, high, n):
        return "".join(chr(c) for c in rng.integers(low, high, size=n))

    yield Case((some(33, 127, 12),), "printable ASCII")
    yield Case((" " + some(97, 123, 4) + "\n\t" + some(97, 123, 3),), "white space")
    yield Case((some(0xC0, 0x250, 5) + "\u00a0\u00ad\u00ed",), "a text with accents")
    yield Case((some(0x4E00, 0x9FA5, 8),), "Chinese")
    yield Case((some(0, 0x80, 20) + "\x7f" + some(0x1F300, 0x1F700, 6),), "all kinds")
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
            "the space moves too: it is byte 32",
            gives=_space_stays,
        ),
        Mistake(
            "the space moves too: it is byte 32",
            gives=_with({n: c for n, c in _table().items() if n != 32}),
        ),
        Mistake(
            "the moved bytes of this text alone are numbered; number the moved bytes "
            "over all 256, so that a byte is the same character in every text",
            gives=_numbered_in_this_text,
        ),
        Mistake(
            "the moved bytes of this text alone are numbered; number the moved bytes "
            "over all 256, so that a byte is the same character in every text",
            gives=lambda text: _numbered_in_this_text(text, order=list),
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


EXERCISES = (CHARACTERS, PAIRS, MERGE, ENCODE)
