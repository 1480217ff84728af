"""What several tests share: small configs, random weights, the measure of an error.

from helpers import error, randomise, small_config
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from deepseek_mini.config import GQA, Config, Rope, SwiGLU
from deepseek_mini.model import Transformer


def error(a: Tensor, b: Tensor) -> float:
    """How far a is from b: max|a - b| / max(1, max|b|)."""
    assert a.shape == b.shape, f"{list(a.shape)} is not {list(b.shape)}"
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).abs().max() / b.abs().max().clamp(min=1))


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights everywhere, since zeros and ones hide errors.

    Matrices N(0, 0.6²/fan_in), norms 1 + N(0, 0.3²), biases N(0, 0.3²). The embedding
    is a table and not a matrix with a fan-in, but 0.6²/width keeps it in proportion.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2:
            parameter.copy_(noise * 0.6 / parameter.shape[-1] ** 0.5)
        elif name.endswith("bias"):
            parameter.copy_(noise * 0.3)
        else:
            parameter.copy_(1 + noise * 0.3)
    return model


def small_config(**changes) -> Config:
    """A config with odd sizes, run in milliseconds; keywords replace its fields."""
    config = Config(
        vocab_size=61,
        dim=40,
        n_layers=3,
        max_seq_len=64,
        attention=GQA(n_heads=4, n_kv_heads=2, head_dim=10),
        dense=SwiGLU(inter_dim=52),
        rope=Rope(theta=10_000.0, layout="half_split"),
    )
    return replace(config, **changes)


def small_model(seed: int = 0, **changes) -> Transformer:
    """A Transformer of `small_config` with random weights, in eval()."""
    return randomise(Transformer(small_config(**changes)), seed).eval()


def random_tokens(*shape: int, vocab_size: int = 61, seed: int = 0) -> Tensor:
    """Token ids, int64, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab_size, shape, generator=generator)
