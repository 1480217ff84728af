r"""Group relative policy optimisation: the objective, term by term.

For a question q, G answers o_1 ... o_G are sampled from the policy as it is, π_old, and
paid rewards r_1 ... r_G. No critic estimates what was to be expected: the group's mean
does. DeepSeekMath (arXiv 2402.03300, §4.1) maximises

    1/G Σ_i 1/|o_i| Σ_t { min[ρ_it Â_it, clip(ρ_it, 1 - ε, 1 + ε) Â_it] - β KL_it }

    ρ_it = π(o_it | q, o_i<t) / π_old(o_it | q, o_i<t)      how far π has moved
    Â_it = (r_i - mean(r)) / std(r)                         outcome supervision
    KL_it = π_ref / π - log(π_ref / π) - 1                  never negative

V2 (2405.04434, §4.2) and R1 (2501.12948, equation 1) print it with one ratio and one KL
for the whole answer, π(o_i | q) / π_old(o_i | q), and no 1/|o_i|. V3.2 (2512.02556,
§3.1) weighs the KL with ρ, drops wrong answers that π would hardly give any more,
leaves out the std, and lets π choose only among the tokens and the experts that π_old
chose from.

Here B = N G answers, of N questions with G answers each, neighbours in the batch; T
tokens at most. `mask` is True for the tokens of an answer, its end included.
"""

from dataclasses import dataclass
from math import inf

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deepseek_mini.model import Transformer
from deepseek_mini.posttraining.rollout import Rollout

AVERAGES = ("length", "tokens", "constant", "sum")
RATIOS = ("token", "sequence")


@dataclass(frozen=True)
class Objective:
    """What is maximised. The defaults are DeepSeekMath's with the usual ε of 0.2.

    `clip_low`, `clip_high`: ρ counts from 1 - clip_low to 1 + clip_high; inf: not
    clipped there. `beta`: weight of the KL term. `ratio`: "token", or "sequence" as
    printed for V2 and R1. `average`, for "token" only, says what a token weighs:

    - "length": 1/|o_i|, then the mean over answers (DeepSeekMath). A long answer's
      tokens weigh less: short right answers are pulled up harder, and long wrong ones
      are pushed down less than short wrong ones, which pays for length.
    - "tokens": the mean over all tokens of the batch (DAPO, arXiv 2503.14476). Every
      token weighs the same; an answer weighs as much as it is long.
    - "constant": 1 / (B `max_tokens`) (Dr. GRPO, arXiv 2503.20783). The same up to a
      factor that does not change from batch to batch.
    - "sum": Σ_t, then the mean over answers: the gradient of the printed sequence form
      where π is still π_old.

    V3.2's corrections: `unbiased_kl` weighs the KL with ρ; `off_policy` is δ: an answer
    with Â < 0 is left out when mean_t log(π_old / π) > δ; None leaves none out.

    ValueError, naming the field, for a value that cannot be meant.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    beta: float = 0.04
    ratio: str = "token"
    average: str = "length"
    max_tokens: int | None = None
    unbiased_kl: bool = False
    off_policy: float | None = None

    def __post_init__(self):
        _require(self.ratio in RATIOS, "ratio", self.ratio, f"one of {RATIOS}")
        rule = f"one of {AVERAGES}"
        _require(self.average in AVERAGES, "average", self.average, rule)
        for name in ("clip_low", "clip_high", "beta"):
            value = getattr(self, name)
            _require(value >= 0, name, value, "a number, 0 or more")
        _require(self.beta < inf, "beta", self.beta, "a finite number")
        sized = self.average != "constant" or (self.max_tokens or 0) > 0
        rule = 'the number of tokens that an answer may have, with average="constant"'
        _require(sized, "max_tokens", self.max_tokens, rule)


def _require(valid: bool, name: str, value: object, rule: str) -> None:
    if not valid:
        raise ValueError(f"Objective.{name} must be {rule}, got {value!r}")


def group_advantages(
    rewards: Float[Tensor, "N G"], scale: str = "std"
) -> Float[Tensor, "N G"]:
    """How much better than the group each answer was: outcome supervision (§4.1.2).

    `scale` "std": (r - mean) / std, with the std of these G numbers (1/G, not 1/(G-1)).
    "mean": r - mean, as in V3.2 and Dr. GRPO. "none": r, REINFORCE without a baseline.
    A group with equal rewards has nothing to tell: 0.

    Raises:
        ValueError: an unknown scale.
    """
    if scale not in ("std", "mean", "none"):
        raise ValueError(f'scale is {scale!r}, but it must be "std", "mean" or "none"')
    if scale == "none":
        return rewards
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if scale == "mean":
        return centred
    std = rewards.std(dim=1, keepdim=True, correction=0)
    return _divided(centred, std, rewards.abs().amax(dim=1, keepdim=True))


def process_advantages(
    step_rewards: Float[Tensor, "N G T"], ends: Bool[Tensor, "N G T"]
) -> Float[Tensor, "N G T"]:
    """Process supervision (§4.1.3): every step of an answer has a reward of its own.

    `ends` is True at the last token of a step, where `step_rewards` has its reward
    (elsewhere it is not read). All the rewards of a group are normalised together, and
    a token's advantage is the sum of those that are still to come, its own step's
    included. A group without steps, or with equal rewards: 0.
    """
    rewards = torch.where(ends, step_rewards, 0.0)
    count = ends.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    mean = rewards.sum(dim=(1, 2), keepdim=True) / count
    centred = torch.where(ends, rewards - mean, 0.0)
    std = (centred.square().sum(dim=(1, 2), keepdim=True) / count).sqrt()
    largest = rewards.abs().amax(dim=(1, 2), keepdim=True)
    normalised = _divided(centred, std, largest)
    return normalised.flip(-1).cumsum(-1).flip(-1)


def _divided(centred: Tensor, std: Tensor, largest: Tensor) -> Tensor:
    """centred / std, and 0 where the spread is no more than rounding of the mean."""
    flat = std <= 1e-6 * largest
    return torch.where(flat, 0.0, centred / torch.where(flat, 1.0, std))


def kl_estimate(
    logps: Float[Tensor, "*shape"], ref_logps: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """x - log x - 1 with x = π_ref / π: from one sample, of KL(π || π_ref).

    Its mean over samples of π is the KL exactly, since that of x is 1; and unlike
    -log x, which is right in the mean as well, it is never negative.
    """
    log_x = ref_logps - logps
    return log_x.exp() - log_x - 1


def grpo_loss(
    logps: Float[Tensor, "B T"],
    old_logps: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B _"],
    mask: Bool[Tensor, "B T"],
    objective: Objective = Objective(),
    ref_logps: Float[Tensor, "B T"] | None = None,
) -> Float[Tensor, ""]:
    """Minus the objective: what an optimiser can lower.

    `logps` are log π of the tokens that were sampled, with gradients; `old_logps` and
    `ref_logps` are those of π_old and π_ref. Advantages are [B, 1], or [B, T] where
    tokens have their own. What stands where `mask` is False is not read.

    Raises:
        ValueError: beta > 0 without `ref_logps`, or a sequence ratio with an advantage
            for each token.
    """
    logps, old_logps = logps.where(mask, 0.0), old_logps.detach().where(mask, 0.0)
    log_ratio = logps - old_logps  # 0 where there is no token
    drift = -log_ratio.detach().sum(1, keepdim=True) / _lengths(mask)  # log(π_old / π)
    if ref_logps is None and objective.beta > 0:
        raise ValueError(
            f"beta is {objective.beta}, but there are no ref_logps: give those of the "
            "reference model, or take beta=0"
        )
    log_ref = None if ref_logps is None else ref_logps.detach().where(mask, 0.0)

    if objective.ratio == "sequence":  # an answer is one action, and so one "token"
        if advantages.shape[1] != 1:
            raise ValueError(
                f"advantages has shape {list(advantages.shape)}, but a ratio of whole "
                f"sequences needs one an answer, [{len(mask)}, 1]"
            )
        logps, log_ratio = logps.sum(1, keepdim=True), log_ratio.sum(1, keepdim=True)
        log_ref = None if log_ref is None else log_ref.sum(1, keepdim=True)
        mask = mask.any(dim=1, keepdim=True)

    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - objective.clip_low, 1 + objective.clip_high)
    gain = torch.min(ratio * advantages, clipped * advantages)
    if objective.off_policy is not None:
        dropped = (advantages < 0) & (drift > objective.off_policy)
        gain = gain.masked_fill(dropped, 0.0)
    if objective.beta > 0:
        kl = kl_estimate(logps, log_ref)
        gain = gain - objective.beta * (ratio * kl if objective.unbiased_kl else kl)
    return -_average(gain.where(mask, 0.0), mask, objective)


def _average(
    gain: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], objective: Objective
) -> Float[Tensor, ""]:
    """One number of all tokens' gains, which are 0 where there is no token."""
    if objective.ratio == "sequence":
        return gain.mean()
    match objective.average:
        case "length":
            return (gain / _lengths(mask)).sum(dim=1).mean()
        case "tokens":
            return gain.sum() / mask.sum().clamp(min=1)
        case "constant":
            return gain.sum() / (len(gain) * objective.max_tokens)
        case _:
            return gain.sum(dim=1).mean()


def _lengths(mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B 1"]:
    """|o_i|, and 1 for an answer without tokens, which divides nothing then."""
    return mask.sum(dim=1, keepdim=True).clamp(min=1).to(torch.get_default_dtype())


@torch.no_grad()
def movement(
    logps: Float[Tensor, "B T"],
    old_logps: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B _"],
    mask: Bool[Tensor, "B T"],
    objective: Objective = Objective(),
) -> dict[str, float]:
    """How far π has moved from π_old: "ratio_max", the largest ρ or 1/ρ of any token,
    and "clipped", the share of tokens whose gradient the clip takes away.
    """
    log_ratio = (logps - old_logps).where(mask, 0.0)
    ratio = log_ratio.exp()
    high = (advantages > 0) & (ratio > 1 + objective.clip_high)
    low = (advantages < 0) & (ratio < 1 - objective.clip_low)
    clipped = ((high | low) & mask).sum() / mask.sum().clamp(min=1)
    return {"ratio_max": float(log_ratio.abs().max().exp()), "clipped": float(clipped)}


def improve(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    advantages: Float[Tensor, "B _"],
    objective: Objective = Objective(),
    reference: Transformer | None = None,
    updates: int = 1,
    minibatches: int = 1,
    generator: torch.Generator | None = None,
    keep_routing: bool = False,
    max_norm: float = 1.0,
) -> dict[str, float]:
    """The inner loop of Algorithm 1: go over the sampled answers μ = `updates` times,
    each time in `minibatches` random pieces, with a step of the optimiser for each.

    With one piece and μ = 1 every ratio is 1 and nothing is ever clipped. The
    reference's log-probabilities are computed once, and not at all for beta = 0.

    Returns the means over the steps of "loss", "kl" (nats a token, nan without a
    reference), "grad_norm" and the share "clipped", and the largest "ratio_max".

    Raises:
        ValueError: more pieces than answers, or beta > 0 without a reference.
    """
    rows = len(rollout.tokens)
    if not 1 <= minibatches <= rows:
        raise ValueError(
            f"minibatches is {minibatches}, but {rows} answers make from 1 to {rows}"
        )
    ref_logps = None
    if objective.beta > 0 and reference is not None:
        with torch.no_grad():
            ref_logps = rollout.logps_under(reference, keep_routing=keep_routing)
    reports = []
    for _ in range(updates):
        order = torch.arange(rows)
        if minibatches > 1:
            order = torch.randperm(rows, generator=generator)
        for index in order.tensor_split(minibatches):
            part = rollout.rows(index)
            logps = part.logps_under(model, keep_routing=keep_routing)
            ref = None if ref_logps is None else ref_logps[index]
            chosen = (part.logps, advantages[index], part.mask, objective)
            loss = grpo_loss(logps, *chosen, ref)
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            loss, logps = loss.detach(), logps.detach()
            apart = logps * torch.nan if ref is None else kl_estimate(logps, ref)
            reports.append(
                {
                    "loss": float(loss),
                    "kl": float(apart[part.mask].mean()),
                    "grad_norm": float(norm),
                    **movement(logps, *chosen),
                }
            )
    means = {k: sum(r[k] for r in reports) / len(reports) for k in reports[0]}
    return {**means, "ratio_max": max(r["ratio_max"] for r in reports)}
