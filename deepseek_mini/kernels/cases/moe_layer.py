"""`deepseek_mini.kernels.moe_layer`: its gates, cases and peers."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from deepseek_mini.config import Config
from deepseek_mini.kernels.case import Case, Goal, demonstrate
from deepseek_mini.kernels.launch import Gate
from deepseek_mini.kernels.moe_layer import (
    TILES,
    Fp8Experts,
    combine_kernel,
    fp8_experts,
    moe_layer,
    moe_layer_fp8,
    reference,
    reference_fp8,
)
from deepseek_mini.model import ops
from deepseek_mini.model.moe import MoE
from deepseek_mini.presets import MOE_16B, V2, V3

GATES = [
    Gate(
        "sum of 8 rows of 7168, bf16",
        combine_kernel,
        {"y": "*bf16", "weights": "*fp32", "shared": "*bf16", "out": "*bf16"},
        TILES,
        {"K": 8, "D": 7168},
    )
]


@torch.no_grad()
def random_layer(config: Config, device: str, dtype=torch.bfloat16) -> MoE:
    """The sparse part of a layer, its matrices N(0, 0.6²/fan_in), made where it stays
    and in its type: V3's takes 22.5 GB in bf16.
    """
    with torch.device("meta"):
        layer = MoE(config).to(dtype)
    layer.to_empty(device=device)
    for parameter in layer.parameters():
        fan_in = parameter.shape[-1] if parameter.ndim > 1 else 4
        parameter.normal_(0, 0.6 / fan_in**0.5)
    return layer


@torch.no_grad()
def module(x: Tensor, layer: MoE):
    """The module as it is: the peer "eager"."""
    return layer(x[None])[0]


def expert_loop(x: Tensor, layer: MoE, _experts: Fp8Experts | None = None):
    """An expert after the other."""

    def run():
        with torch.no_grad(), ops.paths(moe="loop"):
            return layer(x[None])[0]

    return run


@torch.no_grad()
def grouped_mm(x: Tensor, layer: MoE):
    """The same steps by PyTorch's grouped product."""
    experts, part = layer.experts, layer.gate.part
    w1, w2, w3 = (w.detach().mT for w in (experts.w1, experts.w2, experts.w3))

    @torch.no_grad()
    def run():
        routing = layer.gate(x)
        chosen = routing.chosen.flatten()
        order = chosen.argsort(stable=True)
        counts = torch.histc(chosen.float(), part.n_routed_experts, 0, len(w1) - 1)
        product = partial(F.grouped_mm, offs=counts.cumsum(0).int())
        rows = x[order // part.n_activated_experts]
        h = F.silu(product(rows, w1)) * product(rows, w3)
        y = torch.empty_like(rows)
        y[order] = product(h, w2)
        y = y.unflatten(0, routing.chosen.shape)
        y = torch.einsum("tkd,tk->td", y, routing.weights.to(y.dtype))
        return y if layer.shared is None else y + layer.shared(x)

    return run


def cases(device: str, small: bool) -> list[Case]:
    """Whole layers at their real size: V3's in bf16 has 22.5 GB of experts."""

    @cache
    def layer(config: Config) -> MoE:
        if not config.moe.bias:
            layer.cache_clear()  # V3's is not needed any more
        made = random_layer(config, device)
        if made.gate.bias is not None:
            made.gate.bias.data *= 0.05  # small beside the scores, and the load is even
        return made

    def make(config: Config, n_tokens: int):
        def inputs():
            x = 3 * torch.randn(n_tokens, config.dim, device=device)
            return x.bfloat16(), layer(config)

        return inputs

    goals = {("V3", 4096): (Goal("F.grouped_mm", 0.95), Goal("copy", 0.65))}
    sizes = [("V3", 4096), ("V3", 1024), ("V3", 128), ("V3", 1),
             ("V2", 1024), ("MoE-16B", 1024)]  # fmt: skip
    out = []
    for name, n_tokens in [("V3", 5), ("V2", 3)] if small else sizes:
        config = {"V3": V3, "V2": V2, "MoE-16B": MOE_16B}[name]
        if small:
            config = _shrunk(config)
        part = config.moe
        moved, flops = _work(config, n_tokens)
        shape = f"{part.n_routed_experts} experts of {config.dim} x {part.inter_dim}"
        out.append(
            Case(
                f"MoE layer of {name}, {n_tokens} tokens, {shape}, bf16",
                make(config, n_tokens),
                moe_layer,
                reference,
                # h, y and their sum are rounded to bf16 here and there, there more.
                bound=2**-6,
                moved=moved,
                flops=flops,
                peers={
                    "eager": module,
                    "F.grouped_mm": grouped_mm,
                    "per-expert loop": expert_loop,
                },
                goals=goals.get((name, n_tokens), ()),
                compiled=False,
            )
        )
    return [*out, _fp8_case(make, small)]


def _fp8_case(make: Callable, small: bool) -> Case:
    """V3's layer with its routed experts in FP8, 1024 tokens."""
    config, n_tokens = (_shrunk(V3), 5) if small else (V3, 1024)

    def inputs():
        x, made = make(config, n_tokens)()
        return x, made, fp8_experts(made)

    moved, flops = _work(config, n_tokens, expert_bytes=1)
    return Case(
        f"MoE layer of V3, {n_tokens} tokens, experts in fp8",
        inputs,
        moe_layer_fp8,
        reference_fp8,
        # A number of h that falls to the next bf16 may fall to the next fp8, an eighth
        # off; but few do, and a result is a sum of many.
        bound=2**-5,
        moved=moved,
        flops=flops,
        peers={"per-expert loop": expert_loop},
        goals=(Goal("per-expert loop", 5.0), Goal("copy", 0.60)),
        compiled=False,
    )


def _shrunk(config: Config) -> Config:
    part = replace(config.moe, n_routed_experts=32, inter_dim=48)
    return replace(config, dim=64, moe=part)


def _work(config: Config, n_tokens: int, expert_bytes: int = 2) -> tuple[int, int]:
    """Bytes of the matrices that are read, with the tokens in and out; and operations.
    Experts are counted as if chosen evenly at random; all but they are in bf16.
    """
    part, width = config.moe, config.dim
    n, k, shared = (
        part.n_routed_experts,
        part.n_activated_experts,
        part.n_shared_experts,
    )
    busy = n * (1 - (1 - k / n) ** n_tokens)
    expert = 3 * width * part.inter_dim
    rest = shared * expert + n * width + 2 * n_tokens * width
    each = (k + shared) * expert + n * width
    return round(expert_bytes * busy * expert) + 2 * rest, 2 * n_tokens * each


if __name__ == "__main__":
    demonstrate(cases)
