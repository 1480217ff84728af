"""ESFT: fine-tune only the experts that a task uses (arXiv 2407.01906).

Score every expert on a sample of the task, take the best of each layer up to a
threshold, train these and nothing else:

    scores = relevance(model, tokens, pad)            # [L, E] each, of two kinds
    chosen = choose_experts(scores.token, p=0.2)      # a list of experts a layer
    train_experts_only(model, chosen)
    ...                                               # any training loop
    merge(model)                                      # a plain model again
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils import parametrize

from deepseek_mini.model.moe import Gate, MoE, recording

# Scores are sums of many small shares: p = 1 must be reached in spite of rounding.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Relevance:
    """How much a task uses each of the E experts of L sparse layers, in float64.

    `gate` is the average gate score, `token` the token selection ratio (§3.3 of the
    paper). A layer's `token` scores add up to 1. Its `gate` scores add up to what the
    gate gives the chosen experts together: 1 only where it normalises.
    """

    gate: Float[Tensor, "L E"]
    token: Float[Tensor, "L E"]


@torch.no_grad()
def relevance(
    model: nn.Module,
    tokens: Int[Tensor, "B T"],
    pad: Bool[Tensor, "B T"] | None = None,
    batch_size: int = 8,
) -> Relevance:
    """Score the experts of every sparse layer on B samples of a task.

    With Tⱼ tokens in sample j, of which token k gives expert i the weight g (0 where
    it was not chosen), and K experts a token:

        gate[i]  = mean over j of 1/Tⱼ Σₖ g[i, k]
        token[i] = mean over j of 1/Tⱼ Σₖ [token k chose i] / K

    So each sample counts alike, whatever its length. `pad` is True where a token is
    padding: the gate routes it like any other, but it is not counted. The constant
    `route_scale` of V2 and V3 is taken out of the weights. `batch_size` rows are read
    at a time. Experts of MTP modules are not scored.

    Raises:
        ValueError: the model has no sparse layers, or a sample is all padding.
    """
    layers = _sparse_layers(model)
    real = torch.ones_like(tokens, dtype=torch.bool) if pad is None else ~pad
    lengths = real.sum(1)  # [B]
    if lengths.min() == 0:
        raise ValueError(f"sample {int(lengths.argmin())} is all padding: leave it out")
    share = real.double() / lengths[:, None] / len(tokens)  # [B, T], adds up to 1
    part = model.config.moe
    shape = (len(layers), part.n_routed_experts)
    gate = torch.zeros(shape, dtype=torch.float64, device=tokens.device)
    token = torch.zeros_like(gate)
    for start in range(0, len(tokens), batch_size):
        rows = slice(start, start + batch_size)
        with recording() as routings:
            model.hidden(tokens[rows], pad=None if pad is None else pad[rows])
        of_token = share[rows].flatten()[:, None]  # [N, 1]
        for layer, routing in enumerate(routings):
            chosen = routing.chosen.flatten()  # [N K]
            weights = routing.weights.double() / part.route_scale * of_token
            gate[layer].index_add_(0, chosen, weights.flatten())
            once = (of_token / part.n_activated_experts).expand_as(weights)
            token[layer].index_add_(0, chosen, once.flatten())
    return Relevance(gate, token)


def choose_experts(scores: Float[Tensor, "L E"], p: float) -> list[list[int]]:
    """The smallest set of each layer whose scores add up to at least `p`, ascending.

    The best experts come first, and of two that tie the one with the lower number.
    Paper, §3.3, which takes p = 0.1 for gate scores and 0.2 for token ratios. The sum
    is within a layer. (The official script, `generate_expert_config.py`, divides by a
    sum over the *layers* first. Experts of the same number in different layers have
    nothing to do with each other, so that is another rule, and not the paper's.)

    Raises:
        ValueError: p is not positive, or a layer's scores add up to less.
    """
    if not p > 0:
        raise ValueError(f"p must be a positive number, got {p}")
    chosen = []
    for layer, row in enumerate(scores.double()):
        order = row.argsort(descending=True, stable=True)
        sums = row[order].cumsum(0)
        if sums[-1] < p - ROUNDING:
            raise ValueError(
                f"the scores of sparse layer {layer} add up to {float(sums[-1]):.4g}, "
                f"which is less than p = {p}: no set of its experts is enough"
            )
        enough = int((sums < p - ROUNDING).sum()) + 1
        chosen.append(sorted(order[:enough].tolist()))
    return chosen


def train_experts_only(model: nn.Module, chosen: Sequence[Sequence[int]]) -> None:
    """Freeze `model`, in place, but for the chosen experts of each sparse layer.

    The chosen matrices become parameters of their own, and every use of the stack puts
    them in their places. So an optimiser never sees a frozen expert: neither weight
    decay nor old momentum can move it, and no memory is spent on it. Make the
    optimiser after this; `merge` undoes it and keeps what was learned.

    Raises:
        ValueError: not one list for each sparse layer, no expert in any of them, an
            expert that does not exist or stands twice, or a model already prepared.
    """
    layers = _sparse_layers(model)
    n_experts = model.config.moe.n_routed_experts
    if len(chosen) != len(layers):
        raise ValueError(
            f"chosen has {len(chosen)} lists, but the model has {len(layers)} sparse "
            "layers: give one for each"
        )
    if not any(len(ids) for ids in chosen):
        raise ValueError("no expert is chosen in any layer: nothing would be trained")
    for layer, ids in enumerate(chosen):
        if len(set(ids)) < len(ids) or not set(ids) <= set(range(n_experts)):
            raise ValueError(
                f"the experts {list(ids)} of sparse layer {layer} must be different "
                f"numbers from 0 to {n_experts - 1}"
            )
    freeze(model)
    for layer, ids in zip(layers, chosen):
        for name in ("w1", "w2", "w3") if len(ids) else ():
            stack = getattr(layer.experts, name)
            part = _ChosenExperts(stack, ids)
            parametrize.register_parametrization(layer.experts, name, part)


def freeze(model: nn.Module) -> None:
    """Let nothing in the model be trained, in place.

    Raises:
        ValueError: it was prepared already, for ESFT or LoRA.
    """
    if any(parametrize.is_parametrized(module) for module in model.modules()):
        raise ValueError("this model is prepared already: call merge(model) first")
    model.requires_grad_(False)


def merge(model: nn.Module) -> None:
    """Make a model prepared for ESFT or LoRA plain again, in place: what was trained
    goes into the weights, and all of them can be trained (a gate's bias never is).
    """
    for module in list(model.modules()):
        for name in list(getattr(module, "parametrizations", ())):
            parametrize.remove_parametrizations(module, name)
    model.requires_grad_(True)
    for module in model.modules():
        if isinstance(module, Gate) and module.bias is not None:
            module.bias.requires_grad_(False)


def trained_parameters(model: nn.Module) -> int:
    """How many numbers an optimiser would train. AdamW keeps two more for each."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class _ChosenExperts(nn.Module):
    """A frozen stack of matrices [E, ...] with trained ones in some places."""

    def __init__(self, stack: Tensor, ids: Sequence[int]):
        super().__init__()
        self.register_buffer("ids", torch.tensor(list(ids), device=stack.device))
        self.trained = nn.Parameter(stack.detach()[self.ids].clone())

    def forward(self, frozen: Tensor) -> Tensor:
        return frozen.index_copy(0, self.ids, self.trained)


def _sparse_layers(model: nn.Module) -> list[MoE]:
    layers = [layer.ffn for layer in model.layers if isinstance(layer.ffn, MoE)]
    if not layers:
        raise ValueError("this model has no sparse layers, and so no experts")
    return layers
