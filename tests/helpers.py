"""What several tests share: small configs, random weights, the measure of an error.

from helpers import error, randomise, small_config
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from deepseek_mini.config import GQA, MLA, MTP, Config, MoE, Rope, SwiGLU
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


LATENTS = MLA(
    4, 18, kv_lora_rank=14, qk_nope_head_dim=10, qk_rope_head_dim=8, v_head_dim=6
)
EXPERTS = MoE(
    n_routed_experts=12, n_shared_experts=2, n_activated_experts=3, inter_dim=12
)
SPARSE = {  # what each release has that the one before it does not
    "moe": {"attention": GQA(4, 4, 10), "moe": EXPERTS, "n_dense_layers": 1},
    "v2": {
        "attention": LATENTS,
        "moe": replace(EXPERTS, n_groups=4, n_limited_groups=2, route_scale=1.7),
        "n_dense_layers": 1,
        "rope": Rope(),
    },
    "v3": {
        "attention": LATENTS,
        "moe": MoE(
            12, 1, 3, 12, "sigmoid", True, 4, 2, norm_topk=True, route_scale=2.5
        ),
        "n_dense_layers": 1,
        "rope": Rope(),
        "mtp": MTP(1),
    },
}


def sparse_config(family: str, **changes) -> Config:
    """`small_config` of the family "moe", "v2" or "v3"."""
    return small_config(**{**SPARSE[family], **changes})


def sparse_model(family: str, seed: int = 0, **changes) -> Transformer:
    """A Transformer of `sparse_config` with random weights, in eval()."""
    return randomise(Transformer(sparse_config(family, **changes)), seed).eval()


def random_tokens(*shape: int, vocab_size: int = 61, seed: int = 0) -> Tensor:
    """Token ids, int64, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab_size, shape, generator=generator)
