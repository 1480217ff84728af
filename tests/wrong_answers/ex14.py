"""Lesson 14, DeepSeek-V3."""

import math
from functools import lru_cache

import numpy as np
import torch

from . import Answers, Wrong

# --- 14.1 -------------------------------------------------------------------------


def _idle(config):
    moe = config.moe
    return moe.n_routed_experts - moe.n_activated_experts


def _expert(config):
    return 3 * config.dim * config.moe.inter_dim


def _sparse(config):
    return config.n_layers - config.n_dense_layers


def _table(config):
    return config.vocab_size * config.dim


def met(config, total):
    return total - _sparse(config) * _idle(config) * _expert(config) - _table(config)


def met_layer_by_layer(config, total):
    for layer in range(config.n_layers):
        if layer >= config.n_dense_layers:
            total -= _idle(config) * _expert(config)
    return np.int64(total - _table(config))


def met_all_sparse(config, total):
    return total - config.n_layers * _idle(config) * _expert(config) - _table(config)


def met_one_layer(config, total):
    return total - _idle(config) * _expert(config) - _table(config)


def met_without_the_chosen(config, total):
    chosen = _sparse(config) * config.moe.n_activated_experts
    return total - chosen * _expert(config) - _table(config)


def met_no_routed(config, total):
    routed = _sparse(config) * config.moe.n_routed_experts
    return total - routed * _expert(config) - _table(config)


def met_no_shared(config, total):
    idle = _idle(config) + config.moe.n_shared_experts
    return total - _sparse(config) * idle * _expert(config) - _table(config)


def met_shared_among_chosen(config, total):
    idle = _idle(config) - config.moe.n_shared_experts
    return total - _sparse(config) * idle * _expert(config) - _table(config)


def met_one_matrix(config, total):
    one = config.dim * config.moe.inter_dim
    return total - _sparse(config) * _idle(config) * one - _table(config)


def met_two_matrices(config, total):
    two = 2 * config.dim * config.moe.inter_dim
    return total - _sparse(config) * _idle(config) * two - _table(config)


def met_dense_width(config, total):
    one = 3 * config.dim * config.dense.inter_dim
    return total - _sparse(config) * _idle(config) * one - _table(config)


def met_with_embedding(config, total):
    return total - _sparse(config) * _idle(config) * _expert(config)


def met_no_head(config, total):
    return met(config, total) - _table(config)


def met_no_gate_rows(config, total):
    return met(config, total) - _sparse(config) * _idle(config) * config.dim


def met_not(config, total):
    return _sparse(config) * _idle(config) * _expert(config) + _table(config)


# --- 14.2 -------------------------------------------------------------------------


def folder(shapes, in_fp8):
    total = 0
    for name, shape in shapes.items():
        if name in in_fp8:
            total += math.prod(shape) + 4 * (-(-shape[0] // 128)) * (
                -(-shape[1] // 128)
            )
        else:
            total += 2 * math.prod(shape)
    return total


def folder_of_tensors(shapes, in_fp8):
    total = 0
    for name, shape in shapes.items():
        t = torch.empty(shape, device="meta")
        if name not in in_fp8:
            total += t.numel() * torch.bfloat16.itemsize
            continue
        scales = [b.numel() > 0 for a in t.split(128) for b in a.split(128, dim=1)]
        total += t.numel() + 4 * sum(scales)
    return total


def _folder(shapes, in_fp8, blocks, scale=4):
    total = 0
    for name, shape in shapes.items():
        numbers = math.prod(shape)
        fp8 = name in in_fp8
        total += numbers + scale * blocks(*shape) if fp8 else 2 * numbers
    return total


def _ceil(rows, columns):
    return math.ceil(rows / 128) * math.ceil(columns / 128)


def folder_floor(shapes, in_fp8):
    return _folder(shapes, in_fp8, lambda r, c: (r // 128) * (c // 128))


def folder_floor_of_columns(shapes, in_fp8):
    return _folder(shapes, in_fp8, lambda r, c: math.ceil(r / 128) * (c // 128))


def folder_one_more(shapes, in_fp8):
    return _folder(shapes, in_fp8, lambda r, c: (r // 128 + 1) * (c // 128 + 1))


def folder_flat(shapes, in_fp8):
    return _folder(shapes, in_fp8, lambda r, c: math.ceil(r * c / 128**2))


def folder_flat_floor(shapes, in_fp8):
    return _folder(shapes, in_fp8, lambda r, c: r * c // 16384)


def folder_tiles(shapes, in_fp8):
    return _folder(shapes, in_fp8, lambda r, c: r * math.ceil(c / 128))


def folder_one_scale(shapes, in_fp8):
    return _folder(shapes, in_fp8, lambda r, c: 1)


def folder_no_scales(shapes, in_fp8):
    return _folder(shapes, in_fp8, _ceil, scale=0)


def folder_scale_of_a_byte(shapes, in_fp8):
    return _folder(shapes, in_fp8, _ceil, scale=1)


def folder_scale_in_bfloat16(shapes, in_fp8):
    return _folder(shapes, in_fp8, _ceil, scale=2)


def folder_all_bfloat16(shapes, in_fp8):
    total = sum(2 * math.prod(shape) for shape in shapes.values())
    return total + sum(4 * _ceil(*shapes[name]) for name in in_fp8)


def folder_rest_in_float32(shapes, in_fp8):
    rest = sum(math.prod(s) for name, s in shapes.items() if name not in in_fp8)
    return folder(shapes, in_fp8) + 2 * rest


def folder_only_fp8(shapes, in_fp8):
    return sum(math.prod(shapes[n]) + 4 * _ceil(*shapes[n]) for n in in_fp8)


def folder_every_matrix(shapes, in_fp8):
    return folder(shapes, {name for name, shape in shapes.items() if len(shape) == 2})


def folder_all_fp8(shapes, in_fp8):
    return sum(math.prod(s) + 4 * _ceil(s[0], s[1]) for s in shapes.values())


# --- 14.3 -------------------------------------------------------------------------


@lru_cache
def _all_tensors(config):
    from deepseek_mini.hf_names import mtp_copies, released_tensors
    from deepseek_mini.model import Transformer

    with torch.device("meta"):
        model = Transformer(config)
    found = dict.fromkeys(mtp_copies(config), (config.vocab_size, config.dim))
    for name, p in model.named_parameters():
        tensors = released_tensors(name, p, config)
        found |= {key: tuple(t.shape) for key, t in tensors.items()}
    return found


def tensors_of_a_model(config, layer):
    """What the package would save."""
    found, start = _all_tensors(config), f"model.layers.{layer}."
    return {key: shape for key, shape in found.items() if key.startswith(start)}


def _network(start, width, D):
    return {
        f"{start}.gate_proj.weight": (width, D),
        f"{start}.up_proj.weight": (width, D),
        f"{start}.down_proj.weight": (D, width),
    }


def _attention(config, **other):
    a, D = config.attention, config.dim
    q, C, H = a.q_lora_rank, a.kv_lora_rank, a.n_heads
    n, r, v = a.qk_nope_head_dim, a.qk_rope_head_dim, a.v_head_dim
    sides = {"q_b": H * (n + r), "kv_a": C + r, "kv_b": H * (n + v), "o": H * v}
    sides |= other
    return {
        "input_layernorm.weight": (D,),
        "post_attention_layernorm.weight": (D,),
        "self_attn.q_a_proj.weight": (q, D),
        "self_attn.q_a_layernorm.weight": (q,),
        "self_attn.q_b_proj.weight": (sides["q_b"], q),
        "self_attn.kv_a_proj_with_mqa.weight": (sides["kv_a"], D),
        "self_attn.kv_a_layernorm.weight": (C,),
        "self_attn.kv_b_proj.weight": (sides["kv_b"], C),
        "self_attn.o_proj.weight": (D, sides["o"]),
    }


def _experts(config, n=None, shared=None, bias="mlp.gate.e_score_correction_bias"):
    moe, D = config.moe, config.dim
    n = moe.n_routed_experts if n is None else n
    shared = moe.n_shared_experts if shared is None else shared
    found = {"mlp.gate.weight": (moe.n_routed_experts, D)}
    found[bias] = (moe.n_routed_experts,)
    found |= _network("mlp.shared_experts", shared * moe.inter_dim, D)
    for e in range(n):
        found |= _network(f"mlp.experts.{e}", moe.inter_dim, D)
    return found


def _mtp(config, copies=True, columns=2):
    D = config.dim
    found = {f"{x}.weight": (D,) for x in ("enorm", "hnorm", "shared_head.norm")}
    found["eh_proj.weight"] = (D, columns * D)
    if copies:
        found["embed_tokens.weight"] = (config.vocab_size, D)
        found["shared_head.head.weight"] = (config.vocab_size, D)
    return found


def _named(layer, *parts):
    merged = {}
    for part in parts:
        merged |= part
    return {f"model.layers.{layer}.{name}": shape for name, shape in merged.items()}


def _whole(config, layer, attention=None, experts=None, mtp=None, number=None):
    dense = _network("mlp", config.dense.inter_dim, config.dim)
    sparse = layer >= config.n_dense_layers
    parts = [attention or _attention(config)]
    parts.append((experts or _experts(config)) if sparse else dense)
    if layer >= config.n_layers:
        parts.append(_mtp(config) if mtp is None else mtp)
    return _named(layer if number is None else number, *parts)


def tensors(config, layer):
    return _whole(config, layer)


def tensors_turned(config, layer):
    return {name: shape[::-1] for name, shape in tensors(config, layer).items()}


def tensors_numbers(config, layer):
    found = tensors(config, layer)
    return {k: s[0] if len(s) == 1 else s for k, s in found.items()}


def tensors_dense_off_by_one(config, layer):
    if layer == config.n_dense_layers:
        dense = _network("mlp", config.dense.inter_dim, config.dim)
        return _named(layer, _attention(config), dense)
    return tensors(config, layer)


def tensors_never_dense(config, layer):
    if layer < config.n_dense_layers:
        return _named(layer, _attention(config), _experts(config))
    return tensors(config, layer)


def tensors_no_mtp(config, layer):
    return _whole(config, layer, mtp={})


def tensors_mtp_off_by_one(config, layer):
    return _whole(config, layer, mtp={} if layer == config.n_layers else None)


def tensors_mtp_alone(config, layer):
    if layer >= config.n_layers:
        return _named(layer, _mtp(config))
    return tensors(config, layer)


def tensors_mtp_dense(config, layer):
    if layer >= config.n_layers:
        dense = _network("mlp", config.dense.inter_dim, config.dim)
        return _named(layer, _attention(config), dense, _mtp(config))
    return tensors(config, layer)


def tensors_no_copies(config, layer):
    return _whole(config, layer, mtp=_mtp(config, copies=False))


def tensors_mtp_from_0(config, layer):
    number = layer - config.n_layers if layer >= config.n_layers else None
    return _whole(config, layer, number=number)


def tensors_k_experts(config, layer):
    chosen = config.moe.n_activated_experts
    return _whole(config, layer, experts=_experts(config, n=chosen))


def tensors_one_shared(config, layer):
    return _whole(config, layer, experts=_experts(config, shared=1))


def tensors_key_per_head(config, layer):
    a = config.attention
    keys = a.kv_lora_rank + a.n_heads * a.qk_rope_head_dim
    return _whole(config, layer, _attention(config, kv_a=keys))


def tensors_no_rope_key(config, layer):
    rank = config.attention.kv_lora_rank
    return _whole(config, layer, _attention(config, kv_a=rank))


def tensors_short_query(config, layer):
    a = config.attention
    return _whole(config, layer, _attention(config, q_b=a.n_heads * a.qk_nope_head_dim))


def tensors_wide_values(config, layer):
    a = config.attention
    wide = a.n_heads * (a.qk_nope_head_dim + a.qk_rope_head_dim)
    return _whole(config, layer, _attention(config, kv_b=wide))


def tensors_square_o(config, layer):
    a = config.attention
    wide = a.n_heads * (a.qk_nope_head_dim + a.qk_rope_head_dim)
    return _whole(config, layer, _attention(config, o=wide))


def tensors_narrow_eh(config, layer):
    return _whole(config, layer, mtp=_mtp(config, columns=1))


def tensors_bias_as_weight(config, layer):
    name = "mlp.gate.e_score_correction_bias.weight"
    return _whole(config, layer, experts=_experts(config, bias=name))


def tensors_short_names(config, layer):
    start = f"model.layers.{layer}."
    return {k.removeprefix(start): s for k, s in tensors(config, layer).items()}


# --- 14.4 -------------------------------------------------------------------------


def _rms(x, gain):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * gain


def _swiglu(u, w1, w2, w3):
    z = u @ w1.T
    return (z / (1 + np.exp(-z)) * (u @ w3.T)) @ w2.T


def _shared(u, w):
    return _swiglu(u, w["s1"], w["s2"], w["s3"])


def _routed(u, w, weights, chosen, ffn=_swiglu):
    out = np.zeros_like(u)
    for t in range(len(u)):
        for g, e in zip(weights[t], chosen[t]):
            out[t] += g * ffn(u[t], w["w1"][e], w["w2"][e], w["w3"][e])
    return out


def _open(ranked, part, worth=None, closed=-np.inf):
    groups = ranked.reshape(len(ranked), part.n_groups, -1)
    values = np.sort(groups)[..., -2:].sum(-1) if worth is None else worth(groups)
    best = np.argsort(-values, axis=1)[:, : part.n_limited_groups]
    allowed = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(allowed, best, True, axis=1)
    return np.where(allowed[..., None], groups, closed).reshape(ranked.shape)


def _gate(u, w, part, limit=_open):
    scores = 1 / (1 + np.exp(-u @ w["gate"].T))
    ranked = limit(scores + w["bias"], part)
    chosen = np.argsort(-ranked, axis=1)[:, : part.n_activated_experts]
    return scores, chosen


def _weigh(scores, chosen, part):
    weights = np.take_along_axis(scores, chosen, 1)
    return part.route_scale * weights / weights.sum(1, keepdims=True)


def _after_attention(x, w, attend):
    return x + attend(_rms(x, w["attn_norm"]))


def _finish(h, w, part, limit=_open):
    u = _rms(h, w["ffn_norm"])
    scores, chosen = _gate(u, w, part, limit)
    routed = _routed(u, w, _weigh(scores, chosen, part), chosen)
    return h + _shared(u, w) + routed


def layer(x, w, attend, part):
    return _finish(_after_attention(x, w, attend), w, part)


def layer_all_experts(x, w, attend, part):
    """Every expert for every token, with weight 0 where it was not chosen."""
    h = _after_attention(x, w, attend)
    u = _rms(h, w["ffn_norm"])
    scores, chosen = _gate(u, w, part)
    mask = np.zeros_like(scores)
    np.put_along_axis(mask, chosen, 1.0, axis=1)
    weights = part.route_scale * mask * scores
    weights /= (mask * scores).sum(1, keepdims=True)
    up = np.einsum("td,eid->tei", u, w["w1"])
    gated = up / (1 + np.exp(-up)) * np.einsum("td,eid->tei", u, w["w3"])
    routed = np.einsum("tei,edi,te->td", gated, w["w2"], weights)
    return h + _shared(u, w) + routed


def layer_of_the_package(x, w, attend, part):
    """The package's gate and experts, in float64."""
    from deepseek_mini.model.moe import Experts, Gate

    h = _after_attention(x, w, attend)
    u = torch.from_numpy(_rms(h, w["ffn_norm"]))
    gate, experts = Gate(u.shape[1], part).double(), Experts(u.shape[1], part).double()
    gate.weight.data = torch.from_numpy(w["gate"])
    gate.bias.data = torch.from_numpy(w["bias"])
    for name in ("w1", "w2", "w3"):
        getattr(experts, name).data = torch.from_numpy(w[name])
    routing = gate(u)
    with torch.no_grad():
        routed = experts(u, routing.chosen, routing.weights).numpy()
    return h + _shared(u.numpy(), w) + routed


def layer_bias_weighs(x, w, attend, part):
    h = _after_attention(x, w, attend)
    u = _rms(h, w["ffn_norm"])
    scores = 1 / (1 + np.exp(-u @ w["gate"].T)) + w["bias"]
    chosen = np.argsort(-_open(scores, part), axis=1)[:, : part.n_activated_experts]
    return h + _shared(u, w) + _routed(u, w, _weigh(scores, chosen, part), chosen)


def layer_no_bias(x, w, attend, part):
    return layer(x, w | {"bias": 0 * w["bias"]}, attend, part)


def layer_group_max(x, w, attend, part):
    def limit(ranked, part):
        return _open(ranked, part, worth=lambda groups: groups.max(-1))

    return _finish(_after_attention(x, w, attend), w, part, limit)


def layer_group_sum(x, w, attend, part):
    def limit(ranked, part):
        return _open(ranked, part, worth=lambda groups: groups.sum(-1))

    return _finish(_after_attention(x, w, attend), w, part, limit)


def layer_filled_with_0(x, w, attend, part):
    def limit(ranked, part):
        return _open(ranked, part, closed=0.0)

    return _finish(_after_attention(x, w, attend), w, part, limit)


def layer_no_groups(x, w, attend, part):
    h = _after_attention(x, w, attend)
    return _finish(h, w, part, limit=lambda ranked, part: ranked)


def layer_softmax(x, w, attend, part):
    h = _after_attention(x, w, attend)
    u = _rms(h, w["ffn_norm"])
    powers = np.exp(u @ w["gate"].T)
    scores = powers / powers.sum(1, keepdims=True)
    ranked = _open(scores + w["bias"], part)
    chosen = np.argsort(-ranked, axis=1)[:, : part.n_activated_experts]
    return h + _shared(u, w) + _routed(u, w, _weigh(scores, chosen, part), chosen)


def _with_weights(x, w, attend, part, weigh):
    h = _after_attention(x, w, attend)
    u = _rms(h, w["ffn_norm"])
    scores, chosen = _gate(u, w, part)
    return h + _shared(u, w) + _routed(u, w, weigh(scores, chosen), chosen)


def layer_not_divided(x, w, attend, part):
    def weigh(scores, chosen):
        return part.route_scale * np.take_along_axis(scores, chosen, 1)

    return _with_weights(x, w, attend, part, weigh)


def layer_over_all(x, w, attend, part):
    def weigh(scores, chosen):
        weights = np.take_along_axis(scores, chosen, 1)
        return part.route_scale * weights / scores.sum(1, keepdims=True)

    return _with_weights(x, w, attend, part, weigh)


def layer_no_scale(x, w, attend, part):
    def weigh(scores, chosen):
        return _weigh(scores, chosen, part) / part.route_scale

    return _with_weights(x, w, attend, part, weigh)


def layer_shared_scaled(x, w, attend, part):
    h = _after_attention(x, w, attend)
    more = _shared(_rms(h, w["ffn_norm"]), w)
    return _finish(h, w, part) + (part.route_scale - 1) * more


def layer_no_shared(x, w, attend, part):
    h = _after_attention(x, w, attend)
    return _finish(h, w, part) - _shared(_rms(h, w["ffn_norm"]), w)


def layer_no_attn_norm(x, w, attend, part):
    return _finish(x + attend(x), w, part)


def layer_no_ffn_norm(x, w, attend, part):
    h = _after_attention(x, w, attend)
    scores, chosen = _gate(h, w, part)
    return h + _shared(h, w) + _routed(h, w, _weigh(scores, chosen, part), chosen)


def layer_no_gains(x, w, attend, part):
    ones = np.ones(x.shape[1])
    return layer(x, w | {"attn_norm": ones, "ffn_norm": ones}, attend, part)


def layer_norm_with_mean(x, w, attend, part):
    def norm(x, gain):
        return _rms(x - x.mean(-1, keepdims=True), gain)

    h = x + attend(norm(x, w["attn_norm"]))
    u = norm(h, w["ffn_norm"])
    scores, chosen = _gate(u, w, part)
    return h + _shared(u, w) + _routed(u, w, _weigh(scores, chosen, part), chosen)


def layer_one_gain(x, w, attend, part):
    return layer(x, w | {"ffn_norm": w["attn_norm"]}, attend, part)


def layer_from_copy(x, w, attend, part):
    n = _rms(x, w["attn_norm"])
    return _finish(n + attend(n), w, part)


def layer_no_first_residual(x, w, attend, part):
    return _finish(attend(_rms(x, w["attn_norm"])), w, part)


def layer_from_u(x, w, attend, part):
    h = _after_attention(x, w, attend)
    return _finish(h, w, part) - h + _rms(h, w["ffn_norm"])


def layer_no_second_residual(x, w, attend, part):
    h = _after_attention(x, w, attend)
    return _finish(h, w, part) - h


def layer_parallel(x, w, attend, part):
    return _finish(x, w, part) + attend(_rms(x, w["attn_norm"]))


def layer_no_silu(x, w, attend, part):
    def ffn(u, w1, w2, w3):
        return ((u @ w1.T) * (u @ w3.T)) @ w2.T

    h = _after_attention(x, w, attend)
    u = _rms(h, w["ffn_norm"])
    scores, chosen = _gate(u, w, part)
    routed = _routed(u, w, _weigh(scores, chosen, part), chosen, ffn)
    return h + ffn(u, w["s1"], w["s2"], w["s3"]) + routed


def layer_in_place(x, w, attend, part):
    x += attend(_rms(x, w["attn_norm"]))
    return _finish(x, w, part)


ANSWERS = {
    "14.1": Answers(
        right=[met, met_layer_by_layer],
        wrong=[
            Wrong(met_all_sparse, "every layer was counted as sparse"),
            Wrong(met_one_layer, "one layer was counted"),
            Wrong(met_without_the_chosen, "that a token chooses were taken away"),
            Wrong(met_no_routed, "all routed experts were taken away"),
            Wrong(met_no_shared, "shared experts were taken away"),
            Wrong(met_shared_among_chosen, "on top of them"),
            Wrong(met_one_matrix, "not one"),
            Wrong(met_two_matrices, "not two"),
            Wrong(met_dense_width, "the width of the dense network"),
            Wrong(met_with_embedding, "the embedding is still in it"),
            Wrong(met_no_head, "the head counts"),
            Wrong(met_no_gate_rows, "rows of the gate"),
            Wrong(met_not, "what a token does not meet"),
        ],
    ),
    "14.2": Answers(
        right=[folder, folder_of_tensors],
        wrong=[
            Wrong(folder_floor, "left over at the edges"),
            Wrong(folder_floor_of_columns, "only one of the two edges"),
            Wrong(folder_one_more, "a whole block too many"),
            Wrong(folder_flat, "blocks have two sides"),
            Wrong(folder_flat_floor, "blocks have two sides"),
            Wrong(folder_tiles, "128 rows share one"),
            Wrong(folder_one_scale, "one for each block"),
            Wrong(folder_no_scales, "the scales are missing"),
            Wrong(folder_scale_of_a_byte, "four bytes"),
            Wrong(folder_scale_in_bfloat16, "four bytes"),
            Wrong(folder_all_bfloat16, "has one byte"),
            Wrong(folder_rest_in_float32, "takes two bytes"),
            Wrong(folder_only_fp8, "are missing"),
            Wrong(folder_every_matrix, "every matrix was counted as FP8"),
            Wrong(folder_all_fp8, "no second side"),
        ],
    ),
    "14.3": Answers(
        right=[tensors, tensors_of_a_model],
        wrong=[
            Wrong(tensors_turned, "turned round"),
            Wrong(tensors_numbers, "with a comma"),
            Wrong(tensors_dense_off_by_one, "counted from 0"),
            Wrong(tensors_never_dense, "have no experts"),
            Wrong(tensors_no_mtp, "with tensors of their own"),
            Wrong(tensors_mtp_off_by_one, "has the number n_layers"),
            Wrong(tensors_mtp_alone, "has a whole layer"),
            Wrong(tensors_mtp_dense, "no dense network"),
            Wrong(tensors_no_copies, "the copies of embedding and head"),
            Wrong(tensors_mtp_from_0, "numbered on after the last layer"),
            Wrong(tensors_k_experts, "not only as many as a token chooses"),
            Wrong(tensors_one_shared, "as wide as all of them"),
            Wrong(tensors_key_per_head, "share one RoPE key"),
            Wrong(tensors_no_rope_key, "too"),
            Wrong(tensors_short_query, "n + r channels"),
            Wrong(tensors_wide_values, "a key of n and a value of v"),
            Wrong(tensors_square_o, "of v channels"),
            Wrong(tensors_narrow_eh, "2 D columns"),
            Wrong(tensors_bias_as_weight, "ends without .weight"),
            Wrong(tensors_short_names, "lacks"),
        ],
    ),
    "14.4": Answers(
        right=[layer, layer_all_experts, layer_of_the_package],
        wrong=[
            Wrong(layer_bias_weighs, "the bias is in the weights"),
            Wrong(layer_no_bias, "the bias is missing"),
            Wrong(layer_group_max, "as in V2"),
            Wrong(layer_group_sum, "all its experts together"),
            Wrong(layer_filled_with_0, "set to 0"),
            Wrong(layer_no_groups, "the limit to groups is missing"),
            Wrong(layer_softmax, "not a softmax"),
            Wrong(layer_not_divided, "not divided"),
            Wrong(layer_over_all, "not of the chosen ones"),
            Wrong(layer_no_scale, "route_scale is missing"),
            Wrong(layer_shared_scaled, "only the routed ones are"),
            Wrong(layer_no_shared, "the shared expert is missing"),
            Wrong(layer_no_attn_norm, "the norm before attention"),
            Wrong(layer_no_ffn_norm, "the norm before gate and experts"),
            Wrong(layer_no_gains, "gains are missing"),
            Wrong(layer_norm_with_mean, "takes no mean away"),
            Wrong(layer_one_gain, "both norms have the same gain"),
            Wrong(layer_from_copy, "added to the normed copy"),
            Wrong(layer_no_first_residual, "x is not added"),
            Wrong(layer_from_u, "they go to h"),
            Wrong(layer_no_second_residual, "h is not added"),
            Wrong(layer_parallel, "read that of h"),
            Wrong(layer_no_silu, "the silu is missing"),
            Wrong(layer_in_place, "in place"),
        ],
    ),
}
