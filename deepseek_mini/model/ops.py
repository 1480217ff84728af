"""The one door between a model and faster ways to compute the same thing.

Every operation here has a readable path in plain PyTorch and, where there is one, a
fast path. `paths` forces either; by default ("auto") the fast one is taken.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

CHOICES = {
    "attention": ("auto", "naive", "absorbed"),
    "moe": ("auto", "loop", "grouped"),
}
_chosen: ContextVar[dict[str, str]] = ContextVar("paths")


@contextmanager
def paths(**choice: str) -> Iterator[None]:
    """Force the path of an operation within a `with` block, in this thread.

    `attention`: "naive" is the equation, step by step, and in MLA expands every key and
    value; "absorbed" makes MLA attend to its latents; both by PyTorch's fused attention
    unless "naive"; "auto" takes what multiplies less.
    `moe`: "loop" goes through the experts one by one, "grouped" and "auto" sort the
    tokens by expert first.

    Raises:
        ValueError: an operation or a path that does not exist.
    """
    for operation, path in choice.items():
        if operation not in CHOICES:
            raise ValueError(
                f"there is no operation {operation!r}; there are: {', '.join(CHOICES)}"
            )
        if path not in CHOICES[operation]:
            known = ", ".join(CHOICES[operation])
            raise ValueError(f"{operation} has no path {path!r}; it has: {known}")
    token = _chosen.set({**_chosen.get({}), **choice})
    try:
        yield
    finally:
        _chosen.reset(token)


def chosen_path(operation: str) -> str:
    """The path that is in force for an operation here."""
    return _chosen.get({}).get(operation, "auto")


def causal_mask(
    n_queries: int, n_keys: int, device: torch.device | str = "cpu"
) -> Bool[Tensor, "T S"]:
    """True where a query may look: the last query sees every key, the one before it
    all but the last, and so on. With a cache there are more keys than queries.
    """
    ones = torch.ones(n_queries, n_keys, dtype=torch.bool, device=device)
    return ones.tril(diagonal=n_keys - n_queries)


def padded_causal_mask(
    pad: Bool[Tensor, "B S"], n_queries: int
) -> Bool[Tensor, "B T S"]:
    """`causal_mask` without the keys that are padding.

    Every query may see itself even if it is padding: a row of -inf has no softmax.
    """
    n_keys = pad.shape[1]
    causal = causal_mask(n_queries, n_keys, pad.device)
    itself = causal & ~F.pad(causal[:, 1:], (0, 1))
    return (causal & ~pad[:, None, :]) | itself


def packed_causal_mask(documents: Int[Tensor, "B T"]) -> Bool[Tensor, "B T T"]:
    """`causal_mask` within each document of a row: where the numbers are equal."""
    n_tokens = documents.shape[1]
    causal = causal_mask(n_tokens, n_tokens, documents.device)
    return causal & (documents[:, :, None] == documents[:, None, :])


def attention(
    q: Float[Tensor, "B T H d"],
    k: Float[Tensor, "B S G d"],
    v: Float[Tensor, "B S G e"],
    scale: float,
    mask: Bool[Tensor, "B T S"] | None = None,
) -> Float[Tensor, "B T H e"]:
    """softmax(q kᵀ · scale) v for every head; `mask` is True where a query may look.

    G key-value heads serve H query heads, in consecutive groups of H / G. Without a
    mask attention is causal, and the last query belongs to the last key.
    """
    if chosen_path("attention") == "naive":
        return naive_attention(q, k, v, scale, mask)
    n_queries, n_keys = q.shape[1], k.shape[1]
    is_causal = mask is None and 1 < n_queries == n_keys
    if mask is None and 1 < n_queries < n_keys:
        mask = causal_mask(n_queries, n_keys, q.device)[None]
    width = v.shape[-1]
    if width < q.shape[-1]:  # flash kernels want values as wide as keys: add zeros
        v = F.pad(v, (0, q.shape[-1] - width))
    shape = (*q.shape[:3], v.shape[-1])
    if n_queries == 1:  # one token: a group's heads are as many queries of one head
        q = q.reshape(q.shape[0], k.shape[2], -1, q.shape[3])  # [B, G, H / G, d]
    else:
        q = q.transpose(1, 2)
    out = F.scaled_dot_product_attention(
        q,
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=None if mask is None else mask[:, None],
        is_causal=is_causal,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[2],
    )
    out = (out if n_queries == 1 else out.transpose(1, 2)).reshape(shape)
    return out[..., :width]


def naive_attention(
    q: Float[Tensor, "B T H d"],
    k: Float[Tensor, "B S G d"],
    v: Float[Tensor, "B S G e"],
    scale: float,
    mask: Bool[Tensor, "B T S"] | None = None,
) -> Float[Tensor, "B T H e"]:
    """`attention` as its equation is written (arXiv 1706.03762, §3.2)."""
    group = q.shape[2] // k.shape[2]
    k = k.repeat_interleave(group, dim=2)  # [B, S, H, d]: heads 0..group-1 share key 0
    v = v.repeat_interleave(group, dim=2)
    if mask is None:
        mask = causal_mask(q.shape[1], k.shape[1], q.device)[None]
    scores = torch.einsum("bthd,bshd->bhts", q, k) * scale
    scores = scores.masked_fill(~mask[:, None], float("-inf"))
    weights = scores.softmax(dim=-1, dtype=torch.promote_types(q.dtype, torch.float32))
    return torch.einsum("bhts,bshe->bthe", weights.to(q.dtype), v)
