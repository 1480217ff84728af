"""Exercise 14.3, the tensors of a layer: the oracle fills the sizes into a table."""

from deepseek_mini.config import MLA, MTP, Config, MoE, SwiGLU
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake

# Name, where it is, shape; sides are names of numbers, and * is each expert.
TABLE = """
input_layernorm.weight                 all    D
post_attention_layernorm.weight        all    D
self_attn.q_a_proj.weight              all    Q D
self_attn.q_a_layernorm.weight         all    Q
self_attn.q_b_proj.weight              all    Hk Q
self_attn.kv_a_proj_with_mqa.weight    all    Cr D
self_attn.kv_a_layernorm.weight        all    C
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
    return _tensors(config, layer)


def _tensors(config, layer, *, kinds=None, number=None, count=None, **sides):
    """The oracle's work; keywords make the known mistakes."""
    a, moe = config.attention, config.moe
    known = {
        "D": config.dim,
        "DD": 2 * config.dim,
        "V": config.vocab_size,
        "F": config.dense.inter_dim,
        "Q": a.q_lora_rank,
        "C": a.kv_lora_rank,
        "Cr": a.kv_lora_rank + a.qk_rope_head_dim,
        "Hk": a.n_heads * (a.qk_nope_head_dim + a.qk_rope_head_dim),
        "Hkv": a.n_heads * (a.qk_nope_head_dim + a.v_head_dim),
        "Hv": a.n_heads * a.v_head_dim,
        "E": moe.n_routed_experts,
        "I": moe.inter_dim,
        "S": moe.n_shared_experts * moe.inter_dim,
    }
    known |= {name: side(config) for name, side in sides.items()}
    which = (kinds or _kinds)(config, layer)
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


def _kinds(config, layer):
    if layer < config.n_dense_layers:
        return ("all", "dense")
    return ("all", "sparse") if layer < config.n_layers else ("all", "sparse", "mtp")


def _naming(**mistake):
    return lambda *args: _tensors(*args, **mistake)


def _turned(config, layer):
    return {k: v[::-1] for k, v in _tensors(config, layer).items()}


def _without(*ends):
    def wrong(config, layer):
        found = _tensors(config, layer)
        return {k: v for k, v in found.items() if not k.endswith(ends)}

    return wrong


def _lists_of_one(got, want, _args):
    """Vectors as plain numbers: (64) is no tuple."""
    return got.keys() == want.keys() and all(
        got[k] == v or (len(v) == 1 and got[k] == v[0]) for k, v in want.items()
    )


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


TENSORS = Exercise(
    id="14.3",
    title="The tensors of a layer",
    signature="layer_tensors(config, layer)",
    difficulty="some thought",
    minutes=25,
    right=layer_tensors,
    cases=tensor_cases,
    mistakes=(
        Mistake(
            "a matrix has a row for each output: all shapes are turned round",
            gives=_turned,
        ),
        Mistake(
            "the shape of a vector is a tuple of one number: (64,) with a comma, as "
            "(64) is the number 64",
            when=_lists_of_one,
        ),
        Mistake(
            "layers are counted from 0: with one dense layer, layer 1 is sparse",
            gives=_naming(
                kinds=lambda c, i: (
                    ("all", "dense") if i == c.n_dense_layers else _kinds(c, i)
                )
            ),
        ),
        Mistake(
            "the first n_dense_layers layers have no experts",
            gives=_naming(
                kinds=lambda c, i: (
                    ("all", "sparse") if i < c.n_dense_layers else _kinds(c, i)
                )
            ),
        ),
        Mistake(
            "a sparse layer has no dense network beside its experts",
            gives=_naming(
                kinds=lambda c, i: (
                    (*_kinds(c, i), "dense") if i >= c.n_dense_layers else _kinds(c, i)
                )
            ),
        ),
        Mistake(
            "layers from n_layers on are MTP modules, with tensors of their own",
            gives=_naming(
                kinds=lambda c, i: _kinds(c, i)[:2],
            ),
        ),
        Mistake(
            "the first MTP module has the number n_layers: layers are counted from 0",
            gives=_naming(
                kinds=lambda c, i: _kinds(c, i)[: 2 if i == c.n_layers else 3]
            ),
        ),
        Mistake(
            "an MTP module is a sparse layer: it has experts and no dense network",
            gives=_naming(
                kinds=lambda c, i: (
                    ("all", "dense", "mtp") if i >= c.n_layers else _kinds(c, i)
                )
            ),
        ),
        Mistake(
            "an MTP module has a whole layer besides its own tensors",
            gives=_naming(
                kinds=lambda c, i: ("mtp",) if i >= c.n_layers else _kinds(c, i)
            ),
        ),
        Mistake(
            "the copies of embedding and head are missing in the MTP module",
            gives=_without("embed_tokens.weight", "shared_head.head.weight"),
        ),
        Mistake(
            "MTP modules are numbered on after the last layer, not from 0",
            gives=lambda c, i: _tensors(
                c, i, number=i - c.n_layers if i >= c.n_layers else None
            ),
        ),
        Mistake(
            "every routed expert has its tensors, not only as many as a token chooses",
            gives=_naming(count=lambda c: c.moe.n_activated_experts),
        ),
        Mistake(
            "shared experts are one network as wide as all of them together",
            gives=_naming(S=lambda c: c.moe.inter_dim),
        ),
        Mistake(
            "an expert is moe.inter_dim wide, not dense.inter_dim",
            gives=_naming(
                I=lambda c: c.dense.inter_dim,
                S=lambda c: c.dense.inter_dim * c.moe.n_shared_experts,
            ),
        ),
        Mistake(
            "all heads share one RoPE key: kv_a_proj_with_mqa makes r channels for it",
            gives=_naming(
                Cr=lambda c: (
                    c.attention.kv_lora_rank
                    + c.attention.n_heads * c.attention.qk_rope_head_dim
                )
            ),
        ),
        Mistake(
            "the RoPE key comes out of kv_a_proj_with_mqa, too",
            gives=_naming(Cr=lambda c: c.attention.kv_lora_rank),
        ),
        Mistake(
            "a head's query has n + r channels",
            gives=_naming(
                Hk=lambda c: c.attention.n_heads * c.attention.qk_nope_head_dim
            ),
        ),
        Mistake(
            "kv_b_proj makes a key of n and a value of v channels for each head",
            gives=_naming(
                Hkv=lambda c: (
                    c.attention.n_heads
                    * (c.attention.qk_nope_head_dim + c.attention.qk_rope_head_dim)
                )
            ),
        ),
        Mistake(
            "o_proj reads every head's value, of v channels",
            gives=_naming(
                Hv=lambda c: (
                    c.attention.n_heads
                    * (c.attention.qk_nope_head_dim + c.attention.qk_rope_head_dim)
                )
            ),
        ),
        Mistake(
            "eh_proj reads an embedding and a state side by side: 2 D columns",
            gives=_naming(DD=lambda c: c.dim),
        ),
        Mistake(
            "the correction bias is not a weight: its name ends without .weight",
            when=lambda got, want, _args: (
                isinstance(got, dict)
                and got.keys() - want.keys()
                == {
                    f"{k}.weight" for k in want if k.endswith("e_score_correction_bias")
                }
                != set()
            ),
        ),
    ),
    hint="go through the table's lines for this layer: is it dense, sparse or an MTP "
    "module, and what are the sides of the tensor that is named above?",
)
