"""LoRA: train a low-rank difference beside every frozen matrix (arXiv 2106.09685)."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from deepseek_mini.model.moe import Experts
from deepseek_mini.posttraining.esft import freeze


def add_lora(model: nn.Module, rank: int = 8, scaling: float = 2.0) -> None:
    """Freeze `model`, in place, and give every matrix of its layers a trained adapter.

    A matrix W [out, in] becomes W + scaling · B A with A [rank, in] random and B [out,
    rank] zero, so that the model is the same at first. Each routed expert has its own
    A and B. Embedding, head, gates and norms stay frozen. ESFT's paper compares with
    rank 8 and scaling 2. A is drawn from torch's generator. `esft.merge` adds the
    products to the weights.

    Raises:
        ValueError: a rank below 1 or wider than a matrix, or a model that is prepared
            already.
    """
    places = []
    for module in model.layers.modules():
        if isinstance(module, nn.Linear):
            places.append((module, "weight"))
        if isinstance(module, Experts):
            places += [(module, name) for name in ("w1", "w2", "w3")]
    most = min(min(getattr(*place).shape[-2:]) for place in places)
    if not 1 <= rank <= most:
        raise ValueError(
            f"rank must be from 1 to {most}, the smallest side of a matrix, got {rank}"
        )
    freeze(model)
    for module, name in places:
        adapter = _LowRank(getattr(module, name), rank, scaling)
        parametrize.register_parametrization(module, name, adapter)


class _LowRank(nn.Module):
    """A frozen matrix, or a stack of them, plus scaling · B A."""

    def __init__(self, frozen: Tensor, rank: int, scaling: float):
        super().__init__()
        *stack, n_out, n_in = frozen.shape
        self.scaling = scaling
        a = torch.randn(*stack, rank, n_in, dtype=frozen.dtype) * n_in**-0.5
        self.a = nn.Parameter(a.to(frozen.device))
        self.b = nn.Parameter(frozen.new_zeros(*stack, n_out, rank))

    def forward(self, frozen: Tensor) -> Tensor:
        return frozen + self.scaling * (self.b @ self.a)
