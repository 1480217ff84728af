"""`deepseek_mini.kernels.gate`: its gates, cases and peers."""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepseek_mini.config import MoE
from deepseek_mini.kernels.case import Case, Goal, demonstrate
from deepseek_mini.kernels.gate import (
    FEW,
    TILES,
    TILES_FEW,
    _sizes,
    gate,
    gate_kernel,
    reference,
)
from deepseek_mini.kernels.launch import Gate
from deepseek_mini.presets import MOE_16B, V2, V3


def plain(
    logits: Float[Tensor, "T E"], part: MoE, bias: Float[Tensor, " E"] | None = None
) -> tuple[Int[Tensor, "T K"], Float[Tensor, "T K"]]:
    """What the model computes (see `model.moe.Gate`): the peer to be timed beside."""
    scores = logits.sigmoid() if part.score == "sigmoid" else logits.softmax(-1)
    ranked = scores if bias is None else scores + bias
    if part.n_limited_groups < part.n_groups:
        groups = ranked.unflatten(1, (part.n_groups, -1))
        worth = groups.topk(1 if bias is None else 2, dim=-1).values.sum(-1)
        best = worth.topk(part.n_limited_groups, dim=-1).indices
        out = torch.ones_like(worth, dtype=torch.bool).scatter(1, best, False)
        ranked = groups.masked_fill(out[..., None], -torch.inf).flatten(1)
    ids = ranked.topk(part.n_activated_experts, dim=-1).indices
    weights = scores.gather(1, ids)
    if part.norm_topk:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
    return ids.int(), weights * part.route_scale


RELEASED = {"V3": V3.moe, "V2": V2.moe, "MoE-16B": MOE_16B.moe}


def _gate(name: str, tiles: dict) -> Gate:
    part = RELEASED[name]
    signature = {"logits": "*fp32", "ids_out": "*i32", "weights_out": "*fp32",
                 "n_tokens": "i32", "route_scale": "fp32"}  # fmt: skip
    sizes: dict = _sizes(part)
    if part.bias:
        signature["bias"] = "*fp32"
    else:
        sizes["bias"] = None
    rows = tiles[80]["ROWS"]
    label = f"{name}: {part.n_activated_experts} of {part.n_routed_experts}"
    return Gate(
        f"{label}, {rows} a program", gate_kernel, signature, tiles, sizes,
        options={"enable_fp_fusion": False},
    )  # fmt: skip


GATES = [_gate("V3", TILES), _gate("V3", TILES_FEW), _gate("V2", TILES)]


def cases(device: str, small: bool) -> list[Case]:
    """The gates of V3, V2 and DeepSeekMoE 16B, for many tokens and for a batch."""
    sizes = [("V3", 32_768), ("V3", 128), ("V2", 32_768), ("MoE-16B", 32_768)]

    def make(part: MoE, n_tokens: int):
        def inputs():
            n = part.n_routed_experts
            logits = torch.randn(n_tokens, n, device=device)
            bias = 0.1 * torch.randn(n, device=device) if part.bias else None
            return logits, part, bias

        return inputs

    def compiled(*inputs):
        return partial(torch.compile(plain), *inputs)

    wanted = (Goal("eager", 8.0), Goal("torch.compile", 3.0), Goal("copy", 0.4))
    out = []
    for name, n_tokens in sizes:
        part, n_tokens = RELEASED[name], 20 if small else n_tokens
        n_experts = part.n_routed_experts
        out.append(
            Case(
                f"gate of {name}, {n_tokens} x {n_experts}",
                make(part, n_tokens),
                gate,
                reference,
                # Ids must be equal. Weights: eight float32 additions and divisions.
                bound=2**-20,
                moved=4 * n_tokens * (n_experts + 2 * part.n_activated_experts),
                peers={"eager": plain, "torch.compile": compiled},
                goals=wanted if name == "V3" and n_tokens > FEW else (),
                compiled=False,
            )
        )
    return out


if __name__ == "__main__":
    demonstrate(cases)
