"""Mixture of experts: a gate chooses, experts compute, shared experts always do."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from deepseek_mini.config import Config
from deepseek_mini.config import MoE as MoEConfig
from deepseek_mini.model import ops
from deepseek_mini.model.ffn import SwiGLU


@dataclass(frozen=True)
class Routing:
    """What a gate decided for N tokens: `chosen` experts and their `weights`, from
    every expert's `scores` (float32 or wider; gradients flow through both).
    """

    scores: Float[Tensor, "N E"]
    chosen: Int[Tensor, "N K"]
    weights: Float[Tensor, "N K"]

    @property
    def load(self) -> Int[Tensor, " E"]:
        """How many tokens chose each expert."""
        return self.chosen.flatten().bincount(minlength=self.scores.shape[1])


_recorded: ContextVar[list[Routing] | None] = ContextVar("routings", default=None)


@contextmanager
def recording() -> Iterator[list[Routing]]:
    """Collect every `Routing` made within the block: one a MoE layer and forward pass,
    in the order of the layers. Losses and statistics of balance are made from them.
    """
    routings: list[Routing] = []
    token = _recorded.set(routings)
    try:
        yield routings
    finally:
        _recorded.reset(token)


class Gate(nn.Module):
    """Affinity of every token to every expert, and the choice of the best K.

    DeepSeekMoE (arXiv 2401.06066, §3), limited to groups as in V2 (2405.04434, §2.2.2)
    and V3 (2412.19437, §2.1.2). `bias` is V3's: training raises it where too few tokens
    come and lowers it where too many do. It has no gradient, and it takes part in the
    choice only. Computed in float32 at least.
    """

    def __init__(self, dim: int, part: MoEConfig):
        super().__init__()
        self.part = part
        self.weight = nn.Parameter(torch.empty(part.n_routed_experts, dim))
        bias = torch.zeros(part.n_routed_experts) if part.bias else None
        self.bias = nn.Parameter(bias, requires_grad=False) if part.bias else None

    def forward(self, x: Float[Tensor, "N D"]) -> Routing:
        part = self.part
        dtype = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.to(dtype), self.weight.to(dtype))  # [N, E]
        scores = logits.softmax(-1) if part.score == "softmax" else logits.sigmoid()
        ranked = scores if self.bias is None else scores + self.bias.to(dtype)
        if part.n_groups > 1:
            ranked = self._limit(ranked)
        chosen = ranked.topk(part.n_activated_experts, dim=-1).indices  # [N, K]
        weights = scores.gather(1, chosen)  # of the scores: the bias does not weigh
        if part.norm_topk:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        return Routing(scores, chosen, weights * part.route_scale)

    def _limit(self, ranked: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
        """Put the experts of all but the best groups out of reach."""
        groups = ranked.unflatten(1, (self.part.n_groups, -1))  # [N, G, E / G]
        if self.bias is None:
            worth, unreachable = groups.amax(dim=-1), 0.0
        else:
            worth, unreachable = groups.topk(2, dim=-1).values.sum(-1), -torch.inf
        best = worth.topk(self.part.n_limited_groups, dim=-1).indices
        out = torch.ones_like(worth, dtype=torch.bool).scatter(1, best, False)  # [N, G]
        return groups.masked_fill(out[..., None], unreachable).flatten(1)


class Experts(nn.Module):
    """The E routed experts, each a SwiGLU I wide, their matrices stacked.

    `loop` is the readable path, `grouped` the fast one. `linear` computes every
    product with a weight; training in FP8 puts its own in its place.
    """

    def __init__(self, dim: int, part: MoEConfig):
        super().__init__()
        n, inter = part.n_routed_experts, part.inter_dim
        self.w1 = nn.Parameter(torch.empty(n, inter, dim))
        self.w2 = nn.Parameter(torch.empty(n, dim, inter))
        self.w3 = nn.Parameter(torch.empty(n, inter, dim))
        self.linear = F.linear

    def forward(
        self,
        x: Float[Tensor, "N D"],
        chosen: Int[Tensor, "N K"],
        weights: Float[Tensor, "N K"],
    ) -> Float[Tensor, "N D"]:
        """Each token's chosen experts' outputs, weighed and added up."""
        loop = ops.chosen_path("moe") == "loop"
        return (self.loop if loop else self.grouped)(x, chosen, weights)

    def loop(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """One expert after the other: gather its tokens, compute, add back.

        The matrices are taken apart once, by `unbind`: a `w1[e]` in the loop would
        make autograd build a gradient of all E experts for each one.
        """
        out = torch.zeros_like(x)
        for e, matrices in enumerate(self._matrices()):
            token, place = torch.where(chosen == e)
            y = self._expert(x[token], *matrices)  # no tokens: an empty product
            weight = weights[token, place, None].to(y.dtype)
            out = out.index_add(0, token, (y * weight).to(x.dtype))
        return out

    def grouped(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Sort the N·K choices by expert, so that an expert's tokens are neighbours:
        one gather before the experts, one after, none between.
        """
        n_tokens, n_chosen = chosen.shape
        order = chosen.flatten().argsort(stable=True)  # [N * K]
        counts = chosen.flatten().bincount(minlength=len(self.w1)).tolist()
        pieces = x[order // n_chosen].split(counts)
        outs = [
            self._expert(piece, *matrices)
            for piece, matrices in zip(pieces, self._matrices())
            if len(piece)
        ]
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        y = torch.cat(outs)[back].view(n_tokens, n_chosen, -1)  # [N, K, D]
        return (y * weights[..., None].to(y.dtype)).sum(dim=1).to(x.dtype)

    def _matrices(self) -> zip:
        return zip(self.w1.unbind(), self.w2.unbind(), self.w3.unbind())

    def _expert(self, x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor) -> Tensor:
        gated = F.silu(self.linear(x, w1)) * self.linear(x, w3)
        return self.linear(gated, w2)


class MoE(nn.Module):
    """The feed-forward network of a sparse layer: shared experts and routed ones.

    The shared experts are one SwiGLU as wide as all of them together, which computes
    the same (arXiv 2401.06066, §3.2).
    """

    def __init__(self, config: Config):
        super().__init__()
        part = config.moe
        self.gate = Gate(config.dim, part)
        self.experts = Experts(config.dim, part)
        width = part.n_shared_experts * part.inter_dim
        self.shared = SwiGLU(config.dim, width) if width else None

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        tokens = x.flatten(0, -2)  # [N, D], N = B T
        routing = self.gate(tokens)
        recorded = _recorded.get()
        if recorded is not None:
            recorded.append(routing)
        y = self.experts(tokens, routing.chosen, routing.weights).view_as(x)
        return y if self.shared is None else y + self.shared(x)
