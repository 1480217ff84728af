"""Answers sampled in groups, and how likely a model finds them.

B = N G answers to N prompts, those of a prompt side by side; P tokens of prompt (padded
on the left), at most T of answer, V entries in the vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepseek_mini.generate import evaluating, generate, left_pad
from deepseek_mini.model import Transformer
from deepseek_mini.model.moe import Gate, Routing, recording
from deepseek_mini.sampling import next_token_probabilities


@dataclass(frozen=True)
class Rollout:
    """What was sampled, and what a later update must know of it.

    `mask` is True for an answer's tokens, its end included, and `ended` where there is
    one: the others ran out of room. `logps` are log π_old of the tokens, of the
    distribution that they were drawn from. `allowed` are the tokens that the filters
    left (None without filters), `experts` each sparse layer's choices.
    """

    tokens: Int[Tensor, "B N"]  # prompt and answer, N = P + T
    pad: Bool[Tensor, "B N"] | None
    mask: Bool[Tensor, "B T"]
    ended: Bool[Tensor, " B"]
    logps: Float[Tensor, "B T"]
    temperature: float = 1.0
    allowed: Bool[Tensor, "B T V"] | None = None
    experts: tuple[Int[Tensor, "B M K"], ...] = ()  # M = N - 1

    @property
    def lengths(self) -> Int[Tensor, " B"]:
        """Tokens of every answer, its end included."""
        return self.mask.sum(dim=1)

    def answers(self) -> list[list[int]]:
        """The ids of every answer, without the token that ended it."""
        new = self.tokens[:, -self.mask.shape[1] :]
        kept = (self.lengths - self.ended.long()).tolist()
        return [row[:n] for row, n in zip(new.tolist(), kept, strict=True)]

    def rows(self, index: Int[Tensor, " b"]) -> "Rollout":
        """Some of the answers: a minibatch."""

        def of(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[index]

        return Rollout(
            *map(of, (self.tokens, self.pad, self.mask, self.ended, self.logps)),
            self.temperature,
            of(self.allowed),
            tuple(experts[index] for experts in self.experts),
        )

    def logps_under(
        self, model: Transformer, keep_sampling: bool = True, keep_routing: bool = False
    ) -> Float[Tensor, "B T"]:
        """log π of the same tokens under another model, or a later one; with gradients
        where they are on. V3.2 (arXiv 2512.02556, §3.1) has π choose only among the
        tokens that the filters left to π_old (`keep_sampling`), and compute with the
        experts that π_old used (`keep_routing`).
        """
        allowed = self.allowed if keep_sampling else None
        experts = self.experts if keep_routing else ()
        n_new = self.mask.shape[1]
        with fixed_experts(model, experts):
            logits = answer_logits(model, self.tokens, n_new, self.pad)
        return token_logps(logits, self.tokens[:, -n_new:], self.temperature, allowed)


@torch.no_grad()
def sample_groups(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    group: int,
    max_new_tokens: int,
    stop: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
) -> Rollout:
    """`group` answers to every prompt, up to the token `stop`, with the KV cache.

    All of them are decoded together; the log-probabilities come from one pass over the
    finished texts, the same that an update makes, so that its first ratio is 1.

    Raises:
        ValueError: no group, a temperature of 0 (which has no probabilities), or what
            `generate` refuses.
    """
    if group < 1 or temperature <= 0:
        raise ValueError(
            f"group is {group} and temperature {temperature}, but there must be at "
            "least one answer, drawn at a temperature above 0"
        )
    repeated = [prompt for prompt in prompts for _ in range(group)]
    padded, left = left_pad(repeated, pad_id=stop)
    left = left if left.any() else None  # without padding attention is faster
    tokens = generate(
        model,
        padded,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop=stop,
        seed=seed,
        pad=left,
    )
    n_new = tokens.shape[1] - padded.shape[1]
    ends = tokens[:, -n_new:] == stop
    mask = ends.cumsum(dim=1) - ends.long() == 0  # no end before it
    pad = None
    if left is not None:
        pad = torch.cat((left.to(mask.device), torch.zeros_like(mask)), dim=1)
    with evaluating(model), recording() as routings:
        logits = answer_logits(model, tokens, n_new, pad)
    allowed = None
    if top_k is not None or top_p is not None:
        flat = logits.flatten(0, 1)
        kept = next_token_probabilities(flat, temperature, top_k, top_p) > 0
        allowed = kept.view_as(logits)
    logps = token_logps(logits, tokens[:, -n_new:], temperature, allowed)
    experts = tuple(r.chosen.unflatten(0, (len(tokens), -1)) for r in routings)
    ended = ends.any(dim=1)
    return Rollout(tokens, pad, mask, ended, logps, temperature, allowed, experts)


def answer_logits(
    model: Transformer,
    tokens: Int[Tensor, "B N"],
    n_new: int,
    pad: Bool[Tensor, "B N"] | None = None,
) -> Float[Tensor, "B T V"]:
    """The scores that the last T = `n_new` tokens were drawn by."""
    before = None if pad is None else pad[:, :-1]
    hidden = model.hidden(tokens[:, :-1], pad=before)  # token t is judged from t - 1
    return model.head(hidden[:, -n_new:])


def token_logps(
    logits: Float[Tensor, "B T V"],
    chosen: Int[Tensor, "B T"],
    temperature: float = 1.0,
    allowed: Bool[Tensor, "B T V"] | None = None,
) -> Float[Tensor, "B T"]:
    """log-probabilities of the `chosen` tokens, at the temperature they were drawn at,
    among the `allowed` ones. In float32 at least.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    scores = logits.to(wide) / temperature
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    return scores.log_softmax(dim=-1).gather(-1, chosen[..., None])[..., 0]


@contextmanager
def fixed_experts(
    model: Transformer, experts: Sequence[Int[Tensor, "B M K"]]
) -> Iterator[None]:
    """Within the block every sparse layer uses these experts, an entry a layer; how
    much each weighs is still the gate's to say. No entries: nothing is fixed.
    """
    gates = [m for m in model.layers.modules() if isinstance(m, Gate)]
    if not experts:
        yield
        return
    hooks = []
    for layer, its_experts in zip(gates, experts, strict=True):
        flat = its_experts.flatten(0, 1)  # [N, K]

        def keep(gate, args, routing, chosen=flat):
            weights = routing.scores.gather(1, chosen)
            if gate.part.norm_topk:
                weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
            return Routing(routing.scores, chosen, weights * gate.part.route_scale)

        hooks.append(layer.register_forward_hook(keep))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
