"""Fill in the middle: a text cut in three, the middle moved to the end.

A model that only ever continues text learns to fill a gap from both sides when the
other side has been moved in front. DeepSeek writes prefix, suffix, middle (PSM):

    <｜fim▁begin｜> prefix <｜fim▁hole｜> suffix <｜fim▁end｜> middle

half of the documents so, and cuts **documents**, before they are packed into windows
(arXiv 2401.14196, §3.1.2; Bavarian et al., arXiv 2207.14255). ``pack(corpus,
tokenizer, seq_len, fim_rate=0.5)`` does it; after it the text's end mark ends the
middle, which is how the model learns to stop.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from deepseek_mini.data.corpora import Document
from deepseek_mini.tokenizer import Tokenizer


class Pieces(NamedTuple):
    """A text in the order in which it is read; ``"".join(pieces)`` is the text."""

    prefix: str
    middle: str
    suffix: str


def cut(text: str, rng: np.random.Generator) -> Pieces:
    """Cut at two positions between characters, both ends included, all equally likely.

    The positions may be equal, so every piece may be empty. Characters, not tokens: at
    the border of a gap the model meets halves of words, as a user's cursor makes them.
    """
    first, second = sorted(rng.integers(len(text) + 1, size=2).tolist())
    return Pieces(text[:first], text[first:second], text[second:])


def psm(
    prefix: Sequence[int], suffix: Sequence[int], tokenizer: Tokenizer
) -> list[int]:
    """The ids of a gap to fill: what follows them is the middle.

    The marks are put between ids that were encoded before; a text that spells a mark
    cannot make one. ValueError if the tokenizer has no such marks.
    """
    begin, hole, end = (
        tokenizer.id(f"fim_{name}") for name in ("begin", "hole", "end")
    )
    return [begin, *prefix, hole, *suffix, end]


def encode_with_fim(
    documents: Sequence[Document], tokenizer: Tokenizer, rate: float, seed: int
) -> list[list[int]]:
    """The ids of every document, a share ``rate`` of them as prefix, suffix, middle.

    Which documents, and where they are cut, is decided by the seed and the document
    alone: by its name and its text, not by its place among the others. An empty
    document has nothing to fill and stays as it is.

    ValueError for a rate outside 0 to 1, or a tokenizer without the three marks.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"fim_rate must be from 0 to 1, got {rate}")
    if rate == 0:
        return tokenizer.encode_batch([document.text for document in documents])
    psm([], [], tokenizer)  # a tokenizer without the marks is refused at once
    parts: list[tuple[str, ...]] = []
    for document in documents:
        rng = _generator(document, seed)
        filled = rng.random() < rate and document.text
        parts.append(cut(document.text, rng) if filled else (document.text,))
    encoded = iter(tokenizer.encode_batch([piece for part in parts for piece in part]))
    rows = []
    for part in parts:
        ids = [next(encoded) for _ in part]
        if len(part) == 1:
            rows.append(ids[0])
        else:
            prefix, middle, suffix = ids
            rows.append(psm(prefix, suffix, tokenizer) + middle)
    return rows


def _generator(document: Document, seed: int) -> np.random.Generator:
    told = f"{seed}\0{document.name}\0{document.text}".encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(told).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
