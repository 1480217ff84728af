"""Exercise 10.4, the parameters of a V2: the oracle lists the shape of every tensor."""

from math import prod

from deepseek_mini.config import MLA, Config, MoE, SwiGLU
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def _shapes(config):
    """(what, shape) of every tensor of the model."""
    a, moe, D = config.attention, config.moe, config.dim
    H, n, r, v = a.n_heads, a.qk_nope_head_dim, a.qk_rope_head_dim, a.v_head_dim
    yield from (("embedding", (config.vocab_size, D)), ("last norm", (D,)))
    yield "head", (config.vocab_size, D)
    for layer in range(config.n_layers):
        yield from (("block norm", (D,)), ("block norm", (D,)))
        if a.q_lora_rank is None:
            yield "wq", (H * (n + r), D)
        else:
            yield "wq_a", (a.q_lora_rank, D)
            yield "q_norm", (a.q_lora_rank,)
            yield "wq_b", (H * (n + r), a.q_lora_rank)
        yield "latent", (a.kv_lora_rank, D)
        yield "rope key", (r, D)
        yield "kv_norm", (a.kv_lora_rank,)
        yield "k_up", (H * n, a.kv_lora_rank)
        yield "v_up", (H * v, a.kv_lora_rank)
        yield "wo", (D, H * v)
        if layer < config.n_dense_layers:
            yield "dense", (3, D, config.dense.inter_dim)
        else:
            yield "gate", (moe.n_routed_experts, D)
            yield "routed", (moe.n_routed_experts, 3, D, moe.inter_dim)
            yield "shared", (moe.n_shared_experts, 3, D, moe.inter_dim)


def parameters(config):
    """The oracle: the sum of all tensors' sizes."""
    return _counted(config)


def _counted(config, **times):
    """Every kind of tensor as often as its keyword says: a number or a function."""
    total = 0
    for what, shape in _shapes(config):
        factor = times.get(what.replace(" ", "_"), 1)
        total += prod(shape) * (factor(config) if callable(factor) else factor)
    return round(total)


def _times(**factors):
    return lambda config: _counted(config, **factors)


def _of(ratio):
    """A factor made of the widths: ratio(n, r, v) of a model's attention."""

    def factor(config):
        a = config.attention
        return ratio(a.qk_nope_head_dim, a.qk_rope_head_dim, a.v_head_dim)

    return factor


def _one_head(config):
    return 1 / config.attention.n_heads


def _gate_for_shared(config):
    return 1 + config.moe.n_shared_experts / config.moe.n_routed_experts


def _norm_with_key(config):
    return 1 + config.attention.qk_rope_head_dim / config.attention.kv_lora_rank


def _chosen_alone(config):
    return config.moe.n_activated_experts / config.moe.n_routed_experts


def _no_dense(config):
    """Every layer sparse."""
    extra = sum(
        prod(shape)
        for what, shape in _shapes(config)
        if what in ("gate", "routed", "shared")
    )
    sparse = config.n_layers - config.n_dense_layers
    dense = _counted(config) - _counted(config, dense=0)
    return _counted(config) - dense + extra * config.n_dense_layers // sparse


def _dense_as_well(config):
    """A dense network in every layer, beside the experts."""
    dense = _counted(config) - _counted(config, dense=0)
    return _counted(config) + dense * (config.n_layers // config.n_dense_layers - 1)


def count_cases(rng):
    for q, dense, label in (
        (None, 1, "no latent for the queries"),
        (int(rng.integers(20, 90)), 1, "a latent for the queries"),
        (int(rng.integers(20, 90)), 3, "three dense layers"),
        (1536, 1, "as large as V2"),
    ):
        large = label.startswith("as large")
        part = MLA(
            n_heads=128 if large else int(rng.integers(2, 9)),
            q_lora_rank=q,
            kv_lora_rank=int(rng.integers(100, 200)),
            qk_nope_head_dim=int(rng.integers(9, 40)),
            qk_rope_head_dim=2 * int(rng.integers(21, 40)),
            v_head_dim=int(rng.integers(50, 99)),
        )
        moe = MoE(
            n_routed_experts=int(rng.integers(9, 20)),
            n_shared_experts=int(rng.integers(2, 4)),
            n_activated_experts=int(rng.integers(4, 7)),
            inter_dim=1536 if large else int(rng.integers(20, 40)),
        )
        config = Config(
            vocab_size=int(rng.integers(100, 900)),
            dim=5120 if large else int(rng.integers(65, 500)),
            n_layers=60 if large else 2 * dense,
            max_seq_len=64,
            attention=part,
            dense=SwiGLU(int(rng.integers(300, 600))),
            moe=moe,
            n_dense_layers=dense,
        )
        yield Case((config,), label)


COUNT = Exercise(
    id="10.4",
    title="All parameters of a V2",
    signature="parameters(config)",
    difficulty="from the paper",
    minutes=25,
    right=parameters,
    cases=count_cases,
    mistakes=(
        Mistake(
            "with q_lora_rank None there is one matrix from dim to the queries",
            raises="TypeError: unsupported operand type",
        ),
        Mistake(
            "a token meets only some routed experts, but all of them are learned",
            gives=_times(routed=_chosen_alone),
        ),
        Mistake("the shared experts are missing", gives=_times(shared=0)),
        Mistake(
            "one shared expert was counted: there are n_shared_experts",
            gives=_times(shared=lambda c: 1 / c.moe.n_shared_experts),
        ),
        Mistake("the gates are missing", gives=_times(gate=0)),
        Mistake(
            "a gate scores the routed experts alone: shared ones are never chosen",
            gives=_times(gate=_gate_for_shared),
        ),
        Mistake(
            "two matrices for an expert: a SwiGLU has three",
            gives=_times(routed=2 / 3, shared=2 / 3, dense=2 / 3),
        ),
        Mistake(
            "a RoPE key for each head: all heads share one",
            gives=_times(rope_key=lambda c: c.attention.n_heads),
        ),
        Mistake("the matrix of the RoPE key is missing", gives=_times(rope_key=0)),
        Mistake(
            "the norms of both latents are missing", gives=_times(kv_norm=0, q_norm=0)
        ),
        Mistake("the norm of the latent (kv_norm) is missing", gives=_times(kv_norm=0)),
        Mistake(
            "the norm after the first key-value matrix covers the latent alone, not "
            "the RoPE key",
            gives=_times(kv_norm=_norm_with_key),
        ),
        Mistake(
            "the second key-value matrix serves one head: it gives n + v channels to "
            "each",
            gives=_times(k_up=_one_head, v_up=_one_head),
        ),
        Mistake(
            "the second key-value matrix lacks the values: it gives n + v channels",
            gives=_times(v_up=0),
        ),
        Mistake(
            "the second key-value matrix lacks the keys: it gives n + v channels",
            gives=_times(k_up=0),
        ),
        Mistake(
            "the second key-value matrix gives no RoPE key: that comes from the first",
            gives=_times(k_up=_of(lambda n, r, v: (n + r) / n)),
        ),
        Mistake(
            "the output matrix reads values, of v channels a head, not n + r",
            gives=_times(wo=_of(lambda n, r, v: (n + r) / v)),
        ),
        Mistake(
            "the output matrix reads values, of v channels a head, not n",
            gives=_times(wo=_of(lambda n, r, v: n / v)),
        ),
        Mistake("the output matrix serves one head", gives=_times(wo=_one_head)),
        Mistake(
            "a query has n + r channels, not n",
            gives=_times(
                wq=_of(lambda n, r, v: n / (n + r)),
                wq_b=_of(lambda n, r, v: n / (n + r)),
            ),
        ),
        Mistake("the norm of the queries' latent is missing", gives=_times(q_norm=0)),
        Mistake(
            "all norms are missing",
            gives=_times(kv_norm=0, q_norm=0, block_norm=0, last_norm=0),
        ),
        Mistake("the last norm is missing", gives=_times(last_norm=0)),
        Mistake("each layer has two norms of dim", gives=_times(block_norm=0.5)),
        Mistake("the head is missing: it is not the embedding", gives=_times(head=0)),
        Mistake("the output matrix of attention is missing", gives=_times(wo=0)),
        Mistake("every layer was counted as sparse", gives=_no_dense),
        Mistake(
            "the first layers have a dense network, the others experts: none has both",
            gives=_dense_as_well,
        ),
    ),
    hint="compare with `dm.count(config).parts`: 'attention' is the matrices of "
    "queries, keys and values, and output, of all layers; 'norms' are all norms",
)
