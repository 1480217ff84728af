"""Exercise 14.3, the tensors of a layer: the oracle fills the sizes into a table."""

from deepseek_mini.config import MLA, MTP, Config, MoE, SwiGLU
from deepseek_mini.lesson.oracles import Case

# Name, where it is, shape; sides are names of numbers, and * is each expert.
TABLE = """
input_layernorm.weight                 all    D
post_attention_layernorm.weight        all    D
self_attn.q_a_proj.weight              all    Q D
self_attn.q_a_layernorm.weight         all    Q
self_attn.q_b_proj.weight              all    Hk Q
self_attn.kv_a_proj_with_mqa.weight    all    Cr D
self_attn.kv_a_layernorm.weight        all    Cn
self_attn.kv_b_proj.weight             all    Hkv C
self_attn.o_proj.weight                all    D Hv
mlp.gate_proj.weight                   dense  F D
mlp.up_proj.weight                     dense  F D
mlp.down_proj.weight                   dense  D F
mlp.gate.weight                        sparse E D
mlp.gate.e_score_correction_bias       sparse E
mlp.experts.*.gate_proj.weight         sparse I D
mlp.experts.*.up_proj.weight           sparse I D
mlp.experts.*.down_proj.weight         sparse D I
mlp.shared_experts.gate_proj.weight    sparse S D
mlp.shared_experts.up_proj.weight      sparse S D
mlp.shared_experts.down_proj.weight    sparse D S
enorm.weight                           mtp    D
hnorm.weight                           mtp    D
eh_proj.weight                         mtp    D DD
shared_head.norm.weight                mtp    D
embed_tokens.weight                    mtp    V D
shared_head.head.weight                mtp    V D
"""


def layer_tensors(config, layer):
    """The oracle."""
    return tensors_of(config, layer)


def tensors_of(config, layer, *, kinds=None, number=None, count=None, **sides):
    """The oracle's work; keywords make the known mistakes."""
    a, moe = config.attention, config.moe
    known = {
        "D": config.dim,
        "DD": 2 * config.dim,
        "V": config.vocab_size,
        "F": config.dense.inter_dim,
        "Q": a.q_lora_rank,
        "C": a.kv_lora_rank,
        "Cn": a.kv_lora_rank,
        "Cr": a.kv_lora_rank + a.qk_rope_head_dim,
        "Hk": a.n_heads * (a.qk_nope_head_dim + a.qk_rope_head_dim),
        "Hkv": a.n_heads * (a.qk_nope_head_dim + a.v_head_dim),
        "Hv": a.n_heads * a.v_head_dim,
        "E": moe.n_routed_experts,
        "I": moe.inter_dim,
        "S": moe.n_shared_experts * moe.inter_dim,
    }
    known |= {name: side(config) for name, side in sides.items()}
    which = (kinds or kinds_of)(config, layer)
    found = {}
    for line in TABLE.split("\n")[1:-1]:
        name, where, *shape = line.split()
        if where not in which:
            continue
        n = count(config) if count else known["E"]
        for e in range(n) if "*" in name else (0,):
            full = name.replace("*", str(e))
            found[f"model.layers.{layer if number is None else number}.{full}"] = tuple(
                known[side] for side in shape
            )
    return found


def kinds_of(config, layer):
    if layer < config.n_dense_layers:
        return ("all", "dense")
    return ("all", "sparse") if layer < config.n_layers else ("all", "sparse", "mtp")


def tensor_cases(rng):
    for dense, shared in ((1, 2), (3, 1)):
        rope = 2 * int(rng.integers(2, 5))
        config = Config(
            vocab_size=int(rng.integers(500, 900)),
            dim=int(rng.integers(70, 99)),
            n_layers=dense + 3,
            max_seq_len=64,
            attention=MLA(
                n_heads=int(rng.integers(3, 6)),
                q_lora_rank=int(rng.integers(40, 60)),
                kv_lora_rank=int(rng.integers(20, 39)),
                qk_nope_head_dim=int(rng.integers(11, 19)),
                qk_rope_head_dim=rope,
                v_head_dim=int(rng.integers(20, 27)),
            ),
            dense=SwiGLU(int(rng.integers(200, 300))),
            moe=MoE(
                n_routed_experts=int(rng.integers(6, 12)),
                n_shared_experts=shared,
                n_activated_experts=int(rng.integers(3, 6)),
                inter_dim=int(rng.integers(100, 150)),
                score="sigmoid",
                bias=True,
                norm_topk=True,
            ),
            n_dense_layers=dense,
            mtp=MTP(2),
        )
        for layer in (0, dense - 1, dense, dense + 2, dense + 3, dense + 4):
            said = f"layer {layer}; {dense} dense of {dense + 3}, {shared} shared"
            yield Case((config, layer), said)
