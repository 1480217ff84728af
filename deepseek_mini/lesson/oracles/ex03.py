"""Lesson 03, RoPE: the oracles turn pairs as complex numbers, in float64.

The lesson turns them with cosines and sines; the two share no formula but Euler's.
"""

import math

import numpy as np
import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, array, tensor

LESSON = "03_rope"

# --- 03.1 -------------------------------------------------------------------------


def inverse_frequencies(head_dim, theta):
    ratio = math.exp(-2 * math.log(theta) / head_dim)  # each from the one before
    return np.array([ratio**i for i in range(head_dim // 2)])


def frequency_cases(rng):
    for head_dim in (8, 2, 128, 2 * int(rng.integers(3, 40))):
        theta = float(rng.uniform(50, 200_000))
        yield Case((head_dim, theta), f"head_dim {head_dim}")


FREQUENCIES = Exercise(
    id="03.1",
    title="The frequencies",
    signature="inverse_frequencies(head_dim, theta)",
    difficulty="one line",
    minutes=3,
    right=inverse_frequencies,
    cases=frequency_cases,
    mistakes=(
        Mistake(
            "there is one frequency for a pair of channels, not for a channel",
            when=lambda got, want, args: np.size(got) == args[0] != np.size(want),
        ),
        Mistake(
            "these frequencies rise from pair to pair; the first pair is the fastest",
            gives=lambda d, theta: theta ** (np.arange(0, d, 2) / d),
        ),
        Mistake(
            "the last pair is too fast: how far does the exponent run over all pairs?",
            gives=lambda d, theta: theta ** (-np.arange(d // 2) / d),
        ),
        Mistake(
            "the frequencies fall too quickly: the exponent counts channels and "
            "divides by the number of pairs",
            gives=lambda d, theta: theta ** (-np.arange(0, d, 2) / (d // 2)),
        ),
        Mistake(
            "the first pair turns by exactly 1 radian per position, whatever theta is",
            gives=lambda d, theta: theta ** (-np.arange(2, d + 2, 2) / d),
        ),
        Mistake(
            "these are wavelengths (in positions), not angles per position",
            gives=lambda d, theta: 2 * np.pi * theta ** (np.arange(0, d, 2) / d),
        ),
    ),
    hint="by hand: head_dim 4 and theta 100 give 1 and 0.1",
)

# --- 03.2 -------------------------------------------------------------------------


def rotate_interleaved(x, positions, theta, *, turn=1.0, shift=0.0, first=0.0):
    """The oracle; the keywords make the known mistakes."""
    half = x.shape[-1] // 2
    freqs = np.exp(-math.log(theta) * (np.arange(half) + first) / half)
    angles = np.multiply.outer(np.asarray(positions, dtype=float) + shift, freqs)
    pairs = x[..., 0::2] + 1j * x[..., 1::2]
    turned = pairs * np.exp(1j * turn * angles)
    return np.stack((turned.real, turned.imag), axis=-1).reshape(x.shape)


def _half_split(x, positions, theta):
    order = np.arange(x.shape[-1]).reshape(2, -1).T.ravel()
    turned = np.empty_like(x)
    turned[..., order] = rotate_interleaved(x[..., order], positions, theta)
    return turned


def _overwritten(x, positions, theta):
    """The second channel computed from the first one's new value."""
    right = rotate_interleaved(x, positions, theta)
    new_first = x.copy()
    new_first[..., 0::2] = right[..., 0::2]
    right[..., 1::2] = rotate_interleaved(new_first, positions, theta)[..., 1::2]
    return right


def _halves_apart(x, positions, theta):
    """Interleaved pairs turned rightly, then left as two halves."""
    right = rotate_interleaved(x, positions, theta)
    return np.concatenate((right[..., 0::2], right[..., 1::2]), axis=-1)


def rotation_cases(rng):
    for n, head_dim, strided, label in (
        (7, 8, False, "positions in no order"),
        (1, 6, False, "a single token"),
        (5, 2, False, "a single pair"),
        (9, 12, True, "an array that is not contiguous"),
    ):
        positions = rng.choice(np.arange(1, 500), size=n, replace=False)
        theta = float(rng.uniform(100, 50_000))
        x = array(rng, n, head_dim, strided=strided)
        yield Case((x, positions, theta), label, tolerance=1e-8)


ROTATION = Exercise(
    id="03.2",
    title="Turn the pairs",
    signature="rotate_interleaved(x, positions, theta)",
    difficulty="a few lines",
    minutes=10,
    right=rotate_interleaved,
    cases=rotation_cases,
    mistakes=(
        Mistake(
            "channel i is paired with channel i + d/2; that is the half-split layout, "
            "and interleaved pairs are neighbours",
            gives=_half_split,
        ),
        Mistake(
            "every pair turns the wrong way round: look at the signs of the sines",
            gives=lambda x, p, t: rotate_interleaved(x, p, t, turn=-1.0),
        ),
        Mistake(
            "everything is turned one position too far: position 0 does not turn",
            gives=lambda x, p, t: rotate_interleaved(x, p, t, shift=1.0),
        ),
        Mistake(
            "the frequencies are those of the next pair: the first pair turns by 1 "
            "radian per position",
            gives=lambda x, p, t: rotate_interleaved(x, p, t, first=1.0),
        ),
        Mistake(
            "each pair turns too fast: the exponent is that of exercise 03.1",
            gives=lambda x, p, t: rotate_interleaved(x, p, t**0.5),
        ),
        Mistake(
            "the rows are turned by 0, 1, 2 ...: use the positions that are given",
            gives=lambda x, p, t: rotate_interleaved(x, np.arange(len(x)), t),
        ),
        Mistake(
            "the second channel of a pair is computed from the new value of the first",
            gives=_overwritten,
        ),
        Mistake(
            "the pairs are turned rightly, but come back as two halves: each result "
            "belongs where its channel was",
            gives=_halves_apart,
        ),
        Mistake(
            "nothing was turned: the result is the input",
            gives=lambda x, p, t: x,
        ),
    ),
    hint="by hand: [1, 0] at position 1 becomes [cos 1, sin 1] in the first pair",
)

# --- 03.3 -------------------------------------------------------------------------


def to_half_split(weight, n_heads):
    head_dim = weight.shape[0] // n_heads
    rows = []
    for head in range(n_heads):
        start = head * head_dim
        rows += [start + 2 * i for i in range(head_dim // 2)]
        rows += [start + 2 * i + 1 for i in range(head_dim // 2)]
    return weight[rows]


def _to_interleaved(weight, n_heads):
    head_dim = weight.shape[0] // n_heads
    rows = []
    for head in range(n_heads):
        for i in range(head_dim // 2):
            rows += [head * head_dim + i, head * head_dim + head_dim // 2 + i]
    return weight[rows]


def weight_cases(rng):
    for n_heads, head_dim, dim, strided, label in (
        (3, 8, 5, False, "three heads"),
        (1, 6, 7, False, "one head"),
        (4, 6, 24, True, "a weight that is not contiguous"),
        (2, 10, 3, False, "pairs in odd number"),
    ):
        weight = tensor(
            rng, n_heads * head_dim, dim, dtype=torch.float32, strided=strided
        )
        yield Case((weight, n_heads), label, tolerance=0.0)


WEIGHTS = Exercise(
    id="03.3",
    title="From one layout to the other",
    signature="to_half_split(weight, n_heads)",
    difficulty="some thought",
    minutes=15,
    right=to_half_split,
    cases=weight_cases,
    mistakes=(
        Mistake(
            "this is the way back, from half-split to interleaved: where must the "
            "partner of row 0, now row 1, end up?",
            gives=_to_interleaved,
        ),
        Mistake(
            "rows have left their head: each head keeps its own head_dim rows",
            gives=lambda w, n_heads: to_half_split(w, 1),
        ),
        Mistake(
            "rows have left their head: each head keeps its own head_dim rows",
            gives=lambda w, n_heads: _to_interleaved(w, 1),
        ),
        Mistake(
            "the weight came back as it was: the two layouts pair different rows",
            gives=lambda w, n_heads: w,
        ),
        Mistake(
            "the columns were moved; a head's channels are the rows of the weight",
            gives=lambda w, n_heads: to_half_split(w.T, n_heads).T,
        ),
    ),
    hint="number the rows of one head 0 to d-1: which row does pair i need first, and "
    "which d/2 further on?",
)

# --- 03.4 -------------------------------------------------------------------------


def yarn_inverse_frequencies(
    head_dim, theta, factor, original_seq_len, beta_fast, beta_slow, **mistake
):
    """The oracle: a loop over the pairs; the keywords make the known mistakes."""
    turn = mistake.get("turn", 2 * math.pi)
    down, up = mistake.get("rounding", (math.floor, math.ceil))

    def pair(turns):  # the pair that turns so many times within the original context
        return head_dim / 2 * math.log(original_seq_len / turns / turn, theta)

    low, high = max(down(pair(beta_fast)), 0), min(up(pair(beta_slow)), head_dim - 1)
    freqs = []
    for i, plain in enumerate(inverse_frequencies(head_dim, theta)):
        ramp = min(max((i - low) / max(high - low, 0.001), 0.0), 1.0)
        if mistake.get("reversed"):
            ramp = 1 - ramp
        if mistake.get("wavelengths"):
            freqs.append(plain / (1 - ramp + ramp * factor))
        else:
            freqs.append(plain * (1 - ramp) + plain / factor * ramp)
    return np.array(freqs)


def _with(**mistake):
    return lambda *args: yarn_inverse_frequencies(*args, **mistake)


def yarn_cases(rng):
    for head_dim, original, label in (
        (64, 4096, "DeepSeek-V2's shape"),
        (128, int(rng.integers(2000, 9000)), "128 channels"),
        (32, 64, "a context so short that every pair is stretched"),
    ):
        theta = float(rng.uniform(8_000, 20_000))
        factor = float(rng.uniform(3, 50))
        beta_fast = float(rng.uniform(20, 40))
        beta_slow = float(rng.uniform(1, 3))
        yield Case((head_dim, theta, factor, original, beta_fast, beta_slow), label)


YARN = Exercise(
    id="03.4",
    title="YaRN",
    signature="yarn_inverse_frequencies(head_dim, theta, factor, original_seq_len, "
    "beta_fast, beta_slow)",
    difficulty="from the paper",
    minutes=25,
    right=yarn_inverse_frequencies,
    cases=yarn_cases,
    mistakes=(
        Mistake(
            "the ramp is the wrong way round: fast pairs keep their own frequency, "
            "slow ones are divided by the factor",
            gives=_with(reversed=True),
        ),
        Mistake(
            "the two betas are exchanged: beta_fast belongs to the pairs that turn "
            "most often, at the start of the ramp",
            gives=lambda d, t, s, n, fast, slow: yarn_inverse_frequencies(
                d, t, s, n, slow, fast
            ),
        ),
        Mistake(
            "every frequency is divided by the factor; that is linear scaling",
            gives=lambda d, t, s, *_: inverse_frequencies(d, t) / s,
        ),
        Mistake(
            "every frequency is as it was: nothing has been stretched",
            gives=lambda d, t, *_: inverse_frequencies(d, t),
        ),
        Mistake(
            "the ends of the ramp are not rounded to whole pairs: DeepSeek rounds "
            "both outwards",
            gives=_with(rounding=(float, float)),
        ),
        Mistake(
            "the ends of the ramp are rounded, but not outwards",
            gives=_with(rounding=(round, round)),
        ),
        Mistake(
            "the ends of the ramp are rounded, but not outwards",
            gives=_with(rounding=(math.floor, math.floor)),
        ),
        Mistake(
            "the ramp starts and ends too late: a full turn is more than 1 radian",
            gives=_with(turn=1.0),
        ),
        Mistake(
            "the wavelengths are blended; the paper blends the frequencies",
            gives=_with(wavelengths=True),
        ),
    ),
    hint="print the pair at which the ramp starts and the one at which it ends: for "
    "64 channels, theta 10,000, context 4096 and betas 32 and 1 they are 10 and 23",
)

# --- 03.5 -------------------------------------------------------------------------


def apply_rope_cached(q, cache_length, theta):
    positions = torch.arange(q.shape[1], dtype=torch.float64) + cache_length
    return _turn(q, positions[:, None, None], theta)


def _turn(q, positions, theta):
    """q turned at `positions`, which broadcast over [B, T, H, pair]."""
    half = q.shape[-1] // 2
    pair = torch.arange(half, dtype=torch.float64)
    angles = positions * torch.exp(-math.log(theta) / half * pair)
    pairs = torch.complex(q.double()[..., 0::2], q.double()[..., 1::2])
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2).to(q.dtype)


def _cached_half_split(q, cache_length, theta):
    order = torch.arange(q.shape[-1]).view(2, -1).T.flatten()
    turned = torch.empty_like(q)
    turned[..., order] = apply_rope_cached(q[..., order], cache_length, theta)
    return turned


def cached_cases(rng):
    for batch, n, heads, dtype, strided, label in (
        (2, 5, 3, torch.float64, False, "five new tokens"),
        (1, 1, 2, torch.float32, False, "a batch of one and a single new token"),
        (2, 3, 3, torch.float64, True, "a tensor that is not contiguous"),
        (1, 4, 2, torch.bfloat16, False, "bfloat16"),
        (3, 2, 1, torch.float32, False, "one head"),
    ):
        q = tensor(rng, batch, n, heads, 8, dtype=dtype, strided=strided)
        args = (q, int(rng.integers(2, 60)), float(rng.uniform(500, 20_000)))
        yield Case(args, label, tolerance=2e-2 if dtype == torch.bfloat16 else 1e-4)
    q = tensor(rng, 2, 4, 2, 6, dtype=torch.float32)
    yield Case((q, 0, 10_000.0), "an empty cache", tolerance=1e-4)


CACHED = Exercise(
    id="03.5",
    title="Go on where the cache ends",
    signature="apply_rope_cached(q, cache_length, theta)",
    difficulty="a few lines",
    minutes=10,
    right=apply_rope_cached,
    cases=cached_cases,
    mistakes=(
        Mistake(
            "the new tokens are turned as if the cache were empty",
            gives=lambda q, n, theta: apply_rope_cached(q, 0, theta),
        ),
        Mistake(
            "the positions are one too small: what is the position of the first token "
            "after n cached ones, when the very first token is at 0?",
            gives=lambda q, n, theta: apply_rope_cached(q, n - 1, theta),
        ),
        Mistake(
            "the positions are one too large: what is the position of the first token "
            "after n cached ones, when the very first token is at 0?",
            gives=lambda q, n, theta: apply_rope_cached(q, n + 1, theta),
        ),
        Mistake(
            "channel i is paired with channel i + d/2; that is the half-split layout",
            gives=_cached_half_split,
        ),
        Mistake(
            "all new tokens are turned by the same angle; each has its own position",
            gives=lambda q, n, theta: _turn(
                q, torch.full((1, 1, 1), float(n), dtype=torch.float64), theta
            ),
        ),
        Mistake(
            "the heads are turned, not the tokens: along which axis do positions run?",
            gives=lambda q, n, theta: _turn(
                q,
                torch.arange(q.shape[2], dtype=torch.float64)[:, None] + n,
                theta,
            ),
        ),
        Mistake(
            "the table of angles is wider than q and promotes it: give back q's dtype",
            when=lambda got, want, args: (
                isinstance(got, torch.Tensor)
                and got.dtype != want.dtype
                and got.shape == want.shape
            ),
        ),
    ),
    hint="turn 5 tokens with an empty cache; then the first 3, and the last 2 with a "
    "cache of 3: the two must agree",
)

EXERCISES = (FREQUENCIES, ROTATION, WEIGHTS, YARN, CACHED)
