"""Lesson 00, start here: oracles that share no formula with the usual answers."""

import math
from dataclasses import replace
from itertools import permutations

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
    # As many rows as columns: a lost axis still broadcasts, and gets a hint of its own.
    yield Case((array(rng, 4, 4),), "four rows of four")
    yield Case((array(rng, 3, 5),), "three rows of five")
    yield Case((array(rng, 2, 3, 4, strided=True),), "an array that is not contiguous")
    yield Case((array(rng, 2, 5).astype(np.float32),), "float32")
    yield Case((array(rng, 2, 4) + 1000.0,), "inputs near 1000")
    yield Case((array(rng, 2, 4) - 1000.0,), "inputs near -1000")
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


def _largest_without_keepdims(keepdims_in_sum):
    def wrong(x):
        e = np.exp(x - x.max(axis=-1))
        return e / e.sum(axis=-1, keepdims=keepdims_in_sum)

    return wrong


def _alike(got, want):
    """Whether only the values differ."""
    return (type(got), got.shape, got.dtype) == (type(want), want.shape, want.dtype)


def _became_nan(got, want, args):
    return _alike(got, want) and bool(np.isnan(got).any())


def _nan_where(condition):
    """A predicate: NaN came out, and the inputs are of this kind."""

    def when(got, want, args):
        return _became_nan(got, want, args) and bool(condition(args[0]))

    return when


def _rows_far_apart(x):
    return np.ptp(x.max(axis=-1)) > 700


def _only_diagonal_right(got, want, args):
    """Row i's sum divides column i, which only element [i, i] survives."""
    square = want.ndim == 2 and want.shape[0] == want.shape[1]
    return _alike(got, want) and square and np.allclose(np.diag(got), np.diag(want))


def _all_equal(got, want, args):
    """Every row holds one number throughout, though the inputs differ."""
    return _alike(got, want) and bool(np.ptp(got, axis=-1).max() < 1e-12)


def _nearly(got, want, args):
    return _alike(got, want) and bool(np.abs(got - want).max() < 1e-4)


LOST_AXIS = (
    "a row's largest value, or its sum, lost its axis: [4] broadcasts along the "
    "columns of [4, 4]. Print the shapes of x, of what is subtracted and of the sum"
)

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
            when=_nan_where(_rows_far_apart),
        ),
        Mistake(
            "inf - inf is not a number: which number of a row is no longer finite when "
            "the row holds -inf?",
            when=_nan_where(lambda x: np.isinf(x).any()),
        ),
        Mistake(
            "all inputs are far below 0, every exp became 0, and 0/0 is left: print "
            "what is subtracted from them, and the difference",
            when=_nan_where(lambda x: x.max() < -700),
        ),
        Mistake(
            "exp(1000) is infinite in floating point, and inf/inf is not a number; "
            "which number may be added to a whole row without changing its softmax?",
            when=_became_nan,
        ),
        Mistake(
            "different inputs got the same result: clipping them, or replacing inf and "
            "NaN afterwards, hides the overflow and loses the values. Which number may "
            "be added to a whole row without changing its softmax?",
            when=_all_equal,
        ),
        Mistake(
            "nearly right: is a step in float32, or a small number added for safety? "
            "When could the sum be 0, and what keeps it from that?",
            when=_nearly,
        ),
        Mistake(LOST_AXIS, gives=_largest_without_keepdims(True)),
        Mistake(LOST_AXIS, gives=_largest_without_keepdims(False)),
        Mistake(LOST_AXIS, when=_only_diagonal_right),
        Mistake(
            "the whole array sums to 1; every row along the last axis should",
            gives=_softmax_over(None),
        ),
        Mistake(
            "the sum runs along the first axis; it belongs along the last",
            gives=_softmax_over(0),
        ),
        Mistake(
            "dividing the inputs changes their softmax; what may be done to a whole "
            "row without changing it?",
            gives=lambda x: softmax(x / x.max(axis=-1, keepdims=True)),
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
    hint="print for that element's row what is subtracted, the exps, and their sum",
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
        # Equal sizes first: axes that do not belong together meet without an error.
        (2, 4, 4, 3, 4, False, "as many keys as queries"),
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


def _untransposed(q, k):
    """Shapes that fit when S = d, but a sum over keys instead of channels."""
    return q.transpose(1, 2) @ k.transpose(1, 2) / math.sqrt(q.shape[-1])


def _heads_with_heads(got, want, args):
    B, T, H, _ = args[0].shape
    return tuple(got.shape) == (B, T, H, H) != tuple(want.shape)


def _axes_moved(got, want, args):
    """The right numbers, with the axes in another order."""
    return got.ndim == 4 and any(
        order != (0, 1, 2, 3)
        and got.permute(order).shape == want.shape
        and torch.allclose(got.permute(order), want)
        for order in permutations(range(4))
    )


def _later_keys_masked(got, want, args):
    """Equal up to the diagonal, and other numbers beyond it."""
    T, S = want.shape[-2:]
    seen = torch.ones(T, S).tril().bool()
    return _alike(got, want) and torch.allclose(got[..., seen], want[..., seen])


def _off_by_a_factor(got, want, args):
    factor = (got / want).flatten()
    return bool(factor[0] > 0) and torch.allclose(factor, factor[0])


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
            "heads meet heads at the same position: @ multiplies the last two axes and "
            "pairs those before them. Which two should be last?",
            when=_heads_with_heads,
        ),
        Mistake(
            "@ sums over the last axis of the left and the one before the last of the "
            "right: here these are a query's channels and the keys' positions",
            gives=_untransposed,
        ),
        Mistake(
            "queries and keys are exchanged: a row belongs to a query, a column to a "
            "key",
            gives=lambda q, k: attention_scores(q, k).mT,
        ),
        Mistake(
            "the numbers are right, but the axes are in another order than "
            "[B, H, T, S]",
            when=_axes_moved,
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
        Mistake(
            "later keys are masked; this exercise asks for every query with every key",
            when=_later_keys_masked,
        ),
        Mistake(
            "every score is off by the same factor: the root is not of the width d of "
            "these heads",
            when=_off_by_a_factor,
        ),
    ),
    hint="compute the score of that element alone, from one query and one key, and "
    "print which row of q and which of k your code multiplies there",
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


def _group(config):
    return config.attention.n_heads // config.attention.n_kv_heads


HARDCODED = "a number does not always take that many bytes: bytes_per_number says it"


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
            "half of the cache is missing: a token leaves more than its keys",
            gives=lambda c, s, b: kv_cache_bytes(c, s, b) // 2,
        ),
        Mistake(HARDCODED, gives=lambda c, s, b: kv_cache_bytes(c, s, 2)),
        Mistake(HARDCODED, gives=lambda c, s, b: kv_cache_bytes(c, s, 4)),
        Mistake(
            "this counts numbers; each takes bytes_per_number bytes",
            gives=lambda c, s, b: kv_cache_bytes(c, s, 1),
        ),
        Mistake(
            "there are as many keys as key-value heads, not as query heads",
            gives=lambda c, s, b: kv_cache_bytes(c, s, b) * _group(c),
        ),
        Mistake(
            "two slips: the keys of all query heads are counted, and keys only",
            gives=lambda c, s, b: kv_cache_bytes(c, s, b) * _group(c) // 2,
        ),
        Mistake(
            "these are bits; the question is about bytes",
            gives=lambda c, s, b: kv_cache_bytes(c, s, b) * 8,
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
            "twice the tokens take twice the cache, not four times",
            gives=lambda c, s, b: kv_cache_bytes(c, s, b) * s,
        ),
        Mistake(
            "this is the cache of the longest context; the sequence has seq_len tokens",
            gives=lambda c, s, b: kv_cache_bytes(c, c.max_seq_len, b),
        ),
        Mistake(
            "the model's width is not what is cached: count heads times their width",
            gives=lambda c, s, b: 2 * c.n_layers * c.dim * s * b,
        ),
        Mistake(
            "this is in a larger unit, MB or GB; the exercise asks for bytes",
            when=lambda got, want, args: any(
                math.isclose(got, want / unit, rel_tol=1e-9)
                for unit in (10**9, 2**30, 10**6, 2**20)
            ),
        ),
        Mistake(
            "the counts are plain numbers: multiply them, no array is needed",
            when=lambda got, want, args: isinstance(got, torch.Tensor | np.ndarray),
        ),
    ),
    hint="print your factors one by one: what does each count, and of what is there "
    "one more for every token, every layer, every head?",
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
        Mistake(
            "the losses of the special tokens are missing: they stand for no bytes, "
            "but the model had to say them too",
            gives=lambda nats, b: nats[b > 0].sum() / (math.log(2) * b.sum()),
        ),
        Mistake(
            "a special token counts here as a byte; it stands for none",
            gives=lambda nats, b: nats.sum() / (math.log(2) * np.maximum(b, 1).sum()),
        ),
        Mistake(
            "one mean is of all tokens, the other of those with bytes only",
            gives=lambda nats, b: nats.mean() / (math.log(2) * b[b > 0].mean()),
        ),
        Mistake(
            "the losses are logarithms already: a change of unit needs no other one",
            gives=lambda nats, b: np.log2(nats).sum() / b.sum(),
        ),
        Mistake(
            "the text has one number of bits per byte, not one for each token",
            when=lambda got, want, args: np.ndim(got) > 0,
        ),
    ),
    hint="print each of your steps for three tokens, and work them out on paper",
)

EXERCISES = (SOFTMAX, SCORES, CACHE, BITS)
