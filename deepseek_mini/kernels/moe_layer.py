"""A whole mixture of experts: gate, sort, two grouped products, weighted sum.

Five launches between the tokens and the result, besides the two plain products that
need no kernel of ours (the gate's with its weight, the shared experts'). Each token's K
results lie side by side, so the last kernel adds them up in the order of its choices:
the same sum in every run, where atomic additions would come in any order.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from deepseek_mini import fp8
from deepseek_mini.config import Config
from deepseek_mini.kernels import grouped_matmul
from deepseek_mini.kernels.case import Case, Goal, demonstrate
from deepseek_mini.kernels.expert_sort import expert_sort
from deepseek_mini.kernels.expert_sort import reference as sort_reference
from deepseek_mini.kernels.gate import gate
from deepseek_mini.kernels.gate import reference as exact_gate
from deepseek_mini.kernels.launch import Gate, contiguous, pick
from deepseek_mini.kernels.quantise import quantise, swiglu_quantise
from deepseek_mini.model import ops
from deepseek_mini.model.moe import MoE
from deepseek_mini.presets import MOE_16B, V2, V3

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
    product = partial(grouped_matmul.grouped_fp8, plan=plan)
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
    product = partial(grouped_matmul.fp8_reference, plan=plan)
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


GATES = [
    Gate(
        "sum of 8 rows of 7168, bf16",
        combine_kernel,
        {"y": "*bf16", "weights": "*fp32", "shared": "*bf16", "out": "*bf16"},
        TILES,
        {"K": 8, "D": 7168},
    )
]


@torch.no_grad()
def random_layer(config: Config, device: str, dtype=torch.bfloat16) -> MoE:
    """The sparse part of a layer, its matrices N(0, 0.6²/fan_in), made where it stays
    and in its type: V3's takes 22.5 GB in bf16.
    """
    with torch.device("meta"):
        layer = MoE(config).to(dtype)
    layer.to_empty(device=device)
    for parameter in layer.parameters():
        fan_in = parameter.shape[-1] if parameter.ndim > 1 else 4
        parameter.normal_(0, 0.6 / fan_in**0.5)
    return layer


@torch.no_grad()
def module(x: Tensor, layer: MoE):
    """The module as it is: the peer "eager"."""
    return layer(x[None])[0]


def expert_loop(x: Tensor, layer: MoE, _experts: Fp8Experts | None = None):
    """An expert after the other."""

    def run():
        with torch.no_grad(), ops.paths(moe="loop"):
            return layer(x[None])[0]

    return run


@torch.no_grad()
def grouped_mm(x: Tensor, layer: MoE):
    """The same steps by PyTorch's grouped product."""
    experts, part = layer.experts, layer.gate.part
    w1, w2, w3 = (w.detach().mT for w in (experts.w1, experts.w2, experts.w3))

    @torch.no_grad()
    def run():
        routing = layer.gate(x)
        chosen = routing.chosen.flatten()
        order = chosen.argsort(stable=True)
        counts = torch.histc(chosen.float(), part.n_routed_experts, 0, len(w1) - 1)
        product = partial(F.grouped_mm, offs=counts.cumsum(0).int())
        rows = x[order // part.n_activated_experts]
        h = F.silu(product(rows, w1)) * product(rows, w3)
        y = torch.empty_like(rows)
        y[order] = product(h, w2)
        y = y.unflatten(0, routing.chosen.shape)
        y = torch.einsum("tkd,tk->td", y, routing.weights.to(y.dtype))
        return y if layer.shared is None else y + layer.shared(x)

    return run


def cases(device: str, small: bool) -> list[Case]:
    """Whole layers at their real size: V3's in bf16 has 22.5 GB of experts."""

    @cache
    def layer(config: Config) -> MoE:
        if not config.moe.bias:
            layer.cache_clear()  # V3's is not needed any more
        return random_layer(config, device)

    def make(config: Config, n_tokens: int):
        def inputs():
            x = 3 * torch.randn(n_tokens, config.dim, device=device)
            return x.bfloat16(), layer(config)

        return inputs

    goals = {("V3", 4096): (Goal("F.grouped_mm", 0.95), Goal("copy", 0.65))}
    sizes = [("V3", 4096), ("V3", 1024), ("V3", 128), ("V3", 1),
             ("V2", 1024), ("MoE-16B", 1024)]  # fmt: skip
    out = []
    for name, n_tokens in [("V3", 5), ("V2", 3)] if small else sizes:
        config = {"V3": V3, "V2": V2, "MoE-16B": MOE_16B}[name]
        if small:
            config = _shrunk(config)
        part = config.moe
        moved, flops = _work(config, n_tokens)
        shape = f"{part.n_routed_experts} experts of {config.dim} x {part.inter_dim}"
        out.append(
            Case(
                f"MoE layer of {name}, {n_tokens} tokens, {shape}, bf16",
                make(config, n_tokens),
                moe_layer,
                reference,
                # h, y and their sum are rounded to bf16 here and there, there more.
                bound=2**-6,
                moved=moved,
                flops=flops,
                peers={
                    "eager": module,
                    "F.grouped_mm": grouped_mm,
                    "per-expert loop": expert_loop,
                },
                goals=goals.get((name, n_tokens), ()),
                compiled=False,
            )
        )
    return [*out, _fp8_case(make, small)]


def _fp8_case(make: Callable, small: bool) -> Case:
    """V3's layer with its routed experts in FP8, 1024 tokens."""
    config, n_tokens = (_shrunk(V3), 5) if small else (V3, 1024)

    def inputs():
        x, made = make(config, n_tokens)()
        return x, made, fp8_experts(made)

    moved, flops = _work(config, n_tokens, expert_bytes=1)
    return Case(
        f"MoE layer of V3, {n_tokens} tokens, experts in fp8",
        inputs,
        moe_layer_fp8,
        reference_fp8,
        # A number of h that falls to the next bf16 may fall to the next fp8, an eighth
        # off; but few do, and a result is a sum of many.
        bound=2**-5,
        moved=moved,
        flops=flops,
        peers={"per-expert loop": expert_loop},
        goals=(Goal("per-expert loop", 5.0), Goal("copy", 0.60)),
        compiled=False,
    )


def _shrunk(config: Config) -> Config:
    part = replace(config.moe, n_routed_experts=32, inter_dim=48)
    return replace(config, dim=64, moe=part)


def _work(config: Config, n_tokens: int, expert_bytes: int = 2) -> tuple[int, int]:
    """Bytes of the matrices that are read, with the tokens in and out; and operations.
    Experts are counted as if chosen evenly at random; all but they are in bf16.
    """
    part, width = config.moe, config.dim
    n, k, shared = (
        part.n_routed_experts,
        part.n_activated_experts,
        part.n_shared_experts,
    )
    busy = n * (1 - (1 - k / n) ** n_tokens)
    expert = 3 * width * part.inter_dim
    rest = shared * expert + n * width + 2 * n_tokens * width
    each = (k + shared) * expert + n * width
    return round(expert_bytes * busy * expert) + 2 * rest, 2 * n_tokens * each


if __name__ == "__main__":
    demonstrate(cases)
