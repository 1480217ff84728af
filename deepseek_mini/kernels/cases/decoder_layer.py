"""`deepseek_mini.kernels.decoder_layer`: its cases, a peer, and where the time goes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor, nn

from deepseek_mini.config import MLA, Config
from deepseek_mini.kernels import decoder_layer as this
from deepseek_mini.kernels.case import Case, demonstrate
from deepseek_mini.kernels.cases import rmsnorm
from deepseek_mini.kernels.cases.moe_layer import grouped_mm
from deepseek_mini.kernels.launch import INTERPRETED
from deepseek_mini.kernels.layer_steps import bytes_of_layer, steps
from deepseek_mini.kernels.moe_layer import fp8_experts
from deepseek_mini.kernels.profile import RATES, profile, table
from deepseek_mini.model.rope import rope_table
from deepseek_mini.model.transformer import Block
from deepseek_mini.presets import V3

GATES = rmsnorm.GATES[:1]  # what it launches itself; the rest are others' gates
SMALL = replace(
    V3,
    dim=64,
    attention=MLA(4, 24, 32, 16, 16, 16),
    moe=replace(V3.moe, n_routed_experts=32, inter_dim=48),
)


@dataclass(frozen=True)
class Size:
    """`texts` of `context` tokens each, `new` of them new ones; by `step` tokens less
    from text to text. in_fp8: the routed experts.
    """

    name: str
    texts: int
    new: int
    context: int
    step: int = 0
    in_fp8: bool = False


SIZES = [
    Size("prefill", 1, 4096, 4096),
    Size("decode", 128, 1, 4096),
    Size("decode, experts in fp8", 128, 1, 4096, in_fp8=True),
]
SMALL_SIZES = [
    Size("prefill", 2, 7, 7),
    Size("decode", 3, 1, 20, step=7),
    Size("decode, experts in fp8", 3, 1, 20, step=7, in_fp8=True),
]


def sizes(small: bool) -> tuple[Config, list[Size]]:
    return (SMALL, SMALL_SIZES) if small else (V3, SIZES)


@torch.no_grad()
def random_block(config: Config, device: str) -> Block:
    """A sparse block in bf16, made where it stays: V3's takes 23 GB. Matrices are
    N(0, 0.6²/fan_in), norms 1 + N(0, 0.3²), and the gate's bias is small beside the
    scores: it is there to level the load, and here the load is level.
    """
    with torch.device("meta"):
        block = Block(config, 0, sparse=True).bfloat16()
    block.to_empty(device=device)
    for name, parameter in block.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.6 / parameter.shape[-1] ** 0.5)
        else:
            bias = name.endswith("bias")
            parameter.normal_(0 if bias else 1, 0.02 if bias else 0.3)
    block.attn.wq_b.weight *= 4  # a few keys weigh most: a mean of all would be near 0
    return block.requires_grad_(False).eval()


@torch.no_grad()
def decided_tokens(block: Block, n_tokens: int, device: str) -> Tensor:
    """Tokens [N, D] of noise of size 1/4, and in each the directions of two experts in
    every one of its groups, 4 long. Rounding cannot change what the gate chooses; else
    tokens that go elsewhere would be all that an error shows.
    """
    weight, part = block.ffn.gate.weight, block.ffn.gate.part
    direction = nn.init.orthogonal_(torch.empty(weight.shape, device=device))  # [E, D]
    weight.copy_(0.6 * direction)
    size = part.n_routed_experts // part.n_groups
    groups = torch.rand(n_tokens, part.n_groups).argsort(1)[:, : part.n_limited_groups]
    two = torch.rand(*groups.shape, size).argsort(2)[..., :2]  # [N, groups, 2]
    chosen = (groups[..., None] * size + two).flatten(1).to(device)  # [N, K]
    tokens = torch.randn(n_tokens, weight.shape[1], device=device) / 4
    for expert in chosen.unbind(1):
        tokens += 4 * direction[expert]
    return tokens


@torch.no_grad()
def inputs(block: Block, config: Config, size: Size, device: str) -> tuple:
    """What `decoder_layer` takes."""
    B, T, attn = size.texts, size.new, block.attn
    before = torch.full((B,), size.context - T, dtype=torch.int32, device=device)
    before -= size.step * torch.arange(B, dtype=torch.int32, device=device)
    places = before[:, None] + torch.arange(T, device=device)  # [B, T]
    tables = rope_table(config.rope, attn.rope_dim, places.flatten())
    widths = attn.latent_dim, attn.rope_dim
    kept = torch.randn(B, size.context, sum(widths), device=device).bfloat16()
    stream = decided_tokens(block, B * T, device).view(B, T, -1)
    branch = 0.2 * torch.randn_like(stream)
    given = (
        block,
        *(x.bfloat16() for x in (branch, stream)),
        *(x.view(B, T, -1) for x in tables),
        *kept.split(widths, -1),
        before,
    )
    return (*given, fp8_experts(block.ffn)) if size.in_fp8 else given


def cases(device: str, small: bool) -> list[Case]:
    """DeepSeek-V3's layer reads a prompt of 4096 tokens, and writes a token of each of
    128 texts. Small, the texts are of uneven length.
    """
    config, all_sizes = sizes(small)
    block = cache(lambda: random_block(config, device))

    def case(size: Size) -> Case:
        B, T, S, even = size.texts, size.new, size.context, not size.step
        work = steps(None, config, B, T, B * S, size.in_fp8)
        peer = partial(compiled, even=even)
        return Case(
            f"V3 layer, {size.name}: {B} x {T} tokens, context {S}",
            lambda: inputs(block(), config, size, device),
            partial(this.decoder_layer, absorb=T < S),
            partial(this.reference, even=even),
            # What attention and experts find is rounded to bf16 a few times, and the
            # stream's sum once more. In fp8 a hidden number may fall to the next.
            bound=2**-5 if size.in_fp8 else 2**-6,
            moved=bytes_of_layer(config, B, T, B * S, size.in_fp8),
            flops=sum(step.flops for step in work),
            peers={} if size.in_fp8 else {"F.grouped_mm, attention compiled": peer},
            compiled=False,  # it takes experts apart by counts that it must wait for
        )

    return [case(size) for size in all_sizes]


def compiled(block: Block, *rest, even: bool) -> Callable:
    """The module, its attention by torch.compile and its experts by PyTorch's grouped
    product.
    """
    parts = nn.Module()
    parts.attn_norm, parts.ffn_norm = block.attn_norm, block.ffn_norm
    parts.attn = block.attn if INTERPRETED else torch.compile(block.attn)
    parts.ffn = lambda y: grouped_mm(y.flatten(0, 1), block.ffn)().view_as(y)
    return lambda: this.reference(parts, *rest, even=even)


def profiles(device: str, small: bool, rates: dict | None = None) -> str:
    """Where the layer's time goes, a table for each size. (Interpreted, times mean
    nothing.) rates: see `Step.floor`; what is None or not given is assumed.
    """
    rates = RATES | {name: rate for name, rate in (rates or {}).items() if rate}
    config, all_sizes = sizes(small)
    block, tables = random_block(config, device), []
    for size in all_sizes:
        B, T, S = size.texts, size.new, size.context
        given = inputs(block, config, size, device)
        work = steps(block, config, B, T, B * S, size.in_fp8)
        run = partial(this.decoder_layer, *given, absorb=T < S)
        taken = profile(run, work, device, repeats=1 if small else 10)
        tables.append(f"{size.name}: {B} x {T} tokens, context {S}")
        tables.append(table(work, taken, rates))
    return "\n".join(tables)


if __name__ == "__main__":
    if not INTERPRETED and torch.cuda.is_available():
        print(profiles("cuda", small=False))
        print("Floors are at assumed rates, 3.0 TB/s and 800 TFLOP/s (fp8: 1600).")
    demonstrate(cases)
