"""From a model's scores to the distribution that the next token is drawn from."""

import math
from numbers import Integral, Real
from typing import Any

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
    The likeliest token always stays, and a temperature too small for the scores' type
    leaves no other.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    scaled = wide - wide.amax(-1, keepdim=True)  # the largest is 0: nothing overflows
    # A temperature that rounds to 0 in this type would make 0 / 0 of the largest.
    scaled = scaled / max(temperature, torch.finfo(wide.dtype).tiny)
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

    def require(name: str, value: Any, kind: type, ok: Any, rule: str) -> None:
        if not (isinstance(value, kind) and ok(value)):
            raise ValueError(f"{name} is {value!r}, but it must be {rule}")

    rule = "0 (greedy) or a positive number"
    require("temperature", temperature, Real, lambda t: 0 <= t < math.inf, rule)
    if top_k is not None:
        rule = "a whole number of at least 1, or None"
        require("top_k", top_k, Integral, lambda k: k >= 1, rule)
    if top_p is not None:
        require("top_p", top_p, Real, lambda p: 0 < p <= 1, "in (0, 1], or None")
    if min_p is not None:
        require("min_p", min_p, Real, lambda p: 0 <= p <= 1, "in [0, 1], or None")
