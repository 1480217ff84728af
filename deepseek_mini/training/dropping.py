"""Token dropping: no device does more than its share, whatever the router says.

DeepSeek-V2 trains with it (arXiv 2405.04434, §2.2.4) and evaluates without; V3 is in
balance enough to do without it altogether.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from deepseek_mini.model.moe import Gate, Routing

SPARED = 10  # one sequence in so many is never dropped from, as in V2


def dropped(
    scores: Float[Tensor, "N E"],
    chosen: Int[Tensor, "N K"],
    n_devices: int,
    capacity: float,
    spared: Bool[Tensor, " N"],
) -> Bool[Tensor, "N K"]:
    """Which choices are dropped: on every device those with the lowest affinity.

    A device computes ``capacity`` times its even share of all N K choices, rounded up.
    Those of ``spared`` tokens come first and are never dropped, even beyond that.
    """
    budget = math.ceil(capacity * chosen.numel() / n_devices)
    device = (chosen // (scores.shape[1] // n_devices)).flatten()  # [N K]
    affinity = scores.detach().gather(1, chosen)
    affinity = affinity.masked_fill(spared[:, None], torch.inf).flatten()
    order = affinity.argsort(descending=True, stable=True)
    order = order[device[order].argsort(stable=True)]  # device by device, best first
    counts = device.bincount(minlength=n_devices)
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - starts[device[order]]
    return (rank >= budget).view_as(chosen) & ~spared[:, None]


@contextmanager
def token_dropping(
    model: nn.Module, n_devices: int, capacity: float, spared: Bool[Tensor, " B"]
) -> Iterator[None]:
    """Within the block, what is `dropped` of a batch of B sequences weighs nothing.

    The token keeps its shared experts and its residual. The emulation computes the
    expert all the same and multiplies by 0.
    """

    def hook(gate: Gate, args: tuple, routing: Routing) -> Routing:
        scores, chosen = routing.scores, routing.chosen
        tokens = spared.repeat_interleave(len(scores) // len(spared))
        gone = dropped(scores, chosen, n_devices, capacity, tokens.to(scores.device))
        return replace(routing, weights=routing.weights.masked_fill(gone, 0.0))

    gates = [module for module in model.modules() if isinstance(module, Gate)]
    handles = [gate.register_forward_hook(hook) for gate in gates]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
