"""Lesson 00, start here."""

import math

import numpy as np
import torch

from . import Answers, Wrong

# --- 00.1 -------------------------------------------------------------------------


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_by_logarithm(x):
    top = np.max(x, axis=-1, keepdims=True)
    return np.exp(x - top - np.log(np.exp(x - top).sum(axis=-1, keepdims=True)))


def softmax_row_by_row(x):
    rows = x.reshape(-1, x.shape[-1])
    out = np.empty(rows.shape, dtype=x.dtype)
    for i, row in enumerate(rows):
        e = np.exp(row - row.max())
        out[i] = e / e.sum()
    return out.reshape(x.shape)


def softmax_naive(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def softmax_one_maximum(x):
    e = np.exp(x - x.max())
    return e / e.sum(axis=-1, keepdims=True)


def softmax_of_everything(x):
    e = np.exp(x - np.max(x))
    return e / np.sum(e)


def softmax_first_axis(x):
    e = np.exp(x - x.max(axis=0))
    return e / e.sum(axis=0)


def softmax_minus_mean(x):
    e = np.exp(x - x.mean(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_without_sum(x):
    return np.exp(x - x.max(axis=-1, keepdims=True))


def softmax_logarithm(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def softmax_in_place(x):
    x -= x.max(axis=-1, keepdims=True)
    e = np.exp(x)
    return e / e.sum(axis=-1, keepdims=True)


def softmax_keepdims_forgotten(x):
    e = np.exp(x - x.max(axis=-1))
    return e / e.sum(axis=-1)


def softmax_keepdims_in_the_sum(x):
    e = np.exp(x - x.max(axis=-1))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_keepdims_in_the_maximum(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1)


def softmax_naive_without_keepdims(x):
    return np.exp(x) / np.exp(x).sum(axis=-1)


def softmax_largest_size(x):
    e = np.exp(x - np.abs(x).max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_clipped(x):
    e = np.exp(np.clip(x, -700, 700))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_nan_replaced(x):
    return np.nan_to_num(np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True))


def softmax_rescaled(x):
    e = np.exp(x / x.max())
    return e / e.sum(axis=-1, keepdims=True)


def softmax_with_epsilon(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / (e.sum(axis=-1, keepdims=True) + 1e-8)


def softmax_torch(x):
    return torch.softmax(torch.tensor(x), dim=-1)


# --- 00.2 -------------------------------------------------------------------------


def scores(q, k):
    return torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(q.shape[-1])


def scores_by_matmul(q, k):
    return q.transpose(1, 2) @ k.permute(0, 2, 3, 1) * q.shape[-1] ** -0.5


def scores_by_broadcast(q, k):
    q, k = q.transpose(1, 2)[:, :, :, None], k.transpose(1, 2)[:, :, None]
    return (q * k).sum(-1) / q.shape[-1] ** 0.5


def scores_reshaped(q, k):
    B, T, H, d = q.shape
    q, k = q.reshape(B, H, T, d), k.reshape(B, H, -1, d)
    return q @ k.transpose(-1, -2) / math.sqrt(d)


def scores_unscaled(q, k):
    return torch.einsum("bthd,bshd->bhts", q, k)


def scores_over_d(q, k):
    return torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1]


def scores_times(q, k):
    return torch.einsum("bthd,bshd->bhts", q, k) * math.sqrt(q.shape[-1])


def scores_whole_width(q, k):
    return torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(q.shape[2] * q.shape[3])


def scores_keys_first(q, k):
    return torch.einsum("bthd,bshd->bhst", q, k) / math.sqrt(q.shape[-1])


def scores_heads_summed(q, k):
    return torch.einsum("bthd,bshd->bts", q, k) / math.sqrt(q.shape[-1])


def scores_softmax(q, k):
    return scores(q, k).softmax(-1)


def scores_heads_against_heads(q, k):
    return q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])


def scores_heads_against_mT(q, k):
    return q @ k.mT / math.sqrt(q.shape[-1])


def scores_keys_not_turned(q, k):
    return q.transpose(1, 2) @ k.transpose(1, 2) / math.sqrt(q.shape[-1])


def scores_keys_as_they_are(q, k):
    return q @ k / math.sqrt(q.shape[-1])


def scores_heads_after_queries(q, k):
    return torch.einsum("bthd,bshd->bths", q, k) / math.sqrt(q.shape[-1])


def scores_causal(q, k):
    later = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).triu(1)
    return scores(q, k).masked_fill(later, -math.inf)


def scores_root_of_heads(q, k):
    return torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(q.shape[2])


def scores_halved(q, k):
    return torch.einsum("bthd,bshd->bhts", q, k) / 2


# --- 00.3 -------------------------------------------------------------------------


def cache(config, seq_len, bytes_per_number):
    part = config.attention
    numbers = 2 * config.n_layers * part.n_kv_heads * part.head_dim * seq_len
    return numbers * bytes_per_number


def cache_by_layer(config, seq_len, bytes_per_number):
    total = 0
    for _ in range(config.n_layers):
        keys = seq_len * config.attention.n_kv_heads * config.attention.head_dim
        total += (keys + keys) * bytes_per_number
    return total


def cache_float(config, seq_len, bytes_per_number):
    return float(cache(config, seq_len, bytes_per_number))


def cache_keys_only(config, seq_len, bytes_per_number):
    part = config.attention
    return (
        config.n_layers * part.n_kv_heads * part.head_dim * seq_len * bytes_per_number
    )


def cache_query_heads(config, seq_len, bytes_per_number):
    part = config.attention
    numbers = 2 * config.n_layers * part.n_heads * part.head_dim * seq_len
    return numbers * bytes_per_number


def cache_bits(config, seq_len, bytes_per_number):
    return 8 * cache(config, seq_len, bytes_per_number)


def cache_one_layer(config, seq_len, bytes_per_number):
    part = config.attention
    return 2 * part.n_kv_heads * part.head_dim * seq_len * bytes_per_number


def cache_one_token(config, seq_len, bytes_per_number):
    part = config.attention
    return 2 * config.n_layers * part.n_kv_heads * part.head_dim * bytes_per_number


def cache_numbers(config, seq_len, bytes_per_number):
    part = config.attention
    return 2 * config.n_layers * part.n_kv_heads * part.head_dim * seq_len


def cache_whole_width(config, seq_len, bytes_per_number):
    return 2 * config.n_layers * config.dim * seq_len * bytes_per_number


def cache_gigabytes(config, seq_len, bytes_per_number):
    return cache(config, seq_len, bytes_per_number) / 1e9


def cache_gibibytes(config, seq_len, bytes_per_number):
    return cache(config, seq_len, bytes_per_number) / 2**30


def cache_two_bytes(config, seq_len, bytes_per_number):
    return cache(config, seq_len, 2)


def cache_four_bytes(config, seq_len, bytes_per_number):
    return cache(config, seq_len, 4)


def cache_query_heads_keys_only(config, seq_len, bytes_per_number):
    part = config.attention
    return config.n_layers * part.n_heads * part.head_dim * seq_len * bytes_per_number


def cache_squared(config, seq_len, bytes_per_number):
    return cache(config, seq_len, bytes_per_number) * seq_len


def cache_of_longest_context(config, seq_len, bytes_per_number):
    return cache(config, config.max_seq_len, bytes_per_number)


def cache_as_tensor(config, seq_len, bytes_per_number):
    return torch.tensor(cache(config, seq_len, bytes_per_number))


def cache_wrong_attribute(config, seq_len, bytes_per_number):
    return 2 * config.n_layers * config.n_kv_heads * seq_len * bytes_per_number


# --- 00.4 -------------------------------------------------------------------------


def bits(losses, byte_lengths):
    return losses.sum() / math.log(2) / byte_lengths.sum()


def bits_by_means(losses, byte_lengths):
    return float(np.mean(losses) / np.mean(byte_lengths) * math.log2(math.e))


def bits_nats(losses, byte_lengths):
    return losses.sum() / byte_lengths.sum()


def bits_wrong_way(losses, byte_lengths):
    return losses.sum() * math.log(2) / byte_lengths.sum()


def bits_per_token(losses, byte_lengths):
    return losses.mean() / math.log(2)


def bits_in_total(losses, byte_lengths):
    return losses.sum() / math.log(2)


def bits_mean_of_ratios(losses, byte_lengths):
    return np.mean(losses / byte_lengths) / math.log(2)


def bits_divided_by_eight(losses, byte_lengths):
    return losses.sum() / math.log(2) / 8 / byte_lengths.sum()


def bits_mean_over_total(losses, byte_lengths):
    return losses.mean() / math.log(2) / byte_lengths.sum()


def bits_each_token(losses, byte_lengths):
    return losses / math.log(2) / byte_lengths


def bits_without_special(losses, byte_lengths):
    text = byte_lengths > 0
    return losses[text].sum() / math.log(2) / byte_lengths.sum()


def bits_means_without_special(losses, byte_lengths):
    text = byte_lengths > 0
    return losses[text].mean() / math.log(2) / byte_lengths[text].mean()


def bits_two_kinds_of_mean(losses, byte_lengths):
    return losses.mean() / math.log(2) / byte_lengths[byte_lengths > 0].mean()


def bits_at_least_one_byte(losses, byte_lengths):
    return losses.sum() / math.log(2) / np.maximum(byte_lengths, 1).sum()


def bits_logarithm_again(losses, byte_lengths):
    return np.log2(losses).sum() / byte_lengths.sum()


def bits_not_summed(losses, byte_lengths):
    return losses / math.log(2) / byte_lengths.sum()


ANSWERS = {
    "00.1": Answers(
        right=[softmax, softmax_by_logarithm, softmax_row_by_row],
        wrong=[
            Wrong(softmax_naive, "exp(1000) is infinite"),
            Wrong(softmax_one_maximum, "Each row has a largest value of its own"),
            Wrong(softmax_of_everything, "the whole array sums to 1"),
            Wrong(softmax_first_axis, "belongs along the last"),
            Wrong(softmax_minus_mean, "no longer finite when the row holds"),
            Wrong(softmax_without_sum, "not yet divided by their sum"),
            Wrong(softmax_logarithm, "logarithms of the softmax"),
            Wrong(softmax_in_place, "changed its input x in place"),
            Wrong(softmax_keepdims_forgotten, "lost its axis"),
            Wrong(softmax_keepdims_in_the_sum, "lost its axis"),
            Wrong(softmax_keepdims_in_the_maximum, "lost its axis"),
            Wrong(softmax_naive_without_keepdims, "lost its axis"),
            Wrong(softmax_largest_size, "all inputs are far below 0"),
            Wrong(softmax_clipped, "different inputs got the same result"),
            Wrong(softmax_nan_replaced, "different inputs got the same result"),
            Wrong(softmax_rescaled, "dividing the inputs changes"),
            Wrong(softmax_with_epsilon, "added for safety"),
            Wrong(softmax_torch, "leave torch out of it"),
        ],
    ),
    "00.2": Answers(
        right=[scores, scores_by_matmul, scores_by_broadcast],
        wrong=[
            Wrong(scores_reshaped, "To exchange two axes, transpose"),
            Wrong(scores_unscaled, "they are not scaled"),
            Wrong(scores_over_d, "not 1/d"),
            Wrong(scores_times, "the scale divides"),
            Wrong(scores_whole_width, "all heads together"),
            Wrong(scores_keys_first, "queries and keys are exchanged"),
            Wrong(scores_heads_summed, "the heads are summed away"),
            Wrong(scores_softmax, "the softmax comes later"),
            Wrong(scores_heads_against_heads, "heads meet heads"),
            Wrong(scores_heads_against_mT, "heads meet heads"),
            Wrong(scores_keys_not_turned, "the keys' positions"),
            Wrong(scores_keys_as_they_are, "RuntimeError"),
            Wrong(scores_heads_after_queries, "axes are in another order"),
            Wrong(scores_causal, "later keys are masked"),
            Wrong(scores_root_of_heads, "off by the same factor"),
            Wrong(scores_halved, "off by the same factor"),
        ],
    ),
    "00.3": Answers(
        right=[cache, cache_by_layer, cache_float],
        wrong=[
            Wrong(cache_keys_only, "half of the cache is missing"),
            Wrong(cache_query_heads, "not as query heads"),
            Wrong(cache_bits, "these are bits"),
            Wrong(cache_one_layer, "every layer keeps its own"),
            Wrong(cache_one_token, "one token of context"),
            Wrong(cache_numbers, "this counts numbers"),
            Wrong(cache_whole_width, "count heads times their width"),
            Wrong(cache_gigabytes, "a larger unit"),
            Wrong(cache_gibibytes, "a larger unit"),
            Wrong(cache_two_bytes, "bytes_per_number says it"),
            Wrong(cache_four_bytes, "bytes_per_number says it"),
            Wrong(cache_query_heads_keys_only, "two slips"),
            Wrong(cache_squared, "not four times"),
            Wrong(cache_of_longest_context, "the longest context"),
            Wrong(cache_as_tensor, "no array is needed"),
            Wrong(cache_wrong_attribute, "AttributeError"),
        ],
    ),
    "00.4": Answers(
        right=[bits, bits_by_means],
        wrong=[
            Wrong(bits_nats, "a bit is ln 2 nats"),
            Wrong(bits_wrong_way, "a nat is more than a bit"),
            Wrong(bits_per_token, "divide by bytes, not by tokens"),
            Wrong(bits_in_total, "divide it by the number of bytes"),
            Wrong(bits_mean_of_ratios, "total by"),
            Wrong(bits_divided_by_eight, "divided by 8"),
            Wrong(bits_mean_over_total, "not with the total"),
            Wrong(bits_each_token, "not one for each token"),
            Wrong(bits_without_special, "the losses of the special tokens"),
            Wrong(bits_means_without_special, "the losses of the special tokens"),
            Wrong(bits_two_kinds_of_mean, "the other of those with bytes only"),
            Wrong(bits_at_least_one_byte, "counts here as a byte"),
            Wrong(bits_logarithm_again, "logarithms already"),
            Wrong(bits_not_summed, "not one for each token"),
        ],
    ),
}
