"""From a model's scores to the distribution that the next token is drawn from."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def next_token_probabilities(
    logits: Float[Tensor, "B V"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Float[Tensor, "B V"]:
    """The distribution that a token is drawn from, after every filter; rows sum to 1.

    In this order: logits are divided by `temperature` (> 0), then only
    1. the `top_k` likeliest tokens stay (of equals the lower ids);
    2. the fewest likeliest that hold `top_p` of what is left (Holtzman et al., arXiv
       1904.09751, §3.1);
    3. those at least `min_p` times as likely as the likeliest (Nguyen et al., arXiv
       2407.01082).
    The likeliest token always stays.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    scaled = wide - wide.amax(-1, keepdim=True)  # the largest is 0: nothing overflows
    scaled = scaled / temperature
    if top_k is None and top_p is None and min_p is None:
        return scaled.softmax(dim=-1)
    ranked, ids = scaled.sort(dim=-1, descending=True, stable=True)
    keep = torch.ones_like(ranked, dtype=torch.bool)
    if top_k is not None:
        keep[:, top_k:] = False
        ranked = ranked.masked_fill(~keep, -math.inf)
    probs = ranked.softmax(dim=-1)
    if top_p is not None and top_p < 1:
        before = probs.cumsum(dim=-1) - probs  # what the likelier tokens hold already
        keep &= before < top_p
    if min_p is not None:
        keep &= probs >= min_p * probs[:, :1]
    keep[:, 0] = True
    keep = torch.zeros_like(keep).scatter(-1, ids, keep)  # from ranks back to ids
    return scaled.masked_fill(~keep, -math.inf).softmax(dim=-1)


def check_sampling(
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> None:
    """Raise ValueError for a setting that no distribution can be drawn with."""
    if not 0 <= temperature < math.inf:
        raise ValueError(
            f"temperature is {temperature}, but it must be 0 (greedy) or a positive "
            "number"
        )
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}, but it must be at least 1, or None")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}, but it must be in (0, 1], or None")
    if min_p is not None and not 0 <= min_p <= 1:
        raise ValueError(f"min_p is {min_p}, but it must be in [0, 1], or None")
