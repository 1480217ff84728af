"""Several packed texts as one: every batch holds each of them by its weight.

Joining two corpora reads them by their size. A mixture sets the proportions instead,
so that a small text is read several times over while a large one is read in part.
"""

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from deepseek_mini.data.packing import PackedData
from deepseek_mini.tokenizer import Tokenizer

# Rows come in rounds of this many, in which each source has its exact share. So a
# weight counts to a thousandth, and a row's place in its source is plain arithmetic.
ROUND = 1000


@dataclass(frozen=True)
class MixedData:
    """Packed texts by name, with weights that add up to 1; used like `PackedData`.

    ``batch`` is a function of the step here too, so a run over it can be resumed.
    """

    sources: dict[str, PackedData]
    weights: dict[str, float]

    @property
    def seq_len(self) -> int:
        return next(iter(self.sources.values())).seq_len

    @property
    def tokenizer(self) -> Tokenizer:
        return next(iter(self.sources.values())).tokenizer

    @property
    def source(self) -> str:
        parts = (f"{self.weights[n]:.1%} {d.source}" for n, d in self.sources.items())
        return "; ".join(parts)

    def batch(
        self, step: int, batch_size: int, seed: int = 0
    ) -> Int[Tensor, "B window"]:
        """The tokens of a step, [B, seq_len + 1], as in `PackedData.batch`.

        Each source goes through epochs of its own, whatever the others do.
        """
        shares = _shares(self.weights, ROUND)
        sources = list(self.sources.values())
        rows = []
        for index in range(step * batch_size, (step + 1) * batch_size):
            number, position = divmod(index, ROUND)
            order, earlier = _round(tuple(shares.values()), seed, number)
            which = int(order[position])
            share = list(shares.values())[which]
            row = number * share + int(earlier[position])
            rows.append(sources[which].batch(row, 1, seed))
        return torch.cat(rows)

    def validation_shares(self, n_windows: int) -> dict[str, int]:
        """How many of ``n_windows`` validation windows each source gives: its weight's
        part, and one at least.
        """
        return _shares(self.weights, max(n_windows, len(self.sources)))

    def validation_batches(
        self, batch_size: int, n_windows: int
    ) -> Iterator[Int[Tensor, "B window"]]:
        """The windows of all sources, one source after the other."""
        for name, share in self.validation_shares(n_windows).items():
            yield from self.sources[name].validation_batches(batch_size, share)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the sources in their order and of their shares."""
        parts = [
            (name, share, self.sources[name].fingerprint)
            for name, share in _shares(self.weights, ROUND).items()
        ]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        shares = ", ".join(f"{n}: {w:.1%}" for n, w in self.weights.items())
        return f"MixedData({shares}, seq_len={self.seq_len})"


def mix(parts: Mapping[str, tuple[PackedData, float]]) -> MixedData:
    """Packed texts mixed by weight: ``mix({"code": (code, 7), "english": (talk, 3)})``.

    Weights need not add up to 1. They are proportions of rows, which all have the same
    number of tokens, so they are proportions of tokens as well.

    Raises:
        ValueError: no parts, a weight that is no positive number or below a thousandth
            of the whole, or parts whose seq_len or tokenizer differ.
    """
    if not parts:
        raise ValueError("a mixture needs at least one text")
    weights = {}
    for name, (_, weight) in parts.items():
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not (number and 0 < weight < float("inf")):
            raise ValueError(
                f"the weight of {name!r} must be a positive number, got {weight!r}"
            )
        weights[name] = float(weight)
    total = sum(weights.values())
    weights = {name: weight / total for name, weight in weights.items()}
    for name, weight in weights.items():
        if weight * ROUND < 1:
            raise ValueError(
                f"the weight of {name!r} is {weight:.2g} of the whole, but it must be "
                f"at least {1 / ROUND:g}"
            )
    sources = {name: data for name, (data, _) in parts.items()}
    _check_alike(sources)
    return MixedData(sources, weights)


def _check_alike(sources: dict[str, PackedData]) -> None:
    (first, one), *rest = sources.items()
    for name, other in rest:
        if other.seq_len != one.seq_len:
            raise ValueError(
                f"{first!r} has seq_len {one.seq_len}, but {name!r} has "
                f"{other.seq_len}: pack them alike"
            )
        if other.tokenizer.byte_lengths() != one.tokenizer.byte_lengths():
            raise ValueError(
                f"{first!r} and {name!r} have different tokenizers: pack them with one"
            )


def _shares(weights: dict[str, float], total: int) -> dict[str, int]:
    """Whole numbers in proportion to the weights, each at least 1, adding up to total.

    Largest remainders: round down, then one more for those that lost the most.
    """
    spare = total - len(weights)  # beyond the one that each has
    exact = {name: max(0.0, w * total - 1) for name, w in weights.items()}
    scale = spare / max(sum(exact.values()), 1e-12)
    shares = {name: int(x * scale) for name, x in exact.items()}
    lost = sorted(weights, key=lambda name: shares[name] - exact[name] * scale)
    for name in lost[: spare - sum(shares.values())]:
        shares[name] += 1
    return {name: share + 1 for name, share in shares.items()}


@functools.lru_cache(maxsize=4)
def _round(
    shares: tuple[int, ...], seed: int, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which source each row of a round is from, and how many earlier ones are."""
    generator = np.random.default_rng((seed, number, len(shares)))
    order = generator.permutation(np.repeat(np.arange(len(shares)), shares))
    is_from = order[:, None] == np.arange(len(shares))  # [ROUND, sources]
    earlier = is_from.cumsum(axis=0)[np.arange(len(order)), order] - 1
    return order, earlier
