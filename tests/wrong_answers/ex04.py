"""Lesson 04, attention."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from . import Answers, Wrong

# --- 04.1 -------------------------------------------------------------------------


def mask(n_queries, n_keys):
    ones = torch.ones(n_queries, n_keys, dtype=torch.bool)
    return torch.tril(ones, diagonal=n_keys - n_queries)


def mask_by_positions(n_queries, n_keys):
    token = torch.arange(n_keys - n_queries, n_keys)
    return torch.arange(n_keys) <= token[:, None]


def mask_last_rows(n_queries, n_keys):
    return torch.ones(n_keys, n_keys).tril().bool()[-n_queries:]


def mask_top_left(n_queries, n_keys):
    return torch.ones(n_queries, n_keys, dtype=torch.bool).tril()


def mask_one_too_far(n_queries, n_keys):
    ones = torch.ones(n_queries, n_keys, dtype=torch.bool)
    return ones.tril(n_keys - n_queries + 1)


def mask_not_itself(n_queries, n_keys):
    ones = torch.ones(n_queries, n_keys, dtype=torch.bool)
    return ones.tril(n_keys - n_queries - 1)


def mask_inverted(n_queries, n_keys):
    ones = torch.ones(n_queries, n_keys, dtype=torch.bool)
    return ones.triu(n_keys - n_queries + 1)


def mask_upper(n_queries, n_keys):
    return torch.ones(n_queries, n_keys, dtype=torch.bool).triu(n_keys - n_queries)


def mask_first_rows(n_queries, n_keys):
    return torch.ones(n_keys, n_keys, dtype=torch.bool).tril()[:n_queries]


def mask_new_only(n_queries, n_keys):
    mask = torch.zeros(n_queries, n_keys, dtype=torch.bool)
    square = torch.ones(n_queries, n_queries, dtype=torch.bool).tril()
    mask[:, n_keys - n_queries :] = square
    return mask


def mask_cached_only(n_queries, n_keys):
    mask = torch.zeros(n_queries, n_keys, dtype=torch.bool)
    mask[:, : n_keys - n_queries] = True
    return mask


def mask_transposed(n_queries, n_keys):
    return mask(n_queries, n_keys).T


def mask_floats(n_queries, n_keys):
    return torch.ones(n_queries, n_keys).tril(n_keys - n_queries)


def mask_square(n_queries, n_keys):
    return torch.ones(n_keys, n_keys, dtype=torch.bool).tril()


def mask_of_infinities(n_queries, n_keys):
    hidden = ~mask(n_queries, n_keys)
    return torch.zeros(n_queries, n_keys).masked_fill(hidden, float("-inf"))


# --- 04.2 -------------------------------------------------------------------------


def _softmax(scores, axis=-1):
    e = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _hidden(T, S):
    return np.triu(np.ones((T, S), dtype=bool), S - T + 1)


def head(q, k, v):
    scores = q @ k.T / math.sqrt(q.shape[1])
    scores[_hidden(len(q), len(k))] = -np.inf
    return _softmax(scores) @ v


def head_by_loop(q, k, v):
    out = []
    for t, query in enumerate(q):
        seen = len(k) - len(q) + t + 1
        scores = k[:seen] @ query / math.sqrt(len(query))
        weights = np.exp(scores - scores.max())
        out.append(weights @ v[:seen] / weights.sum())
    return np.array(out)


def head_not_divided(q, k, v):
    scores = q @ k.T
    scores[_hidden(len(q), len(k))] = -np.inf
    return _softmax(scores) @ v


def head_divided_by_d(q, k, v):
    scores = q @ k.T / q.shape[1]
    scores[_hidden(len(q), len(k))] = -np.inf
    return _softmax(scores) @ v


def head_root_of_keys(q, k, v):
    scores = q @ k.T / math.sqrt(k.shape[0])
    scores[_hidden(len(q), len(k))] = -np.inf
    return _softmax(scores) @ v


def head_not_causal(q, k, v):
    return _softmax(q @ k.T / math.sqrt(q.shape[1])) @ v


def head_top_left(q, k, v):
    scores = q @ k.T / math.sqrt(q.shape[1])
    scores[np.triu(np.ones(scores.shape, dtype=bool), 1)] = -np.inf
    return _softmax(scores) @ v


def head_unstable(q, k, v):
    scores = q @ k.T / math.sqrt(q.shape[1])
    scores[_hidden(len(q), len(k))] = -np.inf
    e = np.exp(scores)
    return e / e.sum(axis=1, keepdims=True) @ v


def head_over_queries(q, k, v):
    scores = q @ k.T / math.sqrt(q.shape[1])
    scores[_hidden(len(q), len(k))] = -np.inf
    with np.errstate(invalid="ignore"):
        return _softmax(scores, axis=0) @ v


def head_masked_with_zero(q, k, v):
    scores = q @ k.T / math.sqrt(q.shape[1])
    scores[_hidden(len(q), len(k))] = 0
    return _softmax(scores) @ v


def head_masked_after(q, k, v):
    weights = _softmax(q @ k.T / math.sqrt(q.shape[1]))
    weights[_hidden(len(q), len(k))] = 0
    return weights @ v


def head_mask_one_too_far(q, k, v):
    scores = q @ k.T / math.sqrt(q.shape[1])
    T, S = scores.shape
    scores[np.triu(np.ones((T, S), dtype=bool), S - T + 2)] = -np.inf
    return _softmax(scores) @ v


def head_not_normalised(q, k, v):
    scores = q @ k.T / math.sqrt(q.shape[1])
    scores[_hidden(len(q), len(k))] = -np.inf
    return np.exp(scores) @ v


def head_in_torch(q, k, v):
    q, k, v = (torch.from_numpy(x.copy()) for x in (q, k, v))
    seen = torch.ones(len(q), len(k), dtype=torch.bool).tril(len(k) - len(q))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


def head_maximum_of_hidden(q, k, v):
    s = q @ k.T / math.sqrt(q.shape[1])
    e = np.exp(s - s.max(-1, keepdims=True)) * ~_hidden(len(q), len(k))
    return e / e.sum(-1, keepdims=True) @ v


def head_maximum_of_all(q, k, v):
    scores = q @ k.T / math.sqrt(q.shape[1])
    scores[_hidden(len(q), len(k))] = -np.inf
    e = np.exp(scores - scores.max())
    return e / e.sum(axis=1, keepdims=True) @ v


def _head_filled(number):
    def head_filled(q, k, v):
        scores = q @ k.T / math.sqrt(q.shape[1])
        return _softmax(np.where(_hidden(*scores.shape), number, scores)) @ v

    head_filled.__name__ = f"head_filled_with_{number}"
    return head_filled


def head_not_itself(q, k, v):
    scores = q @ k.T / math.sqrt(q.shape[1])
    T, S = scores.shape
    scores[np.triu(np.ones((T, S), dtype=bool), S - T)] = -np.inf
    return _softmax(scores) @ v


def head_only_weights(q, k, v):
    scores = q @ k.T / math.sqrt(q.shape[1])
    scores[_hidden(len(q), len(k))] = -np.inf
    return _softmax(scores)


def head_as_list(q, k, v):
    return list(head(q, k, v))


def head_no_return(q, k, v):
    head(q, k, v)


# --- 04.3 -------------------------------------------------------------------------


def scores(q, k):
    k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
    return q.transpose(1, 2) @ k.permute(0, 2, 3, 1) / math.sqrt(q.shape[-1])


def scores_unflattened(q, k):
    q = q.unflatten(2, (k.shape[2], -1))
    out = torch.einsum("btgnd,bsgd->bgnts", q, k).flatten(1, 2)
    return out * q.shape[-1] ** -0.5


def scores_expanded(q, k):
    B, S, G, d = k.shape
    group = q.shape[2] // G
    k = k[:, :, :, None].expand(B, S, G, group, d).reshape(B, S, G * group, d)
    return torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(d)


def scores_repeat(q, k):
    k = k.repeat(1, 1, q.shape[2] // k.shape[2], 1)
    return torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(q.shape[-1])


def scores_not_divided(q, k):
    return scores(q, k) * math.sqrt(q.shape[-1])


def scores_divided_by_d(q, k):
    return scores(q, k) / math.sqrt(q.shape[-1])


def scores_of_means(q, k):
    group = q.shape[2] // k.shape[2]
    mean = q.unflatten(2, (-1, group)).mean(dim=3)
    out = torch.einsum("btgd,bsgd->bgts", mean, k) / math.sqrt(q.shape[-1])
    return out.repeat_interleave(group, dim=1)


def scores_per_group(q, k):
    group = q.shape[2] // k.shape[2]
    mean = q.unflatten(2, (-1, group)).mean(dim=3)
    return torch.einsum("btgd,bsgd->bgts", mean, k) / math.sqrt(q.shape[-1])


def scores_first_key(q, k):
    return torch.einsum("bthd,bsd->bhts", q, k[:, :, 0]) / math.sqrt(q.shape[-1])


def scores_transposed(q, k):
    return scores(q, k).transpose(2, 3)


def scores_of_all_channels(q, k):
    return scores(q, k) * q.shape[-1] ** 0.5 / (q.shape[2] * q.shape[3]) ** 0.5


def scores_heads_third(q, k):
    return scores(q, k).transpose(1, 2)


def scores_without_groups(q, k):
    return torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(q.shape[-1])


def scores_split_queries(q, k):
    group = q.shape[2] // k.shape[2]
    q = q.unflatten(2, (group, k.shape[2]))
    out = torch.einsum("btngd,bsgd->bngts", q, k).flatten(1, 2)
    return out * q.shape[-1] ** -0.5


def scores_reshaped(q, k):
    (B, T, H, d), S = q.shape, k.shape[1]
    k = k.repeat_interleave(H // k.shape[2], dim=2)
    return q.reshape(B, H, T, d) @ k.reshape(B, H, S, d).mT / math.sqrt(d)


def scores_keys_reshaped(q, k):
    B, S, G, d = k.shape
    k = k.reshape(B, G, S, d).repeat_interleave(q.shape[2] // G, dim=1)
    return q.transpose(1, 2) @ k.mT / math.sqrt(d)


def scores_masked(q, k):
    T, S = q.shape[1], k.shape[1]
    return scores(q, k).masked_fill(~mask(T, S), float("-inf"))


def scores_softmax(q, k):
    return scores(q, k).softmax(dim=-1)


def scores_repeat_g_times(q, k):
    k = k.repeat_interleave(k.shape[2] + 2, dim=2)
    return torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(q.shape[-1])


# --- 04.4 -------------------------------------------------------------------------


class CatCache:
    def __init__(self):
        self.k = self.v = None

    @property
    def length(self):
        return 0 if self.k is None else self.k.shape[1]

    def append(self, k, v):
        self.k = k if self.k is None else torch.cat((self.k, k), dim=1)
        self.v = v if self.v is None else torch.cat((self.v, v), dim=1)
        return self.k, self.v

    def truncate(self, length):
        if self.k is not None:
            self.k, self.v = self.k[:, :length], self.v[:, :length]


class ListCache:
    """Token by token, in Python lists."""

    def __init__(self):
        self.tokens, self.length = [], 0

    def append(self, k, v):
        self.tokens += [(k[:, i], v[:, i]) for i in range(k.shape[1])]
        self.length = len(self.tokens)
        keys, values = zip(*self.tokens)
        return torch.stack(keys, dim=1), torch.stack(values, dim=1)

    def truncate(self, length):
        del self.tokens[length:]
        self.length = length


class RoomCache:
    """Memory taken up front."""

    def __init__(self):
        self.memory, self.length = None, 0

    def append(self, k, v):
        if self.memory is None:
            self.memory = torch.empty(2, k.shape[0], 500, *k.shape[2:], dtype=k.dtype)
        end = self.length + k.shape[1]
        self.memory[0, :, self.length : end] = k
        self.memory[1, :, self.length : end] = v
        self.length = end
        return self.memory[0, :, :end], self.memory[1, :, :end]

    def truncate(self, length):
        self.length = length


class LengthTooEarly(CatCache):
    @property
    def length(self):
        return self.k.shape[1]


class LengthOfEmpty(CatCache):
    def __init__(self):
        self.k = self.v = torch.empty(0)

    @property
    def length(self):
        return self.k.shape[1]


class NoLength:
    def __init__(self):
        self.k = self.v = None

    def append(self, k, v):
        return k, v

    def truncate(self, length):
        pass


class NoTruncate(CatCache):
    def truncate(self, length):
        raise NotImplementedError("04.4")


class TruncatesBatch(ListCache):
    """Cut along the first axis."""

    def append(self, k, v):
        keys, values = ListCache.append(self, k, v)
        self.pair = keys, values
        return keys, values

    def truncate(self, length):
        self.pair = tuple(x[:length] for x in self.pair)
        self.length = length


class CannotTruncateEmpty(CatCache):
    def truncate(self, length):
        self.k, self.v = self.k[:, :length], self.v[:, :length]


class Overwrites(CatCache):
    def append(self, k, v):
        self.k, self.v = k, v
        return self.k, self.v


class NewestFirst(CatCache):
    def append(self, k, v):
        self.k = k if self.k is None else torch.cat((k, self.k), dim=1)
        self.v = v if self.v is None else torch.cat((v, self.v), dim=1)
        return self.k, self.v


class TruncateOnlyCounts(ListCache):
    def truncate(self, length):
        self.length = length


class KeepsTheLast(CatCache):
    def truncate(self, length):
        start = self.length - length
        self.k, self.v = self.k[:, start:], self.v[:, start:]


class ReturnsBefore(RoomCache):
    def append(self, k, v):
        before = self.length
        keys, values = super().append(k, v)
        return (keys, values) if before == 0 else (keys[:, :before], values[:, :before])


class CountsCalls(CatCache):
    length = 0

    def append(self, k, v):
        self.length += 1
        return super().append(k, v)


class AlongBatch(CatCache):
    def append(self, k, v):
        self.k = k if self.k is None else torch.cat((self.k, k))
        self.v = v if self.v is None else torch.cat((self.v, v))
        return self.k, self.v


class ValuesAreKeys(CatCache):
    def append(self, k, v):
        return super().append(k, k)


class Swapped(CatCache):
    def append(self, k, v):
        return super().append(k, v)[::-1]


class SharedByAll:
    tokens = []
    length = 0

    def __init__(self):
        self.tokens.clear()

    def append(self, k, v):
        self.tokens.append((k, v))
        keys, values = (torch.cat(x, dim=1) for x in zip(*self.tokens))
        self.length = keys.shape[1]
        return keys, values

    def truncate(self, length):
        keys, values = (torch.cat(x, dim=1) for x in zip(*self.tokens))
        self.tokens[:] = [(keys[:, :length], values[:, :length])]
        self.length = length


class NoReturn(CatCache):
    def append(self, k, v):
        super().append(k, v)


class LengthIsMethod(CatCache):
    def length(self):
        return self.k.shape[1]

    def truncate(self, length):
        self.k, self.v = self.k[:, :length], self.v[:, :length]


class TruncateDrops(CatCache):
    """`length` taken for the number of tokens to drop."""

    def truncate(self, length):
        keep = self.length - length
        self.k, self.v = self.k[:, :keep], self.v[:, :keep]


# --- 04.5 -------------------------------------------------------------------------


def intensity(config, weights, context, batch_size):
    a = config.attention
    tokens = config.n_layers * batch_size * context * a.head_dim
    flops = 2 * weights * batch_size + 4 * a.n_heads * tokens
    return flops / (2 * weights + 4 * a.n_kv_heads * tokens)


def intensity_numpy(config, weights, context, batch_size):
    a = config.attention
    matrices = np.array([2.0 * weights * batch_size, 2.0 * weights])
    heads = np.array([a.n_heads, a.n_kv_heads])
    caches = 4.0 * config.n_layers * batch_size * context * a.head_dim * heads
    operations, fetched = matrices + caches
    return operations / fetched


def intensity_every_head(config, weights, context, batch_size):
    a = config.attention
    tokens = config.n_layers * batch_size * context * a.head_dim
    flops = 2 * weights * batch_size + 4 * a.n_heads * tokens
    return flops / (2 * weights + 4 * a.n_heads * tokens)


def intensity_few_queries(config, weights, context, batch_size):
    a = config.attention
    tokens = config.n_layers * batch_size * context * a.head_dim
    flops = 2 * weights * batch_size + 4 * a.n_kv_heads * tokens
    return flops / (2 * weights + 4 * a.n_kv_heads * tokens)


def intensity_one_cache(config, weights, context, batch_size):
    a = config.attention
    tokens = config.n_layers * context * a.head_dim
    flops = batch_size * (2 * weights + 4 * a.n_heads * tokens)
    return flops / (2 * weights + 4 * a.n_kv_heads * tokens)


def intensity_of_one(config, weights, context, batch_size):
    return intensity(config, weights, context, 1)


def intensity_keys_only(config, weights, context, batch_size):
    a = config.attention
    tokens = config.n_layers * batch_size * context * a.head_dim
    flops = 2 * weights * batch_size + 4 * a.n_heads * tokens
    return flops / (2 * weights + 2 * a.n_kv_heads * tokens)


def intensity_multiply_add_is_one(config, weights, context, batch_size):
    a = config.attention
    tokens = config.n_layers * batch_size * context * a.head_dim
    flops = weights * batch_size + 4 * a.n_heads * tokens
    return flops / (2 * weights + 4 * a.n_kv_heads * tokens)


def intensity_scores_only(config, weights, context, batch_size):
    a = config.attention
    tokens = config.n_layers * batch_size * context * a.head_dim
    flops = 2 * weights * batch_size + 2 * a.n_heads * tokens
    return flops / (2 * weights + 4 * a.n_kv_heads * tokens)


def intensity_weights_only(config, weights, context, batch_size):
    a = config.attention
    tokens = config.n_layers * batch_size * context * a.head_dim
    flops = 2 * weights * batch_size
    return flops / (2 * weights + 4 * a.n_kv_heads * tokens)


def intensity_numbers(config, weights, context, batch_size):
    return 2 * intensity(config, weights, context, batch_size)


def intensity_one_layer(config, weights, context, batch_size):
    a = config.attention
    tokens = batch_size * context * a.head_dim
    flops = 2 * weights * batch_size + 4 * a.n_heads * tokens
    return flops / (2 * weights + 4 * a.n_kv_heads * tokens)


def intensity_upside_down(config, weights, context, batch_size):
    return 1 / intensity(config, weights, context, batch_size)


def intensity_weights_each_layer(config, weights, context, batch_size):
    a = config.attention
    tokens = batch_size * context * a.head_dim
    flops = config.n_layers * (2 * weights * batch_size + 4 * a.n_heads * tokens)
    fetched = config.n_layers * (2 * weights + 4 * a.n_kv_heads * tokens)
    return flops / fetched


def intensity_one_more_token(config, weights, context, batch_size):
    return intensity(config, weights, context + 1, batch_size)


def intensity_whole(config, weights, context, batch_size):
    a = config.attention
    tokens = config.n_layers * batch_size * context * a.head_dim
    flops = 2 * weights * batch_size + 4 * a.n_heads * tokens
    return flops // (2 * weights + 4 * a.n_kv_heads * tokens)


ANSWERS = {
    "04.1": Answers(
        right=[mask, mask_by_positions, mask_last_rows],
        wrong=[
            Wrong(mask_top_left, "the cache is forgotten"),
            Wrong(mask_first_rows, "the cache is forgotten"),
            Wrong(mask_one_too_far, "one token too far ahead"),
            Wrong(mask_not_itself, "do not see their own"),
            Wrong(mask_inverted, "True and False are exchanged"),
            Wrong(mask_upper, "wrong way round in time"),
            Wrong(mask_new_only, "see the new tokens only"),
            Wrong(mask_cached_only, "only the cached keys are seen"),
            Wrong(mask_transposed, "a column to a key"),
            Wrong(mask_floats, "the dtype is float32, but should be bool"),
            Wrong(mask_square, "keep the last T rows"),
            Wrong(mask_of_infinities, "make it boolean"),
        ],
    ),
    "04.2": Answers(
        right=[head, head_by_loop],
        wrong=[
            Wrong(head_not_divided, "the scores are not divided"),
            Wrong(head_divided_by_d, "divided by d, not by its root"),
            Wrong(head_root_of_keys, "the number of keys, not of channels"),
            Wrong(head_not_causal, "nothing is hidden"),
            Wrong(head_top_left, "they belong to the last T"),
            Wrong(head_unstable, "subtract the row's largest score"),
            Wrong(head_over_queries, "the softmax runs over the queries"),
            Wrong(head_masked_with_zero, "still gets the weight e^0"),
            Wrong(head_masked_after, "hidden after the softmax"),
            Wrong(head_mask_one_too_far, "one token too far ahead"),
            Wrong(head_not_normalised, "never divided by their sum"),
            Wrong(head_in_torch, "leave torch out of it"),
            Wrong(head_maximum_of_hidden, "belongs to a hidden key"),
            Wrong(head_maximum_of_all, "each row has its own largest"),
            Wrong(_head_filled(-20), "visible scores can be below"),
            Wrong(_head_filled(-1000), "visible scores can be below"),
            Wrong(head_not_itself, "do not see their own token's key"),
            Wrong(head_only_weights, "they still have to meet v"),
            Wrong(head_as_list, "a list of rows is no array yet"),
            Wrong(head_no_return, "is `return` missing?"),
        ],
    ),
    "04.3": Answers(
        right=[scores, scores_unflattened, scores_expanded],
        wrong=[
            Wrong(scores_repeat, "paired with the wrong keys"),
            Wrong(scores_split_queries, "paired with the wrong keys"),
            Wrong(scores_not_divided, "not divided by the root of d"),
            Wrong(scores_divided_by_d, "divided by d, not by its root"),
            Wrong(scores_of_all_channels, "all heads' channels together"),
            Wrong(scores_of_means, "queries are averaged"),
            Wrong(scores_per_group, "one matrix of scores for each key head"),
            Wrong(scores_first_key, "uses the first key head"),
            Wrong(scores_transposed, "rows are queries, columns are keys"),
            Wrong(scores_heads_third, "scores are [B, H, T, S]"),
            Wrong(scores_without_groups, "each key head serves H / G query heads"),
            Wrong(scores_repeat_g_times, "each key head serves H / G query heads"),
            Wrong(scores_reshaped, "reshape does not move axes"),
            Wrong(scores_keys_reshaped, "reshape does not move axes"),
            Wrong(scores_masked, "no mask here"),
            Wrong(scores_softmax, "no softmax here"),
        ],
    ),
    "04.4": Answers(
        right=[CatCache, ListCache, RoomCache],
        wrong=[
            Wrong(Overwrites, "the earlier tokens are lost"),
            Wrong(NewestFirst, "the new tokens come first"),
            Wrong(TruncateOnlyCounts, "truncate had no effect"),
            Wrong(KeepsTheLast, "keeps the first `length` tokens"),
            Wrong(TruncateDrops, "should be 5"),
            Wrong(ReturnsBefore, "what was there before"),
            Wrong(CountsCalls, "the number of tokens in the cache"),
            Wrong(AlongBatch, "joined along another axis"),
            Wrong(ValuesAreKeys, "the values are the keys once more"),
            Wrong(Swapped, "have changed places"),
            Wrong(SharedByAll, "two caches share their memory"),
            Wrong(NoReturn, "append returns nothing: is `return` missing?"),
            Wrong(LengthIsMethod, "length is a method"),
            Wrong(LengthTooEarly, "`length` raised AttributeError: 'NoneType'"),
            Wrong(LengthOfEmpty, "`length` raised IndexError: tuple index"),
            Wrong(NoLength, "the new NoLength has no `length`"),
            Wrong(NoTruncate, "`truncate` is still empty"),
            Wrong(TruncatesBatch, "tokens are on axis 1"),
            Wrong(CannotTruncateEmpty, "an empty cache has nothing to cut"),
        ],
    ),
    "04.5": Answers(
        right=[intensity, intensity_numpy],
        wrong=[
            Wrong(intensity_every_head, "not for each query head"),
            Wrong(intensity_few_queries, "count their operations by H"),
            Wrong(intensity_one_cache, "as if all sequences shared one"),
            Wrong(intensity_of_one, "fetched once for the whole step"),
            Wrong(intensity_keys_only, "only one of them was counted"),
            Wrong(intensity_multiply_add_is_one, "a product and a sum"),
            Wrong(intensity_scores_only, "half of attention's operations"),
            Wrong(intensity_weights_only, "attention's own operations are missing"),
            Wrong(intensity_numbers, "a number has two bytes"),
            Wrong(intensity_one_layer, "attention and cache count n_layers times"),
            Wrong(intensity_upside_down, "bytes per operation"),
            Wrong(intensity_weights_each_layer, "of all layers together"),
            Wrong(intensity_one_more_token, "among the `context` tokens already"),
            Wrong(intensity_whole, "cut to a whole number"),
        ],
    ),
}
