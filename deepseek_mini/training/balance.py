"""Balance between experts: losses that ask for it, a bias that makes it, its measures.

N tokens choose K of E experts each. A batch's `Routing` (``deepseek_mini.model``) has
the affinities ``scores`` [N, E] and the choices ``chosen`` [N, K]; ``with recording()
as routings: model(tokens)`` gives one for each sparse layer:

    loss + 0.001 * sum(expert_loss(r.scores, r.chosen) for r in routings)  # a penalty
    update_bias(gate.bias, routing.load, speed=0.001)   # or, after the step, no penalty
    max_vio(routing.load)                               # 0 is perfect balance

Every loss is a sum of products f · P. The frequency f counts choices, so no gradient
flows through it; P is a mean of scores, and through it the router learns. A uniform
router has the value 1. Scores are divided by their sum over the experts, which changes
nothing for softmax and is V3's P for sigmoid.

``TrainConfig(balance=Balance(...))`` has the training loop do all of this.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepseek_mini.config import Config, MoE
from deepseek_mini.model.moe import Routing


@dataclass(frozen=True)
class Balance:
    """What keeps the experts of a model in balance; the defaults do nothing.

    The first four are the weights α of the losses below, added up over layers.
    ``bias_speed`` is V3's γ: what the bias moves by in a step, for the share
    ``bias_until`` of the steps (V3: 0.001, for 14.3 of 14.8 trillion tokens), then 0.
    ``capacity`` drops what a device is sent beyond so many times its even share (see
    ``training.dropping``). ``n_devices`` is how many devices the experts are imagined
    on, in equal consecutive parts; None is one for each of the model's groups.

    DeepSeekMoE 16B has expert_loss 0.001; V2 has expert_loss 0.003, device_loss 0.05,
    comm_loss 0.02, capacity 1; V3 has bias_speed 0.001, sequence_loss 0.0001.
    ValueError, naming the field, for a value that cannot be meant.
    """

    expert_loss: float = 0.0
    device_loss: float = 0.0
    comm_loss: float = 0.0
    sequence_loss: float = 0.0
    bias_speed: float = 0.0
    bias_until: float = 14.3 / 14.8
    capacity: float | None = None
    n_devices: int | None = None

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            rule = "a number, 0 or more"
            valid = number and 0 <= value < math.inf
            if field.name == "bias_until":
                valid, rule = valid and value <= 1, "a number from 0 to 1"
            if field.name == "capacity":
                valid, rule = valid and value > 0, "a positive number or None"
            if field.name == "n_devices":
                valid = isinstance(value, int) and valid and value >= 1
                rule = "a whole number of at least 1, or None"
            if not valid:
                raise ValueError(f"Balance.{field.name} must be {rule}, got {value!r}")

    @property
    def has_loss(self) -> bool:
        """Whether something is added to the loss."""
        weights = (self.expert_loss, self.device_loss, self.comm_loss)
        return any(weights) or self.sequence_loss > 0

    def devices(self, part: MoE) -> tuple[int, int]:
        """How many devices there are for a model, and to how many a token is sent at
        most: V2's D and M. ValueError if they do not divide the experts.
        """
        n_devices = part.n_groups if self.n_devices is None else self.n_devices
        if part.n_routed_experts % n_devices:
            raise ValueError(
                f"Balance.n_devices must divide the {part.n_routed_experts} routed "
                f"experts, got {n_devices}"
            )
        limited = n_devices == part.n_groups
        most = part.n_limited_groups if limited else part.n_activated_experts
        return n_devices, min(most, n_devices)

    def speed_at(self, step: int, steps: int) -> float:
        """γ of a step, counted from 0."""
        return self.bias_speed if step < self.bias_until * steps else 0.0


def default_balance(config: Config) -> Balance:
    """What the paper of such a model uses, with γ for runs of hundreds of steps."""
    part = config.moe
    if part is None:
        return Balance()
    if part.bias:
        return Balance(bias_speed=0.01, sequence_loss=1e-4)
    if part.n_groups > 1:
        return Balance(expert_loss=0.003, device_loss=0.05, comm_loss=0.02)
    return Balance(expert_loss=0.001)


def expert_loss(
    scores: Float[Tensor, "N E"], chosen: Int[Tensor, "N K"]
) -> Float[Tensor, ""]:
    """Σᵢ fᵢ Pᵢ over experts, fᵢ = E/(K N) · #(tokens that chose i), Pᵢ = mean score.

    DeepSeekMoE, arXiv 2401.06066, §3.3.
    """
    frequency, share = _frequency_and_share(scores, chosen)
    return (frequency * share).sum()


def device_loss(
    scores: Float[Tensor, "N E"], chosen: Int[Tensor, "N K"], n_devices: int
) -> Float[Tensor, ""]:
    """Σ f′ P′ over devices: f′ is the mean of its experts' f, P′ the sum of their P.

    The experts of one device may differ as long as the device as a whole has its share
    of the work. DeepSeekMoE, arXiv 2401.06066, §3.3.
    """
    frequency, share = _frequency_and_share(scores, chosen)
    frequency = frequency.unflatten(0, (n_devices, -1)).mean(1)  # [D]
    share = share.unflatten(0, (n_devices, -1)).sum(1)  # [D]
    return (frequency * share).sum()


def communication_loss(
    scores: Float[Tensor, "N E"],
    chosen: Int[Tensor, "N K"],
    n_devices: int,
    n_limited: int,
) -> Float[Tensor, ""]:
    """Σ f″ P″ over devices: f″ = D/(M N) · #(tokens sent there), P″ the sum of P.

    A token is sent to a device once, however many of its experts it chose: what is
    balanced is what each device receives. M = ``n_limited``, the most devices that a
    token is sent to. DeepSeek-V2, arXiv 2405.04434, §2.2.3.
    """
    n_experts = scores.shape[1]
    share = _normalised(scores).mean(0).unflatten(0, (n_devices, -1)).sum(1)  # [D]
    sent = scores.new_zeros(len(scores), n_devices)  # [N, D]
    sent.scatter_(1, chosen // (n_experts // n_devices), 1.0)
    return (sent.mean(0) * n_devices / n_limited * share).sum()


def sequence_loss(
    scores: Float[Tensor, "N E"], n_rows: int, n_activated: int
) -> Float[Tensor, ""]:
    """`expert_loss` within each of the ``n_rows`` sequences, averaged over them.

    The N tokens are the sequences one after the other. What counts as chosen are the
    ``n_activated`` highest scores, as the paper prints it: without the bias and without
    the limit to groups. DeepSeek-V3, arXiv 2412.19437, §2.1.2.
    """
    n_experts = scores.shape[1]
    best = scores.topk(n_activated, dim=-1).indices.view(n_rows, -1)  # [B, T K]
    counts = scores.new_zeros(n_rows, n_experts)
    counts.scatter_add_(1, best, torch.ones_like(best, dtype=scores.dtype))
    frequency = counts * n_experts / best.shape[1]  # [B, E]
    share = _normalised(scores).unflatten(0, (n_rows, -1)).mean(1)  # [B, E]
    return (frequency * share).sum(-1).mean()


def balance_loss(
    routings: Iterable[Routing], balance: Balance, part: MoE, n_rows: int
) -> Float[Tensor, ""]:
    """The losses that ``balance`` asks for, times their α, added up over layers."""
    n_devices, n_limited = balance.devices(part)
    terms = []
    for r in routings:
        on_devices = (r.scores, r.chosen, n_devices)
        if balance.expert_loss:
            terms.append(balance.expert_loss * expert_loss(r.scores, r.chosen))
        if balance.device_loss:
            terms.append(balance.device_loss * device_loss(*on_devices))
        if balance.comm_loss:
            terms.append(balance.comm_loss * communication_loss(*on_devices, n_limited))
        if balance.sequence_loss:
            loss = sequence_loss(r.scores, n_rows, r.chosen.shape[1])
            terms.append(balance.sequence_loss * loss)
    return torch.stack(terms).sum() if terms else torch.zeros(())


@torch.no_grad()
def update_bias(bias: Float[Tensor, " E"], load: Int[Tensor, " E"], speed: float):
    """Move the bias, in place, by ``speed``: up for experts with less than the mean
    load, down for those with more. After a step, from the load of its whole batch.

    DeepSeek-V3, arXiv 2412.19437, §2.1.2 (and 2408.15664). The sign alone
    counts: how far off an expert is makes no difference.
    """
    load = load.to(bias.device, bias.dtype)
    bias += speed * (load.mean() - load).sign()


def max_vio(load: Int[Tensor, " E"]) -> float:
    """The busiest expert's load over the mean, minus 1: 0 is perfect balance, E/K - 1
    the worst. MaxVio of arXiv 2408.15664.
    """
    load = load.double()
    return float(load.max() / load.mean()) - 1


def load_entropy(load: Int[Tensor, " E"]) -> float:
    """-Σ p ln p of the experts' shares p of the load, in nats; ln E is the most."""
    share = load.double() / load.sum()
    return float(-torch.special.xlogy(share, share).sum())


def _frequency_and_share(scores: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """f and P of every expert, [E] each; f is 1 for an expert with an even share."""
    n_experts = scores.shape[1]
    counts = chosen.flatten().bincount(minlength=n_experts)
    frequency = counts.to(scores.dtype) * n_experts / chosen.numel()
    return frequency, _normalised(scores).mean(0)


def _normalised(scores: Tensor) -> Tensor:
    return scores / scores.sum(-1, keepdim=True)
