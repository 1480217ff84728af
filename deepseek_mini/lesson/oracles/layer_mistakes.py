"""Exercise 14.3, declared: what people write instead."""

from deepseek_mini.lesson.oracles import Exercise, Mistake
from deepseek_mini.lesson.oracles.layer_tensors import (
    kinds_of,
    layer_tensors,
    tensor_cases,
    tensors_of,
)


def _naming(**mistake):
    return lambda *args: tensors_of(*args, **mistake)


def _turned(config, layer):
    return {k: v[::-1] for k, v in tensors_of(config, layer).items()}


def _without(*ends):
    def wrong(config, layer):
        found = tensors_of(config, layer)
        return {k: v for k, v in found.items() if not k.endswith(ends)}

    return wrong


def _lists_of_one(got, want, _args):
    """Vectors as plain numbers: (64) is no tuple."""
    return got.keys() == want.keys() and all(
        got[k] == v or (len(v) == 1 and got[k] == v[0]) for k, v in want.items()
    )


def _reversed(got, want, _args):
    """The names are right, and every shape that is not is turned round."""
    return got.keys() == want.keys() and all(
        tuple(got[k]) in (v, v[::-1]) for k, v in want.items()
    )


def _no_tuples(got, want, _args):
    return got.keys() == want.keys() and not all(
        isinstance(v, tuple | list) for v in got.values()
    )


def _shared_as_numbered(config, layer):
    found = tensors_of(config, layer)
    parts = {k: v for k, v in found.items() if "shared_experts" not in k}
    for name, shape in tensors_of(config, layer, S=lambda c: c.moe.inter_dim).items():
        for e in range(config.moe.n_shared_experts if "shared_experts" in name else 0):
            parts[name.replace("shared_experts", f"shared_experts.{e}")] = shape
    return parts


def _from_1(config, layer):
    found, n = tensors_of(config, layer), config.moe.n_routed_experts
    return {k.replace("experts.0.", f"experts.{n}."): v for k, v in found.items()}


def _at(field, *more):
    """The side H (field + ...), for each head."""

    def side(config):
        a = config.attention
        return a.n_heads * sum(getattr(a, name) for name in (field, *more))

    return side


def _values(field):
    """Keys and values of one width."""
    return _at(field, field)


MISTAKES = (
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
        "no name is right: all begin with model.layers. and the layer's own number",
        when=lambda got, want, _args: not set(got) & set(want),
    ),
    Mistake("a shape is a tuple of whole numbers", when=_no_tuples),
    Mistake(
        "the shape of this tensor is turned round: a matrix has a row for each output",
        when=_reversed,
    ),
    Mistake(
        "layers are counted from 0: with one dense layer, layer 1 is sparse",
        gives=_naming(
            kinds=lambda c, i: (
                ("all", "dense") if i == c.n_dense_layers else kinds_of(c, i)
            )
        ),
    ),
    Mistake(
        "the first n_dense_layers layers have no experts",
        gives=_naming(
            kinds=lambda c, i: (
                ("all", "sparse") if i < c.n_dense_layers else kinds_of(c, i)
            )
        ),
    ),
    Mistake(
        "a sparse layer has no dense network beside its experts",
        gives=_naming(
            kinds=lambda c, i: (
                (*kinds_of(c, i), "dense") if i >= c.n_dense_layers else kinds_of(c, i)
            )
        ),
    ),
    Mistake(
        "layers from n_layers on are MTP modules, with tensors of their own",
        gives=_naming(
            kinds=lambda c, i: kinds_of(c, i)[:2],
        ),
    ),
    Mistake(
        "the first MTP module has the number n_layers: layers are counted from 0",
        gives=_naming(kinds=lambda c, i: kinds_of(c, i)[: 2 if i == c.n_layers else 3]),
    ),
    Mistake(
        "an MTP module is a sparse layer: it has experts and no dense network",
        gives=_naming(
            kinds=lambda c, i: (
                ("all", "dense", "mtp") if i >= c.n_layers else kinds_of(c, i)
            )
        ),
    ),
    Mistake(
        "an MTP module has a whole layer besides its own tensors",
        gives=_naming(
            kinds=lambda c, i: ("mtp",) if i >= c.n_layers else kinds_of(c, i)
        ),
    ),
    Mistake(
        "the copies of embedding and head are missing in the MTP module",
        gives=_without("embed_tokens.weight", "shared_head.head.weight"),
    ),
    Mistake(
        "MTP modules are numbered on after the last layer, not from 0",
        gives=lambda c, i: tensors_of(
            c, i, number=i - c.n_layers if i >= c.n_layers else None
        ),
    ),
    Mistake(
        "every routed expert has its tensors, not only as many as a token chooses",
        gives=_naming(count=lambda c: c.moe.n_activated_experts),
    ),
    Mistake(
        "there are n_routed_experts experts, not 256 as in V3: ask the config",
        gives=_naming(count=lambda c: 256, E=lambda c: 256),
    ),
    Mistake("experts are counted from 0", gives=_from_1),
    Mistake(
        "shared experts have no numbers: they are one network, side by side",
        gives=_shared_as_numbered,
    ),
    Mistake(
        "the gate's e_score_correction_bias is missing",
        gives=_without("e_score_correction_bias"),
    ),
    Mistake(
        "the last layer before n_layers is no MTP module",
        gives=_naming(
            kinds=lambda c, i: (
                ("all", "sparse", "mtp")[: 3 if i >= c.n_layers - 1 else 2]
                if i >= c.n_dense_layers
                else kinds_of(c, i)
            )
        ),
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
        "the latent alone is normed: it has kv_lora_rank numbers",
        gives=_naming(
            Cn=lambda c: c.attention.kv_lora_rank + c.attention.qk_rope_head_dim
        ),
    ),
    Mistake(
        "a head's query has n + r channels",
        gives=_naming(Hk=_at("qk_nope_head_dim")),
    ),
    Mistake(
        "every head has RoPE channels of its own in its query: H (n + r), not H n + r",
        gives=_naming(
            Hk=lambda c: _at("qk_nope_head_dim")(c) + c.attention.qk_rope_head_dim
        ),
    ),
    *(
        Mistake(
            "kv_b_proj makes a key of n and a value of v channels for each head",
            gives=_naming(Hkv=side),
        )
        for side in (
            _at("qk_nope_head_dim", "qk_rope_head_dim"),
            _values("qk_nope_head_dim"),
            _values("v_head_dim"),
        )
    ),
    *(
        Mistake(
            "o_proj reads every head's value, of v channels",
            gives=_naming(Hv=side),
        )
        for side in (
            _at("qk_nope_head_dim", "qk_rope_head_dim"),
            _at("qk_nope_head_dim"),
            lambda c: c.dim,
        )
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
            == {f"{k}.weight" for k in want if k.endswith("e_score_correction_bias")}
            != set()
        ),
    ),
)

TENSORS = Exercise(
    id="14.3",
    title="The tensors of a layer",
    signature="layer_tensors(config, layer)",
    difficulty="some thought",
    minutes=25,
    right=layer_tensors,
    cases=tensor_cases,
    mistakes=MISTAKES,
    hint="go through the table's lines for this layer: is it dense, sparse or an MTP "
    "module, and what are the sides of the tensor that is named above?",
)
