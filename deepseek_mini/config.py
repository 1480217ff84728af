"""What a model is: frozen dataclasses, nothing computed.

The history of the DeepSeek family is a list of small changes to one `Config`.
A config is composed of parts, and each part names its mechanism; the module that
computes a part has the same name in `deepseek_mini.model`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any


def _require(ok: bool, field: str, value: Any, rule: str) -> None:
    if not ok:
        raise ValueError(f"{field} is {value!r}, but {rule}")


def _positive_int(part: str, **values: int) -> None:
    for name, value in values.items():
        ok = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        _require(ok, f"{part}.{name}", value, "it must be a whole number of at least 1")


def _not_negative_int(part: str, **values: int) -> None:
    for name, value in values.items():
        ok = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        _require(ok, f"{part}.{name}", value, "it must be a whole number of at least 0")


def _bool(part: str, **values: bool) -> None:
    for name, value in values.items():
        ok = isinstance(value, bool)
        _require(ok, f"{part}.{name}", value, "it must be True or False")


def _positive(part: str, **values: float) -> None:
    for name, value in values.items():
        ok = isinstance(value, (int, float)) and 0 < value < float("inf")
        _require(ok, f"{part}.{name}", value, "it must be a positive number")


@dataclass(frozen=True)
class Linear:
    """Position interpolation: every rotation slowed down by `factor`.

    DeepSeek-Coder reads 16K tokens this way, with factor 4 (arXiv 2401.14196, §3.6).
    """

    factor: float

    def __post_init__(self) -> None:
        _positive("Linear", factor=self.factor)


@dataclass(frozen=True)
class Yarn:
    """YaRN: slow rotations are interpolated, fast ones kept (arXiv 2309.00071, §3.2).

    `original_seq_len` is the context of the pretraining, in tokens. A pair that turns
    more than `beta_fast` times within it keeps its frequency, one that turns less than
    `beta_slow` times is slowed by `factor`, and between them a ramp blends the two.

    Stretching also needs a temperature, m(x) = 0.1 x ln(factor) + 1, and code has two
    conventions for it. The paper's: cosine and sine are multiplied by m(mscale).
    DeepSeek-V2's: they are multiplied by m(mscale) / m(mscale_all_dim), and its
    attention (MLA) multiplies the softmax scale by m(mscale_all_dim)^2, so that
    channels without RoPE are stretched as well.
    """

    factor: float
    original_seq_len: int
    beta_fast: float = 32
    beta_slow: float = 1
    mscale: float = 1.0
    mscale_all_dim: float = 0.0

    def __post_init__(self) -> None:
        _positive("Yarn", factor=self.factor)
        _positive_int("Yarn", original_seq_len=self.original_seq_len)
        _positive("Yarn", beta_fast=self.beta_fast, beta_slow=self.beta_slow)
        _require(
            self.beta_fast > self.beta_slow,
            "Yarn.beta_fast",
            self.beta_fast,
            f"it must be larger than beta_slow ({self.beta_slow})",
        )
        for name in ("mscale", "mscale_all_dim"):
            value = getattr(self, name)
            ok = isinstance(value, (int, float)) and 0 <= value < float("inf")
            _require(ok, f"Yarn.{name}", value, "it must be a number of at least 0")


@dataclass(frozen=True)
class Llama3:
    """Llama 3.1's scaling, used by R1-Distill-Llama (arXiv 2407.21783, §3.4.2).

    A wavelength shorter than original_seq_len / high_freq_factor tokens is kept, one
    longer than original_seq_len / low_freq_factor is stretched by `factor`.
    """

    factor: float
    original_seq_len: int
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self) -> None:
        _positive("Llama3", factor=self.factor, low_freq_factor=self.low_freq_factor)
        _positive("Llama3", high_freq_factor=self.high_freq_factor)
        _positive_int("Llama3", original_seq_len=self.original_seq_len)
        _require(
            self.high_freq_factor > self.low_freq_factor,
            "Llama3.high_freq_factor",
            self.high_freq_factor,
            f"it must be larger than low_freq_factor ({self.low_freq_factor})",
        )


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (RoFormer, arXiv 2104.09864, §3.2.2).

    `layout` says which two channels of a head form a pair: "interleaved" pairs
    (0, 1), (2, 3), …, as the paper and DeepSeek's MLA do; "half_split" pairs i with
    i + head_dim / 2, as Llama-shaped weights in the Hugging Face format do.
    """

    theta: float = 10_000.0
    layout: str = "interleaved"
    scaling: Linear | Yarn | Llama3 | None = None

    def __post_init__(self) -> None:
        ok = isinstance(self.theta, (int, float)) and 1 < self.theta < float("inf")
        _require(ok, "Rope.theta", self.theta, "it must be a number larger than 1")
        _require(
            self.layout in ("interleaved", "half_split"),
            "Rope.layout",
            self.layout,
            "it must be 'interleaved' or 'half_split'",
        )
        _require(
            self.scaling is None or isinstance(self.scaling, (Linear, Yarn, Llama3)),
            "Rope.scaling",
            self.scaling,
            "it must be None, Linear(...), Yarn(...) or Llama3(...)",
        )


@dataclass(frozen=True)
class GQA:
    """Attention with `n_heads` query heads that share `n_kv_heads` keys and values.

    n_kv_heads = n_heads is multi-head attention, 1 is multi-query attention, anything
    between is grouped-query attention (arXiv 2305.13245). `bias` puts a bias on
    queries, keys and values, as Qwen2 does.
    """

    n_heads: int
    n_kv_heads: int
    head_dim: int
    bias: bool = False

    def __post_init__(self) -> None:
        _positive_int("GQA", n_heads=self.n_heads, n_kv_heads=self.n_kv_heads)
        _positive_int("GQA", head_dim=self.head_dim)
        _bool("GQA", bias=self.bias)
        _require(
            self.n_heads % self.n_kv_heads == 0,
            "GQA.n_kv_heads",
            self.n_kv_heads,
            f"it must divide n_heads ({self.n_heads})",
        )
        _require(
            self.head_dim % 2 == 0,
            "GQA.head_dim",
            self.head_dim,
            "it must be even: RoPE rotates pairs of channels",
        )


@dataclass(frozen=True)
class MLA:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, §2.1).

    Keys and values of all heads come from one latent of `kv_lora_rank` numbers a token,
    queries from one of `q_lora_rank` (None: straight from the input, as V2-Lite). A
    head compares `qk_nope_head_dim` channels without position and `qk_rope_head_dim`
    with RoPE, whose key all heads share, and reads `v_head_dim` channels.
    """

    n_heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int

    def __post_init__(self) -> None:
        for f in fields(self):
            if f.name != "q_lora_rank" or self.q_lora_rank is not None:
                _positive_int("MLA", **{f.name: getattr(self, f.name)})
        _require(
            self.qk_rope_head_dim % 2 == 0,
            "MLA.qk_rope_head_dim",
            self.qk_rope_head_dim,
            "it must be even: RoPE rotates pairs of channels",
        )


@dataclass(frozen=True)
class SwiGLU:
    """The gated feed-forward network, `inter_dim` channels wide (arXiv 2002.05202)."""

    inter_dim: int

    def __post_init__(self) -> None:
        _positive_int("SwiGLU", inter_dim=self.inter_dim)


@dataclass(frozen=True)
class MoE:
    """A mixture of experts, each a SwiGLU `inter_dim` wide (arXiv 2401.06066, §3).

    Every token is read by `n_shared_experts` and by the `n_activated_experts` of the
    `n_routed_experts` with the highest affinity, whose scores (times `route_scale`, and
    divided by their sum if `norm_topk`) weigh their outputs. `score` is what makes an
    affinity of a product: "softmax" (DeepSeekMoE, V2) or "sigmoid" (V3).

    The experts stand in `n_groups` groups, and a token may only choose from
    `n_limited_groups` of them. `bias` adds V3's correction bias to the scores, for the
    choice alone: it never weighs (arXiv 2412.19437, §2.1.2). With it a group is worth
    the sum of its two best, without it its best (arXiv 2405.04434, §2.2.2).
    """

    n_routed_experts: int
    n_shared_experts: int
    n_activated_experts: int
    inter_dim: int
    score: str = "softmax"
    bias: bool = False
    n_groups: int = 1
    n_limited_groups: int = 1
    norm_topk: bool = False
    route_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("n_routed_experts", "n_activated_experts", "inter_dim"):
            _positive_int("MoE", **{name: getattr(self, name)})
        _positive_int("MoE", n_groups=self.n_groups)
        _positive_int("MoE", n_limited_groups=self.n_limited_groups)
        _not_negative_int("MoE", n_shared_experts=self.n_shared_experts)
        _positive("MoE", route_scale=self.route_scale)
        _bool("MoE", bias=self.bias, norm_topk=self.norm_topk)
        rule = "it must be 'softmax' or 'sigmoid'"
        _require(self.score in ("softmax", "sigmoid"), "MoE.score", self.score, rule)
        _require(
            self.n_routed_experts % self.n_groups == 0,
            "MoE.n_groups",
            self.n_groups,
            f"it must divide n_routed_experts ({self.n_routed_experts})",
        )
        group_size = self.n_routed_experts // self.n_groups
        _require(
            self.n_limited_groups <= self.n_groups,
            "MoE.n_limited_groups",
            self.n_limited_groups,
            f"it must be at most n_groups ({self.n_groups})",
        )
        _require(
            not (self.bias and self.n_groups > 1 and group_size < 2),
            "MoE.n_groups",
            self.n_groups,
            "with a bias a group is worth the sum of its two best experts, so it must "
            "have at least two",
        )
        _require(
            self.n_activated_experts <= self.n_limited_groups * group_size,
            "MoE.n_activated_experts",
            self.n_activated_experts,
            f"a token can reach only {self.n_limited_groups * group_size} experts",
        )


@dataclass(frozen=True)
class MTP:
    """Multi-token prediction: `depth` more tokens predicted, one module for each
    (DeepSeek-V3, arXiv 2412.19437, §2.2).
    """

    depth: int = 1

    def __post_init__(self) -> None:
        _positive_int("MTP", depth=self.depth)


@dataclass(frozen=True)
class Config:
    """A DeepSeek language model, described.

    `vocab_size` counts embedding rows, `max_seq_len` is in tokens, `init_std` is the
    standard deviation of every freshly initialised matrix (DeepSeek: 0.006). With
    `moe` the first `n_dense_layers` layers have the feed-forward network `dense` and
    all others the mixture; without it every layer has `dense`.

    Raises:
        ValueError: an impossible value; the message names the field, the value that it
            had and what would be valid.
    """

    vocab_size: int
    dim: int
    n_layers: int
    max_seq_len: int
    attention: GQA | MLA
    dense: SwiGLU
    rope: Rope = Rope()
    moe: MoE | None = None
    n_dense_layers: int = 0
    mtp: MTP | None = None
    norm_eps: float = 1e-6
    tie_embeddings: bool = False
    init_std: float = 0.006

    def __post_init__(self) -> None:
        _positive_int("Config", vocab_size=self.vocab_size, dim=self.dim)
        _positive_int("Config", n_layers=self.n_layers, max_seq_len=self.max_seq_len)
        _positive("Config", norm_eps=self.norm_eps, init_std=self.init_std)
        _bool("Config", tie_embeddings=self.tie_embeddings)
        for name, kinds in (
            ("attention", (GQA, MLA)),
            ("dense", (SwiGLU,)),
            ("rope", (Rope,)),
            ("moe", (MoE, type(None))),
            ("mtp", (MTP, type(None))),
        ):
            value = getattr(self, name)
            known = [f"{k.__name__}(...)" for k in kinds if k is not type(None)]
            known += ["None"] * (len(known) < len(kinds))
            rule = f"it must be {' or '.join(known)}"
            _require(isinstance(value, kinds), f"Config.{name}", value, rule)
        self._check_layers()

    def _check_layers(self) -> None:
        _not_negative_int("Config", n_dense_layers=self.n_dense_layers)
        _require(
            self.n_dense_layers <= (self.n_layers if self.moe else 0),
            "Config.n_dense_layers",
            self.n_dense_layers,
            f"it must be at most n_layers ({self.n_layers})"
            if self.moe
            else "without moe every layer is dense: it must be 0",
        )

    @classmethod
    def preset(cls, name: str) -> Config:
        """The config of a released model, or of its miniature, by name.

        Raises:
            ValueError: no such preset; the message lists those that there are.
        """
        from deepseek_mini.presets import PRESETS

        if not isinstance(name, str) or name not in PRESETS:
            known = ", ".join(PRESETS)
            raise ValueError(f"there is no preset {name!r}; there are: {known}")
        return PRESETS[name]


class Diff(tuple):
    """What changed between two configs: rows of (field, before, after)."""

    def __str__(self) -> str:
        if not self:
            return "no difference"
        width = max(len(field) for field, _, _ in self)
        return "\n".join(f"{f:{width}}  {a} -> {b}" for f, a, b in self)

    __repr__ = __str__


def diff(a: Config, b: Config) -> Diff:
    """The fields in which two configs differ, in the order of the config.

    A part that is of the same kind on both sides is compared field by field
    (`attention.n_kv_heads`), otherwise as a whole.
    """
    return Diff(_differences("", a, b))


def _differences(path: str, a: Any, b: Any) -> list[tuple[str, Any, Any]]:
    if a == b:
        return []
    if not (is_dataclass(a) and type(a) is type(b)):
        return [(path, a, b)]
    prefix = f"{path}." if path else ""
    rows = []
    for f in fields(a):
        rows += _differences(prefix + f.name, getattr(a, f.name), getattr(b, f.name))
    return rows
