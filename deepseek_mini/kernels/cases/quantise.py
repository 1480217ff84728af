"""`deepseek_mini.kernels.quantise`: its gates, cases and peers."""

import torch
import triton
from torch.nn import functional as F

from deepseek_mini import fp8
from deepseek_mini.kernels.case import Case, Goal, demonstrate
from deepseek_mini.kernels.launch import Gate
from deepseek_mini.kernels.quantise import (
    TILES,
    TILES_SWIGLU,
    quantise,
    quantise_kernel,
    reference,
    swiglu_quantise,
    swiglu_quantise_kernel,
    swiglu_reference,
)

_OUT = {"values": "*fp8e4nv", "scale_inv": "*fp32", "n_tiles": "i32"}
_REFUSED = {80: "needs sm_89"}
GATES = [
    Gate(
        f"1 x 128 tiles of {width}, {'UE8M0' if ue8m0 else 'float32'} scales",
        quantise_kernel,
        {"x": "*bf16", **_OUT},
        TILES,
        {"D": width, "UE8M0": ue8m0},
        refused=_REFUSED,
    )
    for width, ue8m0 in ((7168, False), (7168, True))
] + [
    Gate(
        "SwiGLU and 1 x 128 tiles of 2048",
        swiglu_quantise_kernel,
        {"gate_up": "*bf16", **_OUT},
        TILES_SWIGLU,
        {"D": 2048, "UE8M0": False},
        refused=_REFUSED,
    )
]


def cases(device: str, small: bool) -> list[Case]:
    """V3's activations before the first product of a layer and before the last, and
    those of V2 and DeepSeekMoE 16B.
    """
    sizes = [("V3", 32_768, 7168), ("V2", 32_768, 5120), ("MoE-16B", 32_768, 2048)]
    hidden_sizes = [
        ("V3", 32_768 * 8, 2048), ("V2", 32_768 * 6, 1536),
        ("MoE-16B", 32_768 * 6, 1408),
    ]  # fmt: skip
    if small:  # the last tile of a row is whole, or is not
        sizes = [("V3", 5, 300), ("V2", 3, 256), ("MoE-16B", 1, 100)]
        hidden_sizes = [("V3", 6, 160), ("V2", 2, 256), ("MoE-16B", 1, 88)]

    def make(rows: int, columns: int):
        return lambda: (torch.randn(rows, columns, device=device).bfloat16(),)

    def moved(rows: int, columns: int, n_inputs: int) -> int:
        return rows * (2 * n_inputs * columns + columns + 4 * triton.cdiv(columns, 128))

    def unfused(gate_up):
        gate, up = gate_up.chunk(2, dim=-1)
        return quantise(F.silu(gate) * up)

    def dequantised(outputs):
        return fp8.dequantise(*outputs, block=fp8.TILE)

    first = [
        Case(
            f"1 x 128 quantisation for {name}, {rows} x {width}, bf16 to E4M3",
            make(rows, width),
            quantise,
            reference,
            bound=0,
            moved=moved(rows, width, 1),
            goals=(Goal("copy", 0.85), Goal("eager", 6.0)) if name == "V3" else (),
        )
        for name, rows, width in sizes
    ]
    last = [
        Case(
            f"SwiGLU + quantisation for {name}, {rows} x 2 x {width}, bf16 to E4M3",
            make(rows, 2 * width),
            swiglu_quantise,
            swiglu_reference,
            # exp may differ in its last bit, so a number may fall to the next code:
            # the largest step of E4M3 is 32 of 448.
            bound=32 / 448,
            moved=moved(rows, width, 2),
            peers={"unfused": unfused},
            goals=(Goal("copy", 0.80), Goal("unfused", 2.0)) if name == "V3" else (),
            compare=dequantised,
        )
        for name, rows, width in hidden_sizes
    ]
    return first + last


if __name__ == "__main__":
    demonstrate(cases)
