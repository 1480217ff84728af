"""What a step of training makes small: three parts of a loss, and its measures."""

import contextlib
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from deepseek_mini.model import recording
from deepseek_mini.training.balance import balance_loss, load_entropy, max_vio
from deepseek_mini.training.config import TrainConfig
from deepseek_mini.training.dropping import SPARED, token_dropping


def next_token_loss(
    model: nn.Module, tokens: Int[Tensor, "B window"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy, in nats, of every token given those before it in its row."""
    return _cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])


def mtp_loss(
    model: nn.Module, hidden: Float[Tensor, "B T D"], tokens: Int[Tensor, "B window"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy, in nats, of the model's MTP modules: 1/D Σₖ CEₖ over depths.

    ``hidden`` is ``model.hidden(tokens[:, :-1])``. Depth k predicts, at position i,
    token i + k + 1. DeepSeek-V3, arXiv 2412.19437, §2.2; the paper divides each sum by
    the T positions of the main model, here it is a mean over the T - k that there are.
    """
    states = model.mtp_hidden(hidden, tokens[:, :-1])
    losses = [
        _cross_entropy(model.head(state), tokens[:, k + 1 :])
        for k, state in enumerate(states, start=1)
    ]
    return torch.stack(losses).mean()


@dataclass
class Measures:
    """What a step saw: loss parts in nats, and the load of every sparse layer."""

    parts: dict[str, float] = field(default_factory=dict)
    loads: list[Int[Tensor, " E"]] = field(default_factory=list)
    dropped: list[float] = field(default_factory=list)

    def add(self, other: "Measures", share: float) -> None:
        """Take in a piece of the batch that is ``share`` of it."""
        for name, value in other.parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + value * share
        before = self.loads or [torch.zeros_like(load) for load in other.loads]
        self.loads = [a + b for a, b in zip(before, other.loads)]
        gone = self.dropped or [0.0] * len(other.dropped)
        self.dropped = [a + b * share for a, b in zip(gone, other.dropped)]

    def row(self) -> dict:
        """Columns of the metrics; for each, a list has an entry a sparse layer."""
        row = dict(self.parts)
        if self.loads:
            row["load"] = [load.tolist() for load in self.loads]
            row["max_vio"] = [round(max_vio(load), 6) for load in self.loads]
            row["load_entropy"] = [round(load_entropy(load), 6) for load in self.loads]
        if self.dropped:
            row["dropped"] = [round(share, 6) for share in self.dropped]
        return row


def training_loss(
    model: nn.Module,
    tokens: Int[Tensor, "B window"],
    config: TrainConfig,
    step: int,
    first_row: int = 0,
) -> tuple[Float[Tensor, ""], Measures]:
    """The loss whose gradient a step takes, and its parts.

    Next-token loss (``loss``), plus λ times `mtp_loss` (``mtp_loss``) if the model has
    MTP modules and λ is not 0, plus what ``config.balance`` asks for
    (``balance_loss``, weights included). ``first_row`` is the number of the first row
    since training began: every tenth row is spared from token dropping.
    """
    balance, part = config.balance, model.config.moe
    weight = config.mtp_weight_at(step) if model.mtp is not None else 0.0
    dropping = contextlib.nullcontext()
    if part is not None and balance.capacity is not None:
        spared = torch.arange(first_row, first_row + len(tokens)) % SPARED == 0
        n_devices, _ = balance.devices(part)
        dropping = token_dropping(model, n_devices, balance.capacity, spared)
    with recording() as routings, dropping:
        hidden = model.hidden(tokens[:, :-1])
        loss = _cross_entropy(model.head(hidden), tokens[:, 1:])
        measures = Measures({"loss": loss.item()})
        if weight:
            further = mtp_loss(model, hidden, tokens)
            measures.parts["mtp_loss"] = further.item()
            loss = loss + weight * further
    if part is not None and balance.has_loss:
        extra = balance_loss(routings, balance, part, len(tokens))
        measures.parts["balance_loss"] = extra.item()
        loss = loss + extra
    measures.loads = [routing.load for routing in routings]
    if balance.capacity is not None:
        gone = [(routing.weights == 0).double().mean() for routing in routings]
        measures.dropped = [share.item() for share in gone]
    return loss, measures


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
