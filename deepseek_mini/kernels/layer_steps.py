"""The steps of `decoder_layer`: where their functions are, and what each must do."""

from deepseek_mini.config import Config
from deepseek_mini.kernels import (
    decoder_layer,
    grouped_fp8,
    grouped_matmul,
    mla_layer,
    moe_layer,
)
from deepseek_mini.kernels.profile import Step
from deepseek_mini.model.transformer import Block


def steps(
    block: Block | None, config: Config, B: int, T: int, keys: int, in_fp8: bool
) -> list[Step]:
    """Of a sparse layer in bf16 that reads T new tokens of B texts, which hold `keys`
    tokens in all. A step's bytes are what it reads and writes itself, so what one hands
    to the next counts twice. Without a block the steps cannot be timed, only counted.

    When there are more keys than new tokens (decode) the expansion is absorbed.
    """
    return [*_around(config, B * T), *_attention(block, config, B, T, keys),
            *_experts(block, config, B * T, in_fp8)]  # fmt: skip


def _of(block: Block | None, path: str, name: str = "forward") -> tuple:
    """Where a module's function is."""
    return () if block is None else ((block.get_submodule(path), name),)


def _around(config: Config, N: int) -> list[Step]:
    moved = 2 * 4 * 2 * N * config.dim  # twice: two in, two out
    return [Step("2 additions with norms", ((decoder_layer, "add_rmsnorm"),), moved)]


def _product(name: str, calls: tuple, N: int, n_in: int, n_out: int) -> Step:
    """N tokens times a matrix."""
    moved = 2 * (n_in * n_out + N * (n_in + n_out))
    return Step(name, calls, moved, 2 * N * n_in * n_out)


def _attention(block, config: Config, B: int, T: int, keys: int) -> list[Step]:
    part, D, N = config.attention, config.dim, B * T
    H, C, r = part.n_heads, part.kv_lora_rank, part.qk_rope_head_dim
    n, v, q = part.qk_nope_head_dim, part.v_head_dim, part.q_lora_rank
    queries = q * (D + H * (n + r))
    steps = [
        Step("queries", _of(block, "attn", "queries"),
             2 * (queries + N * (D + H * (n + r))), 2 * N * queries),
        _product("latent, RoPE key", _of(block, "attn.wkv_a"), N, D, C + r),
        Step("RoPE, latent norm",
             ((mla_layer, "query_rope_"), (mla_layer, "latent_norm_rope")),
             2 * 2 * N * (H * r + C + r)),
    ]  # fmt: skip
    expand = H * (n + v) * C
    if keys > N:
        steps += [
            Step("attention to latents", ((mla_layer, "mla_decode"),),
                 2 * (keys * (C + r) + N * H * (2 * C + r)),
                 2 * T * H * keys * (2 * C + r)),
            Step("absorbed expansion, and the rest", (),
                 2 * (expand + N * H * (n + 2 * C + v)), 2 * N * expand),
        ]  # fmt: skip
    else:
        pairs = B * T * (T + 1) // 2
        steps += [
            _product("expansion to keys and values", _of(block, "attn.wkv_b"), N, C,
                     H * (n + v)),
            Step("attention", ((mla_layer, "mla_prefill"),),
                 2 * N * (H * (n + r) + H * (n + v) + r + H * v),
                 2 * H * pairs * (n + r + v)),
            Step("writing the cache, and the rest", (), 2 * 2 * N * (C + r)),
        ]  # fmt: skip
    return [*steps, _product("output", _of(block, "attn.wo"), N, H * v, D)]


def busy_experts(config: Config, N: int) -> float:
    """How many experts N tokens meet that choose evenly at random."""
    E, K = config.moe.n_routed_experts, config.moe.n_activated_experts
    return E * (1 - (1 - K / E) ** N)


def _experts(block, config: Config, N: int, in_fp8: bool) -> list[Step]:
    part, D = config.moe, config.dim
    E, K, inter = part.n_routed_experts, part.n_activated_experts, part.inter_dim
    wide, matrix = part.n_shared_experts * inter, inter * D
    busy, size = round(busy_experts(config, N)), 1 if in_fp8 else 2
    choosing = tuple((moe_layer, name) for name in ("_logits", "gate", "expert_sort"))
    out = [_product("gate, sort", choosing, N, D, E)]
    given, made, kind = size * N * D, 2 * N * K * D, "fp8" if in_fp8 else "bf16"
    if in_fp8:  # hidden numbers: written in bf16, gate and up, and read again in fp8
        hidden = N * K * inter
        quantising = ((moe_layer, "quantise"), (moe_layer, "swiglu_quantise"))
        out += [
            Step("rounding to fp8", quantising, 3 * N * D + 5 * hidden),
            Step("experts", ((grouped_fp8, "grouped_fp8"),),
                 3 * busy * matrix + given + made + 5 * hidden,
                 6 * N * K * matrix, kind),
        ]  # fmt: skip
    else:
        hidden = 2 * N * K * inter
        out += [
            Step("into experts", ((grouped_matmul, "into_experts"),),
                 2 * 2 * busy * matrix + given + hidden, 4 * N * K * matrix),
            Step("out of experts", ((grouped_matmul, "out_of_experts"),),
                 2 * busy * matrix + hidden + made, 2 * N * K * matrix),
        ]  # fmt: skip
    shared = 3 * wide * D
    return [
        *out,
        Step("shared expert", _of(block, "ffn.shared"),
             2 * (shared + 2 * N * D + 2 * N * wide), 2 * N * shared),
        Step("weighted sum", ((moe_layer, "combine"),), 2 * N * D * (K + 2)),
    ]  # fmt: skip


def bytes_of_layer(config: Config, B: int, T: int, keys: int, in_fp8: bool) -> int:
    """What any layer must move, however its steps are joined: every matrix that is
    needed once, stream and branch in and out, the cache read, new tokens written to it.
    """
    a, part, D, N = config.attention, config.moe, config.dim, B * T
    head = a.qk_nope_head_dim + a.qk_rope_head_dim
    kept = a.kv_lora_rank + a.qk_rope_head_dim
    queries = a.q_lora_rank * (D + a.n_heads * head)
    heads = a.n_heads * (a.kv_lora_rank * (a.qk_nope_head_dim + a.v_head_dim)
                         + a.v_head_dim * D)  # fmt: skip
    expert = 3 * part.inter_dim * D
    always = queries + D * kept + heads + part.n_shared_experts * expert
    always += part.n_routed_experts * D
    routed = round(busy_experts(config, N)) * expert * (1 if in_fp8 else 2)
    read = keys if keys > N else 0  # without a context there is nothing to read
    return routed + 2 * (always + 4 * N * D + (read + N) * kept)
