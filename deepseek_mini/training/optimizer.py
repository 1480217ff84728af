"""AdamW as DeepSeek-LLM uses it."""

import torch
from torch import nn

from deepseek_mini.training.config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with decay on matrices and embeddings, none on norms and biases.

    Decay pulls towards zero, which is no better a place for a norm's gain than 1. The
    paper gives the 0.1 and not which parameters it is for; leaving out what has one
    dimension is the custom.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = parameters[0].device.type in ("cpu", "cuda")  # same numbers, one kernel
    return torch.optim.AdamW(
        groups,
        lr=config.lr,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=fused,
    )
