"""Lesson 10, DeepSeek-V2."""

import math

import numpy as np
import torch

from . import Answers, Wrong

# --- 10.1 -------------------------------------------------------------------------


def _keep(scores, ranked, K):
    chosen = np.argsort(-ranked, axis=1)[:, :K]
    out = np.zeros_like(scores)
    np.put_along_axis(out, chosen, np.take_along_axis(scores, chosen, 1), 1)
    return out


def _mask(worth, M):
    best = np.argsort(-worth, axis=1)[:, :M]
    allowed = np.zeros_like(worth)
    np.put_along_axis(allowed, best, 1.0, 1)
    return allowed


def choice(scores, n_devices, n_limited, K):
    worth = scores.reshape(len(scores), n_devices, -1).max(-1)
    allowed = _mask(worth, n_limited).repeat(scores.shape[1] // n_devices, axis=1)
    return _keep(scores, scores * allowed, K)


def choice_in_torch(scores, n_devices, n_limited, K):
    s = torch.from_numpy(scores)
    groups = s.view(len(s), n_devices, -1)
    best = groups.amax(-1).topk(n_limited).indices
    mask = torch.zeros(len(s), n_devices, dtype=torch.bool).scatter(1, best, True)
    ranked = groups.masked_fill(~mask[..., None], -torch.inf).flatten(1)
    weights, chosen = ranked.topk(K)
    return torch.zeros_like(s).scatter(1, chosen, weights).numpy()


def choice_by_sum(scores, n_devices, n_limited, K):
    worth = scores.reshape(len(scores), n_devices, -1).sum(-1)
    allowed = _mask(worth, n_limited).repeat(scores.shape[1] // n_devices, axis=1)
    return _keep(scores, scores * allowed, K)


def choice_by_two_best(scores, n_devices, n_limited, K):
    groups = np.sort(scores.reshape(len(scores), n_devices, -1))
    allowed = _mask(groups[..., -2:].sum(-1), n_limited)
    return _keep(scores, scores * allowed.repeat(groups.shape[-1], axis=1), K)


def choice_unlimited(scores, n_devices, n_limited, K):
    return _keep(scores, scores, K)


def choice_interleaved(scores, n_devices, n_limited, K):
    groups = scores.reshape(len(scores), -1, n_devices)
    allowed = _mask(groups.max(1), n_limited)[:, None]
    return _keep(scores, (groups * allowed).reshape(scores.shape), K)


def choice_renormalised(scores, n_devices, n_limited, K):
    weights = choice(scores, n_devices, n_limited, K)
    return weights / weights.sum(1, keepdims=True)


def choice_for_the_batch(scores, n_devices, n_limited, K):
    worth = scores.reshape(len(scores), n_devices, -1).max((0, 2))
    allowed = np.isin(np.arange(n_devices), np.argsort(worth)[-n_limited:])
    return _keep(scores, scores * allowed.repeat(scores.shape[1] // n_devices), K)


def choice_struck_out(scores, n_devices, n_limited, K):
    worth = scores.reshape(len(scores), n_devices, -1).max(-1)
    allowed = _mask(worth, n_limited).repeat(scores.shape[1] // n_devices, axis=1)
    return _keep(scores, scores, K) * allowed


def choice_all_allowed(scores, n_devices, n_limited, K):
    worth = scores.reshape(len(scores), n_devices, -1).max(-1)
    allowed = _mask(worth, n_limited).repeat(scores.shape[1] // n_devices, axis=1)
    return scores * allowed


def choice_exchanged(scores, n_devices, n_limited, K):
    size = scores.shape[1] // n_devices
    worth = scores.reshape(len(scores), size, n_devices).max(-1)
    allowed = _mask(worth, n_limited).repeat(n_devices, axis=1)
    return _keep(scores, scores * allowed, K)


def choice_worst_devices(scores, n_devices, n_limited, K):
    worth = scores.reshape(len(scores), n_devices, -1).max(-1)
    allowed = _mask(-worth, n_limited).repeat(scores.shape[1] // n_devices, axis=1)
    return _keep(scores, scores * allowed, K)


# --- 10.2 -------------------------------------------------------------------------


def _sent(scores, chosen, D):
    device = chosen // (scores.shape[1] // D)
    return (device[..., None] == torch.arange(D)).any(1).to(scores.dtype)


def _share(scores, D):
    return scores.mean(0).unflatten(0, (D, -1)).sum(1)


def communication(scores, chosen, n_devices, n_limited):
    f = _sent(scores, chosen, n_devices).mean(0) * n_devices / n_limited
    return (f * _share(scores, n_devices)).sum()


def communication_by_device(scores, chosen, n_devices, n_limited):
    N, E = scores.shape
    size, loss = E // n_devices, 0.0
    for d in range(n_devices):
        here = (chosen >= d * size) & (chosen < (d + 1) * size)
        f = here.any(dim=1).sum() * n_devices / (n_limited * N)
        loss = loss + f * scores[:, d * size : (d + 1) * size].sum() / N
    return loss


def communication_every_choice(scores, chosen, n_devices, n_limited):
    N, E = scores.shape
    count = torch.bincount((chosen // (E // n_devices)).flatten(), minlength=n_devices)
    f = count * n_devices / (n_limited * N)
    return (f * _share(scores, n_devices)).sum()


def communication_as_device_loss(scores, chosen, n_devices, n_limited):
    E = scores.shape[1]
    f = torch.bincount(chosen.flatten(), minlength=E) * E / chosen.numel()
    return (f.view(n_devices, -1).mean(1) * _share(scores, n_devices)).sum()


def communication_over_k(scores, chosen, n_devices, n_limited):
    return communication(scores, chosen, n_devices, chosen.shape[1])


def communication_no_limit(scores, chosen, n_devices, n_limited):
    return communication(scores, chosen, n_devices, 1)


def communication_no_devices(scores, chosen, n_devices, n_limited):
    return communication(scores, chosen, n_devices, n_limited) / n_devices


def communication_not_over_n(scores, chosen, n_devices, n_limited):
    return communication(scores, chosen, n_devices, n_limited) * len(scores)


def communication_mean_share(scores, chosen, n_devices, n_limited):
    f = _sent(scores, chosen, n_devices).mean(0) * n_devices / n_limited
    return (f * scores.mean(0).unflatten(0, (n_devices, -1)).mean(1)).sum()


def communication_of_chosen(scores, chosen, n_devices, n_limited):
    f = _sent(scores, chosen, n_devices).mean(0) * n_devices / n_limited
    kept = torch.zeros_like(scores).scatter(1, chosen, scores.gather(1, chosen))
    return (f * _share(kept, n_devices)).sum()


def communication_interleaved(scores, chosen, n_devices, n_limited):
    sent = ((chosen % n_devices)[..., None] == torch.arange(n_devices)).any(1)
    f = sent.to(scores.dtype).mean(0) * n_devices / n_limited
    return (f * scores.mean(0).unflatten(0, (-1, n_devices)).sum(0)).sum()


def communication_detached(scores, chosen, n_devices, n_limited):
    return communication(scores.detach(), chosen, n_devices, n_limited)


def communication_gradient_of_half(scores, chosen, n_devices, n_limited):
    loss = communication(scores, chosen, n_devices, n_limited)
    return 0.5 * loss + 0.5 * loss.detach()


def communication_with_axes(scores, chosen, n_devices, n_limited):
    f = _sent(scores, chosen, n_devices).mean(0) * n_devices / n_limited
    return f * _share(scores, n_devices)


def communication_share_not_over_n(scores, chosen, n_devices, n_limited):
    f = _sent(scores, chosen, n_devices).mean(0) * n_devices / n_limited
    return (f * scores.sum(0).unflatten(0, (n_devices, -1)).sum(1)).sum()


def communication_neither_over_n(scores, chosen, n_devices, n_limited):
    f = _sent(scores, chosen, n_devices).sum(0) * n_devices / n_limited
    return (f * scores.sum(0).unflatten(0, (n_devices, -1)).sum(1)).sum()


def communication_counts_interleaved(scores, chosen, n_devices, n_limited):
    sent = ((chosen % n_devices)[..., None] == torch.arange(n_devices)).any(1)
    f = sent.to(scores.dtype).mean(0) * n_devices / n_limited
    return (f * _share(scores, n_devices)).sum()


def communication_by_device_number(scores, chosen, n_devices, n_limited):
    sent = ((chosen // n_devices)[..., None] == torch.arange(n_devices)).any(1)
    f = sent.to(scores.dtype).mean(0) * n_devices / n_limited
    return (f * _share(scores, n_devices)).sum()


def communication_scattered_by_device_number(scores, chosen, n_devices, n_limited):
    sent = torch.zeros(len(scores), n_devices, dtype=scores.dtype)
    sent = sent.scatter(1, chosen // n_devices, 1.0)
    return (sent.mean(0) * n_devices / n_limited * _share(scores, n_devices)).sum()


def communication_item(scores, chosen, n_devices, n_limited):
    return communication(scores, chosen, n_devices, n_limited).item()


def communication_new_tensor(scores, chosen, n_devices, n_limited):
    return torch.tensor(float(communication(scores, chosen, n_devices, n_limited)))


def communication_in_float64(scores, chosen, n_devices, n_limited):
    """Right: the counts are float64, whatever the scores are."""
    N, E = scores.shape
    f = torch.zeros(n_devices, dtype=torch.float64)
    for row in (chosen // (E // n_devices)).tolist():
        for d in set(row):
            f[d] += n_devices / (n_limited * N)
    return (f * scores.mean(0).reshape(n_devices, -1).sum(-1)).sum()


def communication_in_float32(scores, chosen, n_devices, n_limited):
    """Right: counts in float32, as torch.zeros makes them."""
    device = chosen // (scores.shape[1] // n_devices)
    sent = torch.zeros(len(scores), n_devices).scatter(1, device, 1.0)
    f = sent.mean(0) * n_devices / n_limited
    return (f * _share(scores, n_devices)).sum()


# --- 10.3 -------------------------------------------------------------------------


def _width(config):
    return config.attention.qk_nope_head_dim + config.attention.qk_rope_head_dim


def scale(config):
    yarn, m = config.rope.scaling, 1.0
    if yarn is not None:
        m += 0.1 * yarn.mscale_all_dim * math.log(yarn.factor)
    return _width(config) ** -0.5 * m * m


def scale_in_numpy(config):
    yarn = config.rope.scaling
    stretch = np.log(yarn.factor) * yarn.mscale_all_dim if yarn else 0.0
    return float((stretch / 10 + 1) ** 2 / np.sqrt(_width(config)))


def _m(config):
    yarn = config.rope.scaling
    return 0.1 * yarn.mscale_all_dim * math.log(yarn.factor) + 1 if yarn else 1.0


def scale_tensor(config):
    return torch.tensor(scale(config))


def scale_once(config):
    return _m(config) / math.sqrt(_width(config))


def scale_without(config):
    return 1 / math.sqrt(_width(config))


def scale_divided(config):
    return 1 / (_m(config) ** 2 * math.sqrt(_width(config)))


def scale_mscale(config):
    yarn = config.rope.scaling
    m = 0.1 * yarn.mscale * math.log(yarn.factor) + 1 if yarn else 1.0
    return m**2 / math.sqrt(_width(config))


def scale_c_one(config):
    yarn = config.rope.scaling
    m = 0.1 * math.log(yarn.factor) + 1 if yarn else 1.0
    return m**2 / math.sqrt(_width(config))


def scale_log10(config):
    yarn = config.rope.scaling
    m = 0.1 * yarn.mscale_all_dim * math.log10(yarn.factor) + 1 if yarn else 1.0
    return m**2 / math.sqrt(_width(config))


def scale_no_one(config):
    yarn = config.rope.scaling
    m = 0.1 * yarn.mscale_all_dim * math.log(yarn.factor) if yarn else 1.0
    return m**2 / math.sqrt(_width(config))


def scale_root_of_n(config):
    return _m(config) ** 2 / math.sqrt(config.attention.qk_nope_head_dim)


def scale_latent(config):
    part = config.attention
    return _m(config) ** 2 / math.sqrt(part.kv_lora_rank + part.qk_rope_head_dim)


def scale_times(config):
    return _m(config) ** 2 * math.sqrt(_width(config))


def scale_no_root(config):
    return _m(config) ** 2 / _width(config)


def scale_root_of_r(config):
    return _m(config) ** 2 / math.sqrt(config.attention.qk_rope_head_dim)


def scale_latent_alone(config):
    return _m(config) ** 2 / math.sqrt(config.attention.kv_lora_rank)


def scale_of_values(config):
    return _m(config) ** 2 / math.sqrt(config.attention.v_head_dim)


def scale_one_without_yarn(config):
    return 1.0 if config.rope.scaling is None else scale(config)


def scale_of_the_length(config):
    yarn, m = config.rope.scaling, 1.0
    if yarn is not None:
        length = yarn.factor * yarn.original_seq_len
        m += 0.1 * yarn.mscale_all_dim * math.log(length)
    return m**2 / math.sqrt(_width(config))


def scale_always_yarn(config):
    yarn = config.rope.scaling
    m = 0.1 * yarn.mscale_all_dim * math.log(yarn.factor) + 1
    return m**2 / math.sqrt(_width(config))


# --- 10.4 -------------------------------------------------------------------------


def _attention(config, rope_keys=1, norms=True, wo=True):
    a, dim = config.attention, config.dim
    q_dim = a.n_heads * (a.qk_nope_head_dim + a.qk_rope_head_dim)
    total = dim * q_dim
    if a.q_lora_rank is not None:
        total = a.q_lora_rank * (dim + q_dim + norms)
    total += dim * (a.kv_lora_rank + rope_keys * a.qk_rope_head_dim)
    total += a.kv_lora_rank * norms
    total += a.kv_lora_rank * a.n_heads * (a.qk_nope_head_dim + a.v_head_dim)
    return total + (a.n_heads * a.v_head_dim * dim if wo else 0)


def _sparse(config, routed=None, shared=None, gate=True, matrices=3):
    moe = config.moe
    experts = moe.n_routed_experts if routed is None else routed
    experts += moe.n_shared_experts if shared is None else shared
    total = experts * matrices * config.dim * moe.inter_dim
    return total + gate * moe.n_routed_experts * config.dim


def _whole(config, attention=None, sparse=None, dense=None, tables=2, n_dense=None):
    attention = _attention(config) if attention is None else attention
    sparse = _sparse(config) if sparse is None else sparse
    dense = 3 * config.dim * config.dense.inter_dim if dense is None else dense
    n_dense = config.n_dense_layers if n_dense is None else n_dense
    total = tables * config.vocab_size * config.dim + config.dim
    total += config.n_layers * (attention + 2 * config.dim)
    return total + n_dense * dense + (config.n_layers - n_dense) * sparse


def count_whole(config):
    return _whole(config)


def count_layer_by_layer(config):
    total = (2 * config.vocab_size + 1) * config.dim
    for layer in range(config.n_layers):
        total += _attention(config) + 2 * config.dim
        if layer >= config.n_dense_layers:
            total += _sparse(config)
        else:
            total += 3 * config.dim * config.dense.inter_dim
    return total


def count_query_latent_always(config):
    a = config.attention
    q_dim = a.n_heads * (a.qk_nope_head_dim + a.qk_rope_head_dim)
    queries = a.q_lora_rank * (config.dim + 1 + q_dim)
    kv = (config.dim + 1) * a.kv_lora_rank + config.dim * a.qk_rope_head_dim
    kv += a.kv_lora_rank * a.n_heads * (a.qk_nope_head_dim + a.v_head_dim)
    out = a.n_heads * a.v_head_dim * config.dim
    return _whole(config, queries + kv + out)


def count_chosen(config):
    return _whole(config, sparse=_sparse(config, config.moe.n_activated_experts))


def count_no_shared(config):
    return _whole(config, sparse=_sparse(config, shared=0))


def count_one_shared(config):
    return _whole(config, sparse=_sparse(config, shared=1))


def count_no_gate(config):
    return _whole(config, sparse=_sparse(config, gate=False))


def count_two_matrices(config):
    dense = 2 * config.dim * config.dense.inter_dim
    return _whole(config, sparse=_sparse(config, matrices=2), dense=dense)


def count_key_per_head(config):
    return _whole(config, _attention(config, rope_keys=config.attention.n_heads))


def count_no_rope_key(config):
    return _whole(config, _attention(config, rope_keys=0))


def count_no_latent_norms(config):
    return _whole(config, _attention(config, norms=False))


def count_no_last_norm(config):
    return _whole(config) - config.dim


def count_no_head(config):
    return _whole(config, tables=1)


def count_no_wo(config):
    return _whole(config, _attention(config, wo=False))


def count_all_sparse(config):
    return _whole(config, n_dense=0)


def _in_every_layer(config, number):
    return count_whole(config) + config.n_layers * number


def count_up_for_one_head(config):
    a = config.attention
    up = a.kv_lora_rank * (a.qk_nope_head_dim + a.v_head_dim)
    return _in_every_layer(config, -(a.n_heads - 1) * up)


def count_up_without_values(config):
    a = config.attention
    return _in_every_layer(config, -a.n_heads * a.kv_lora_rank * a.v_head_dim)


def count_up_without_keys(config):
    a = config.attention
    return _in_every_layer(config, -a.n_heads * a.kv_lora_rank * a.qk_nope_head_dim)


def count_up_with_rope(config):
    a = config.attention
    return _in_every_layer(config, a.n_heads * a.kv_lora_rank * a.qk_rope_head_dim)


def count_norm_with_rope(config):
    return _in_every_layer(config, config.attention.qk_rope_head_dim)


def count_output_of_queries(config):
    a = config.attention
    more = a.qk_nope_head_dim + a.qk_rope_head_dim - a.v_head_dim
    return _in_every_layer(config, a.n_heads * more * config.dim)


def count_queries_without_rope(config):
    a = config.attention
    width = config.dim if a.q_lora_rank is None else a.q_lora_rank
    return _in_every_layer(config, -a.n_heads * a.qk_rope_head_dim * width)


def count_gate_for_shared(config):
    extra = config.moe.n_shared_experts * config.dim
    return count_whole(config) + (config.n_layers - config.n_dense_layers) * extra


ANSWERS = {
    "10.1": Answers(
        right=[choice, choice_in_torch],
        wrong=[
            Wrong(choice_by_sum, "not the sum of all"),
            Wrong(choice_by_two_best, "not the sum of its two best"),
            Wrong(choice_unlimited, "the limit to devices has no effect"),
            Wrong(choice_interleaved, "neighbours share a device"),
            Wrong(choice_exchanged, "the two are exchanged"),
            Wrong(choice_renormalised, "V2 does not divide by their sum"),
            Wrong(choice_for_the_batch, "not once for the batch"),
            Wrong(choice_struck_out, "the limit comes before the choice"),
            Wrong(choice_all_allowed, "only K of them are chosen"),
            Wrong(choice_worst_devices, "worth least"),
        ],
    ),
    "10.2": Answers(
        right=[
            communication,
            communication_by_device,
            communication_in_float64,
            communication_in_float32,
        ],
        wrong=[
            Wrong(communication_every_choice, "every choice was counted"),
            Wrong(communication_as_device_loss, "that is the device loss"),
            Wrong(communication_over_k, "divided by K where the formula has M"),
            Wrong(communication_no_limit, "M is missing"),
            Wrong(communication_no_devices, "D is missing"),
            Wrong(communication_not_over_n, "a 1 / N is missing"),
            Wrong(communication_share_not_over_n, "a 1 / N is missing"),
            Wrong(communication_neither_over_n, "both 1 / N are missing"),
            Wrong(communication_counts_interleaved, "in f'' every D-th expert"),
            Wrong(communication_by_device_number, "it gives 0 to D - 1"),
            Wrong(communication_scattered_by_device_number, "it gives 0 to D - 1"),
            Wrong(communication_item, "return the tensor"),
            Wrong(communication_new_tensor, "no gradient reaches the scores"),
            Wrong(communication_mean_share, "not their mean"),
            Wrong(communication_of_chosen, "not of the chosen alone"),
            Wrong(communication_interleaved, "neighbours share a device"),
            Wrong(communication_detached, "no gradient reaches the scores"),
            Wrong(communication_gradient_of_half, "its gradient is not"),
            Wrong(communication_with_axes, "shape"),
        ],
    ),
    "10.3": Answers(
        right=[scale, scale_in_numpy],
        wrong=[
            Wrong(scale_once, "the formula has its square"),
            Wrong(scale_tensor, "a tensor is not asked for"),
            Wrong(scale_without, "without the temperature"),
            Wrong(scale_divided, "divided by m squared"),
            Wrong(scale_mscale, "mscale has to do with cosine and sine"),
            Wrong(scale_c_one, "it is not always 1"),
            Wrong(scale_log10, "not that to base 10"),
            Wrong(scale_no_one, "the + 1 is missing"),
            Wrong(scale_root_of_n, "the root of n alone"),
            Wrong(scale_latent, "the root of the latent's width"),
            Wrong(scale_root_of_r, "the root of r alone"),
            Wrong(scale_latent_alone, "the root of the latent's width"),
            Wrong(scale_of_values, "the root of a value's width"),
            Wrong(scale_one_without_yarn, "it is m that is 1"),
            Wrong(scale_of_the_length, "not its new length"),
            Wrong(scale_times, "divide"),
            Wrong(scale_no_root, "the root is missing"),
            Wrong(scale_always_yarn, "m is 1 then"),
        ],
    ),
    "10.4": Answers(
        right=[count_whole, count_layer_by_layer],
        wrong=[
            Wrong(count_query_latent_always, "with q_lora_rank None"),
            Wrong(count_chosen, "all of them are learned"),
            Wrong(count_no_shared, "the shared experts are missing"),
            Wrong(count_one_shared, "one shared expert was counted"),
            Wrong(count_no_gate, "the gates are missing"),
            Wrong(count_two_matrices, "a SwiGLU has three"),
            Wrong(count_key_per_head, "all heads share one"),
            Wrong(count_no_rope_key, "the matrix of the RoPE key is missing"),
            Wrong(count_no_latent_norms, "the norms of both latents are missing"),
            Wrong(count_no_last_norm, "the last norm is missing"),
            Wrong(count_no_head, "the head is missing"),
            Wrong(count_no_wo, "the output matrix of attention is missing"),
            Wrong(count_all_sparse, "every layer was counted as sparse"),
            Wrong(count_up_for_one_head, "serves one head"),
            Wrong(count_up_without_values, "lacks the values"),
            Wrong(count_up_without_keys, "lacks the keys"),
            Wrong(count_up_with_rope, "gives no RoPE key"),
            Wrong(count_norm_with_rope, "covers the latent alone"),
            Wrong(count_output_of_queries, "reads values, of v channels"),
            Wrong(count_queries_without_rope, "a query has n + r channels"),
            Wrong(count_gate_for_shared, "scores the routed experts alone"),
        ],
    ),
}
