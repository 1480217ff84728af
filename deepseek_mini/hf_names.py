"""Our parameters and the tensors of released folders: names, and orders of rows.

Not every parameter is one tensor: the E routed experts of a layer are stacked here and
stand one by one there.
"""

import re

import torch
from torch import Tensor

from deepseek_mini.config import MLA, Config

# Our module names and those of released Llama- and Qwen2-shaped folders; # is a number.
NAMES = {
    "embed": "model.embed_tokens",
    "layers.#.attn_norm": "model.layers.#.input_layernorm",
    "layers.#.attn.wq": "model.layers.#.self_attn.q_proj",
    "layers.#.attn.wk": "model.layers.#.self_attn.k_proj",
    "layers.#.attn.wv": "model.layers.#.self_attn.v_proj",
    "layers.#.attn.wo": "model.layers.#.self_attn.o_proj",
    "layers.#.ffn_norm": "model.layers.#.post_attention_layernorm",
    "layers.#.ffn.w1": "model.layers.#.mlp.gate_proj",
    "layers.#.ffn.w3": "model.layers.#.mlp.up_proj",
    "layers.#.ffn.w2": "model.layers.#.mlp.down_proj",
    "norm": "model.norm",
    "head": "lm_head",
}
# What DeepSeekMoE, V2 and V3 have besides; * is each of the routed experts.
SPARSE_NAMES = {
    "layers.#.attn.wq_a": "model.layers.#.self_attn.q_a_proj",
    "layers.#.attn.q_norm": "model.layers.#.self_attn.q_a_layernorm",
    "layers.#.attn.wq_b": "model.layers.#.self_attn.q_b_proj",
    "layers.#.attn.wkv_a": "model.layers.#.self_attn.kv_a_proj_with_mqa",
    "layers.#.attn.kv_norm": "model.layers.#.self_attn.kv_a_layernorm",
    "layers.#.attn.wkv_b": "model.layers.#.self_attn.kv_b_proj",
    "layers.#.ffn.gate": "model.layers.#.mlp.gate",
    "layers.#.ffn.gate.bias": "model.layers.#.mlp.gate.e_score_correction_bias",
    "layers.#.ffn.experts.w1": "model.layers.#.mlp.experts.*.gate_proj.weight",
    "layers.#.ffn.experts.w3": "model.layers.#.mlp.experts.*.up_proj.weight",
    "layers.#.ffn.experts.w2": "model.layers.#.mlp.experts.*.down_proj.weight",
    "layers.#.ffn.shared.w1": "model.layers.#.mlp.shared_experts.gate_proj",
    "layers.#.ffn.shared.w3": "model.layers.#.mlp.shared_experts.up_proj",
    "layers.#.ffn.shared.w2": "model.layers.#.mlp.shared_experts.down_proj",
}
# MTP modules are numbered on after the last layer, and their block is named like one.
MTP_NAMES = {
    "enorm": "model.layers.#.enorm",
    "hnorm": "model.layers.#.hnorm",
    "eh_proj": "model.layers.#.eh_proj",
    "norm": "model.layers.#.shared_head.norm",
}
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SCALE = "_scale_inv"  # the end of the name of an FP8 tensor's scales


def released_name(name: str, n_layers: int = 0) -> str:
    """The released tensor's name for one of our parameters, with a * in place of the
    expert's number for a stack of experts. `n_layers` counts for MTP modules only.

    Raises:
        ValueError: the tables of names do not know it.
    """
    known, ours = NAMES | SPARSE_NAMES, name
    if mtp := re.match(r"mtp\.(\d+)\.", name):
        rest, layer = name[mtp.end() :], n_layers + int(mtp[1])
        block = rest.startswith("block.")
        ours = f"layers.{layer}.{rest.removeprefix('block.')}"
        known = known if block else {f"layers.#.{k}": v for k, v in MTP_NAMES.items()}
    module, _, kind = ours.rpartition(".")  # kind: weight or bias
    for known_as, end in ((ours, ""), (module, f".{kind}")):
        released = known.get(re.sub(r"\b\d+\b", "#", known_as))
        if released is not None:
            for number in re.findall(r"\b\d+\b", known_as):
                released = released.replace("#", number, 1)
            return released + end
    raise ValueError(f"the parameter {name} has no name in released folders")


def released_tensors(name: str, parameter: Tensor, config: Config) -> dict[str, Tensor]:
    """One of our parameters as released tensors, which share its memory: itself, or one
    for each expert of a stack.
    """
    released = released_name(name, config.n_layers)
    if "*" not in released:
        return {released: parameter}
    return {released.replace("*", str(e)): part for e, part in enumerate(parameter)}


def mtp_layers(config: Config) -> list[str]:
    """What the names of the MTP modules' tensors begin with, one for each depth."""
    depth = config.mtp.depth if config.mtp else 0
    return [f"model.layers.{config.n_layers + k}." for k in range(depth)]


def mtp_copies(config: Config) -> dict[str, str]:
    """Released MTP modules repeat the model's embedding and head: copy to original."""
    names = {}
    for layer in mtp_layers(config):
        names[f"{layer}embed_tokens.weight"] = EMBED
        names[f"{layer}shared_head.head.weight"] = HEAD
    return names


def with_layout(config: Config, name: str, value: Tensor, layout: str) -> Tensor:
    """A parameter for another layout of RoPE: its rows change places, and the model
    computes the same.

    Interleaved RoPE pairs channels 2i and 2i + 1, half-split RoPE i and i + d/2; scores
    do not depend on an order of channels that queries and keys share.
    """
    part, module = config.attention, name.split(".")[-2]
    if layout == config.rope.layout:
        return value
    reorder = to_half_split if layout == "half_split" else to_interleaved
    if not isinstance(part, MLA):
        return reorder(value, part.head_dim) if module in ("wq", "wk") else value
    nope, pe = part.qk_nope_head_dim, part.qk_rope_head_dim
    if module in ("wq", "wq_b"):
        heads = value.unflatten(0, (part.n_heads, nope + pe)).split((nope, pe), dim=1)
        turned = reorder(heads[1].flatten(0, 1), pe).view_as(heads[1])
        return torch.cat((heads[0], turned), dim=1).flatten(0, 1)
    if module == "wkv_a":
        latent, key = value.split((part.kv_lora_rank, pe))
        return torch.cat((latent, reorder(key, pe)))
    return value


def to_half_split(rows: Tensor, head_dim: int) -> Tensor:
    """Reorder rows, [H · head_dim, D], or a bias, [H · head_dim]: in every head the
    even ones come first, then the odd ones.
    """
    pairs = rows.unflatten(0, (-1, head_dim // 2, 2))  # [H, head_dim/2, 2, ...]
    return pairs.transpose(1, 2).flatten(0, 2)


def to_interleaved(rows: Tensor, head_dim: int) -> Tensor:
    """What undoes `to_half_split`."""
    halves = rows.unflatten(0, (-1, 2, head_dim // 2))  # [H, 2, head_dim/2, ...]
    return halves.transpose(1, 2).flatten(0, 2)
