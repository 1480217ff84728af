"""`deepseek_mini.kernels.matmul`: its gates and cases."""

import torch
from torch import Tensor

from deepseek_mini.kernels.case import Case, Goal, demonstrate
from deepseek_mini.kernels.launch import Gate
from deepseek_mini.kernels.matmul import TILES, matmul, matmul_kernel, reference

_ARGUMENTS = {"a": "*bf16", "b": "*bf16", "out": "*bf16"}
_ARGUMENTS |= {"M": "i32:16", "N": "i32:16", "K": "i32:16"}
GATES = [
    Gate(
        "bf16",
        matmul_kernel,
        _ARGUMENTS,
        TILES,
        {"PRECISION": "ieee"},
        instruction={80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"},
    )
]


def cases(device: str, small: bool) -> list[Case]:
    """A square, and the first matrix of V3's dense layers on 4096 tokens."""
    shapes = ((80, 48, 72),) if small else ((8192, 8192, 8192), (4096, 18_432, 7168))
    return [_case(device, *shape) for shape in shapes]


def _case(device: str, M: int, N: int, K: int) -> Case:
    def make() -> tuple[Tensor, Tensor]:
        a = torch.randn(M, K, device=device).bfloat16()
        return a, (torch.randn(K, N, device=device) * K**-0.5).bfloat16()

    def in_bf16(a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    return Case(
        f"{M} x {K} times {K} x {N}, bf16",
        make,
        matmul,
        reference,
        bound=2**-7,  # one rounding to bf16, which sums in another order may move
        moved=2 * (M * K + K * N + M * N),
        flops=2 * M * N * K,
        peers={"cuBLAS bf16": in_bf16},
        goals=(Goal("bf16", 0.6),),
        compiled=False,
    )


if __name__ == "__main__":
    demonstrate(cases)
