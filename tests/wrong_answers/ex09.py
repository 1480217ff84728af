"""Lesson 09, latent attention."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from deepseek_mini.config import Rope
from deepseek_mini.model.rope import apply_rope, rope_table

from . import Answers, Wrong

# --- 09.1 -------------------------------------------------------------------------


def cache_bytes(config, seq_len, bytes_per_number):
    p = config.attention
    return (
        seq_len
        * config.n_layers
        * bytes_per_number
        * (p.kv_lora_rank + p.qk_rope_head_dim)
    )


def cache_by_parts(config, seq_len, bytes_per_number):
    latents = seq_len * config.attention.kv_lora_rank
    keys = seq_len * config.attention.qk_rope_head_dim
    return sum((latents + keys) * bytes_per_number for _ in range(config.n_layers))


def cache_key_per_head(config, seq_len, bytes_per_number):
    p = config.attention
    numbers = p.kv_lora_rank + p.n_heads * p.qk_rope_head_dim
    return config.n_layers * numbers * seq_len * bytes_per_number


def cache_latent_per_head(config, seq_len, bytes_per_number):
    return config.attention.n_heads * cache_bytes(config, seq_len, bytes_per_number)


def cache_twice(config, seq_len, bytes_per_number):
    return 2 * cache_bytes(config, seq_len, bytes_per_number)


def cache_two_latents(config, seq_len, bytes_per_number):
    p = config.attention
    numbers = 2 * p.kv_lora_rank + p.qk_rope_head_dim
    return config.n_layers * numbers * seq_len * bytes_per_number


def cache_no_key(config, seq_len, bytes_per_number):
    return config.n_layers * config.attention.kv_lora_rank * seq_len * bytes_per_number


def cache_expanded(config, seq_len, bytes_per_number):
    p = config.attention
    numbers = p.n_heads * (p.qk_nope_head_dim + p.qk_rope_head_dim + p.v_head_dim)
    return config.n_layers * numbers * seq_len * bytes_per_number


def cache_query_latent(config, seq_len, bytes_per_number):
    p = config.attention
    numbers = p.q_lora_rank + p.kv_lora_rank + p.qk_rope_head_dim
    return config.n_layers * numbers * seq_len * bytes_per_number


def cache_one_layer(config, seq_len, bytes_per_number):
    p = config.attention
    return (p.kv_lora_rank + p.qk_rope_head_dim) * seq_len * bytes_per_number


def cache_numbers(config, seq_len, bytes_per_number):
    p = config.attention
    return config.n_layers * (p.kv_lora_rank + p.qk_rope_head_dim) * seq_len


def cache_of_lite(config, seq_len, bytes_per_number):
    return config.n_layers * (512 + 64) * seq_len * bytes_per_number


def cache_all_of_lite(config, seq_len, bytes_per_number):
    return 27 * 576 * seq_len * bytes_per_number


# --- 09.2 -------------------------------------------------------------------------


def _norm(a, weight):
    return a / np.sqrt((a * a).mean(-1, keepdims=True) + 1e-6) * weight


def _cut(latents, wkv_b, n_heads, nope_dim):
    both = (latents @ wkv_b.T).reshape(len(latents), n_heads, -1)
    return both[:, :, :nope_dim], both[:, :, nope_dim:]


def expand(x, wkv_a, norm, wkv_b, n_heads, nope_dim):
    c = _norm(x @ wkv_a.T, norm)
    return c, *_cut(c, wkv_b, n_heads, nope_dim)


def expand_einsum(x, wkv_a, norm, wkv_b, n_heads, nope_dim):
    c = _norm(np.einsum("cd,td->tc", wkv_a, x), norm)
    heads = wkv_b.reshape(n_heads, -1, wkv_b.shape[1])
    k = np.einsum("hnc,tc->thn", heads[:, :nope_dim], c)
    v = np.einsum("hvc,tc->thv", heads[:, nope_dim:], c)
    return c, k, v


def expand_no_norm(x, wkv_a, norm, wkv_b, n_heads, nope_dim):
    c = x @ wkv_a.T
    return c, *_cut(c, wkv_b, n_heads, nope_dim)


def expand_no_weight(x, wkv_a, norm, wkv_b, n_heads, nope_dim):
    c = _norm(x @ wkv_a.T, 1)
    return c, *_cut(c, wkv_b, n_heads, nope_dim)


def expand_layer_norm(x, wkv_a, norm, wkv_b, n_heads, nope_dim):
    c = x @ wkv_a.T
    c = _norm(c - c.mean(-1, keepdims=True), norm)
    return c, *_cut(c, wkv_b, n_heads, nope_dim)


def expand_length(x, wkv_a, norm, wkv_b, n_heads, nope_dim):
    c = x @ wkv_a.T
    c = c / np.linalg.norm(c, axis=-1, keepdims=True) * norm
    return c, *_cut(c, wkv_b, n_heads, nope_dim)


def expand_over_tokens(x, wkv_a, norm, wkv_b, n_heads, nope_dim):
    c = x @ wkv_a.T
    c = c / np.sqrt((c**2).mean(0) + 1e-6) * norm
    return c, *_cut(c, wkv_b, n_heads, nope_dim)


def expand_before_norm(x, wkv_a, norm, wkv_b, n_heads, nope_dim):
    c = x @ wkv_a.T
    return _norm(c, norm), *_cut(c, wkv_b, n_heads, nope_dim)


def expand_returns_raw(x, wkv_a, norm, wkv_b, n_heads, nope_dim):
    c = x @ wkv_a.T
    return c, *_cut(_norm(c, norm), wkv_b, n_heads, nope_dim)


def expand_keys_then_values(x, wkv_a, norm, wkv_b, n_heads, nope_dim):
    c = _norm(x @ wkv_a.T, norm)
    k, v = np.split(c @ wkv_b.T, [n_heads * nope_dim], axis=1)
    return c, k.reshape(len(x), n_heads, -1), v.reshape(len(x), n_heads, -1)


def expand_heads_inside(x, wkv_a, norm, wkv_b, n_heads, nope_dim):
    c = _norm(x @ wkv_a.T, norm)
    both = (c @ wkv_b.T).reshape(len(x), -1, n_heads).transpose(0, 2, 1)
    return c, both[..., :nope_dim], both[..., nope_dim:]


def expand_values_first(x, wkv_a, norm, wkv_b, n_heads, nope_dim):
    c = _norm(x @ wkv_a.T, norm)
    both = (c @ wkv_b.T).reshape(len(x), n_heads, -1)
    v_dim = both.shape[-1] - nope_dim
    return c, both[..., v_dim:], both[..., :v_dim]


def expand_length_and_eps(x, wkv_a, norm, wkv_b, n_heads, nope_dim):
    c = x @ wkv_a.T
    c = c / np.sqrt((c**2).sum(-1, keepdims=True) + 1e-6) * norm
    return c, *_cut(c, wkv_b, n_heads, nope_dim)


def expand_no_root(x, wkv_a, norm, wkv_b, n_heads, nope_dim):
    c = x @ wkv_a.T
    c = norm * c / ((c**2).mean(-1, keepdims=True) + 1e-6)
    return c, *_cut(c, wkv_b, n_heads, nope_dim)


def expand_one_mean(x, wkv_a, norm, wkv_b, n_heads, nope_dim):
    c = x @ wkv_a.T
    c = norm * c / np.sqrt(np.mean(c**2) + 1e-6)
    return c, *_cut(c, wkv_b, n_heads, nope_dim)


def expand_eps_outside(x, wkv_a, norm, wkv_b, n_heads, nope_dim):
    c = x @ wkv_a.T
    c = norm * c / (np.sqrt((c**2).mean(-1, keepdims=True)) + 1e-6)
    return c, *_cut(c, wkv_b, n_heads, nope_dim)


def expand_no_eps(x, wkv_a, norm, wkv_b, n_heads, nope_dim):
    c = x @ wkv_a.T
    c = norm * c / np.sqrt((c**2).mean(-1, keepdims=True))
    return c, *_cut(c, wkv_b, n_heads, nope_dim)


# --- 09.3 -------------------------------------------------------------------------


def _latent_scores(q_nope, q_pe, latent, k_pe, w_uk):
    q = torch.einsum("bthn,hnc->bthc", q_nope, w_uk)
    out = torch.einsum("bthc,bsc->bhts", q, latent)
    return out + torch.einsum("bthr,bsr->bhts", q_pe, k_pe)


def scores(q_nope, q_pe, latent, k_pe, w_uk):
    width = q_nope.shape[-1] + q_pe.shape[-1]
    return _latent_scores(q_nope, q_pe, latent, k_pe, w_uk) / math.sqrt(width)


def scores_joined(q_nope, q_pe, latent, k_pe, w_uk):
    q = (q_nope.transpose(1, 2) @ w_uk).transpose(1, 2)
    q = torch.cat((q, q_pe), dim=-1).transpose(1, 2)
    k = torch.cat((latent, k_pe), dim=-1)[:, None]
    return q @ k.mT * (q_nope.shape[-1] + q_pe.shape[-1]) ** -0.5


def scores_expanded(q_nope, q_pe, latent, k_pe, w_uk):
    k = torch.einsum("hnc,bsc->bshn", w_uk, latent)
    out = torch.einsum("bthn,bshn->bhts", q_nope, k)
    out = out + torch.einsum("bthr,bsr->bhts", q_pe, k_pe)
    return out / math.sqrt(q_nope.shape[-1] + q_pe.shape[-1])


def scores_latent_width(q_nope, q_pe, latent, k_pe, w_uk):
    width = latent.shape[-1] + k_pe.shape[-1]
    return _latent_scores(q_nope, q_pe, latent, k_pe, w_uk) / math.sqrt(width)


def scores_latent_alone(q_nope, q_pe, latent, k_pe, w_uk):
    width = latent.shape[-1]
    return _latent_scores(q_nope, q_pe, latent, k_pe, w_uk) / math.sqrt(width)


def scores_root_of_n(q_nope, q_pe, latent, k_pe, w_uk):
    width = q_nope.shape[-1]
    return _latent_scores(q_nope, q_pe, latent, k_pe, w_uk) / math.sqrt(width)


def scores_not_divided(q_nope, q_pe, latent, k_pe, w_uk):
    return _latent_scores(q_nope, q_pe, latent, k_pe, w_uk)


def scores_no_position(q_nope, q_pe, latent, k_pe, w_uk):
    q = torch.einsum("bthn,hnc->bthc", q_nope, w_uk)
    out = torch.einsum("bthc,bsc->bhts", q, latent)
    return out / math.sqrt(q_nope.shape[-1] + q_pe.shape[-1])


def scores_with_heads_third(q_nope, q_pe, latent, k_pe, w_uk):
    return scores(q_nope, q_pe, latent, k_pe, w_uk).transpose(1, 2)


def scores_key_per_head(q_nope, q_pe, latent, k_pe, w_uk):
    """Written for k_pe [B, S, H, r]."""
    q = torch.einsum("bthn,hnc->bthc", q_nope, w_uk)
    out = torch.einsum("bthc,bsc->bhts", q, latent)
    out = out + torch.einsum("bthr,bshr->bhts", q_pe, k_pe)
    return out / math.sqrt(q_nope.shape[-1] + q_pe.shape[-1])


def scores_softmax(q_nope, q_pe, latent, k_pe, w_uk):
    return scores(q_nope, q_pe, latent, k_pe, w_uk).softmax(dim=-1)


def scores_masked(q_nope, q_pe, latent, k_pe, w_uk):
    made = scores(q_nope, q_pe, latent, k_pe, w_uk)
    later = torch.ones_like(made[0, 0], dtype=torch.bool).triu(1)
    return made.masked_fill(later, -torch.inf)


def scores_no_root(q_nope, q_pe, latent, k_pe, w_uk):
    width = q_nope.shape[-1] + q_pe.shape[-1]
    return _latent_scores(q_nope, q_pe, latent, k_pe, w_uk) / width


def scores_multiplied(q_nope, q_pe, latent, k_pe, w_uk):
    width = q_nope.shape[-1] + q_pe.shape[-1]
    return _latent_scores(q_nope, q_pe, latent, k_pe, w_uk) * math.sqrt(width)


# --- 09.4 -------------------------------------------------------------------------


def _rms(a, weight):
    return a / torch.sqrt(a.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def _rms_without_weight(a, weight):
    return _rms(a, 1.0)


def _no_norm(a, weight):
    return a


def _turn(x, start=0, layout="interleaved"):
    positions = torch.arange(start, start + x.shape[1])
    cos, sin = rope_table(Rope(), x.shape[-1], positions, x.dtype)
    return apply_rope(x, cos, sin, layout)


def _turn_half(x, start=0):
    return _turn(x, start, "half_split")


def _keep(x, start=0):
    return x


def _turn_package(x, start=0):
    """The call of the exercise's text: angles in float32."""
    positions = torch.arange(start, start + x.shape[1])
    return apply_rope(x, *rope_table(Rope(), x.shape[-1], positions))


def _turn_by_hand(x, start=0, dtype=torch.float32, sign=1, step=2, halves=False):
    """Right with its defaults, in float32 or float64."""
    r = x.shape[-1]
    freqs = 10000.0 ** (-torch.arange(r // 2, dtype=dtype) * step / r)
    t = torch.arange(start, start + x.shape[1], dtype=dtype)
    phi = (sign * t[:, None] * freqs)[:, None]  # [T, 1, r/2]
    a, b = x[..., 0::2], x[..., 1::2]
    pairs = (a * phi.cos() - b * phi.sin(), a * phi.sin() + b * phi.cos())
    return torch.cat(pairs, -1) if halves else torch.stack(pairs, -1).flatten(-2)


def _turn_by_hand_64(x, start=0):
    return _turn_by_hand(x, start, torch.float64)


def _turn_to_halves(x, start=0):
    return _turn_by_hand(x, start, halves=True)


def _turn_back(x, start=0):
    return _turn_by_hand(x, start, sign=-1)


def _turn_slow(x, start=0):
    return _turn_by_hand(x, start, step=1)


def _rms_eps_outside(a, weight):
    return a / (a.pow(2).mean(-1, keepdim=True).sqrt() + 1e-6) * weight


def _rms_no_eps(a, weight):
    return a / a.pow(2).mean(-1, keepdim=True).sqrt() * weight


def _keys_then_values(w, part):
    """wkv_b, read as all heads' key rows and then all heads' value rows."""
    H = part.n_heads
    k, v = w["wkv_b"].split([H * part.qk_nope_head_dim, H * part.v_head_dim])
    heads = torch.cat((k.unflatten(0, (H, -1)), v.unflatten(0, (H, -1))), dim=1)
    return {**w, "wkv_b": heads.flatten(0, 1)}


def _values_then_keys(w, part):
    heads = w["wkv_b"].unflatten(0, (part.n_heads, -1))
    v, k = heads.split([part.v_head_dim, part.qk_nope_head_dim], dim=1)
    return {**w, "wkv_b": torch.cat((k, v), dim=1).flatten(0, 1)}


def _heads_inside(w, part):
    heads = w["wkv_b"].unflatten(0, (-1, part.n_heads)).transpose(0, 1)
    return {**w, "wkv_b": heads.flatten(0, 1)}


def _layer(
    x,
    w,
    part,
    q_norm=_rms,
    kv_norm=_rms,
    turn_q=_turn,
    turn_k=_turn,
    width=None,
    causal=True,
    join=lambda out: out.transpose(1, 2).flatten(2),
):
    """What the answers below share; each has one slip of its own."""
    H, n, r = part.n_heads, part.qk_nope_head_dim, part.qk_rope_head_dim
    B, T, _ = x.shape
    q = F.linear(q_norm(F.linear(x, w["wq_a"]), w["q_norm"]), w["wq_b"])
    q = q.reshape(B, T, H, n + r)
    c, k_pe = F.linear(x, w["wkv_a"]).split([part.kv_lora_rank, r], dim=-1)
    kv = F.linear(kv_norm(c, w["kv_norm"]), w["wkv_b"]).reshape(B, T, H, -1)
    k = torch.cat((kv[..., :n], turn_k(k_pe[:, :, None]).expand(B, T, H, r)), -1)
    q = torch.cat((q[..., :n], turn_q(q[..., n:])), -1)
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        kv[..., n:].transpose(1, 2),
        is_causal=causal,
        scale=(n + r if width is None else width) ** -0.5,
    )
    return F.linear(join(out), w["wo"])


def layer(x, w, part):
    return _layer(x, w, part)


def layer_package_call(x, w, part):
    return _layer(x, w, part, turn_q=_turn_package, turn_k=_turn_package)


def layer_turned_by_hand(x, w, part):
    return _layer(x, w, part, turn_q=_turn_by_hand, turn_k=_turn_by_hand)


def layer_turned_by_hand_64(x, w, part):
    return _layer(x, w, part, turn_q=_turn_by_hand_64, turn_k=_turn_by_hand_64)


def layer_to_halves(x, w, part):
    """Right: queries and keys change their places alike, and no cache is kept."""
    return _layer(x, w, part, turn_q=_turn_to_halves, turn_k=_turn_to_halves)


def layer_turned_back(x, w, part):
    return _layer(x, w, part, turn_q=_turn_back, turn_k=_turn_back)


def layer_turned_slowly(x, w, part):
    return _layer(x, w, part, turn_q=_turn_slow, turn_k=_turn_slow)


def layer_eps_outside(x, w, part):
    return _layer(x, w, part, q_norm=_rms_eps_outside, kv_norm=_rms_eps_outside)


def layer_no_eps(x, w, part):
    return _layer(x, w, part, q_norm=_rms_no_eps, kv_norm=_rms_no_eps)


def layer_keys_then_values(x, w, part):
    return _layer(x, _keys_then_values(w, part), part)


def layer_values_then_keys(x, w, part):
    return _layer(x, _values_then_keys(w, part), part)


def layer_kv_heads_inside(x, w, part):
    return _layer(x, _heads_inside(w, part), part)


def layer_absorbed(x, w, part, attend=None):
    """Right, with latents in place of keys and values."""
    H, n, r = part.n_heads, part.qk_nope_head_dim, part.qk_rope_head_dim
    q = (_rms(x @ w["wq_a"].T, w["q_norm"]) @ w["wq_b"].T).unflatten(-1, (H, n + r))
    c, k_pe = (x @ w["wkv_a"].T).split([part.kv_lora_rank, r], dim=-1)
    c = _rms(c, w["kv_norm"])
    up = w["wkv_b"].unflatten(0, (H, -1))
    q = torch.cat(
        (torch.einsum("bthn,hnc->bthc", q[..., :n], up[:, :n]), _turn(q[..., n:])),
        dim=-1,
    )
    k = torch.cat((c, _turn(k_pe[:, :, None])[:, :, 0]), dim=-1)
    scores = torch.einsum("bthc,bsc->bhts", q, k) / (n + r) ** 0.5
    seen = torch.ones_like(scores[0, 0]).tril() > 0
    if attend is None:
        weights = scores.where(seen, -torch.inf).softmax(-1)
    else:
        weights = attend(scores, seen)
    out = torch.einsum("bhts,bsc,hvc->bthv", weights, c, up[:, n:])
    return out.flatten(2) @ w["wo"].T


def layer_softmax_down(x, w, part):
    def attend(scores, seen):
        return scores.masked_fill(~seen, -torch.inf).softmax(dim=-2)

    return layer_absorbed(x, w, part, attend)


def layer_hides_late(x, w, part):
    def attend(scores, seen):
        return scores.softmax(dim=-1) * seen

    return layer_absorbed(x, w, part, attend)


def layer_hides_itself(x, w, part):
    def attend(scores, seen):
        strict = torch.ones_like(seen).triu()
        return scores.masked_fill(strict, -torch.inf).softmax(dim=-1)

    return layer_absorbed(x, w, part, attend)


def layer_hides_itself_by_number(x, w, part):
    def attend(scores, seen):
        strict = torch.ones_like(seen).triu()
        return scores.masked_fill(strict, -1e9).softmax(dim=-1)

    return layer_absorbed(x, w, part, attend)


def layer_hides_itself_zeros(x, w, part):
    def attend(scores, seen):
        strict = torch.ones_like(seen).triu()
        return scores.masked_fill(strict, -torch.inf).softmax(dim=-1).nan_to_num(0)

    return layer_absorbed(x, w, part, attend)


def layer_angles_as_matrix(x, w, part):
    """A rotation matrix in float32 meets a vector in float64."""

    def turn(x, start=0):
        r = x.shape[-1]
        return x @ torch.eye(r)

    return _layer(x, w, part, turn_q=turn, turn_k=turn)


def layer_heads_before_tokens(x, w, part):
    """apply_rope is given [B, H, T, r]."""

    def turn(x, start=0):
        table = rope_table(Rope(), x.shape[-1], torch.arange(x.shape[1]))
        return apply_rope(x.transpose(1, 2), *table).transpose(1, 2)

    return _layer(x, w, part, turn_q=turn, turn_k=_turn_package)


def layer_other_eps(x, w, part):
    def norm(a, weight):
        return a / torch.sqrt(a.pow(2).mean(-1, keepdim=True) + 1.001e-6) * weight

    return _layer(x, w, part, q_norm=norm, kv_norm=norm)


def layer_no_kv_norm(x, w, part):
    return _layer(x, w, part, kv_norm=_no_norm)


def layer_no_q_norm(x, w, part):
    return _layer(x, w, part, q_norm=_no_norm)


def layer_no_norms(x, w, part):
    return _layer(x, w, part, q_norm=_no_norm, kv_norm=_no_norm)


def layer_half_split(x, w, part):
    return _layer(x, w, part, turn_q=_turn_half, turn_k=_turn_half)


def layer_queries_not_turned(x, w, part):
    return _layer(x, w, part, turn_q=_keep)


def layer_keys_not_turned(x, w, part):
    return _layer(x, w, part, turn_k=_keep)


def layer_nothing_turned(x, w, part):
    return _layer(x, w, part, turn_q=_keep, turn_k=_keep)


def layer_root_of_n(x, w, part):
    return _layer(x, w, part, width=part.qk_nope_head_dim)


def layer_latent_width(x, w, part):
    return _layer(x, w, part, width=part.kv_lora_rank + part.qk_rope_head_dim)


def layer_not_divided(x, w, part):
    return _layer(x, w, part, width=1)


def layer_not_causal(x, w, part):
    return _layer(x, w, part, causal=False)


def layer_heads_inside(x, w, part):
    return _layer(x, w, part, join=lambda out: out.permute(0, 2, 3, 1).flatten(2))


def layer_heads_not_joined(x, w, part):
    """Reshaped without bringing the tokens back to axis 1."""
    return _layer(x, w, part, join=lambda out: out.reshape(*x.shape[:2], -1))


def layer_rope_first(x, w, part):
    n, r = part.qk_nope_head_dim, part.qk_rope_head_dim
    heads = w["wq_b"].unflatten(0, (part.n_heads, n + r))
    swapped = torch.cat((heads[:, r:], heads[:, :r]), dim=1).flatten(0, 1)
    return _layer(x, {**w, "wq_b": swapped}, part)


def layer_query_parts_first(x, w, part):
    H, n = part.n_heads, part.qk_nope_head_dim
    nope, pe = w["wq_b"].split([H * n, H * part.qk_rope_head_dim])
    heads = torch.cat((nope.unflatten(0, (H, -1)), pe.unflatten(0, (H, -1))), dim=1)
    return _layer(x, {**w, "wq_b": heads.flatten(0, 1)}, part)


def layer_key_first(x, w, part):
    r = part.qk_rope_head_dim
    return _layer(x, {**w, "wkv_a": torch.cat((w["wkv_a"][r:], w["wkv_a"][:r]))}, part)


def layer_key_per_head(x, w, part):
    """Written for wkv_a [C + H r, D]."""
    H, r = part.n_heads, part.qk_rope_head_dim
    both = F.linear(x, w["wkv_a"])
    k_pe = both[..., part.kv_lora_rank :].reshape(*x.shape[:2], H, r)
    return k_pe


# --- 09.5 -------------------------------------------------------------------------


def _step(
    x,
    latents,
    keys,
    w,
    part,
    q_norm=_rms,
    kv_norm=_rms,
    turn=_turn,
    width=None,
    position=None,
    old_latents=None,
    old_keys=None,
    first=0,
    last=None,
):
    """What the answers below share; each has one slip of its own."""
    H, n, r = part.n_heads, part.qk_nope_head_dim, part.qk_rope_head_dim
    at = latents.shape[1] if position is None else position
    q = F.linear(q_norm(F.linear(x, w["wq_a"]), w["q_norm"]), w["wq_b"])
    q = q.unflatten(-1, (H, n + r))
    c, k_pe = F.linear(x, w["wkv_a"]).split([part.kv_lora_rank, r], dim=-1)
    new_c = kv_norm(c, w["kv_norm"])
    all_c = torch.cat((latents, new_c), dim=1)
    new_key = turn(k_pe[:, :, None], at)[:, :, 0]
    all_k = torch.cat((keys, new_key), dim=1)
    used = all_k if old_keys is None else torch.cat((old_keys, new_key), dim=1)
    used_c = all_c if old_latents is None else torch.cat((old_latents, new_c), dim=1)
    up = w["wkv_b"].unflatten(0, (H, -1))
    q = torch.cat(
        (torch.einsum("bthn,hnc->bthc", q[..., :n], up[:, :n]), turn(q[..., n:], at)),
        dim=-1,
    )
    k = torch.cat((used_c, used), dim=-1)[:, first:last]
    scores = torch.einsum("bthc,bsc->bhts", q, k)
    weights = (scores / (n + r if width is None else width) ** 0.5).softmax(-1)
    read = torch.einsum("bhts,bsc->bthc", weights, used_c[:, first:last])
    out = torch.einsum("bthc,hvc->bthv", read, up[:, n:])
    return F.linear(out.flatten(2), w["wo"]), all_c, all_k


def step(x, latents, keys, w, part):
    return _step(x, latents, keys, w, part)


def step_package_call(x, latents, keys, w, part):
    return _step(x, latents, keys, w, part, turn=_turn_package)


def step_turned_by_hand_64(x, latents, keys, w, part):
    return _step(x, latents, keys, w, part, turn=_turn_by_hand_64)


def step_new_empty(x, latents, keys, w, part):
    """Right, writing into tensors made with the cache's dtype."""
    out, c, k = _step(x, latents, keys, w, part, turn=_turn_by_hand)
    S, made = latents.shape[1], []
    for old, new in ((latents, c), (keys, k)):
        whole = old.new_empty(len(x), S + 1, old.shape[2])
        whole[:, :S], whole[:, S:] = old, new[:, S:]
        made.append(whole)
    return out, *made


def step_head_by_head(x, latents, keys, w, part):
    """Right, with plain products for one head after another."""
    H, n, r = part.n_heads, part.qk_nope_head_dim, part.qk_rope_head_dim
    q = (_rms(x @ w["wq_a"].T, w["q_norm"]) @ w["wq_b"].T).unflatten(-1, (H, n + r))
    c, k_pe = (x @ w["wkv_a"].T).split([part.kv_lora_rank, r], dim=-1)
    S = latents.shape[1]
    latents = torch.cat((latents, _rms(c, w["kv_norm"])), dim=1)
    keys = torch.cat((keys, _turn(k_pe[:, :, None], S)[:, :, 0]), dim=1)
    q_pe, made = _turn(q[..., n:], S), []
    for h, up in enumerate(w["wkv_b"].chunk(H)):
        scores = (q[:, :, h, :n] @ up[:n]) @ latents.mT + q_pe[:, :, h] @ keys.mT
        weights = torch.softmax(scores / math.sqrt(n + r), dim=-1)
        made.append(weights @ latents @ up[n:].T)
    return torch.cat(made, dim=-1) @ w["wo"].T, latents, keys


def step_expands(x, latents, keys, w, part):
    """The right numbers, by expanding every latent."""
    H, n, r = part.n_heads, part.qk_nope_head_dim, part.qk_rope_head_dim
    _, latents, keys = _step(x, latents, keys, w, part)
    q = (_rms(x @ w["wq_a"].T, w["q_norm"]) @ w["wq_b"].T).unflatten(-1, (H, n + r))
    kv = F.linear(latents, w["wkv_b"]).unflatten(-1, (H, -1))
    q = torch.cat((q[..., :n], _turn(q[..., n:], latents.shape[1] - 1)), dim=-1)
    k_pe = keys[:, :, None].expand(-1, -1, H, -1)
    k = torch.cat((kv[..., :n], k_pe), dim=-1)
    weights = (torch.einsum("bthd,bshd->bhts", q, k) / (n + r) ** 0.5).softmax(-1)
    out = torch.einsum("bhts,bshv->bthv", weights, kv[..., n:])
    return out.flatten(2) @ w["wo"].T, latents, keys


def step_no_kv_norm(x, latents, keys, w, part):
    return _step(x, latents, keys, w, part, kv_norm=_no_norm)


def step_no_q_norm(x, latents, keys, w, part):
    return _step(x, latents, keys, w, part, q_norm=_no_norm)


def step_latent_width(x, latents, keys, w, part):
    width = part.kv_lora_rank + part.qk_rope_head_dim
    return _step(x, latents, keys, w, part, width=width)


def step_half_split(x, latents, keys, w, part):
    return _step(x, latents, keys, w, part, turn=_turn_half)


def step_at_zero(x, latents, keys, w, part):
    return _step(x, latents, keys, w, part, position=0)


def step_one_early(x, latents, keys, w, part):
    return _step(x, latents, keys, w, part, position=latents.shape[1] - 1)


def step_not_itself(x, latents, keys, w, part):
    if latents.shape[1] == 0:
        return _step(x, latents, keys, w, part)
    return _step(x, latents, keys, w, part, last=-1)


def step_alone(x, latents, keys, w, part):
    return _step(x, latents, keys, w, part, first=latents.shape[1])


def step_turns_again(x, latents, keys, w, part):
    again = _turn(keys[:, :, None])[:, :, 0]
    return _step(x, latents, keys, w, part, old_keys=again)


def step_turns_again_and_returns(x, latents, keys, w, part):
    again = _turn(keys[:, :, None])[:, :, 0]
    return _step(x, latents, again, w, part)


def step_turns_all_by_new_position(x, latents, keys, w, part):
    at = latents.shape[1]
    cos, sin = rope_table(Rope(), keys.shape[2], torch.full((at,), at))
    again = apply_rope(keys[:, :, None], cos, sin)[:, :, 0]
    return _step(x, latents, again, w, part)


def step_norms_again(x, latents, keys, w, part):
    return _step(x, latents, keys, w, part, old_latents=_rms(latents, w["kv_norm"]))


def step_norms_again_and_returns(x, latents, keys, w, part):
    """The norm is taken after the new latent has joined the cache."""
    return _step(x, _rms(latents, w["kv_norm"]), keys, w, part)


def step_in_front(x, latents, keys, w, part):
    out, c, k = _step(x, latents, keys, w, part)
    return out, c.roll(1, dims=1), k.roll(1, dims=1)


def step_nested(x, latents, keys, w, part):
    out, *cache = _step(x, latents, keys, w, part)
    return out, tuple(cache)


def step_cache_as_it_was(x, latents, keys, w, part):
    return _step(x, latents, keys, w, part)[0], latents, keys


def step_of_layer(x, latents, keys, w, part):
    """The layer of 09.4 on the new token, which knows nothing of a cache."""
    _, c, k = _step(x, latents, keys, w, part, position=0)
    return layer(x, w, part), c, k


def step_caches_raw(x, latents, keys, w, part):
    out, _, k = _step(x, latents, keys, w, part)
    plain = (x @ w["wkv_a"].T)[..., : part.kv_lora_rank]
    return out, torch.cat((latents, plain), dim=1), k


def step_to_halves(x, latents, keys, w, part):
    return _step(x, latents, keys, w, part, turn=_turn_to_halves)


def step_turned_back(x, latents, keys, w, part):
    return _step(x, latents, keys, w, part, turn=_turn_back)


def step_turned_slowly(x, latents, keys, w, part):
    return _step(x, latents, keys, w, part, turn=_turn_slow)


def step_no_eps(x, latents, keys, w, part):
    return _step(x, latents, keys, w, part, q_norm=_rms_no_eps, kv_norm=_rms_no_eps)


def step_keys_then_values(x, latents, keys, w, part):
    return _step(x, latents, keys, _keys_then_values(w, part), part)


def step_caches_unturned(x, latents, keys, w, part):
    out, c, _ = _step(x, latents, keys, w, part)
    plain = (x @ w["wkv_a"].T)[..., part.kv_lora_rank :]
    return out, c, torch.cat((keys, plain), dim=1)


def step_key_per_head(x, latents, keys, w, part):
    out, c, k = _step(x, latents, keys, w, part)
    return out, c, k[:, :, None].expand(-1, -1, part.n_heads, -1)


def step_returns_new(x, latents, keys, w, part):
    out, c, k = _step(x, latents, keys, w, part)
    return out, c[:, -1:], k[:, -1:]


ANSWERS = {
    "09.1": Answers(
        right=[cache_bytes, cache_by_parts],
        wrong=[
            Wrong(cache_key_per_head, "a RoPE key for each head"),
            Wrong(cache_latent_per_head, "the latent was counted for each head"),
            Wrong(cache_twice, "as if for keys and for values"),
            Wrong(cache_two_latents, "the latent twice"),
            Wrong(cache_no_key, "the RoPE key is missing"),
            Wrong(cache_expanded, "which are never stored"),
            Wrong(cache_query_latent, "no old query is asked again"),
            Wrong(cache_one_layer, "counted for one layer"),
            Wrong(cache_of_lite, "V2-Lite's widths"),
            Wrong(cache_all_of_lite, "V2-Lite's numbers"),
            Wrong(cache_numbers, "numbers, not bytes"),
        ],
    ),
    "09.2": Answers(
        right=[expand, expand_einsum],
        wrong=[
            Wrong(expand_no_norm, "the norm of the latent is missing"),
            Wrong(expand_no_weight, "not multiplied by the norm's weight"),
            Wrong(expand_layer_norm, "subtracts no mean"),
            Wrong(expand_length, "divided by its length"),
            Wrong(expand_length_and_eps, "divided by its length"),
            Wrong(expand_no_root, "the root is missing"),
            Wrong(expand_over_tokens, "runs over the tokens"),
            Wrong(expand_one_mean, "one mean square for all tokens"),
            Wrong(expand_eps_outside, "added under the root"),
            Wrong(expand_no_eps, "which is missing in the norm"),
            Wrong(expand_before_norm, "from the latent before its norm"),
            Wrong(expand_returns_raw, "the latent before its norm"),
            Wrong(expand_keys_then_values, "all heads' keys and all heads' values"),
            Wrong(expand_heads_inside, "heads and channels have changed places"),
            Wrong(expand_values_first, "taken for its value"),
        ],
    ),
    "09.3": Answers(
        right=[scores, scores_joined],
        wrong=[
            Wrong(scores_expanded, "something is expanded for every cached token"),
            Wrong(scores_latent_width, "the root of the latent's width"),
            Wrong(scores_latent_alone, "the root of the latent's width"),
            Wrong(scores_root_of_n, "the root of n alone"),
            Wrong(scores_not_divided, "not divided by a root"),
            Wrong(scores_no_position, "the part with position is missing"),
            Wrong(scores_with_heads_third, "scores are [B, H, T, S]"),
            Wrong(scores_softmax, "no softmax is wanted"),
            Wrong(scores_masked, "no mask is wanted"),
            Wrong(scores_no_root, "not by its root"),
            Wrong(scores_multiplied, "multiplied by the root"),
            Wrong(scores_key_per_head, "RuntimeError"),
        ],
    ),
    "09.4": Answers(
        right=[
            layer,
            layer_absorbed,
            layer_package_call,
            layer_turned_by_hand,
            layer_turned_by_hand_64,
            layer_to_halves,
        ],
        wrong=[
            Wrong(layer_no_kv_norm, "(kv_norm) is missing"),
            Wrong(layer_no_q_norm, "(q_norm) is missing"),
            Wrong(layer_no_norms, "the norms of both latents are missing"),
            Wrong(layer_half_split, "here neighbours are pairs"),
            Wrong(layer_queries_not_turned, "the queries' r channels are not turned"),
            Wrong(layer_keys_not_turned, "the RoPE keys are not turned"),
            Wrong(layer_nothing_turned, "neither queries nor keys are turned"),
            Wrong(layer_root_of_n, "the root of n alone"),
            Wrong(layer_latent_width, "the root of the latent's width"),
            Wrong(layer_not_divided, "not divided by a root"),
            Wrong(layer_not_causal, "tokens see later ones"),
            Wrong(layer_heads_inside, "joined with the heads inside"),
            Wrong(layer_heads_not_joined, "numbers of different tokens"),
            Wrong(layer_turned_back, "the other way"),
            Wrong(layer_turned_slowly, "2j in the exponent"),
            Wrong(layer_eps_outside, "under the root"),
            Wrong(layer_no_eps, "under the root"),
            Wrong(layer_other_eps, "the numbers are nearly right"),
            Wrong(layer_keys_then_values, "not first all heads' keys"),
            Wrong(layer_values_then_keys, "the first n make its key"),
            Wrong(layer_kv_heads_inside, "rows in wkv_b are neighbours"),
            Wrong(layer_softmax_down, "the softmax runs over the queries"),
            Wrong(layer_hides_late, "hidden after the softmax"),
            Wrong(layer_hides_itself, "a token must see itself"),
            Wrong(layer_hides_itself_by_number, "a token must see itself"),
            Wrong(layer_hides_itself_zeros, "a token must see itself"),
            Wrong(layer_angles_as_matrix, "every input is float64"),
            Wrong(layer_heads_before_tokens, "apply_rope"),
            Wrong(layer_rope_first, "the first n make the part that is not turned"),
            Wrong(layer_query_parts_first, "not first all heads' n"),
            Wrong(layer_key_first, "the first C make the latent"),
            Wrong(layer_key_per_head, "RuntimeError"),
        ],
    ),
    "09.5": Answers(
        right=[
            step,
            step_head_by_head,
            step_package_call,
            step_turned_by_hand_64,
            step_new_empty,
        ],
        wrong=[
            Wrong(step_expands, "something is expanded for every cached token"),
            Wrong(step_no_kv_norm, "(kv_norm) is missing"),
            Wrong(step_no_q_norm, "(q_norm) is missing"),
            Wrong(step_latent_width, "the root of the latent's width"),
            Wrong(step_half_split, "here neighbours are pairs"),
            Wrong(step_at_zero, "as if it were the first"),
            Wrong(step_one_early, "as if it were the last cached one"),
            Wrong(step_not_itself, "does not see itself"),
            Wrong(step_alone, "the cached tokens are not read"),
            Wrong(step_turns_again, "the cached keys were turned again"),
            Wrong(step_turns_again_and_returns, "the cached keys were turned again"),
            Wrong(step_turns_all_by_new_position, "the cached keys were turned again"),
            Wrong(step_norms_again, "has been normed already"),
            Wrong(step_norms_again_and_returns, "has been normed already"),
            Wrong(step_in_front, "appended at the end"),
            Wrong(step_nested, "return out, latents, keys"),
            Wrong(step_cache_as_it_was, "the cache came back as it was"),
            Wrong(step_of_layer, "the cached tokens are not read"),
            Wrong(step_caches_raw, "the one before its norm"),
            Wrong(step_caches_unturned, "the key that was cached is not turned"),
            Wrong(step_to_halves, "as two halves"),
            Wrong(step_turned_back, "the other way"),
            Wrong(step_turned_slowly, "2j in the exponent"),
            Wrong(step_no_eps, "under the root"),
            Wrong(step_keys_then_values, "not first all heads' keys"),
            Wrong(step_key_per_head, "a RoPE key for each head in the cache"),
            Wrong(step_returns_new, "the new token's entry alone came back"),
        ],
    ),
}
