"""`deepseek_mini.kernels.rmsnorm`: its gates, cases and peers."""

import torch
from torch import Tensor

from deepseek_mini.kernels.case import Case, Goal, demonstrate
from deepseek_mini.kernels.launch import Gate
from deepseek_mini.kernels.rmsnorm import (
    TILES,
    TILES_BACKWARD,
    add_rmsnorm,
    add_rmsnorm_backward_kernel,
    add_rmsnorm_kernel,
    reference,
)

_STREAM = {"x": "*bf16", "residual": "*bf16", "weight": "*bf16"}
_SIZES = {"D": 7168, "BLOCK": 8192}
GATES = [
    Gate(
        "forward, width 7168, bf16",
        add_rmsnorm_kernel,
        {**_STREAM, "h_out": "*bf16", "y_out": "*bf16", "inverse_out": "*fp32",
         "eps": "fp32"},
        TILES,
        _SIZES,
    ),
    Gate(
        "backward, width 7168, bf16",
        add_rmsnorm_backward_kernel,
        {"h_in": "*bf16", "weight": "*bf16", "inverse_in": "*fp32", "dy_in": "*bf16",
         "dh_in": "*bf16", "dx_out": "*bf16", "dw_parts": "*fp32", "n_rows": "i32",
         "rows_each": "i32"},
        TILES_BACKWARD,
        _SIZES,
    ),
]  # fmt: skip


def cases(device: str, small: bool) -> list[Case]:
    """DeepSeek-V3's width, forward, and forward with backward."""
    n_rows, width = (5, 200) if small else (32_768, 7168)
    shape = (n_rows, width)

    def make() -> tuple[Tensor, ...]:
        x = torch.randn(2, *shape, device=device).bfloat16()
        return x[0], x[1], torch.randn(width, device=device).bfloat16()

    def gradients(function):
        def run(x, residual, weight):
            inputs = [t.detach().requires_grad_() for t in (x, residual, weight)]
            return torch.autograd.grad(function(*inputs), inputs, [x, residual])

        return run

    stream = 2 * n_rows * width  # bytes
    return [
        Case(
            f"residual + RMSNorm, {n_rows} x {width}, bf16",
            make,
            add_rmsnorm,
            reference,
            bound=2**-6,  # two roundings to bf16 may fall the other way
            moved=4 * stream,
            goals=(Goal("copy", 0.85), Goal("torch.compile", 1.0), Goal("eager", 4.0)),
        ),
        Case(
            f"residual + RMSNorm with gradients, {n_rows} x {width}, bf16",
            make,
            gradients(add_rmsnorm),
            gradients(reference),
            # Eager rounds every intermediate gradient to bf16, this kernel only the
            # last; the bound is eager's error.
            bound=2**-5,
            moved=8 * stream,
            compiled=False,
        ),
    ]


if __name__ == "__main__":
    demonstrate(cases)
