"""The key-value cache."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepseek_mini.config import Config


class KVCache:
    """Keys and values of the tokens so far, for every layer, in memory taken up front.

    `length` tokens are in it, `max_seq_len` fit. A model that is given a cache appends
    its tokens' keys and values and attends to everything in it, however the tokens are
    cut into pieces. No gradient flows through a cache.
    """

    def __init__(
        self,
        config: Config,
        batch_size: int,
        max_seq_len: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        heads, head_dim = config.attention.n_kv_heads, config.attention.head_dim
        shape = (config.n_layers, batch_size, max_seq_len, heads, head_dim)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.pad: Bool[Tensor, "B S"] | None = None  # True where a token was padding
        self.length = 0

    @property
    def batch_size(self) -> int:
        return self.keys.shape[1]

    @property
    def max_seq_len(self) -> int:
        return self.keys.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values that the cache holds room for."""
        return self.keys.nbytes + self.values.nbytes

    def check_room(self, batch_size: int, n_tokens: int) -> None:
        """Raise ValueError unless `n_tokens` more for `batch_size` rows fit."""
        if batch_size != self.batch_size:
            raise ValueError(
                f"the tokens have batch size {batch_size}, but the cache was made for "
                f"{self.batch_size}"
            )
        if self.length + n_tokens > self.max_seq_len:
            raise ValueError(
                f"the cache holds {self.length} of {self.max_seq_len} tokens, so "
                f"{n_tokens} more do not fit; make a longer one with new_cache"
            )

    def append(
        self, layer: int, k: Float[Tensor, "B T G d"], v: Float[Tensor, "B T G d"]
    ) -> tuple[Float[Tensor, "B S G d"], Float[Tensor, "B S G d"]]:
        """Write one layer's new keys and values; return all of that layer's so far."""
        end = self.length + k.shape[1]
        self.keys[layer, :, self.length : end] = k.detach()
        self.values[layer, :, self.length : end] = v.detach()
        return self.keys[layer, :, :end], self.values[layer, :, :end]

    def extend_pad(
        self, pad: Bool[Tensor, "B T"] | None, n_tokens: int
    ) -> Bool[Tensor, "B S"] | None:
        """Which of the tokens so far and the new ones are padding; None if none is."""
        if pad is None and self.pad is None:
            return None
        rows, device = self.batch_size, self.keys.device
        if self.pad is None:
            before = torch.zeros(rows, self.length, dtype=torch.bool, device=device)
        else:
            before = self.pad[:, : self.length]
        if pad is None:
            pad = torch.zeros(rows, n_tokens, dtype=torch.bool, device=device)
        return torch.cat((before, pad), dim=1)

    def truncate(self, length: int) -> None:
        """Forget every token after the first `length`.

        Raises:
            ValueError: `length` is negative or more than the cache holds.
        """
        if not 0 <= length <= self.length:
            raise ValueError(
                f"length is {length}, but the cache holds {self.length} tokens: give a "
                f"number from 0 to {self.length}"
            )
        self.length = length
