"""Lesson 14, DeepSeek-V3."""

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch

from . import Answers, Wrong

# --- 14.1 -------------------------------------------------------------------------


def _expert(config):
    return 3 * config.dim * config.moe.inter_dim


def _sparse(config):
    return config.n_layers - config.n_dense_layers


def _share(config, n_gpus, extra):
    return config.moe.n_routed_experts // n_gpus + extra


def _without(config, total, n, sparse=None, expert=None):
    """n experts a layer taken away."""
    sparse = _sparse(config) if sparse is None else sparse
    return total - sparse * n * (_expert(config) if expert is None else expert)


def _elsewhere(config, n_gpus, extra):
    return config.moe.n_routed_experts - _share(config, n_gpus, extra)


def held(config, total, n_gpus, extra):
    return _without(config, total, _elsewhere(config, n_gpus, extra))


def held_layer_by_layer(config, total, n_gpus, extra):
    for layer in range(config.n_layers):
        if layer >= config.n_dense_layers:
            away = config.moe.n_routed_experts * (n_gpus - 1) // n_gpus - extra
            total -= away * _expert(config)
    return np.int64(total)


def held_all_sparse(config, total, n_gpus, extra):
    return _without(config, total, _elsewhere(config, n_gpus, extra), config.n_layers)


def held_with_mtp(config, total, n_gpus, extra):
    sparse = _sparse(config) + config.mtp.depth
    return _without(config, total, _elsewhere(config, n_gpus, extra), sparse)


def held_three_dense(config, total, n_gpus, extra):
    sparse = config.n_layers - 3
    return _without(config, total, _elsewhere(config, n_gpus, extra), sparse)


def held_58(config, total, n_gpus, extra):
    return _without(config, total, _elsewhere(config, n_gpus, extra), 58)


def held_one_layer(config, total, n_gpus, extra):
    return _without(config, total, _elsewhere(config, n_gpus, extra), 1)


def held_away(config, total, n_gpus, extra):
    return _without(config, total, _share(config, n_gpus, extra))


def held_no_routed(config, total, n_gpus, extra):
    return _without(config, total, config.moe.n_routed_experts)


def held_no_extra(config, total, n_gpus, extra):
    return _without(config, total, _elsewhere(config, n_gpus, 0))


def held_extra_away(config, total, n_gpus, extra):
    return _without(config, total, _elsewhere(config, n_gpus, -extra))


def held_extra_of_all(config, total, n_gpus, extra):
    routed = config.moe.n_routed_experts
    return _without(config, total, routed - (routed + extra) // n_gpus)


def held_chosen(config, total, n_gpus, extra):
    moe = config.moe
    return _without(config, total, moe.n_routed_experts - moe.n_activated_experts)


def held_all_divided(config, total, n_gpus, extra):
    return total // n_gpus + _sparse(config) * extra * _expert(config)


def held_shared_divided(config, total, n_gpus, extra):
    shared = config.moe.n_shared_experts
    away = _elsewhere(config, n_gpus, extra) + shared - shared // n_gpus
    return _without(config, total, away)


def held_one_matrix(config, total, n_gpus, extra):
    one = _expert(config) // 3
    return _without(config, total, _elsewhere(config, n_gpus, extra), expert=one)


def held_two_matrices(config, total, n_gpus, extra):
    two = _expert(config) // 3 * 2
    return _without(config, total, _elsewhere(config, n_gpus, extra), expert=two)


def held_dense_width(config, total, n_gpus, extra):
    one = 3 * config.dim * config.dense.inter_dim
    return _without(config, total, _elsewhere(config, n_gpus, extra), expert=one)


def held_no_gate_rows(config, total, n_gpus, extra):
    with_rows = _expert(config) + config.dim
    return _without(config, total, _elsewhere(config, n_gpus, extra), expert=with_rows)


def held_not(config, total, n_gpus, extra):
    return total - held(config, total, n_gpus, extra)


# --- 14.2 -------------------------------------------------------------------------


def slice_(shapes, in_fp8, gpu, n_gpus):
    total = 0
    for name, shape in shapes.items():
        if name in in_fp8:
            rows, columns = shape[0] // n_gpus, shape[1]
            first, last = gpu * rows, (gpu + 1) * rows - 1
            blocks = (last // 128 - first // 128 + 1) * -(-columns // 128)
            total += rows * columns + 4 * blocks
        else:
            total += 2 * math.prod(shape)
    return total


def slice_of_tensors(shapes, in_fp8, gpu, n_gpus):
    """Numbers the blocks, cuts the numbers, and counts the different ones."""
    total = 0
    for name, shape in shapes.items():
        if name not in in_fp8:
            total += torch.empty(shape, dtype=torch.bfloat16, device="meta").nbytes
            continue
        block = torch.arange(shape[0])[:, None] // 128 * 1000
        block = block + torch.arange(shape[1]) // 128
        mine = block.chunk(n_gpus)[gpu]
        total += mine.numel() + 4 * mine.unique().numel()
    return total


def _touched(rows, first, last):
    return (last - 1) // 128 - first // 128 + 1


def _slice(shapes, in_fp8, gpu, n_gpus, down=_touched, across=None, scale=4, **m):
    total = 0
    for name, shape in shapes.items():
        if name not in in_fp8:
            total += 2 * math.prod(shape)
            continue
        rows, columns = shape[0] // n_gpus, shape[1]
        blocks = down(shape[0], gpu * rows, (gpu + 1) * rows)
        blocks *= across(columns) if across else math.ceil(columns / 128)
        if m.get("blocks"):
            blocks = m["blocks"](rows, columns)
        total += m.get("one", 1) * rows * columns + scale * blocks
    return total


def slice_own_blocks(*args):
    return _slice(*args, down=lambda rows, a, b: math.ceil((b - a) / 128))


def slice_one_more(*args):
    return _slice(*args, down=lambda rows, a, b: b // 128 - a // 128 + 1)


def slice_one_less(*args):
    return _slice(*args, down=lambda rows, a, b: (b - 1) // 128 - a // 128)


def slice_whole_blocks(*args):
    return _slice(*args, down=lambda rows, a, b: b // 128 - a // 128)


def slice_begun_blocks(*args):
    down = lambda rows, a, b: math.ceil(b / 128) - math.ceil(a / 128)  # noqa: E731
    return _slice(*args, down=down)


def slice_all_scales(*args):
    return _slice(*args, down=lambda rows, a, b: math.ceil(rows / 128))


def slice_from_1(shapes, in_fp8, gpu, n_gpus):
    return _slice(shapes, in_fp8, gpu - 1, n_gpus)


def slice_floor_of_columns(*args):
    return _slice(*args, across=lambda columns: columns // 128)


def slice_column_too_many(*args):
    return _slice(*args, across=lambda columns: columns // 128 + 1)


def slice_columns(shapes, in_fp8, gpu, n_gpus):
    turned = {k: s[::-1] if k in in_fp8 else s for k, s in shapes.items()}
    return _slice(turned, in_fp8, gpu, n_gpus)


def slice_flat(*args):
    return _slice(*args, blocks=lambda r, c: math.ceil(r * c / 128**2))


def slice_rows(*args):
    return _slice(*args, down=lambda rows, a, b: b - a)


def slice_one_scale(*args):
    return _slice(*args, blocks=lambda r, c: 1)


def slice_no_scales(*args):
    return _slice(*args, scale=0)


def slice_scale_of_a_byte(*args):
    return _slice(*args, scale=1)


def slice_scale_in_bfloat16(*args):
    return _slice(*args, scale=2)


def slice_all_bfloat16(*args):
    return _slice(*args, one=2)


def _rest(shapes, in_fp8):
    return sum(math.prod(s) for name, s in shapes.items() if name not in in_fp8)


def slice_rest_in_float32(shapes, in_fp8, gpu, n_gpus):
    return slice_(shapes, in_fp8, gpu, n_gpus) + 2 * _rest(shapes, in_fp8)


def slice_rest_in_bytes(shapes, in_fp8, gpu, n_gpus):
    return slice_(shapes, in_fp8, gpu, n_gpus) - _rest(shapes, in_fp8)


def slice_only_fp8(shapes, in_fp8, gpu, n_gpus):
    return slice_({name: shapes[name] for name in in_fp8}, in_fp8, gpu, n_gpus)


def slice_all_cut(shapes, in_fp8, gpu, n_gpus):
    cut = {
        k: s if k in in_fp8 or len(s) == 1 else (s[0] // n_gpus, s[1])
        for k, s in shapes.items()
    }
    return slice_(cut, in_fp8, gpu, n_gpus)


def slice_not_cut(shapes, in_fp8, gpu, n_gpus):
    more = sum(math.prod(shapes[name]) for name in in_fp8)
    return slice_(shapes, in_fp8, gpu, n_gpus) + more - more // n_gpus


def slice_scales_for_all(shapes, in_fp8, gpu, n_gpus):
    rest = [s for k, s in shapes.items() if k not in in_fp8 and len(s) == 2]
    for rows, columns in rest:
        a, b = gpu * (rows // n_gpus), (gpu + 1) * (rows // n_gpus)
        shapes = shapes | {f"{a}{columns}": (2 * _touched(rows, a, b),)}
        more = 2 * _touched(rows, a, b) * (math.ceil(columns / 128) - 1)
        shapes = shapes | {f"{a}{columns}{len(shapes)}": (more,)}
    return slice_(shapes, in_fp8, gpu, n_gpus)


def slice_every_matrix(shapes, in_fp8, gpu, n_gpus):
    matrices = {name for name, shape in shapes.items() if len(shape) == 2}
    return slice_(shapes, matrices, gpu, n_gpus)


def slice_inverted(shapes, in_fp8, gpu, n_gpus):
    others = {k for k, s in shapes.items() if k not in in_fp8 and len(s) == 2}
    return slice_(shapes, others, gpu, n_gpus)


def slice_all_fp8(shapes, in_fp8, gpu, n_gpus):
    return slice_(shapes, set(shapes), gpu, n_gpus)


def slice_clears_the_set(shapes, in_fp8, gpu, n_gpus):
    out = slice_(shapes, in_fp8, gpu, n_gpus)
    in_fp8.clear()
    return out


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


def _put(config, layer, end, shape):
    """The right tensors, with another shape where the name ends so."""
    found = tensors(config, layer)
    return {k: shape if k.endswith(end) else s for k, s in found.items()}


def tensors_arrays(config, layer):
    return {k: np.array(s) for k, s in tensors(config, layer).items()}


def tensors_o_turned(config, layer):
    a = config.attention
    shape = (a.n_heads * a.v_head_dim, config.dim)
    return _put(config, layer, "o_proj.weight", shape)


def tensors_down_turned(config, layer):
    found = tensors(config, layer)
    return {k: s[::-1] if "down" in k else s for k, s in found.items()}


def tensors_o_of_keys(config, layer):
    a = config.attention
    return _whole(config, layer, _attention(config, o=a.n_heads * a.qk_nope_head_dim))


def tensors_one_rope_query(config, layer):
    a = config.attention
    q_b = a.n_heads * a.qk_nope_head_dim + a.qk_rope_head_dim
    return _whole(config, layer, _attention(config, q_b=q_b))


def tensors_norm_of_all(config, layer):
    a = config.attention
    shape = (a.kv_lora_rank + a.qk_rope_head_dim,)
    return _put(config, layer, "kv_a_layernorm.weight", shape)


def tensors_experts_from_1(config, layer):
    found, last = tensors(config, layer), config.moe.n_routed_experts
    return {k.replace(".experts.0.", f".experts.{last}."): s for k, s in found.items()}


def tensors_256_experts(config, layer):
    moe = replace(config.moe, n_routed_experts=256)
    return tensors(replace(config, moe=moe), layer)


def tensors_shared_numbered(config, layer):
    found = tensors(config, layer)
    parts = {k: s for k, s in found.items() if "shared_experts" not in k}
    if layer >= config.n_dense_layers:
        for e in range(config.moe.n_shared_experts):
            start = f"mlp.shared_experts.{e}"
            parts |= _named(layer, _network(start, config.moe.inter_dim, config.dim))
    return parts


def tensors_mtp_early(config, layer):
    found = tensors(config, layer)
    last = layer == config.n_layers - 1
    return found | _named(layer, _mtp(config)) if last else found


def tensors_no_bias(config, layer):
    return {k: s for k, s in tensors(config, layer).items() if not k.endswith("bias")}


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


def _worth(x, w, attend, part, worth):
    def limit(ranked, part):
        return _open(ranked, part, worth=worth)

    return _finish(_after_attention(x, w, attend), w, part, limit)


def layer_group_of_open(x, w, attend, part):
    n = part.n_limited_groups
    return _worth(x, w, attend, part, lambda g: np.sort(g)[..., -n:].sum(-1))


def layer_group_of_three(x, w, attend, part):
    return _worth(x, w, attend, part, lambda g: np.sort(g)[..., -3:].sum(-1))


def layer_group_without_bias(x, w, attend, part):
    def worth(groups):
        scores = groups - w["bias"].reshape(part.n_groups, -1)
        return np.sort(scores)[..., -2:].sum(-1)

    return _worth(x, w, attend, part, worth)


def layer_group_size(x, w, attend, part):
    n = len(w["gate"]) // part.n_groups
    wrong = replace(part, n_groups=n, n_limited_groups=min(n, part.n_limited_groups))
    return layer(x, w, attend, wrong)


def layer_interleaved(x, w, attend, part):
    """The experts renamed so that i % n_groups is the group."""
    order = np.arange(len(w["gate"])).reshape(-1, part.n_groups).T.ravel()
    names = ("gate", "bias", "w1", "w2", "w3")
    return layer(x, w | {k: w[k][order] for k in names}, attend, part)


def layer_silu_on_w3(x, w, attend, part):
    names = {"w1": w["w3"], "w3": w["w1"], "s1": w["s3"], "s3": w["s1"]}
    return layer(x, w | names, attend, part)


def _other_norm(x, w, attend, part, norm):
    h = x + attend(norm(x, w["attn_norm"]))
    u = norm(h, w["ffn_norm"])
    scores, chosen = _gate(u, w, part)
    return h + _shared(u, w) + _routed(u, w, _weigh(scores, chosen, part), chosen)


def layer_no_eps(x, w, attend, part):
    def norm(x, gain):
        return x / np.sqrt((x**2).mean(-1, keepdims=True)) * gain

    return _other_norm(x, w, attend, part, norm)


def layer_eps_outside(x, w, attend, part):
    def norm(x, gain):
        return x / (np.sqrt((x**2).mean(-1, keepdims=True)) + 1e-6) * gain

    return _other_norm(x, w, attend, part, norm)


def layer_mean_of_all(x, w, attend, part):
    def norm(x, gain):
        return x / np.sqrt((x**2).mean() + 1e-6) * gain

    return _other_norm(x, w, attend, part, norm)


def layer_rounded(x, w, attend, part):
    return layer(x, w, attend, part).astype(np.float32).astype(np.float64)


ANSWERS = {
    "14.1": Answers(
        right=[held, held_layer_by_layer],
        wrong=[
            Wrong(held_all_sparse, "every layer was counted as sparse"),
            Wrong(held_with_mtp, "MTP modules were counted"),
            Wrong(held_three_dense, "three dense layers, as V3 has"),
            Wrong(held_58, "58 sparse layers, as V3 has"),
            Wrong(held_one_layer, "one layer was counted"),
            Wrong(held_away, "that the GPU holds were taken away"),
            Wrong(held_no_routed, "all routed experts were taken away"),
            Wrong(held_no_extra, "experts are missing"),
            Wrong(held_extra_away, "experts were taken away: the GPU holds them"),
            Wrong(held_extra_of_all, "every GPU holds so many more"),
            Wrong(held_chosen, "do not matter here"),
            Wrong(held_all_divided, "all of the model was divided"),
            Wrong(held_shared_divided, "they lie on every GPU"),
            Wrong(held_one_matrix, "not one"),
            Wrong(held_two_matrices, "not two"),
            Wrong(held_dense_width, "the width of the dense network"),
            Wrong(held_no_gate_rows, "rows of the gate"),
            Wrong(held_not, "what the GPU does not hold"),
        ],
    ),
    "14.2": Answers(
        right=[slice_, slice_of_tensors],
        wrong=[
            Wrong(slice_own_blocks, "not of the slice"),
            Wrong(slice_one_more, "does not touch the next one"),
            Wrong(slice_one_less, "the block of the slice's last row"),
            Wrong(slice_whole_blocks, "first or last block is missing"),
            Wrong(slice_begun_blocks, "first or last block is missing"),
            Wrong(slice_all_scales, "all scales of the matrix"),
            Wrong(slice_from_1, "counted from 0"),
            Wrong(slice_floor_of_columns, "left over at the right"),
            Wrong(slice_column_too_many, "columns are a multiple of 128"),
            Wrong(slice_columns, "a slice has whole rows"),
            Wrong(slice_flat, "blocks have two sides"),
            Wrong(slice_rows, "128 rows share one"),
            Wrong(slice_one_scale, "one for each block"),
            Wrong(slice_no_scales, "the scales are missing"),
            Wrong(slice_scale_of_a_byte, "four bytes"),
            Wrong(slice_scale_in_bfloat16, "four bytes"),
            Wrong(slice_all_bfloat16, "has one byte"),
            Wrong(slice_rest_in_float32, "takes two bytes"),
            Wrong(slice_rest_in_bytes, "takes two bytes"),
            Wrong(slice_only_fp8, "are missing"),
            Wrong(slice_all_cut, "they lie whole on every GPU"),
            Wrong(slice_not_cut, "were not cut"),
            Wrong(slice_scales_for_all, "only what is in FP8 has scales"),
            Wrong(slice_every_matrix, "every matrix was counted as FP8"),
            Wrong(slice_inverted, "the other way round"),
            Wrong(slice_all_fp8, "no second side"),
            Wrong(slice_clears_the_set, "is the caller's"),
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
            Wrong(tensors_short_names, "no name is right"),
            Wrong(tensors_arrays, "tuple of whole numbers"),
            Wrong(tensors_o_turned, "this tensor is turned round"),
            Wrong(tensors_down_turned, "this tensor is turned round"),
            Wrong(tensors_o_of_keys, "of v channels"),
            Wrong(tensors_one_rope_query, "not H n + r"),
            Wrong(tensors_norm_of_all, "the latent alone is normed"),
            Wrong(tensors_experts_from_1, "experts are counted from 0"),
            Wrong(tensors_256_experts, "not 256 as in V3"),
            Wrong(tensors_shared_numbered, "shared experts have no numbers"),
            Wrong(tensors_mtp_early, "is no MTP module"),
            Wrong(tensors_no_bias, "e_score_correction_bias is missing"),
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
            Wrong(layer_group_of_open, "however many groups are open"),
            Wrong(layer_group_of_three, "more than its two best"),
            Wrong(layer_group_without_bias, "was taken without the bias"),
            Wrong(layer_group_size, "groups of n_groups experts"),
            Wrong(layer_interleaved, "a group is of neighbours"),
            Wrong(layer_silu_on_w3, "the silu is on the wrong product"),
            Wrong(layer_mean_of_all, "each token's own"),
            Wrong(layer_no_eps, "the 10^-6 under the root is missing"),
            Wrong(layer_eps_outside, "the 10^-6 goes under the root"),
            Wrong(layer_rounded, "is everything float64"),
        ],
    ),
}
