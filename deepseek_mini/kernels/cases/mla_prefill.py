"""`deepseek_mini.kernels.mla_prefill` and its backward pass: gates, cases and peers."""

import torch

from deepseek_mini.kernels.case import Case, Goal, demonstrate
from deepseek_mini.kernels.launch import Gate
from deepseek_mini.kernels.mla_prefill import (
    TILES,
    mla_prefill,
    prefill_kernel,
    reference,
)
from deepseek_mini.kernels.mla_prefill_backward import (
    TILES_KEYS,
    TILES_QUERIES,
    keys_kernel,
    queries_kernel,
)

_QUERIES = ("q_n_b", "q_n_t", "q_n_h", "q_r_b", "q_r_t", "q_r_h")
_KEYS = ("k_n_b", "k_n_t", "k_n_h", "k_r_b", "k_r_t", "v_b", "v_t", "v_h")
_INPUTS = {
    **dict.fromkeys(("q_nope", "q_pe", "k_nope", "k_pe", "v"), "*bf16"),
    "lengths": "*i32",
    "news": "*i32",
    "lse": "*fp32",
    "n_queries": "i32",
    **dict.fromkeys(_QUERIES + _KEYS, "i32:16"),
}
_GRADIENTS = {"d_out": "*bf16", "delta": "*fp32", "scale": "fp32"}
_SIZES = {"N": 128, "R": 64, "V": 128}
_INSTRUCTION = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}
GATES = [
    Gate(
        "forward, bf16",
        prefill_kernel,
        _INPUTS | {"out": "*bf16", "scale_log2": "fp32"},
        TILES,
        _SIZES,
        _INSTRUCTION,
        stack={80: 8},
    ),
    Gate(
        "gradient of the queries, bf16",
        queries_kernel,
        _INPUTS | _GRADIENTS | {"dq_nope": "*bf16", "dq_pe": "*bf16"},
        TILES_QUERIES,
        _SIZES,
        _INSTRUCTION,
        stack={80: 40},
    ),
    Gate(
        "gradients of keys and values, bf16",
        keys_kernel,
        _INPUTS
        | _GRADIENTS
        | {"dk_nope": "*bf16", "dk_pe_parts": "*fp32", "dv": "*bf16", "n_keys": "i32"},
        TILES_KEYS,
        _SIZES,
        _INSTRUCTION,
        stack={90: 40},
    ),
]


def _sdpa(backend: str | None = None):
    """PyTorch's attention: the backend that it chooses, or one by name."""

    def run(q_nope, q_pe, k_nope, k_pe, v, scale):
        # It wants one key a head, so the shared RoPE key is copied to all of them.
        k_pe = k_pe[:, :, None].expand(-1, -1, q_pe.shape[2], -1)
        q, k = torch.cat((q_nope, q_pe), -1), torch.cat((k_nope, k_pe), -1)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        attend = torch.nn.functional.scaled_dot_product_attention
        if backend is None:
            return attend(q, k, v, scale=scale, is_causal=True).transpose(1, 2)
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(getattr(SDPBackend, backend)):
            return attend(q, k, v, scale=scale, is_causal=True).transpose(1, 2)

    return run


PEERS = {"SDPA": _sdpa()} | {
    f"SDPA {name.lower()}": _sdpa(name)
    for name in ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION")
}


def _gradients(function):
    def run(*inputs):
        *tensors, scale = inputs
        tensors = [x.detach().requires_grad_() for x in tensors]
        out = function(*tensors, scale)
        out = out[0] if isinstance(out, tuple) else out
        return torch.autograd.grad(
            out, tensors, tensors[-1].detach()[:, : out.shape[1]]
        )

    return run


def cases(device: str, small: bool) -> list[Case]:
    """DeepSeek-V3's 128 heads over 8192 tokens; gradients with 16, as on 8 GPUs."""
    T, N, R, V = (70, 32, 16, 32) if small else (8192, 128, 64, 128)

    def case(H: int, gradients: bool, *goals: Goal) -> Case:
        def make() -> tuple:
            # Queries twice their usual size: some keys weigh much more than others.
            q = (2 * torch.randn(1, T, H, N + R, device=device)).bfloat16()
            kv = torch.randn(1, T, H, N + V, device=device).bfloat16()
            k_pe = torch.randn(1, T, R, device=device).bfloat16()
            (q_nope, q_pe), (k_nope, v) = q.split((N, R), -1), kv.split((N, V), -1)
            return q_nope, q_pe, k_nope, k_pe, v, (N + R) ** -0.5

        wrap = _gradients if gradients else _same
        pairs = T * (T + 1) // 2  # of a query and a key that it sees
        numbers = T * H * (2 * N + R + 2 * V) + T * R
        flops = 2 * H * pairs * (N + R + V)
        if gradients:  # five products more, and every input's gradient to write
            flops += 2 * H * pairs * (3 * (N + R) + 2 * V)
            numbers *= 2
        return Case(
            f"MLA prefill{' with gradients' * gradients}, {T} tokens, {H} heads, bf16",
            make,
            wrap(mla_prefill),
            wrap(reference if small else _by_heads),
            # Weights and result are rounded to bf16, 2^-8 of what is summed each. The
            # gradients have two products in a row of which that is true.
            bound=2**-6 if gradients else 2**-7,
            moved=2 * numbers,
            flops=flops,
            peers={name: wrap(peer) for name, peer in PEERS.items()},
            goals=goals,
            compiled=False,  # the reference is for its numbers: float32, not fast
        )

    fast = Goal("bf16", 0.6), Goal("SDPA", 1.5)
    heads = (3, 2) if small else (128, 16)
    return [case(heads[0], False, *fast), case(heads[1], True)]


def _same(function):
    return function


def _by_heads(q_nope, q_pe, k_nope, k_pe, v, scale):
    """`reference` one head at a time: the scores of 8192 tokens are 0.3 GB a head."""
    outs = [
        reference(*(x[:, :, h : h + 1] for x in (q_nope, q_pe, k_nope)), k_pe,
                  v[:, :, h : h + 1], scale)
        for h in range(v.shape[2])
    ]  # fmt: skip
    return tuple(torch.cat(parts, 2) for parts in zip(*outs, strict=True))


if __name__ == "__main__":
    demonstrate(cases)
