"""`deepseek_mini.kernels.fp8_matmul`: its gates, cases and peers."""

import torch
import triton

from deepseek_mini import fp8
from deepseek_mini.kernels.case import Case, Goal, demonstrate
from deepseek_mini.kernels.fp8_matmul import (
    TILES,
    TILES_FEW_ROWS,
    fp8_matmul,
    fp8_matmul_kernel,
    reference,
)
from deepseek_mini.kernels.launch import Gate, Tile


def _gate(name: str, tiles: dict[int, Tile]) -> Gate:
    rows, columns = tiles[90]["BLOCK_M"], tiles[90]["BLOCK_N"]
    return Gate(
        name,
        fp8_matmul_kernel,
        {"a": f"tensordesc<fp8e4nv[{rows}, 128]>", "a_scale": "*fp32",
         "b": f"tensordesc<fp8e4nv[{columns}, 128]>", "b_scale": "*fp32",
         "c": "*bf16", "M": "i32", "N": "i32:16"},
        tiles,
        {"STEPS": 56},
        instruction={90: "QGMMA", 100: "UTCQMMA"},
        refused={80: "needs sm_90"},
    )  # fmt: skip


GATES = [_gate("128 x 128", TILES), _gate("few rows, 128 x 64", TILES_FEW_ROWS)]


def cublas_bf16(a, a_scale, b, b_scale):
    """The same product of the same numbers in bf16, dequantised beforehand."""
    x = fp8.dequantise(a, a_scale, fp8.TILE).bfloat16()
    w = fp8.dequantise(b, b_scale, fp8.BLOCK).bfloat16().T
    return lambda: x @ w


def scaled_mm(a, a_scale, b, b_scale):
    """cuBLAS' product of the same tiles and blocks, its scales laid out beforehand."""
    from torch.nn.functional import ScalingType
    from torch.nn.functional import scaled_mm as product

    steps = a_scale.shape[1]
    padded = b_scale.new_zeros(b_scale.shape[0], triton.cdiv(steps, 4) * 4)
    padded[:, :steps] = b_scale
    rows, blocks = a_scale.T.contiguous().T, padded.T
    recipes = ScalingType.BlockWise1x128, ScalingType.BlockWise128x128
    return lambda: product(
        a, b.T, rows, recipes[0], blocks, recipes[1], output_dtype=torch.bfloat16
    )


def deep_gemm(a, a_scale, b, b_scale):
    """DeepSeek's own kernel, if it is installed."""
    import deep_gemm

    out = torch.empty(a.shape[0], b.shape[0], dtype=torch.bfloat16, device=a.device)
    rows = a_scale.T.contiguous().T
    return lambda: deep_gemm.fp8_gemm_nt((a, rows), (b, b_scale), out)


def cases(device: str, small: bool) -> list[Case]:
    """The last product of V3's attention, for many tokens and for a batch of 128."""
    sizes = [(40, 72, 272), (3, 130, 128)] if small else [
        (4096, 7168, 16_384), (128, 7168, 16_384)
    ]  # fmt: skip

    def make(M: int, N: int, K: int):
        def inputs():
            a = torch.randn(M, K, device=device)
            b = torch.randn(N, K, device=device) / K**0.5
            quantised = *fp8.quantise(a), *fp8.quantise(b, fp8.BLOCK)
            return tuple(t.contiguous() for t in quantised)

        return inputs

    goals = [
        (Goal("F.scaled_mm", 0.75), Goal("cuBLAS bf16", 1.2)),
        (Goal("copy", 0.70),),
    ]
    return [
        Case(
            f"fp8 product, {M} x {N} x {K}, scales 1 x 128 by 128 x 128",
            make(M, N, K),
            fp8_matmul,
            reference,
            # One step of bf16; on a GPU also sums of 128 with about 14 bits.
            bound=2**-7,
            moved=M * K + N * K + 2 * M * N,
            flops=2 * M * N * K,
            peers={"F.scaled_mm": scaled_mm, "cuBLAS bf16": cublas_bf16,
                   "deep_gemm": deep_gemm},
            goals=wanted,
            compiled=False,
        )
        for (M, N, K), wanted in zip(sizes, goals, strict=True)
    ]  # fmt: skip


if __name__ == "__main__":
    demonstrate(cases)
