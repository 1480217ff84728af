"""Documents to batches: one long row of tokens, cut into windows.

Packing wastes nothing: no padding, and a window may hold the end of one document and
the beginning of the next, which the special tokens between them mark.
"""

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from deepseek_mini.data.corpora import Corpus, Document
from deepseek_mini.data.fim import encode_with_fim
from deepseek_mini.tokenizer import Tokenizer


@dataclass(frozen=True)
class PackedData:
    """Tokens ready for training. It has no position: a step's batch is a function.

    ``train`` and ``validation`` are 1-D: begin, document, end, begin, document, ...
    """

    train: Int[Tensor, " N"]
    validation: Int[Tensor, " M"]
    seq_len: int
    tokenizer: Tokenizer
    source: str

    def batch(
        self, step: int, batch_size: int, seed: int = 0
    ) -> Int[Tensor, "B window"]:
        """The tokens of a step, [B, seq_len + 1]: each predicts the one after it.

        The same (step, batch_size, seed) gives the same batch, which is what makes a
        killed run resumable. Each epoch shuffles all windows and shifts their cuts.
        """
        n_windows = max(1, (len(self.train) - self.seq_len) // self.seq_len)
        rows = []
        for index in range(step * batch_size, (step + 1) * batch_size):
            epoch, position = divmod(index, n_windows)
            room = len(self.train) - n_windows * self.seq_len
            order, shift = _epoch(n_windows, room, seed, epoch)
            start = shift + int(order[position]) * self.seq_len
            rows.append(self.train[start : start + self.seq_len + 1])
        return torch.stack(rows)

    def validation_batches(
        self, batch_size: int, n_windows: int
    ) -> Iterator[Int[Tensor, "B window"]]:
        """At most ``n_windows`` windows, evenly spaced over the validation text.

        A window starts cold, in the middle of a document: the loss is a little higher
        than with the whole document before it, for every model alike.
        """
        length = min(self.seq_len, len(self.validation) - 1)
        available = (len(self.validation) - 1) // length
        n_windows = min(n_windows, available)
        starts = [length * (i * available // n_windows) for i in range(n_windows)]
        for i in range(0, n_windows, batch_size):
            rows = [
                self.validation[s : s + length + 1] for s in starts[i:][:batch_size]
            ]
            yield torch.stack(rows)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the tokens: equal for equal data, and for nothing else."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation):
            digest.update(f"{len(part)}:".encode())
            digest.update(part.numpy().tobytes())
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        return (
            f"PackedData({self.source!r}, train: {len(self.train):,} tokens, "
            f"validation: {len(self.validation):,}, seq_len={self.seq_len})"
        )


def pack(
    corpus: Corpus,
    tokenizer: Tokenizer,
    seq_len: int,
    fim_rate: float = 0.0,
    seed: int = 0,
) -> PackedData:
    """Tokenise every document and join them, with BOS before and EOS after each.

    ``fim_rate``: the share of training documents that are cut in three and written as
    prefix, suffix, middle (see ``fim``); ``seed`` and a document's name and text decide
    which and where, and nothing else. The validation text stays as it is, so that
    losses compare.

    ValueError if the training text is shorter than one window of seq_len + 1 tokens,
    if there is no validation text, for a rate outside 0 to 1, or for a tokenizer
    without the FIM marks.
    """
    if seq_len < 1:
        raise ValueError(f"seq_len must be at least 1, got {seq_len}")
    train = _join(corpus.train, tokenizer, fim_rate, seed)
    validation = _join(corpus.validation, tokenizer)
    if len(train) < seq_len + 1:
        raise ValueError(
            f"the training text has {len(train)} tokens, but one window of seq_len "
            f"{seq_len} needs {seq_len + 1}: give more text or a smaller seq_len"
        )
    if len(validation) < 2:
        raise ValueError("there is no validation text: give more text")
    return PackedData(train, validation, seq_len, tokenizer, corpus.source)


def _join(
    documents: tuple[Document, ...],
    tokenizer: Tokenizer,
    fim_rate: float = 0.0,
    seed: int = 0,
) -> Int[Tensor, " N"]:
    bos, eos = tokenizer.id("bos"), tokenizer.id("eos")
    encoded = encode_with_fim(documents, tokenizer, fim_rate, seed)
    pieces = [np.array([bos, *ids, eos], dtype=np.int64) for ids in encoded]
    return torch.from_numpy(np.concatenate(pieces or [np.empty(0, np.int64)]))


@functools.lru_cache(maxsize=4)
def _epoch(n_windows: int, room: int, seed: int, epoch: int) -> tuple[np.ndarray, int]:
    """The order of an epoch's windows, and by how many tokens they are shifted."""
    generator = np.random.default_rng((seed, epoch))
    return generator.permutation(n_windows), int(generator.integers(room))
