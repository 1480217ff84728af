"""`deepseek_mini.kernels.rope`: its gates, cases and peers."""

import torch
from torch import Tensor

from deepseek_mini.kernels.case import Case, Goal, demonstrate
from deepseek_mini.kernels.launch import Gate
from deepseek_mini.kernels.rope import (
    TILES,
    TILES_LATENT,
    latent_backward_kernel,
    latent_kernel,
    latent_norm_rope,
    latent_reference,
    query_rope_,
    query_rope_kernel,
)
from deepseek_mini.model.rope import apply_rope

_TABLE = {"cos": "*fp32", "sin": "*fp32", "n_positions": "i32"}
_LATENT = {"C": 512, "BLOCK": 512, "R": 64}
GATES = [
    Gate(
        "128 heads of 192, the last 64 turned, bf16",
        query_rope_kernel,
        {"q": "*bf16", **_TABLE, "sign": "fp32"},
        TILES,
        {"H": 128, "HEAD": 192, "R": 64},
    ),
    Gate(
        "latent 512 and key 64, bf16",
        latent_kernel,
        {"kv": "*bf16", "weight": "*bf16", "out": "*bf16", "inverse_out": "*fp32",
         "eps": "fp32", **_TABLE},
        TILES_LATENT,
        _LATENT,
    ),
    Gate(
        "latent 512 and key 64 backward, bf16",
        latent_backward_kernel,
        {"kv": "*bf16", "weight": "*bf16", "inverse_in": "*fp32", "dout": "*bf16",
         "dkv": "*bf16", "dw_parts": "*fp32", "n_tokens": "i32", "tokens_each": "i32",
         **_TABLE},
        TILES_LATENT,
        _LATENT,
    ),
]  # fmt: skip


def cases(device: str, small: bool) -> list[Case]:
    """DeepSeek-V3's queries and latents."""
    T, H, head, C, half = (3, 5, 24, 48, 4) if small else (32_768, 128, 192, 512, 32)

    def make() -> tuple[Tensor, ...]:
        angles = torch.arange(T, device=device)[:, None] / 7.0 ** torch.arange(
            half, device=device
        )
        q = torch.randn(1, T, H, head, device=device).bfloat16()
        kv = torch.randn(1, T, C + 2 * half, device=device).bfloat16()
        weight = torch.rand(C, device=device).bfloat16() + 0.5
        return q, kv, weight, angles.cos().float(), angles.sin().float()

    def kernel(q, kv, weight, cos, sin):
        return query_rope_(q, cos, sin), latent_norm_rope(kv, weight, cos, sin)

    def plain(q, kv, weight, cos, sin):
        pe = q[..., -2 * half :]
        pe.copy_(apply_rope(pe, cos, sin))  # in place, as the kernel
        return q, latent_reference(kv, weight, cos, sin)

    return [
        Case(
            f"RoPE of {T} x {H} x {2 * half}; norm, RoPE of {T} x ({C} + {2 * half})",
            make,
            kernel,
            plain,
            bound=2**-6,  # a number or two may be rounded to bf16 the other way
            moved=2 * 2 * T * (H * 2 * half + C + 2 * half),
            goals=(Goal("copy", 0.75), Goal("torch.compile", 1.0)),
            in_place=True,
        )
    ]


if __name__ == "__main__":
    demonstrate(cases)
