"""The cache of keys and values, or of latents."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepseek_mini.config import MLA, Config


class KVCache:
    """What attention needs of the tokens so far, in every layer, in memory taken up
    front: keys and values, or for MLA its latents and RoPE keys.

    `length` tokens are in it, `max_seq_len` fit. A model that is given a cache appends
    its tokens and attends to everything in it, however they are cut into pieces. No
    gradient flows through a cache. `n_layers` is the model's unless given.
    """

    def __init__(
        self,
        config: Config,
        batch_size: int,
        max_seq_len: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        n_layers: int | None = None,
    ):
        part = config.attention
        if isinstance(part, MLA):
            widths = [(part.kv_lora_rank,), (part.qk_rope_head_dim,)]
        else:
            widths = [(part.n_kv_heads, part.head_dim)] * 2
        n_layers = config.n_layers if n_layers is None else n_layers
        rows = (n_layers, batch_size, max_seq_len)
        self.parts = [
            torch.empty(*rows, *w, dtype=dtype, device=device) for w in widths
        ]
        self.pad: Bool[Tensor, "B S"] | None = None  # True where a token was padding
        self.length = 0

    @property
    def batch_size(self) -> int:
        return self.parts[0].shape[1]

    @property
    def max_seq_len(self) -> int:
        return self.parts[0].shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes that the cache holds room for."""
        return sum(part.nbytes for part in self.parts)

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

    def append(self, layer: int, *new: Float[Tensor, "B T ..."]) -> list[Tensor]:
        """Write what one layer made of the T new tokens: k and v, [B, T, G, d] each, or
        latents [B, T, C] and RoPE keys [B, T, r]. Returns that layer's of all S so far.
        """
        end = self.length + new[0].shape[1]
        for part, value in zip(self.parts, new, strict=True):
            part[layer, :, self.length : end] = value.detach()
        return [part[layer, :, :end] for part in self.parts]

    def extend_pad(
        self, pad: Bool[Tensor, "B T"] | None, n_tokens: int
    ) -> Bool[Tensor, "B S"] | None:
        """Which of the tokens so far and the new ones are padding; None if none is."""
        if pad is None and self.pad is None:
            return None
        rows, device = self.batch_size, self.parts[0].device
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
