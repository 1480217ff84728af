"""Lesson 00, start here: oracles that share no formula with the usual answers."""

import math
from dataclasses import replace

import numpy as np
import torch

from deepseek_mini.config import GQA, Config
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, array, tensor

LESSON = "00_start_here"

# --- 00.1 -------------------------------------------------------------------------


def softmax(x):
    log_sum = np.logaddexp.reduce(x, axis=-1, keepdims=True)
    return np.exp(x - log_sum)


def softmax_cases(rng):
    yield Case((array(rng, 6),), "one row")
    yield Case((array(rng, 3, 5),), "three rows")
    yield Case((array(rng, 2, 3, 4, strided=True),), "an array that is not contiguous")
    yield Case((array(rng, 2, 5).astype(np.float32),), "float32")
    yield Case((array(rng, 2, 4) + 1000.0,), "inputs near 1000")
    masked = array(rng, 3, 4)
    masked[:, -1] = -np.inf
    yield Case((masked,), "a masked position, -inf")
    far = array(rng, 2, 4)
    far[0] -= 2000.0
    yield Case((far,), "rows that are 2000 apart")


def _softmax_over(axis):
    @np.errstate(invalid="ignore")
    def wrong(x):
        e = np.exp(x - x.max())
        return e / e.sum(axis=axis, keepdims=True)

    return wrong


def _became_nan(got, want, args):
    return np.shape(got) == np.shape(want) and bool(np.isnan(got).any())


def _row_far_below(x):
    rows = x.max(axis=-1)
    return bool(rows.max() - rows.min() > 700)


SOFTMAX = Exercise(
    id="00.1",
    title="A softmax that survives large numbers",
    signature="softmax(x)",
    difficulty="a few lines",
    minutes=8,
    right=softmax,
    cases=softmax_cases,
    mistakes=(
        Mistake(
            "one number is subtracted from all rows; in a row far below it every exp "
            "is 0, and 0/0 is left. Each row has a largest value of its own",
            when=lambda got, want, args: (
                _became_nan(got, want, args) and _row_far_below(args[0])
            ),
        ),
        Mistake(
            "inf - inf is not a number: after a mask of -inf, a row's smallest value, "
            "or its mean, is no longer finite",
            when=lambda got, want, args: (
                _became_nan(got, want, args) and bool(np.isinf(args[0]).any())
            ),
        ),
        Mistake(
            "exp(1000) is infinite in floating point, and inf/inf is not a number; "
            "which number may be added to a whole row without changing its softmax?",
            when=_became_nan,
        ),
        Mistake(
            "the whole array sums to 1; every row along the last axis should",
            gives=_softmax_over(None),
        ),
        Mistake(
            "the sum runs along the first axis; it belongs along the last",
            gives=_softmax_over(0),
        ),
        Mistake(
            "these are the logarithms of the softmax",
            gives=lambda x: x - np.logaddexp.reduce(x, axis=-1, keepdims=True),
        ),
        Mistake(
            "these numbers are not yet divided by their sum",
            gives=lambda x: np.exp(x - x.max(axis=-1, keepdims=True)),
        ),
    ),
    hint="softmax(x)_i = exp(x_i) / sum_j exp(x_j), with j along the last axis",
)

# --- 00.2 -------------------------------------------------------------------------


def attention_scores(q, k):
    B, T, H, d = q.shape
    S = k.shape[1]
    out = torch.empty(B, H, T, S, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                for s in range(S):
                    out[b, h, t, s] = math.fsum((q[b, t, h] * k[b, s, h]).tolist())
    return (out / math.sqrt(d)).to(q.dtype)


def score_cases(rng):
    for B, T, S, H, d, strided, label in (
        (2, 3, 5, 4, 6, False, "more keys than queries"),
        (1, 1, 4, 2, 8, False, "one query, as when decoding"),
        (3, 4, 4, 1, 2, False, "a single head"),
        (2, 5, 5, 3, 4, True, "tensors that are not contiguous"),
    ):
        q = tensor(rng, B, T, H, d, strided=strided)
        yield Case((q, tensor(rng, B, S, H, d)), label)
    q = tensor(rng, 2, 3, 2, 4, dtype=torch.float32)
    k = tensor(rng, 2, 4, 2, 4, dtype=torch.float32)
    yield Case((q, k), "float32")


def _scores_scaled(scale):
    def wrong(q, k):
        d, H = q.shape[-1], q.shape[2]
        return attention_scores(q, k) * math.sqrt(d) * scale(d, H)

    return wrong


def _scores_reshaped(q, k):
    """Shapes that fit, values that moved: view where a transpose belongs."""
    B, T, H, d = q.shape
    S = k.shape[1]
    q, k = q.reshape(B, H, T, d), k.reshape(B, H, S, d)
    return (q @ k.transpose(-1, -2)) / math.sqrt(d)


SCORES = Exercise(
    id="00.2",
    title="The scores of attention",
    signature="attention_scores(q, k)",
    difficulty="one line",
    minutes=8,
    right=attention_scores,
    cases=score_cases,
    mistakes=(
        Mistake(
            "reshape cuts the memory at other places and leaves the order of the axes; "
            "heads and positions are mixed. To exchange two axes, transpose",
            gives=_scores_reshaped,
        ),
        Mistake(
            "queries and keys are exchanged: a row belongs to a query, a column to a "
            "key",
            when=lambda got, want, args: (
                tuple(np.shape(got)) == tuple(want.mT.shape) != tuple(want.shape)
            ),
        ),
        Mistake(
            "the heads are summed away: each head has scores of its own",
            when=lambda got, want, args: (
                tuple(np.shape(got)) == (want.shape[0], *want.shape[2:])
            ),
        ),
        Mistake(
            "the scores grow with the head's width d: they are not scaled",
            gives=_scores_scaled(lambda d, H: 1.0),
        ),
        Mistake(
            "the scale is 1/sqrt(d), not 1/d",
            gives=_scores_scaled(lambda d, H: 1 / d),
        ),
        Mistake(
            "the scale divides, it does not multiply",
            gives=_scores_scaled(lambda d, H: math.sqrt(d)),
        ),
        Mistake(
            "d is the width of one head; here all heads together were taken",
            gives=_scores_scaled(lambda d, H: 1 / math.sqrt(d * H)),
        ),
        Mistake(
            "the softmax comes later: return the scores",
            gives=lambda q, k: attention_scores(q, k).softmax(dim=-1),
        ),
    ),
    hint="score[b, h, t, s] = q[b, t, h] . k[b, s, h] / sqrt(d)",
)

# --- 00.3 -------------------------------------------------------------------------


def kv_cache_bytes(config, seq_len, bytes_per_number):
    """Not a formula: the tensors themselves, without memory behind them."""
    dtype = {1: torch.int8, 2: torch.bfloat16, 4: torch.float32}[bytes_per_number]
    part = config.attention
    shape = (seq_len, part.n_kv_heads, part.head_dim)
    tensors = [
        torch.empty(shape, dtype=dtype, device="meta")
        for _ in range(config.n_layers)
        for _ in ("keys", "values")
    ]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def cache_cases(rng):
    yield Case((Config.preset("deepseek-llm-67b"), 4096, 2), "deepseek-llm-67b")
    base = Config.preset("deepseek-llm-mini")
    for bytes_per_number in (4, 1, 2):
        G, group = int(rng.integers(2, 6)), int(rng.integers(2, 5))
        d = 2 * int(rng.integers(9, 20))
        config = replace(
            base,
            n_layers=int(rng.integers(3, 30)),
            dim=16 * int(rng.integers(40, 90)),
            attention=GQA(n_heads=G * group, n_kv_heads=G, head_dim=d),
        )
        label = f"{G * group} heads, {G} key-value heads, {bytes_per_number} bytes each"
        yield Case((config, int(rng.integers(100, 9000)), bytes_per_number), label)


def _times(factor):
    def wrong(config, seq_len, bytes_per_number):
        right = kv_cache_bytes(config, seq_len, bytes_per_number)
        return right * factor(config, seq_len)

    return wrong


def _group(config):
    return config.attention.n_heads // config.attention.n_kv_heads


CACHE = Exercise(
    id="00.3",
    title="The bytes of a KV cache",
    signature="kv_cache_bytes(config, seq_len, bytes_per_number)",
    difficulty="one line",
    minutes=6,
    right=kv_cache_bytes,
    cases=cache_cases,
    mistakes=(
        Mistake(
            "half of the cache is missing: keys and values are both kept",
            gives=lambda c, s, b: kv_cache_bytes(c, s, b) // 2,
        ),
        Mistake(
            "there are as many keys as key-value heads, not as query heads",
            gives=_times(lambda c, s: _group(c)),
        ),
        Mistake(
            "these are bits; the question is about bytes",
            gives=_times(lambda c, s: 8),
        ),
        Mistake(
            "this is one layer's cache: every layer keeps its own",
            gives=lambda c, s, b: kv_cache_bytes(c, s, b) // c.n_layers,
        ),
        Mistake(
            "this is what one token of context adds; the sequence has seq_len of them",
            gives=lambda c, s, b: kv_cache_bytes(c, 1, b),
        ),
        Mistake(
            "this counts numbers; each takes bytes_per_number bytes",
            gives=lambda c, s, b: kv_cache_bytes(c, s, 1),
        ),
        Mistake(
            "the model's width is not what is cached: count heads times their width",
            gives=lambda c, s, b: 2 * c.n_layers * c.dim * s * b,
        ),
        Mistake(
            "this is in GB; the exercise asks for bytes",
            when=lambda got, want, args: any(
                math.isclose(got, want / unit, rel_tol=1e-9)
                for unit in (10**9, 2**30, 10**6, 2**20)
            ),
        ),
    ),
    hint="in each layer a token leaves one key and one value for every key-value head",
)

# --- 00.4 -------------------------------------------------------------------------


def bits_per_byte(losses, byte_lengths):
    bits = math.fsum(-math.log2(math.exp(-nats)) for nats in losses.tolist())
    return bits / sum(byte_lengths.tolist())


def bits_cases(rng):
    for n, label in ((9, "nine tokens"), (1, "one token"), (40, "forty tokens")):
        lengths = rng.integers(1, 9, size=n)
        yield Case((rng.uniform(0.1, 7.0, size=n), lengths), label, tolerance=1e-9)
    lengths = rng.integers(1, 9, size=12)
    lengths[[0, -1]] = 0
    label = "two special tokens, which stand for no bytes"
    yield Case((rng.uniform(0.1, 7.0, size=12), lengths), label, tolerance=1e-9)


BITS = Exercise(
    id="00.4",
    title="From nats per token to bits per byte",
    signature="bits_per_byte(losses, byte_lengths)",
    difficulty="one line",
    minutes=6,
    right=bits_per_byte,
    cases=bits_cases,
    mistakes=(
        Mistake(
            "these are nats per byte: a bit is ln 2 nats, about 0.69",
            gives=lambda nats, b: nats.sum() / b.sum(),
        ),
        Mistake(
            "the conversion from nats to bits goes the other way: a nat is more than "
            "a bit",
            gives=lambda nats, b: nats.sum() * math.log(2) / b.sum(),
        ),
        Mistake(
            "these are bits per token: divide by bytes, not by tokens",
            gives=lambda nats, b: nats.mean() / math.log(2),
        ),
        Mistake(
            "this is the total: divide it by the number of bytes",
            gives=lambda nats, b: nats.sum() / math.log(2),
        ),
        Mistake(
            "a mean of each token's own ratio weighs a byte in a short token more; "
            "divide the total by the total",
            gives=lambda nats, b: (
                float((nats[b > 0] / b[b > 0]).sum()) / (len(nats) * math.log(2))
            ),
        ),
        Mistake(
            "a special token stands for 0 bytes: divide once, total by total",
            when=lambda got, want, args: (
                np.ndim(got) == 0 and not math.isfinite(float(got))
            ),
        ),
        Mistake(
            "bits were divided by 8, as if they were to become bytes; the bytes here "
            "are those of the text",
            gives=lambda nats, b: nats.sum() / (8 * math.log(2) * b.sum()),
        ),
        Mistake(
            "the mean loss is of all tokens, so it belongs with the mean number of "
            "bytes of a token, not with the total",
            gives=lambda nats, b: nats.mean() / (math.log(2) * b.sum()),
        ),
    ),
    hint="add up the nats, turn them into bits, divide by the number of bytes",
)

EXERCISES = (SOFTMAX, SCORES, CACHE, BITS)
