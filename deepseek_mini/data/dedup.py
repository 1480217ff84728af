"""Near duplicates, found by MinHash without comparing every pair of texts.

Two texts are alike when they share many **shingles**, runs of five words. MinHash
(Broder, 1997) keeps 128 numbers of a text; the share of them that two texts have in
common is an estimate of the share of shingles that they have in common.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from deepseek_mini.data.corpora import Document
from deepseek_mini.data.repository import Repository, concatenate

SHINGLE = 5  # words
N_HASHES = 128
N_BANDS = 32  # of 4 numbers each


def shingles(text: str) -> set[str]:
    """All runs of five words; a shorter text is a single one, an empty text none.

    A word is a run of letters, digits and underscores, or one other character. White
    space does not count: a text that was only indented anew is a duplicate.
    """
    words = re.findall(r"\w+|[^\w\s]", text)
    if not words:
        return set()
    last = max(1, len(words) - SHINGLE + 1)
    return {" ".join(words[i : i + SHINGLE]) for i in range(last)}


def minhash(text: str) -> np.ndarray:
    """The signature of a text: uint64 [128], the same on every machine.

    Number k is the smallest value that hash function k gives to any of the shingles.
    Two texts agree in it when the shingle with that value is in both: with probability
    |both| / |either|, their Jaccard similarity. A text without words gives the largest
    value everywhere.
    """
    signature = np.full(N_HASHES, np.iinfo(np.uint64).max, dtype=np.uint64)
    digests = [
        hashlib.blake2b(shingle.encode("utf-8", "surrogatepass"), digest_size=8)
        for shingle in shingles(text)
    ]
    if not digests:
        return signature
    hashes = np.frombuffer(b"".join(d.digest() for d in digests), dtype="<u8")
    # 128 functions out of one hash: x -> (a x + b) mod 2**64, of which the upper half
    # is well mixed. Their numbers a and b are fixed.
    rng = np.random.default_rng(0)
    factors, terms = rng.integers(2**63, size=(2, N_HASHES), dtype=np.uint64)
    for k in range(N_HASHES):
        values = hashes * (factors[k] | np.uint64(1)) + terms[k]
        signature[k] = (values >> np.uint64(32)).min()
    return signature


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """The estimated Jaccard similarity of two texts by their signatures, 0 to 1."""
    return float((a == b).mean())


def near_duplicates(texts: Sequence[str], threshold: float = 0.8) -> list[int | None]:
    """For each text the earlier one that it nearly repeats, None if it stays.

    A duplicate is at least ``threshold`` similar to a text that stays. Only texts that
    agree in a whole **band** of 4 numbers are compared: at similarity s a pair is seen
    with probability 1 - (1 - s**4)**32, at 0.8 nearly 1, at 0.2 one in twenty. Texts
    without words stay.

    ValueError for a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
    kept: dict[int, np.ndarray] = {}
    bands: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    found: list[int | None] = []
    for i, text in enumerate(texts):
        signature = minhash(text)
        parts = [part.tobytes() for part in signature.reshape(N_BANDS, -1)]
        alike = {j for band, part in enumerate(parts) for j in bands[band, part]}
        alike = [
            j for j in sorted(alike) if similarity(signature, kept[j]) >= threshold
        ]
        found.append(alike[0] if alike else None)
        if not alike and re.search(r"\w|[^\w\s]", text):
            kept[i] = signature
            for band, part in enumerate(parts):
                bands[band, part].append(i)
    return found


def deduplicate(
    repositories: Sequence[Repository],
    threshold: float = 0.8,
    level: str = "repository",
) -> list[Repository]:
    """The repositories without near duplicates; of each set the first stays.

    level: "repository" compares whole repositories, their files joined, and drops a
        whole one (arXiv 2401.14196, §2.3). "file" compares file with file over all
        repositories, which leaves holes: a file that others import may be gone.
    """
    if level == "repository":
        texts = [concatenate(repository.files) for repository in repositories]
        doubles = near_duplicates(texts, threshold)
        return [r for r, double in zip(repositories, doubles) if double is None]
    if level != "file":
        raise ValueError(f"level must be 'repository' or 'file', got {level!r}")
    files = [(i, file) for i, r in enumerate(repositories) for file in r.files]
    doubles = near_duplicates([file.text for _, file in files], threshold)
    left: dict[int, list[Document]] = defaultdict(list)
    for (i, file), double in zip(files, doubles):
        if double is None:
            left[i].append(file)
    return [
        Repository(r.name, tuple(left[i]))
        for i, r in enumerate(repositories)
        if left[i] or not r.files
    ]
