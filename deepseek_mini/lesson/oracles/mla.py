"""Latent attention for the oracles of lesson 09: one token, one head at a time.

Keys and values are always expanded, in float64, and pairs of channels are turned as
complex numbers; the lesson and the package work on whole tensors.
"""

import numpy as np
import torch

THETA = 10_000.0
EPS = 1e-6


def turned(vector, position, *, half=False, back=False, slow=False, halves=False):
    """RoPE of one vector. The mistakes: pairs are i and i + r / 2 (half), the angle is
    negative (back), its exponent i / r (slow), or pairs come out as halves.
    """
    r = len(vector)
    freqs = np.array([THETA ** (-(i if slow else 2 * i) / r) for i in range(r // 2)])
    by = np.exp((-1j if back else 1j) * position * freqs)
    if half:
        z = (vector[: r // 2] + 1j * vector[r // 2 :]) * by
    else:
        z = (vector[0::2] + 1j * vector[1::2]) * by
    if half or halves:
        return np.concatenate((z.real, z.imag))
    return np.stack((z.real, z.imag), axis=-1).reshape(r)


def _turning(wrong):
    """Those keywords that are for `turned`."""
    return {k: wrong[k] for k in ("half", "back", "slow", "halves") if k in wrong}


def normed(vector, weight, apply=True, eps="inside"):
    """RMSNorm of one vector."""
    if not apply:
        return vector
    size = np.mean(vector**2)
    size = np.sqrt(size + EPS) if eps == "inside" else np.sqrt(size)
    return vector / (size + EPS if eps == "outside" else size) * weight


def new_entry(x, w, part, position, **wrong):
    """What one token leaves in the cache: its latent [C] and its turned key [r]."""
    both = w["wkv_a"] @ x
    C = part.kv_lora_rank
    if wrong.get("key_first"):
        latent, key = both[part.qk_rope_head_dim :], both[: part.qk_rope_head_dim]
    else:
        latent, key = both[:C], both[C:]
    eps = wrong.get("eps", "inside")
    latent = normed(latent, w["kv_norm"], wrong.get("kv_norm", True), eps)
    if wrong.get("turn_keys", True):
        key = turned(key, position, **_turning(wrong))
    return latent, key


def queries(x, w, part, position, **wrong):
    """One token's queries, [H, n + r], the last r channels turned."""
    n, r = part.qk_nope_head_dim, part.qk_rope_head_dim
    eps = wrong.get("eps", "inside")
    latent = normed(w["wq_a"] @ x, w["q_norm"], wrong.get("q_norm", True), eps)
    flat = w["wq_b"] @ latent
    if wrong.get("parts_first"):  # all heads' n channels, then all heads' r
        split = part.n_heads * n
        nope, pe = flat[:split].reshape(-1, n), flat[split:].reshape(-1, r)
    else:
        heads = flat.reshape(part.n_heads, n + r)
        if wrong.get("rope_first"):
            heads = np.concatenate((heads[:, r:], heads[:, :r]), axis=1)
        nope, pe = heads[:, :n], heads[:, n:]
    if wrong.get("turn_queries", True):
        pe = [turned(row, position, **_turning(wrong)) for row in pe]
    return np.concatenate((nope, np.stack(list(pe))), axis=1)


def expansions(w, part, h, **wrong):
    """The rows of wkv_b that make head h's key, [n, C], and its value, [v, C]."""
    H, n, v = part.n_heads, part.qk_nope_head_dim, part.v_head_dim
    rows = np.arange(h * (n + v), (h + 1) * (n + v))
    if wrong.get("kv_parts_first"):
        rows = np.append(h * n + np.arange(n), H * n + h * v + np.arange(v))
    elif wrong.get("kv_values_first"):
        rows = np.append(rows[v:], rows[:v])
    elif wrong.get("kv_heads_inside"):
        rows = h + H * np.arange(n + v)
    return w["wkv_b"][rows[:n]], w["wkv_b"][rows[n:]]


def softmax(scores, hidden, *, down=False, late=False, fill=-np.inf):
    """Over a row's tokens [N, S] that are not hidden; `down` a column's."""
    if not late:
        scores = np.where(hidden, fill, scores)
    axis = 0 if down else 1
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
        weights = np.nan_to_num(weights / weights.sum(axis=axis, keepdims=True))
    return np.where(hidden, 0, weights) if late else weights


def read(queries, cache, w, part, seen, **wrong):
    """Outputs before wo, [N, H, v]; query i reads the first seen[i] cached tokens."""
    n = part.qk_nope_head_dim
    width = wrong.get("width", n + part.qk_rope_head_dim)
    hidden = np.arange(len(cache)) >= np.array(seen)[:, None]
    how = {k: wrong[k] for k in ("down", "late", "fill") if k in wrong}
    out = np.empty((len(queries), part.n_heads, part.v_head_dim))
    for h in range(part.n_heads):
        up_k, up_v = expansions(w, part, h, **wrong)
        scores = [
            [q[h, :n] @ (up_k @ c) + q[h, n:] @ key for c, key in cache]
            for q in queries
        ]
        weights = softmax(np.array(scores) * width**-0.5, hidden, **how)
        out[:, h] = weights @ np.array([up_v @ c for c, _ in cache])
    return out


def as_numpy(w):
    return {name: value.detach().double().numpy() for name, value in w.items()}


def layer(x, w, part, **wrong):
    """The whole layer: x [B, T, D] to [B, T, D]. Keywords make the known mistakes."""
    rows, weights = x.detach().double().numpy(), as_numpy(w)
    out = np.empty(rows.shape)
    for b, row in enumerate(rows):
        cache = [new_entry(h, weights, part, t, **wrong) for t, h in enumerate(row)]
        asked = [queries(h, weights, part, t, **wrong) for t, h in enumerate(row)]
        seen = np.arange(len(row)) + (0 if wrong.get("strict") else 1)
        if not wrong.get("causal", True):
            seen[:] = len(row)
        made = read(asked, cache, weights, part, seen, **wrong)  # [T, H, v]
        if wrong.get("heads_inside"):
            made = made.transpose(0, 2, 1)
        if wrong.get("heads_first"):
            made = made.transpose(1, 0, 2)
        out[b] = made.reshape(len(row), -1) @ weights["wo"].T
    return torch.from_numpy(out).to(x.dtype)


def step(x, latents, keys, w, part, **wrong):
    """One decoded token: (output, latents, keys). Keywords make the known mistakes."""
    made = [
        _step_of_text(
            *(
                value.detach().double().numpy()
                for value in (x[b, 0], latents[b], keys[b])
            ),
            as_numpy(w),
            part,
            **wrong,
        )
        for b in range(len(x))
    ]
    out, latents, keys = (torch.from_numpy(np.stack(y)).to(x.dtype) for y in zip(*made))
    return out[:, None], latents, keys


def _step_of_text(x, latents, keys, w, part, **wrong):
    """`step` for one text: x [D], latents [S, C], keys [S, r]."""
    S, C = len(latents), part.kv_lora_rank
    position = 0 if wrong.get("at_zero") else S + wrong.get("shift", 0)
    latent, key = new_entry(x, w, part, position, **wrong)
    old_latents = [normed(c, w["kv_norm"]) for c in latents]
    old_keys = [
        turned(k, S if wrong.get("all_at_S") else s) for s, k in enumerate(keys)
    ]
    read_latents = old_latents if wrong.get("norm_again") else list(latents)
    read_keys = old_keys if wrong.get("turn_again") else list(keys)
    new = normed(latent, w["kv_norm"]) if wrong.get("norm_new_again") else latent
    cache = list(zip([*read_latents, new], [*read_keys, key]))
    cache = cache[S:] if wrong.get("alone") else cache
    seen = len(cache) - (0 if wrong.get("itself", True) else 1)
    asked = queries(x, w, part, position, **wrong)
    out = w["wo"] @ read([asked], cache, w, part, [seen], **wrong).ravel()
    if wrong.get("keep_raw"):
        latent = (w["wkv_a"] @ x)[:C]
    if wrong.get("keep_unturned"):
        key = (w["wkv_a"] @ x)[C:]
    if wrong.get("keep_read"):
        latents, keys, latent = read_latents, read_keys, new
    if wrong.get("in_front"):
        return out, np.array([latent, *latents]), np.array([key, *keys])
    return out, np.array([*latents, latent]), np.array([*keys, key])
