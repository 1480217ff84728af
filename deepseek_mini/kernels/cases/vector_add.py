"""`deepseek_mini.kernels.vector_add`: its gates and cases."""

import torch
from torch import Tensor

from deepseek_mini.kernels.case import Case, Goal, demonstrate
from deepseek_mini.kernels.launch import Gate
from deepseek_mini.kernels.vector_add import TILES, add, add_kernel, reference

_POINTERS = {"x": "*bf16", "y": "*bf16", "out": "*bf16"}
GATES = [Gate("bf16", add_kernel, {**_POINTERS, "n": "i64:16"}, TILES)]


def cases(device: str, small: bool) -> list[Case]:
    """A vector of bf16."""
    n = 1000 if small else 2**28

    def make() -> tuple[Tensor, Tensor]:
        x, y = torch.randn(2, n, device=device).bfloat16()
        return x, y

    return [
        Case(
            f"x + y, {n:,} numbers, bf16",
            make,
            add,
            reference,
            bound=0,
            moved=3 * 2 * n,
            flops=n,
            goals=(Goal("copy", 0.9), Goal("eager", 1.0)),
            compiled=False,
        )
    ]


if __name__ == "__main__":
    demonstrate(cases)
