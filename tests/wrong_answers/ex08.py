"""Lesson 08, mixture of experts."""

import math
from math import comb

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from . import Answers, Wrong

# --- 08.1 -------------------------------------------------------------------------


def _softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def gate(u, centroids, K):
    scores = _softmax(u @ centroids.T)
    chosen = np.argsort(-scores, axis=1)[:, :K]
    out = np.zeros_like(scores)
    np.put_along_axis(out, chosen, np.take_along_axis(scores, chosen, 1), 1)
    return out


def gate_by_loop(u, centroids, K):
    out = np.zeros((len(u), len(centroids)))
    for t in range(len(u)):
        scores = _softmax(centroids @ u[t])
        for i in np.argpartition(scores, -K)[-K:]:
            out[t, i] = scores[i]
    return out


def gate_renormalised(u, centroids, K):
    out = gate(u, centroids, K)
    return out / out.sum(axis=1, keepdims=True)


def gate_over_chosen(u, centroids, K):
    products = u @ centroids.T
    chosen = np.argsort(-products, axis=1)[:, :K]
    kept = np.take_along_axis(products, chosen, 1)
    out = np.zeros_like(products)
    np.put_along_axis(out, chosen, _softmax(kept), 1)
    return out


def gate_of_all(u, centroids, K):
    return _softmax(u @ centroids.T)


def gate_smallest(u, centroids, K):
    scores = _softmax(u @ centroids.T)
    chosen = np.argsort(scores, axis=1)[:, :K]
    out = np.zeros_like(scores)
    np.put_along_axis(out, chosen, np.take_along_axis(scores, chosen, 1), 1)
    return out


def gate_over_tokens(u, centroids, K):
    scores = _softmax(u @ centroids.T, axis=0)
    limit = np.sort(scores, axis=1)[:, -K][:, None]
    return np.where(scores >= limit, scores, 0.0)


def gate_sigmoid(u, centroids, K):
    with np.errstate(over="ignore"):
        scores = 1 / (1 + np.exp(-(u @ centroids.T)))
    limit = np.sort(scores, axis=1)[:, -K][:, None]
    return np.where(scores >= limit, scores, 0.0)


def gate_products(u, centroids, K):
    products = u @ centroids.T
    limit = np.sort(products, axis=1)[:, -K][:, None]
    return np.where(products >= limit, products, 0.0)


def gate_masks_with_zero(u, centroids, K):
    products = u @ centroids.T
    limit = np.sort(products, axis=1)[:, -K][:, None]
    return _softmax(np.where(products >= limit, products, 0.0))


def gate_unstable(u, centroids, K):
    e = np.exp(u @ centroids.T)
    scores = e / e.sum(axis=1, keepdims=True)
    limit = np.sort(scores, axis=1)[:, -K][:, None]
    return np.where(scores >= limit, scores, 0.0)


def gate_one_largest_product(u, centroids, K):
    products = u @ centroids.T
    e = np.exp(products - products.max())
    scores = e / e.sum(axis=1, keepdims=True)
    limit = np.sort(scores, axis=1)[:, -K][:, None]
    return np.where(scores >= limit, scores, 0.0)


def gate_mean(u, centroids, K):
    return (gate(u, centroids, K) > 0) / K


def gate_of_ones(u, centroids, K):
    return (gate(u, centroids, K) > 0).astype(float)


def gate_short(u, centroids, K):
    return -np.sort(-_softmax(u @ centroids.T), axis=1)[:, :K]


def gate_torch(u, centroids, K):
    return torch.from_numpy(gate(u, centroids, K))


# --- 08.2 -------------------------------------------------------------------------


def ways(n_experts, n_activated, m, n_shared):
    return comb(m * n_experts - n_shared, m * n_activated - n_shared)


def ways_by_factorials(n_experts, n_activated, m, n_shared):
    n, k = m * n_experts - n_shared, m * n_activated - n_shared
    return math.factorial(n) // (math.factorial(k) * math.factorial(n - k))


def ways_ordered(n_experts, n_activated, m, n_shared):
    return math.perm(m * n_experts - n_shared, m * n_activated - n_shared)


def ways_without_shared(n_experts, n_activated, m, n_shared):
    return comb(m * n_experts, m * n_activated)


def ways_shared_not_counted(n_experts, n_activated, m, n_shared):
    return comb(m * n_experts - n_shared, m * n_activated)


def ways_from_all(n_experts, n_activated, m, n_shared):
    return comb(m * n_experts, m * n_activated - n_shared)


def ways_shared_added(n_experts, n_activated, m, n_shared):
    return comb(m * n_experts + n_shared, m * n_activated + n_shared)


def ways_same_k(n_experts, n_activated, m, n_shared):
    return comb(m * n_experts - n_shared, n_activated - n_shared)


def ways_not_cut(n_experts, n_activated, m, n_shared):
    return comb(n_experts - n_shared, n_activated - n_shared)


def ways_times_m(n_experts, n_activated, m, n_shared):
    return m * comb(n_experts, n_activated)


def ways_float(n_experts, n_activated, m, n_shared):
    return float(ways(n_experts, n_activated, m, n_shared))


def ways_by_float_factorials(n_experts, n_activated, m, n_shared):
    n, k = m * n_experts - n_shared, m * n_activated - n_shared
    return math.factorial(n) / math.factorial(k) / math.factorial(n - k)


def ways_of_a_float(n_experts, n_activated, m, n_shared):
    n, k = m * n_experts - n_shared, m * n_activated - n_shared
    return int(math.factorial(n) / (math.factorial(k) * math.factorial(n - k)))


def ways_by_logarithms(n_experts, n_activated, m, n_shared):
    n, k = m * n_experts - n_shared, m * n_activated - n_shared
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return round(math.exp(log))


def ways_shared_cut(n_experts, n_activated, m, n_shared):
    return comb(m * (n_experts - n_shared), max(0, m * (n_activated - n_shared)))


# --- 08.3 -------------------------------------------------------------------------


def balance(scores, chosen):
    N, E = scores.shape
    f = F.one_hot(chosen, E).sum((0, 1)) * E / (chosen.shape[1] * N)
    return (f * scores.mean(0)).sum()


def balance_with_a_mask(scores, chosen):
    mask = torch.zeros_like(scores).scatter(1, chosen, 1.0)
    f = mask.mean(0) * scores.shape[1] / chosen.shape[1]
    return f @ scores.mean(0)


def balance_per_token(scores, chosen):
    N, E = scores.shape
    f = torch.bincount(chosen.flatten(), minlength=E) * E / N
    return (f * scores.mean(0)).sum()


def balance_without_e(scores, chosen):
    f = torch.bincount(chosen.flatten(), minlength=scores.shape[1]) / chosen.numel()
    return (f * scores.mean(0)).sum()


def balance_plain_load(scores, chosen):
    load = torch.bincount(chosen.flatten(), minlength=scores.shape[1])
    return (load * scores.mean(0)).sum()


def balance_mean(scores, chosen):
    E = scores.shape[1]
    f = torch.bincount(chosen.flatten(), minlength=E) * E / chosen.numel()
    return (f * scores.mean(0)).mean()


def balance_first_choice(scores, chosen):
    N, E = scores.shape
    f = torch.bincount(chosen[:, 0], minlength=E) * E / N
    return (f * scores.mean(0)).sum()


def balance_first_choice_by_k(scores, chosen):
    E = scores.shape[1]
    f = torch.bincount(chosen[:, 0], minlength=E) * E / chosen.numel()
    return (f * scores.mean(0)).sum()


def balance_of_weights(scores, chosen):
    E = scores.shape[1]
    f = torch.bincount(chosen.flatten(), minlength=E) * E / chosen.numel()
    weights = torch.zeros_like(scores).scatter(1, chosen, scores.gather(1, chosen))
    return (f * weights.mean(0)).sum()


def balance_sum(scores, chosen):
    E = scores.shape[1]
    f = torch.bincount(chosen.flatten(), minlength=E) * E / chosen.numel()
    return (f * scores.sum(0)).sum()


def balance_soft(scores, chosen):
    P = scores.mean(0)
    return scores.shape[1] * (P * P).sum()


def balance_of_counts(scores, chosen):
    E = scores.shape[1]
    p = torch.bincount(chosen.flatten(), minlength=E).to(scores.dtype) / chosen.numel()
    return E * (p * p).sum()


def balance_vector(scores, chosen):
    E = scores.shape[1]
    f = torch.bincount(chosen.flatten(), minlength=E) * E / chosen.numel()
    return f * scores.mean(0)


def balance_no_gradient(scores, chosen):
    return balance(scores.detach(), chosen)


@torch.no_grad()
def balance_under_no_grad(scores, chosen):
    return balance(scores, chosen)


def balance_soft_gradient(scores, chosen):
    f = balance_counts(scores, chosen)
    P = scores.mean(0)
    return (f * P.detach()).sum() + (f * (P - P.detach())).mean()


def balance_counts(scores, chosen):
    E = scores.shape[1]
    return torch.bincount(chosen.flatten(), minlength=E) * E / chosen.numel()


def balance_no_minlength(scores, chosen):
    E = scores.shape[1]
    f = torch.bincount(chosen.flatten()) * E / chosen.numel()
    return (f * scores.mean(0)).sum()


def balance_number(scores, chosen):
    return balance(scores, chosen).item()


def balance_in_float32(scores, chosen):
    N, E = scores.shape
    counts = F.one_hot(chosen, E).sum((0, 1)).float()
    return E / (chosen.shape[1] * N) * (counts @ scores.mean(0))


def balance_in_float64(scores, chosen):
    N, E = scores.shape
    f = torch.zeros(E, dtype=torch.float64)
    for token in chosen:
        for i in token:
            f[i] += E / (chosen.shape[1] * N)
    return (f * scores.double().mean(0)).sum()


# --- 08.4 -------------------------------------------------------------------------


def _ffn(x, w1, w2, w3):
    return (F.silu(x @ w1.T) * (x @ w3.T)) @ w2.T


def layer(u, centroids, w1, w2, w3, shared, K):
    scores = (u @ centroids.T).softmax(dim=-1)
    weights, chosen = scores.topk(K, dim=-1)
    out = _ffn(u, *shared)
    for e in range(len(centroids)):
        token, place = torch.where(chosen == e)
        y = weights[token, place, None] * _ffn(u[token], w1[e], w2[e], w3[e])
        out = out.index_add(0, token, y)
    return out


def layer_dense(u, centroids, w1, w2, w3, shared, K):
    scores = (u @ centroids.T).softmax(-1)
    best = scores.topk(K)
    g = torch.zeros_like(scores).scatter(1, best.indices, best.values)
    gated = F.silu(torch.einsum("nd,eid->nei", u, w1))
    gated = gated * torch.einsum("nd,eid->nei", u, w3)
    return torch.einsum("nei,edi,ne->nd", gated, w2, g) + _ffn(u, *shared)


def layer_by_tokens(u, centroids, w1, w2, w3, shared, K):
    rows = []
    for x in u:
        scores = F.softmax(centroids @ x, dim=0)
        row = _ffn(x, *shared)
        for i in scores.argsort(descending=True)[:K]:
            row = row + scores[i] * _ffn(x, w1[i], w2[i], w3[i])
        rows.append(row)
    return torch.stack(rows)


def _wrong_layer(u, centroids, w1, w2, w3, shared, K, weigh, ffn=_ffn):
    """weigh: of the scores [N, E] and the chosen weights and indices [N, K]."""
    scores = (u @ centroids.T).softmax(-1)
    weights, chosen = weigh(scores, *scores.topk(K))
    out = torch.zeros_like(u)
    for t in range(len(u)):
        for g, i in zip(weights[t], chosen[t]):
            out[t] += g * ffn(u[t], w1[i], w2[i], w3[i])
    return out


def layer_renormalised(u, centroids, w1, w2, w3, shared, K):
    out = _wrong_layer(
        *(u, centroids, w1, w2, w3, shared, K),
        lambda s, w, i: (w / w.sum(-1, keepdim=True), i),
    )
    return out + _ffn(u, *shared)


def layer_over_chosen(u, centroids, w1, w2, w3, shared, K):
    products, chosen = (u @ centroids.T).topk(K)
    out = _ffn(u, *shared)
    for t, weights in enumerate(products.softmax(-1)):
        for g, i in zip(weights, chosen[t]):
            out[t] += g * _ffn(u[t], w1[i], w2[i], w3[i])
    return out


def layer_no_shared(u, centroids, w1, w2, w3, shared, K):
    args = (u, centroids, w1, w2, w3, shared, K)
    return _wrong_layer(*args, lambda s, w, i: (w, i))


def layer_shared_weighed(u, centroids, w1, w2, w3, shared, K):
    weights = (u @ centroids.T).softmax(-1).topk(K).values
    routed = layer_no_shared(u, centroids, w1, w2, w3, shared, K)
    return routed + weights.sum(-1, keepdim=True) * _ffn(u, *shared)


def layer_shared_best_weight(u, centroids, w1, w2, w3, shared, K):
    weights = (u @ centroids.T).softmax(-1).topk(K).values
    routed = layer_no_shared(u, centroids, w1, w2, w3, shared, K)
    return routed + weights[:, :1] * _ffn(u, *shared)


def layer_shared_rest(u, centroids, w1, w2, w3, shared, K):
    weights = (u @ centroids.T).softmax(-1).topk(K).values
    routed = layer_no_shared(u, centroids, w1, w2, w3, shared, K)
    return routed + (1 - weights.sum(-1, keepdim=True)) * _ffn(u, *shared)


def layer_not_weighed(u, centroids, w1, w2, w3, shared, K):
    args = (u, centroids, w1, w2, w3, shared, K)
    routed = _wrong_layer(*args, lambda s, w, i: (torch.ones_like(w), i))
    return routed + _ffn(u, *shared)


def layer_all(u, centroids, w1, w2, w3, shared, K):
    return layer(u, centroids, w1, w2, w3, shared, len(centroids))


def layer_best_only(u, centroids, w1, w2, w3, shared, K):
    return layer(u, centroids, w1, w2, w3, shared, 1)


def layer_sorted_apart(u, centroids, w1, w2, w3, shared, K):
    args = (u, centroids, w1, w2, w3, shared, K)
    routed = _wrong_layer(*args, lambda s, w, i: (w, i.sort(dim=-1).values))
    return routed + _ffn(u, *shared)


def layer_first_experts(u, centroids, w1, w2, w3, shared, K):
    weights = (u @ centroids.T).softmax(-1).topk(K).values
    out = _ffn(u, *shared)
    for k in range(K):
        out = out + weights[:, k, None] * _ffn(u, w1[k], w2[k], w3[k])
    return out


def layer_over_tokens(u, centroids, w1, w2, w3, shared, K):
    weights, chosen = (u @ centroids.T).softmax(dim=0).topk(K)
    out = _ffn(u, *shared)
    for t in range(len(u)):
        for g, i in zip(weights[t], chosen[t]):
            out[t] += g * _ffn(u[t], w1[i], w2[i], w3[i])
    return out


def layer_silu_on_w3(u, centroids, w1, w2, w3, shared, K):
    return layer(u, centroids, w3, w2, w1, (shared[2], shared[1], shared[0]), K)


def layer_with_residual(u, centroids, w1, w2, w3, shared, K):
    return u + layer(u, centroids, w1, w2, w3, shared, K)


def layer_no_silu(u, centroids, w1, w2, w3, shared, K):
    def ffn(x, w1, w2, w3):
        return ((x @ w1.T) * (x @ w3.T)) @ w2.T

    args = (u, centroids, w1, w2, w3, shared, K)
    return _wrong_layer(*args, lambda s, w, i: (w, i), ffn) + ffn(u, *shared)


def layer_sigmoid(u, centroids, w1, w2, w3, shared, K):
    def ffn(x, w1, w2, w3):
        return (torch.sigmoid(x @ w1.T) * (x @ w3.T)) @ w2.T

    args = (u, centroids, w1, w2, w3, shared, K)
    return _wrong_layer(*args, lambda s, w, i: (w, i), ffn) + ffn(u, *shared)


def layer_into_zeros(u, centroids, w1, w2, w3, shared, K):
    weights, chosen = (u @ centroids.T).softmax(-1).topk(K)
    out = torch.zeros(u.shape)
    for e in range(len(centroids)):
        t, k = torch.where(chosen == e)
        out[t] += weights[t, k, None] * _ffn(u[t], w1[e], w2[e], w3[e])
    return out + _ffn(u, *shared)


def layer_in_float64(u, centroids, w1, w2, w3, shared, K):
    wide = [x.double() for x in (u, centroids, w1, w2, w3)]
    return layer(*wide, [x.double() for x in shared], K)


def layer_scores_sigmoid(u, centroids, w1, w2, w3, shared, K):
    weights, chosen = (u @ centroids.T).sigmoid().topk(K)
    out = _ffn(u, *shared)
    for e in range(len(centroids)):
        t, k = torch.where(chosen == e)
        out[t] += weights[t, k, None] * _ffn(u[t], w1[e], w2[e], w3[e])
    return out


def layer_weight_inside(u, centroids, w1, w2, w3, shared, K):
    weights, chosen = (u @ centroids.T).softmax(-1).topk(K)
    out = _ffn(u, *shared)
    for e in range(len(centroids)):
        t, k = torch.where(chosen == e)
        out[t] += _ffn(weights[t, k, None] * u[t], w1[e], w2[e], w3[e])
    return out


def layer_one_choice(u, centroids, w1, w2, w3, shared, K):
    scores = (u @ centroids.T).softmax(-1)
    out = _ffn(u, *shared)
    for i in scores[0].topk(K).indices:
        out = out + scores[:, i, None] * _ffn(u, w1[i], w2[i], w3[i])
    return out


def layer_routed_silu_on_w3(u, centroids, w1, w2, w3, shared, K):
    return layer(u, centroids, w3, w2, w1, shared, K)


def layer_half_shared(u, centroids, w1, w2, w3, shared, K):
    return layer(u, centroids, w1, w2, w3, shared, K) - _ffn(u, *shared) / 2


def layer_shared_order(u, centroids, w1, w2, w3, shared, K):
    a, b, c = shared
    return layer(u, centroids, w1, w2, w3, (a, c, b), K)


# --- 08.5 -------------------------------------------------------------------------


def _sorted(x, chosen, experts, by=None):
    """Outputs in the order of the sorted places, and that order."""
    order = chosen.flatten().argsort(stable=True)
    counts = chosen.flatten().bincount(minlength=len(experts)).tolist()
    pieces = x[order // (by or chosen.shape[1])].split(counts)
    return torch.cat([f(p) for f, p in zip(experts, pieces) if len(p)]), order


def dispatch(x, chosen, weights, experts):
    y, order = _sorted(x, chosen, experts)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    y = y[back].view(*chosen.shape, -1)
    return (y * weights[..., None]).sum(1)


def dispatch_with_a_loop(x, chosen, weights, experts):
    out = torch.zeros_like(x)
    for e, f in enumerate(experts):
        token, place = torch.where(chosen == e)
        if len(token):
            out.index_add_(0, token, f(x[token]) * weights[token, place, None])
    return out


def dispatch_still_sorted(x, chosen, weights, experts):
    y, _ = _sorted(x, chosen, experts)
    return (y.view(*chosen.shape, -1) * weights[..., None]).sum(1)


def dispatch_sorted_rows_added(x, chosen, weights, experts):
    y, order = _sorted(x, chosen, experts)
    y = y * weights.flatten()[order, None]
    return y.view(*chosen.shape, -1).sum(1)


def dispatch_weights_unsorted(x, chosen, weights, experts):
    y, order = _sorted(x, chosen, experts)
    y = y * weights.flatten()[:, None]
    return torch.zeros_like(x).index_add(0, order // chosen.shape[1], y)


def dispatch_no_weights(x, chosen, weights, experts):
    y, order = _sorted(x, chosen, experts)
    return torch.zeros_like(x).index_add(0, order // chosen.shape[1], y)


def dispatch_overwrites(x, chosen, weights, experts):
    y, order = _sorted(x, chosen, experts)
    out = torch.zeros_like(x)
    out[order // chosen.shape[1]] = y * weights.flatten()[order, None]
    return out


def dispatch_plus_equals(x, chosen, weights, experts):
    y, order = _sorted(x, chosen, experts)
    out = torch.zeros_like(x)
    out[order // chosen.shape[1]] += y * weights.flatten()[order, None]
    return out


def dispatch_divides_by_e(x, chosen, weights, experts):
    y, order = _sorted(x, chosen, experts, by=len(experts))
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    return (y[back].view(*chosen.shape, -1) * weights[..., None]).sum(1)


def dispatch_renormalises(x, chosen, weights, experts):
    return dispatch(x, chosen, weights / weights.sum(1, keepdim=True), experts)


def dispatch_every_token(x, chosen, weights, experts):
    out = torch.zeros_like(x)
    for e, f in enumerate(experts):
        g = (weights * (chosen == e)).sum(1, keepdim=True)
        if (chosen == e).any():
            out = out + g * f(x)
    return out


def dispatch_token_by_token(x, chosen, weights, experts):
    out = torch.zeros_like(x)
    for t in range(len(x)):
        for g, i in zip(weights[t], chosen[t].tolist()):
            out[t] += g * experts[i](x[t : t + 1])[0]
    return out


def dispatch_calls_idle(x, chosen, weights, experts):
    out = torch.zeros_like(x)
    for e, f in enumerate(experts):
        token, place = torch.where(chosen == e)
        out.index_add_(0, token, f(x[token]) * weights[token, place, None])
    return out


class DispatchModule(nn.Module):
    """A module in place of a function, which returns nothing."""

    def forward(self, x, chosen, weights, experts):
        dispatch(x, chosen, weights, experts)


def dispatch_no_return(x, chosen, weights, experts):
    DispatchModule()(x, chosen, weights, experts)


def dispatch_into_zeros(x, chosen, weights, experts):
    out = torch.zeros(x.shape)
    for e, f in enumerate(experts):
        token, place = torch.where(chosen == e)
        if len(token):
            out.index_add_(0, token, f(x[token]) * weights[token, place, None])
    return out


def dispatch_repeated_index(x, chosen, weights, experts):
    out = torch.zeros_like(x)
    for e, f in enumerate(experts):
        token, place = torch.where(chosen == e)
        if len(token):
            out[token] += f(x[token]) * weights[token, place, None]
    return out


def dispatch_weights_summed(x, chosen, weights, experts):
    out = torch.zeros_like(x)
    for e, f in enumerate(experts):
        mine = chosen == e
        token = mine.any(1).nonzero()[:, 0]
        if len(token):
            out[token] += (mine * weights).sum(1)[token, None] * f(x[token])
    return out


def dispatch_orders_again(x, chosen, weights, experts):
    y, order = _sorted(x, chosen, experts)
    y = y * weights.flatten()[order, None]
    return y[order].view(*chosen.shape, -1).sum(1)


def dispatch_remainder(x, chosen, weights, experts):
    order = chosen.flatten().argsort(stable=True)
    counts = chosen.flatten().bincount(minlength=len(experts)).tolist()
    token = order % len(x)
    outs = [f(part) for f, part in zip(experts, x[token].split(counts)) if len(part)]
    y = torch.cat(outs) * weights.flatten()[order, None]
    return torch.zeros_like(x).index_add(0, token, y)


ANSWERS = {
    "08.1": Answers(
        right=[gate, gate_by_loop],
        wrong=[
            Wrong(gate_renormalised, "add up to 1"),
            Wrong(gate_over_chosen, "add up to 1"),
            Wrong(gate_of_all, "all experts have a weight"),
            Wrong(gate_smallest, "the smallest scores"),
            Wrong(gate_over_tokens, "runs over the tokens"),
            Wrong(gate_sigmoid, "the scores are sigmoids"),
            Wrong(gate_products, "before the softmax"),
            Wrong(gate_masks_with_zero, "the power e^0"),
            Wrong(gate_unstable, "largest product first"),
            Wrong(gate_one_largest_product, "largest one of its own"),
            Wrong(gate_mean, "have the same weight"),
            Wrong(gate_of_ones, "zeros and ones"),
            Wrong(gate_short, "give every expert a column"),
            Wrong(gate_torch, "leave torch out of it"),
        ],
    ),
    "08.2": Answers(
        right=[ways, ways_by_factorials],
        wrong=[
            Wrong(ways_ordered, "the order counts"),
            Wrong(ways_without_shared, "nothing to choose"),
            Wrong(ways_shared_not_counted, "has fewer to choose"),
            Wrong(ways_from_all, "none of those"),
            Wrong(ways_shared_added, "come on top"),
            Wrong(ways_same_k, "only the experts are cut"),
            Wrong(ways_not_cut, "are not cut"),
            Wrong(ways_times_m, "multiplied by m"),
            Wrong(ways_float, "should be an int"),
            Wrong(ways_by_float_factorials, "should be an int"),
            Wrong(ways_of_a_float, "stay with whole numbers"),
            Wrong(ways_by_logarithms, "stay with whole numbers"),
            Wrong(ways_shared_cut, "n_shared counts narrow ones"),
        ],
    ),
    "08.3": Answers(
        right=[balance, balance_with_a_mask, balance_in_float32, balance_in_float64],
        wrong=[
            Wrong(balance_per_token, "each makes K choices"),
            Wrong(balance_without_e, "a factor E is missing"),
            Wrong(balance_plain_load, "f is the plain load"),
            Wrong(balance_mean, "not averaged"),
            Wrong(balance_first_choice, "only each token's first choice"),
            Wrong(balance_first_choice_by_k, "only each token's first choice"),
            Wrong(balance_of_weights, "made of the chosen scores alone"),
            Wrong(balance_sum, "not the mean"),
            Wrong(balance_soft, "it should count choices"),
            Wrong(balance_of_counts, "it should be the mean of the scores"),
            Wrong(balance_vector, "add them up"),
            Wrong(balance_no_gradient, "no gradient reaches the scores"),
            Wrong(balance_under_no_grad, "no gradient reaches the scores"),
            Wrong(balance_soft_gradient, "its gradient is not"),
            Wrong(balance_no_minlength, "an expert that nobody chose has f = 0"),
            Wrong(balance_number, "leave them away"),
        ],
    ),
    "08.4": Answers(
        right=[layer, layer_dense, layer_by_tokens, layer_into_zeros, layer_in_float64],
        wrong=[
            Wrong(layer_renormalised, "add up to 1"),
            Wrong(layer_over_chosen, "add up to 1"),
            Wrong(layer_no_shared, "the shared expert is missing"),
            Wrong(layer_shared_weighed, "weighed by the gate"),
            Wrong(layer_shared_best_weight, "weighed by the gate"),
            Wrong(layer_shared_rest, "leave to 1"),
            Wrong(layer_not_weighed, "without weights"),
            Wrong(layer_all, "every expert takes part"),
            Wrong(layer_best_only, "only each token's best expert"),
            Wrong(layer_sorted_apart, "paired wrongly"),
            Wrong(layer_first_experts, "the first K experts"),
            Wrong(layer_over_tokens, "runs over the tokens"),
            Wrong(layer_silu_on_w3, "on the wrong branch"),
            Wrong(layer_with_residual, "the residual is added"),
            Wrong(layer_no_silu, "the silu is missing"),
            Wrong(layer_sigmoid, "not a sigmoid"),
            Wrong(layer_scores_sigmoid, "the gate's scores are sigmoids"),
            Wrong(layer_weight_inside, "belongs to the output"),
            Wrong(layer_one_choice, "experts of the first"),
            Wrong(layer_routed_silu_on_w3, "wrong branch of the routed experts"),
            Wrong(layer_half_shared, "its weight is 1"),
            Wrong(layer_shared_order, "w1, w2, w3 in this order"),
        ],
    ),
    "08.5": Answers(
        right=[dispatch, dispatch_with_a_loop, dispatch_into_zeros],
        wrong=[
            Wrong(dispatch_still_sorted, "still sorted by expert"),
            Wrong(dispatch_sorted_rows_added, "still sorted by expert"),
            Wrong(dispatch_weights_unsorted, "in the order of the tokens"),
            Wrong(dispatch_no_weights, "without weights"),
            Wrong(dispatch_overwrites, "have to be added up"),
            Wrong(dispatch_plus_equals, "have to be added up"),
            Wrong(dispatch_divides_by_e, "not // E"),
            Wrong(dispatch_renormalises, "they are used as they are"),
            Wrong(dispatch_every_token, "choices fell on it"),
            Wrong(dispatch_token_by_token, "call it once"),
            Wrong(dispatch_calls_idle, "but it was called"),
            Wrong(dispatch_no_return, "return"),
            Wrong(dispatch_repeated_index, "the last place of a repeated t wins"),
            Wrong(dispatch_weights_summed, "among its inputs twice"),
            Wrong(dispatch_orders_again, "a second time"),
            Wrong(dispatch_remainder, "place // K"),
        ],
    ),
}
