"""How many parameters, operations and bytes: the arithmetic of a config.

Nothing is built here. `parameters` equals the sum of `numel()` over the model's own
parameters, which the tests check against every preset.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from deepseek_mini.config import GQA, MLA, Config


@dataclass(frozen=True)
class Count:
    """The size of a model and of one sequence in it; `print` shows it with units.

    Attributes:
        parameters: of the main model; tied embeddings count once.
        mtp_parameters: of multi-token prediction modules, without the embedding and
            the head, which are the model's; 0 without them.
        active_parameters: those that one token meets: all but unselected routed
            experts, with the embedding and the head. A dense model's are all active.
        flops_per_token: operations to infer one token that sees `seq_len` tokens,
            itself included. A multiply-add is 2. Counted: every matrix multiplication
            (the head and the gates too) with the active parameters, and attention's
            scores and weighted values. MLA's are those of the absorbed path, with which
            a model decodes from cached latents: 2 C + r for each head and key, where
            the naive path would expand every latent anew. Not counted: the embedding,
            which is a lookup, MTP, and norms, RoPE, softmax, activations, biases and
            the weighing of experts, together under one percent at the released sizes.
        kv_cache_bytes: of one sequence of `seq_len` tokens in `cache_dtype`.
        seq_len: the context that the two lines above are for, in tokens.
        cache_dtype: what a cached number is stored as.
        parts: `parameters` again, by part of the model.
    """

    parameters: int
    mtp_parameters: int
    active_parameters: int
    flops_per_token: int
    kv_cache_bytes: int
    seq_len: int
    cache_dtype: torch.dtype
    parts: dict[str, int]

    @property
    def kv_cache_bytes_per_token(self) -> int:
        """What every further token of context adds to the cache."""
        return self.kv_cache_bytes // self.seq_len

    def __str__(self) -> str:
        share = {k: f"{v / self.parameters:6.1%}" for k, v in self.parts.items() if v}
        rows = [("parameters", with_unit(self.parameters))]
        rows += [(f"  {k}", f"{with_unit(self.parts[k])} {share[k]}") for k in share]
        if self.mtp_parameters:
            rows += [("MTP parameters", with_unit(self.mtp_parameters))]
        dtype = str(self.cache_dtype).removeprefix("torch.")
        rows += [
            ("active per token", with_unit(self.active_parameters)),
            (f"context of {self.seq_len:,} tokens", ""),
            ("  inference", with_unit(self.flops_per_token, "FLOP/token")),
            (f"  KV cache, {dtype}", with_unit(self.kv_cache_bytes, "B")),
            ("    each token", with_unit(self.kv_cache_bytes_per_token, "B")),
        ]
        width = max(len(name) for name, _ in rows) + 2
        return "\n".join(f"{name:{width}}{value}".rstrip() for name, value in rows)


def count(
    config: Config,
    seq_len: int | None = None,
    cache_dtype: torch.dtype = torch.bfloat16,
) -> Count:
    """Count a model's parameters, and what one token of a `seq_len` context costs.

    `seq_len` is in tokens and may exceed the model's own limit (its max_seq_len, which
    is the default). What is counted how stands at `Count`; the compute of a token is
    that of DeepSeek-LLM (arXiv 2401.02954, §3.2), without its approximations.

    Raises:
        ValueError: seq_len is below 1, or cache_dtype is no torch.dtype.
        TypeError: config is not a Config, or has a part that this cannot count.
    """
    if not isinstance(config, Config):
        raise TypeError(f"config is {config!r}, but it must be a deepseek_mini.Config")
    seq_len = config.max_seq_len if seq_len is None else seq_len
    if not isinstance(seq_len, int) or seq_len < 1:
        raise ValueError(f"seq_len is {seq_len!r}, but it must be a whole number >= 1")
    if not isinstance(cache_dtype, torch.dtype):
        raise ValueError(
            f"cache_dtype is {cache_dtype!r}, but it must be a torch.dtype such as "
            "torch.bfloat16"
        )
    layers, dim, vocab = config.n_layers, config.dim, config.vocab_size
    attention = _attention(config)
    sparse = layers - config.n_dense_layers if config.moe else 0
    experts, idle = _experts(config)
    parts = {
        "embedding": vocab * dim,
        "attention": layers * (attention.matrices + attention.biases),
        "feed-forward": (layers - sparse) * 3 * dim * config.dense.inter_dim,
        **{name: sparse * number for name, number in experts.items()},
        "norms": layers * (2 * dim + attention.norms) + dim,
        "head": 0 if config.tie_embeddings else vocab * dim,
    }
    total, unselected = sum(parts.values()), sparse * idle
    no_product = ("embedding", "norms", "head", "correction biases")
    multiplied = sum(n for name, n in parts.items() if name not in no_product)
    multiplied += vocab * dim - layers * attention.biases - unselected
    return Count(
        parameters=total,
        mtp_parameters=_mtp(config),
        active_parameters=total - unselected,
        flops_per_token=2 * (multiplied + layers * attention.per_key * seq_len),
        kv_cache_bytes=layers * attention.cached * seq_len * cache_dtype.itemsize,
        seq_len=seq_len,
        cache_dtype=cache_dtype,
        parts=parts,
    )


class _Attention(NamedTuple):
    """One layer's attention: parameters in matrices, biases and norms, multiply-adds
    for each key that a query sees, and numbers cached for each token.
    """

    matrices: int
    biases: int
    norms: int
    per_key: int
    cached: int


def _attention(config: Config) -> _Attention:
    part, dim = config.attention, config.dim
    if isinstance(part, GQA):
        q_dim, kv_dim = part.n_heads * part.head_dim, part.n_kv_heads * part.head_dim
        matrices = dim * (2 * q_dim + 2 * kv_dim)  # wq and wo, wk and wv
        biases = q_dim + 2 * kv_dim if part.bias else 0
        return _Attention(matrices, biases, 0, 2 * q_dim, 2 * kv_dim)  # scores, values
    if isinstance(part, MLA):
        heads, latent, rope = part.n_heads, part.kv_lora_rank, part.qk_rope_head_dim
        q_dim, q_latent = heads * (part.qk_nope_head_dim + rope), part.q_lora_rank
        wq = dim * q_dim if q_latent is None else q_latent * (dim + q_dim)
        wkv = dim * (latent + rope)  # wkv_a, then wkv_b
        wkv += latent * heads * (part.qk_nope_head_dim + part.v_head_dim)
        matrices = wq + wkv + heads * part.v_head_dim * dim
        per_key = heads * (latent + rope + latent)  # a score, and a latent as the value
        return _Attention(matrices, 0, (q_latent or 0) + latent, per_key, latent + rope)
    raise TypeError(f"count knows no attention of the kind {type(part).__name__}")


def _experts(config: Config) -> tuple[dict[str, int], int]:
    """One sparse layer's parameters, and how many of them a token does not meet."""
    moe = config.moe
    if moe is None:
        return {}, 0
    expert, n = 3 * config.dim * moe.inter_dim, moe.n_routed_experts
    parts = {
        "routed experts": n * expert,
        "shared experts": moe.n_shared_experts * expert,
        "gates": n * config.dim,
        "correction biases": n if moe.bias else 0,
    }
    return parts, (n - moe.n_activated_experts) * expert


def _mtp(config: Config) -> int:
    """A module has a projection, three norms and a block, as sparse as the last one."""
    if config.mtp is None:
        return 0
    dim, attention, experts = config.dim, _attention(config), _experts(config)[0]
    ffn = sum(experts.values()) if config.moe else 3 * dim * config.dense.inter_dim
    block = attention.matrices + attention.biases + attention.norms + 2 * dim + ffn
    return config.mtp.depth * (2 * dim * dim + 3 * dim + block)


def with_unit(number: float, unit: str = "") -> str:
    """A number in powers of 1000: 67_400_000_000 is "67.4 G"; parameters say B.

    Bytes are decimal here as in the papers: 1 GB is 10^9 bytes.
    """
    prefixes = ("", "k", "M", "B" if not unit else "G", "T", "P")
    power = 0
    while abs(number) >= 999.5 and power < len(prefixes) - 1:
        number, power = number / 1000, power + 1
    digits = f"{number:#.3g}".rstrip(".") if power else f"{number:g}"
    return f"{digits} {prefixes[power]}{unit}".rstrip()
