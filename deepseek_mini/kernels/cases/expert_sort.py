"""`deepseek_mini.kernels.expert_sort`: its gates, cases and peers."""

import torch
from torch import Tensor

from deepseek_mini.kernels.case import Case, demonstrate
from deepseek_mini.kernels.expert_sort import (
    TILES,
    TILES_SUMS,
    Plan,
    count_kernel,
    expert_sort,
    place_kernel,
    reference,
    sum_kernel,
)
from deepseek_mini.kernels.launch import Gate

_IDS = {"ids": "*i32", "n_choices": "i32", "n_blocks": "i32"}
_SIZES = {"E": 256, "LANES": 256}
GATES = [
    Gate(
        "counts, 256 experts",
        count_kernel,
        {**_IDS, "counts": "*i32"},
        TILES,
        _SIZES,
    ),
    Gate(
        "sums",
        sum_kernel,
        {"counts": "*i32", "load": "*i32", "n_blocks": "i32"},
        TILES_SUMS,
    ),
    Gate(
        "places, 256 experts",
        place_kernel,
        {**_IDS, "before": "*i32", "load": "*i32", "order": "*i32",
         "tile_expert": "*i32", "n_tiles": "i32"},
        TILES,
        {**_SIZES, "TILE_ROWS": 128},
    ),
]  # fmt: skip


def random_choices(n_tokens: int, n_experts: int, k: int, device: str) -> Tensor:
    """Different experts for every token, at random: int32 [T, K]."""
    scores = torch.rand(n_tokens, n_experts, device=device)
    return scores.topk(k, dim=-1).indices.int()


def cases(device: str, small: bool) -> list[Case]:
    """V3's choices, for many tokens and for one."""
    n_experts = 20 if small else 256

    def make(n_tokens: int, tile_rows: int):
        return lambda: (
            random_choices(n_tokens, n_experts, 8, device),
            n_experts,
            tile_rows,
        )

    def arrays(plan: Plan) -> tuple[Tensor, ...]:
        return plan.order, plan.tile_expert, plan.load

    return [
        Case(
            f"{n_tokens} x 8 choices of {n_experts} experts, tiles of {tile_rows}",
            make(n_tokens, tile_rows),
            expert_sort,
            reference,
            bound=0,
            moved=4 * (2 * 8 * n_tokens + n_experts),
            compare=arrays,
            compiled=False,
        )
        for n_tokens, tile_rows in (
            ((9, 16), (1, 16)) if small else ((4096, 128), (1, 16))
        )
    ]


if __name__ == "__main__":
    demonstrate(cases)
