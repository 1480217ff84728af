"""`deepseek_mini.kernels.grouped_fp8`: its gates, cases and peers."""

import torch
from torch import Tensor
from torch.nn import functional as F

from deepseek_mini import fp8
from deepseek_mini.kernels.case import Case, Goal, demonstrate
from deepseek_mini.kernels.cases.grouped_matmul import sorted_rows
from deepseek_mini.kernels.expert_sort import Plan, expert_sort
from deepseek_mini.kernels.fp8_matmul import fp8_matmul
from deepseek_mini.kernels.grouped_fp8 import (
    TILES,
    grouped_fp8,
    grouped_fp8_kernel,
    reference,
)
from deepseek_mini.kernels.grouped_matmul import rows_of_a_tile
from deepseek_mini.kernels.launch import Gate


def _gate(rows: int) -> Gate:
    return Gate(
        f"into experts, tiles of {rows} rows, fp8",
        grouped_fp8_kernel,
        {"x": "*fp8e4nv", "w": "tensordesc<fp8e4nv[128, 128]>", "out": "*bf16",
         "x_scale": "*fp32", "w_scale": "*fp32", "order": "*i32",
         "tile_expert": "*i32", "n_tiles": "i32"},
        TILES[rows],
        {"PER_TOKEN": 8, "N": 4096, "D": 7168, "BLOCK_M": rows},
        instruction={90: "QGMMA", 100: "UTCQMMA"} if rows >= 64 else {},
        refused={80: "needs sm_90"},
    )  # fmt: skip


GATES = [_gate(rows) for rows in TILES]


def dense(x, x_scale, w, w_scale, plan):
    """Our dense kernel: as many rows, all of them by the first expert's matrix. Its
    rows alone are right, and compared.
    """
    first = int(plan.load[0])
    rows = [_sorted(t, plan) for t in (x, x_scale)]
    return lambda: fp8_matmul(*rows, w[0], w_scale[0])[:first]


def expert_loop(x, x_scale, w, w_scale, plan):
    """Our dense kernel, an expert after the other."""
    loads = plan.load.tolist()
    pieces = zip(*(_sorted(t, plan).split(loads) for t in (x, x_scale)))
    given = [(*pair, *matrix) for pair, *matrix in zip(pieces, w, w_scale)]
    return lambda: [fp8_matmul(*one) for one in given]


def grouped_bf16(x, x_scale, w, w_scale, plan):
    """PyTorch's grouped product of the same numbers in bf16, dequantised beforehand."""
    rows = _sorted(fp8.dequantise(x, x_scale, fp8.TILE).bfloat16(), plan)
    pairs = zip(w, w_scale)
    matrices = [fp8.dequantise(*pair, fp8.BLOCK).bfloat16() for pair in pairs]
    matrices, ends = torch.stack(matrices).mT, plan.load.cumsum(0).int()
    return lambda: F.grouped_mm(rows, matrices, offs=ends)


def deep_gemm(x, x_scale, w, w_scale, plan):
    """DeepSeek's own kernel, if it is installed."""
    import deep_gemm

    rows, scales = (_sorted(t, plan) for t in (x, x_scale))
    experts = torch.arange(len(w), device=x.device, dtype=torch.int32)
    expert = experts.repeat_interleave(plan.load)
    out = torch.empty(len(rows), w.shape[1], dtype=torch.bfloat16, device=x.device)
    given = (rows, scales.T.contiguous().T), (w, w_scale), out, expert

    def run():
        deep_gemm.m_grouped_fp8_gemm_nt_contiguous(*given)
        return out

    return run


def _sorted(rows: Tensor, plan: Plan) -> Tensor:
    """One row a token, in the order of their experts."""
    return rows[plan.order[plan.order >= 0].long()]


def cases(device: str, small: bool) -> list[Case]:
    """w1 and w3 of V3's experts, side by side, as the parts of a model on eight GPUs
    or more have them: few experts, and many rows for each.
    """
    n_experts, width, columns = (3, 272, 130) if small else (8, 7168, 4096)

    def make(each: int):
        def inputs():
            n_tokens = each * n_experts
            x = torch.randn(n_tokens, width, device=device)
            w = torch.randn(n_experts, columns, width, device=device) / width**0.5
            quantised = *fp8.quantise(x), *fp8.quantise(w, fp8.BLOCK)
            ids = torch.randperm(n_tokens, device=device) % n_experts
            rows = rows_of_a_tile(n_tokens, n_experts)
            plan = expert_sort(ids[:, None].int(), n_experts, rows)
            return *(t.contiguous() for t in quantised), plan

        return inputs

    def in_tiles(function):
        return lambda *given: (function(*given, into=True), given[-1].order)

    def by_expert(each: int):
        return lambda outputs: sorted_rows(outputs).split(each)

    sizes = (9,) if small else (4096, 8)
    return [
        Case(
            f"{each} rows for each of {n_experts} experts, {columns} x {width}, fp8",
            make(each),
            in_tiles(grouped_fp8),
            in_tiles(reference),
            # One step of bf16; on a GPU also sums of 128 with about 14 bits.
            bound=2**-7,
            moved=n_experts * (each * (width + 2 * columns) + columns * width),
            flops=2 * each * n_experts * columns * width,
            peers={
                "dense fp8 kernel": dense,
                "per-expert loop": expert_loop,
                "F.grouped_mm bf16": grouped_bf16,
                "deep_gemm": deep_gemm,
            },
            goals=(Goal("dense fp8 kernel", 0.9),) if each == sizes[0] else (),
            compiled=False,
            compare=by_expert(each),
        )
        for each in sizes
    ]


if __name__ == "__main__":
    demonstrate(cases)
