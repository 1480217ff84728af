"""A whole mixture of experts: gate, sort, two grouped products, weighted sum.

Five launches between the tokens and the result, besides the two plain products that
need no kernel of ours (the gate's with its weight, the shared experts'). Each token's K
results lie side by side, so the last kernel adds them up in the order of its choices:
the same sum in every run, where atomic additions would come in any order.
"""

from dataclasses import dataclass
from functools import partial

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from deepseek_mini import fp8
from deepseek_mini.kernels import grouped_fp8, grouped_matmul
from deepseek_mini.kernels.expert_sort import expert_sort
from deepseek_mini.kernels.expert_sort import reference as sort_reference
from deepseek_mini.kernels.gate import gate
from deepseek_mini.kernels.gate import reference as exact_gate
from deepseek_mini.kernels.launch import contiguous, pick
from deepseek_mini.kernels.quantise import quantise, swiglu_quantise
from deepseek_mini.model.moe import MoE

TILES = {80: {"BLOCK": 1024, "num_warps": 4}, 0: {"BLOCK": 64}}


@triton.jit
def combine_kernel(
    y, weights, shared, out, K: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr
):
    """One token, BLOCK columns: the sum of its K rows of y and the shared experts'."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < D
    total = tl.zeros((BLOCK,), tl.float32)
    for k in tl.static_range(K):
        row = tl.load(y + (token * K + k) * D + column, inside, 0.0)
        total += tl.load(weights + token * K + k) * row.to(tl.float32)
    if shared is not None:
        total += tl.load(shared + token * D + column, inside, 0.0).to(tl.float32)
    tl.store(out + token * D + column, total, inside)


def combine(
    y: Float[Tensor, "choices D"],
    weights: Float[Tensor, "T K"],
    shared: Float[Tensor, "T D"] | None = None,
) -> Float[Tensor, "T D"]:
    """Each token's K rows of y, weighed and added up, and `shared` added; float32 sums.

    Raises:
        ValueError: y has not K rows a token, shared is of another type, or a tensor is
            not contiguous.
    """
    (n_tokens, k), width = weights.shape, y.shape[1]
    if len(y) != n_tokens * k:
        raise ValueError(f"y has {len(y)} rows, but {n_tokens} x {k} were chosen")
    if shared is not None and shared.dtype != y.dtype:
        raise ValueError(f"y is {y.dtype}, but shared is {shared.dtype}")
    contiguous(y=y, weights=weights, **({} if shared is None else {"shared": shared}))
    out = torch.empty(n_tokens, width, dtype=y.dtype, device=y.device)
    tile = pick(TILES, y)
    if n_tokens:
        grid = (n_tokens, triton.cdiv(width, tile["BLOCK"]))
        combine_kernel[grid](y, weights, shared, out, K=k, D=width, **tile)
    return out


def combine_reference(
    y: Float[Tensor, "choices D"],
    weights: Float[Tensor, "T K"],
    shared: Float[Tensor, "T D"] | None = None,
) -> Float[Tensor, "T D"]:
    """`combine` in plain PyTorch (float64 stays float64)."""
    wide = torch.promote_types(y.dtype, torch.float32)
    out = torch.einsum("tkd,tk->td", y.to(wide).unflatten(0, weights.shape), weights)
    return (out if shared is None else out + shared).to(y.dtype)


@torch.no_grad()
def moe_layer(x: Float[Tensor, "T D"], layer: MoE) -> Float[Tensor, "T D"]:
    """What the module computes from its own weights (DeepSeek-V3, arXiv 2412.19437,
    §2.1.2), without gradients. x and the experts are of one type, bf16 or fp16.

    Raises:
        ValueError: x is of another type than the experts, or not contiguous.
    """
    experts, part = layer.experts, layer.gate.part
    contiguous(x=x)
    ids, weights = gate(_logits(x, layer), part, _bias(layer))
    n_experts = part.n_routed_experts
    tile_rows = grouped_matmul.rows_of_a_tile(ids.numel(), n_experts)
    plan = expert_sort(ids, n_experts, tile_rows)
    h = grouped_matmul.into_experts(x, experts.w1, experts.w3, plan)
    y = grouped_matmul.out_of_experts(h, experts.w2, plan)
    return combine(y, weights, None if layer.shared is None else layer.shared(x))


@dataclass(frozen=True)
class Fp8Experts:
    """The routed experts' matrices in E4M3 and their scales for 128 x 128 blocks.

    w13 [E, 2I, D] has w1's rows and then w3's, w2 is [E, D, I].
    """

    w13: Tensor
    w13_scale: Float[Tensor, "E two_m n"]
    w2: Tensor
    w2_scale: Float[Tensor, "E n m"]


@torch.no_grad()
def fp8_experts(layer: MoE) -> Fp8Experts:
    """A layer's experts in FP8, made one after the other: float32 takes room."""
    experts = layer.experts
    pairs = ((torch.cat(w), w2) for *w, w2 in zip(experts.w1, experts.w3, experts.w2))
    made = [
        (*fp8.quantise(a, fp8.BLOCK), *fp8.quantise(b, fp8.BLOCK)) for a, b in pairs
    ]
    stacked = (torch.stack([t.contiguous() for t in parts]) for parts in zip(*made))
    return Fp8Experts(*stacked)


@torch.no_grad()
def moe_layer_fp8(
    x: Float[Tensor, "T D"], layer: MoE, experts: Fp8Experts
) -> Float[Tensor, "T D"]:
    """`moe_layer` with the routed experts in FP8 (DeepSeek-V3, arXiv 2412.19437,
    §3.3): tokens, and what SwiGLU makes, are rounded in 1 x 128 tiles. x is bf16.

    Raises:
        ValueError: x is not contiguous, or the GPU is older than sm_90.
    """
    contiguous(x=x)
    part = layer.gate.part
    ids, weights = gate(_logits(x, layer), part, _bias(layer))
    tile_rows = grouped_matmul.rows_of_a_tile(ids.numel(), part.n_routed_experts)
    plan = expert_sort(ids, part.n_routed_experts, tile_rows)
    product = partial(grouped_fp8.grouped_fp8, plan=plan)
    h = product(*quantise(x), experts.w13, experts.w13_scale, into=True)
    h = swiglu_quantise(h)  # rows that nobody wrote stay rows that nobody reads
    y = product(*h, experts.w2, experts.w2_scale, into=False)
    return combine(y, weights, None if layer.shared is None else layer.shared(x))


@torch.no_grad()
def reference_fp8(
    x: Float[Tensor, "T D"], layer: MoE, experts: Fp8Experts
) -> Float[Tensor, "T D"]:
    """`moe_layer_fp8` in plain PyTorch: the same roundings, step by step."""
    part = layer.gate.part
    ids, weights = exact_gate(_logits(x, layer), part, _bias(layer))
    plan = sort_reference(ids, part.n_routed_experts, 128)
    product = partial(grouped_fp8.reference, plan=plan)
    tokens = fp8.quantise(x)
    h = product(*tokens, experts.w13, experts.w13_scale, into=True)
    gate_part, up = h.float().chunk(2, dim=-1)
    h = fp8.quantise(F.silu(gate_part) * up)
    y = product(*h, experts.w2, experts.w2_scale, into=False)
    shared = None if layer.shared is None else layer.shared(x)
    return combine_reference(y, weights, shared)


@torch.no_grad()
def reference(x: Float[Tensor, "T D"], layer: MoE) -> Float[Tensor, "T D"]:
    """`moe_layer` in plain PyTorch: the module, but its gate breaks near ties as the
    kernel does, which else could send a token elsewhere (see `gate`).
    """
    ids, weights = exact_gate(_logits(x, layer), layer.gate.part, _bias(layer))
    y = layer.experts(x, ids.long(), weights)
    return y if layer.shared is None else y + layer.shared(x)


def _logits(x: Tensor, layer: MoE) -> Tensor:
    return F.linear(x.float(), layer.gate.weight.float())


def _bias(layer: MoE) -> Tensor | None:
    return None if layer.gate.bias is None else layer.gate.bias.float()
