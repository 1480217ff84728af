"""`deepseek_mini.kernels.grouped_matmul`: its gates, cases and peers."""

import torch
from torch import Tensor
from torch.nn import functional as F

from deepseek_mini.kernels import expert_sort
from deepseek_mini.kernels.case import Case, demonstrate
from deepseek_mini.kernels.cases.expert_sort import random_choices
from deepseek_mini.kernels.expert_sort import Plan
from deepseek_mini.kernels.grouped_matmul import (
    TILES,
    TILES_SWIGLU,
    grouped_kernel,
    into_experts,
    into_reference,
    rows_of_a_tile,
)
from deepseek_mini.kernels.launch import Gate


def _gate(name: str, rows: int, swiglu: bool, sizes: dict) -> Gate:
    tensors = ("x", "w", "w_up", "out") if swiglu else ("x", "w", "out")
    fast = {90: "HGMMA", 100: "UTCHMMA"} if rows >= 64 else {90: "HMMA", 100: "HMMA"}
    return Gate(
        f"{name}, tiles of {rows} rows, bf16",
        grouped_kernel,
        dict.fromkeys(tensors, "*bf16")
        | {"order": "*i32", "tile_expert": "*i32", "n_tiles": "i32"},
        (TILES_SWIGLU if swiglu else TILES)[rows],
        sizes | {"BLOCK_M": rows},
        instruction={80: "HMMA"} | fast,
    )


INTO = {"PER_TOKEN": 8, "N": 2048, "D": 7168}
OUT = {"PER_TOKEN": 0, "N": 7168, "D": 2048, "w_up": None}
GATES = [_gate("into experts", rows, True, INTO) for rows in TILES]
GATES += [_gate("out of experts", rows, False, OUT) for rows in TILES]
GATES += [
    _gate("into V2's experts", 64, True, {"PER_TOKEN": 6, "N": 1536, "D": 5120}),
    _gate("into MoE-16B's experts", 64, True, {"PER_TOKEN": 6, "N": 1408, "D": 2048}),
]


def grouped_mm(x, w1, w3, plan):
    """PyTorch's grouped product of the tokens, sorted beforehand."""
    rows, ends = _sorted(x, plan)
    w1, w3 = w1.mT, w3.mT
    return lambda: (
        F.silu(F.grouped_mm(rows, w1, offs=ends)) * F.grouped_mm(rows, w3, offs=ends)
    )


def expert_loop(x, w1, w3, plan):
    """An expert after the other, on tokens sorted beforehand."""
    pieces = _sorted(x, plan)[0].split(plan.load.tolist())
    return lambda: [
        F.silu(rows @ w1[e].T) * (rows @ w3[e].T)
        for e, rows in enumerate(pieces)
        if len(rows)
    ]


def sorted_rows(outputs) -> Tensor:
    """The rows that hold a choice; a peer's, which has no others, as they are."""
    if isinstance(outputs, list):
        return torch.cat(outputs)
    if isinstance(outputs, tuple):
        rows, order = outputs
        return rows[order >= 0]
    return outputs


def _sorted(x: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    choices = plan.order[plan.order >= 0].long()
    rows = x[choices // (plan.n_choices // len(x))]
    return rows, plan.load.cumsum(0).int()


def cases(device: str, small: bool) -> list[Case]:
    """V3's experts: 16 of them at their own size (a whole layer is `moe_layer`'s)."""
    n_experts, width, inner = (5, 48, 40) if small else (16, 7168, 2048)

    def make(each: int):
        def inputs():
            n_tokens = each * n_experts // 2
            w = torch.randn(2, n_experts, inner, width, device=device) / width**0.5
            w1, w3 = w.bfloat16()
            ids = random_choices(n_tokens, n_experts, 2, device)
            rows = rows_of_a_tile(ids.numel(), n_experts)
            plan = expert_sort.expert_sort(ids, n_experts, rows)
            return torch.randn(n_tokens, width, device=device).bfloat16(), w1, w3, plan

        return inputs

    def in_tiles(function):
        return lambda x, w1, w3, plan: (function(x, w1, w3, plan), plan.order)

    return [
        Case(
            f"{each} tokens to each of {n_experts} experts, {width} x {inner}, bf16",
            make(each),
            in_tiles(into_experts),
            in_tiles(into_reference),
            bound=2**-7,  # one step of bf16
            moved=2 * each * n_experts * (width // 2 + inner)
            + 4 * n_experts * width * inner,
            flops=4 * each * n_experts * width * inner,
            peers={"F.grouped_mm": grouped_mm, "per-expert loop": expert_loop},
            compiled=False,
            compare=sorted_rows,
        )
        for each in ((4,) if small else (1024, 8))
    ]


if __name__ == "__main__":
    demonstrate(cases)
