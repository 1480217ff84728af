"""The parts of DeepSeekMoE, V2 and V3 in a config.json, both ways.

Three formats have them: "deepseek" (MoE-16B: GQA and experts), "deepseek_v2" (MLA,
softmax scores) and "deepseek_v3" (MLA, sigmoid scores with a correction bias, MTP).
"""

from typing import Any

from deepseek_mini.config import GQA, MLA, MTP, Config, MoE
from deepseek_mini.json_fields import Fields

OWN = "deepseek_mini"  # the format for what no released one can say


def model_type_of(config: Config) -> str:
    """The format that says all of a config; `OWN` if no released one does."""
    moe, attention = config.moe, config.attention
    if isinstance(attention, GQA) and moe is None:
        released = "qwen2" if attention.bias else "llama"
    elif isinstance(attention, GQA):
        square = attention.head_dim * attention.n_heads == config.dim
        plain = (attention.bias, moe.n_groups, moe.route_scale) == (False, 1, 1)
        fits = square and plain and moe.score == "softmax"
        released = "deepseek" if fits else OWN
    elif moe is None or (moe.score == "softmax" and not moe.norm_topk):
        released = "deepseek_v2"
    else:
        released = "deepseek_v3" if moe.score == "sigmoid" else OWN
    if moe is not None and moe.bias != (released == "deepseek_v3"):
        return OWN
    if moe is not None and moe.n_shared_experts == 0:
        return OWN
    return released if config.mtp is None or released == "deepseek_v3" else OWN


def read_mla(raw: Fields) -> MLA:
    """Raises ValueError where a field is missing, or heads would share keys."""
    n_heads = raw.get("num_attention_heads", int)
    raw.only("num_key_value_heads", n_heads)
    return MLA(
        n_heads=n_heads,
        q_lora_rank=raw.get("q_lora_rank", int, None),
        kv_lora_rank=raw.get("kv_lora_rank", int),
        qk_nope_head_dim=raw.get("qk_nope_head_dim", int),
        qk_rope_head_dim=raw.get("qk_rope_head_dim", int),
        v_head_dim=raw.get("v_head_dim", int),
    )


def read_moe(raw: Fields, model_type: str, n_layers: int) -> tuple[MoE | None, int]:
    """The mixture and the number of dense layers before it; (None, 0) if no layer has
    it. What the three formats can say but our model cannot do is refused by name.
    """
    n_dense = min(raw.get("first_k_dense_replace", int, 0, least=0), n_layers)
    unsaid = {"n_routed_experts", "num_experts_per_tok"} - {
        name for name, value in raw.values.items() if value is not None
    }
    if n_dense == n_layers and unsaid:
        return None, 0
    raw.only("moe_layer_freq", 1)
    values: dict[str, Any] = {
        "n_routed_experts": raw.get("n_routed_experts", int),
        "n_shared_experts": raw.get("n_shared_experts", int, 0, least=0),
        "n_activated_experts": raw.get("num_experts_per_tok", int),
        "inter_dim": raw.get("moe_intermediate_size", int),
    }
    v3 = model_type == "deepseek_v3"
    raw.only("scoring_func", "sigmoid" if v3 else "softmax")
    if v3:
        raw.only("topk_method", "noaux_tc")
        values |= {"score": "sigmoid", "bias": True}
        values["norm_topk"] = raw.get("norm_topk_prob", bool)
    elif model_type == "deepseek_v2":
        raw.only("topk_method", "greedy", "group_limited_greedy")
        raw.only("norm_topk_prob", False)  # transformers and DeepSeek's code disagree
    else:
        raw.only("topk_method", "greedy")
        values["norm_topk"] = raw.get("norm_topk_prob", bool, False)
    if model_type == "deepseek":
        raw.only("routed_scaling_factor", 1)
    else:
        default = {} if v3 else {"default": 1.0}
        scale = raw.get("routed_scaling_factor", float, **default)
        values["route_scale"] = scale
    if v3 or raw.values.get("topk_method") == "group_limited_greedy":
        values["n_groups"] = raw.get("n_group", int)
        values["n_limited_groups"] = raw.get("topk_group", int)
    return MoE(**values), n_dense


def read_mtp(raw: Fields, model_type: str) -> MTP | None:
    """The MTP modules: V3 alone has them. Whether there are tensors is seen later."""
    if model_type != "deepseek_v3":
        raw.only("num_nextn_predict_layers", 0)
        return None
    depth = raw.get("num_nextn_predict_layers", int, 0, least=0)
    return MTP(depth) if depth else None


def mla_to_json(attention: MLA) -> dict[str, Any]:
    """What config.json says of MLA."""
    return {
        "num_attention_heads": attention.n_heads,
        "num_key_value_heads": attention.n_heads,
        "q_lora_rank": attention.q_lora_rank,
        "kv_lora_rank": attention.kv_lora_rank,
        "qk_nope_head_dim": attention.qk_nope_head_dim,
        "qk_rope_head_dim": attention.qk_rope_head_dim,
        "v_head_dim": attention.v_head_dim,
        "attention_bias": False,
    }


def moe_to_json(config: Config, model_type: str) -> dict[str, Any]:
    """What config.json says of the experts, the dense layers and MTP."""
    moe = config.moe
    if moe is None:
        return {"first_k_dense_replace": config.n_layers}
    values = {
        "n_routed_experts": moe.n_routed_experts,
        "n_shared_experts": moe.n_shared_experts,
        "num_experts_per_tok": moe.n_activated_experts,
        "moe_intermediate_size": moe.inter_dim,
        "first_k_dense_replace": config.n_dense_layers,
        "moe_layer_freq": 1,
        "scoring_func": moe.score,
        "norm_topk_prob": moe.norm_topk,
    }
    if model_type == "deepseek":
        return values
    values |= {
        "n_group": moe.n_groups,
        "topk_group": moe.n_limited_groups,
        "routed_scaling_factor": float(moe.route_scale),
    }
    if model_type == "deepseek_v3":
        values["topk_method"] = "noaux_tc"
        values["rope_interleave"] = config.rope.layout == "interleaved"
        values["num_nextn_predict_layers"] = config.mtp.depth if config.mtp else 0
    else:
        limited = moe.n_groups > 1
        values["topk_method"] = "group_limited_greedy" if limited else "greedy"
    return values
